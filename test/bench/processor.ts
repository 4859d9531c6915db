import { readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { tree } from '../demo/processes.ts'

/** proc(5), utime and stime: in USER_HZ, 100 a second on every Linux of today. */
const TICK_US = 10_000

/** Processor time that the processes have taken so far, all together, in microseconds; in steps of ten thousand. */
export const processorUs = (pids: readonly number[]): number => pids.reduce((sum, pid) => sum + ofOne(pid), 0)

function ofOne(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // from the third on
  return (Number(fields[11]) + Number(fields[12])) * TICK_US
}

/**
 * Begins to watch; the result says what share of the machine's processors has since been taken by programs that are neither
 * this one nor descend from it, 0 to 1. None of these may have begun or ended meanwhile.
 */
export function watchOthers(): () => number {
  const ours = tree(process.pid)
  const before = { ...machineUs(), ours: processorUs(ours) }
  return () => {
    const { busy, total } = machineUs()
    const others = busy - before.busy - (processorUs(ours) - before.ours)
    return Math.max(0, others) / (total - before.total)
  }
}

function machineUs(): { busy: number; total: number } {
  const times = cpus().map(({ times: { user, nice, sys, irq, idle } }) => ({ busy: user + nice + sys + irq, idle }))
  const busy = times.reduce((sum, each) => sum + each.busy, 0) * 1000
  return { busy, total: busy + times.reduce((sum, { idle }) => sum + idle, 0) * 1000 }
}
