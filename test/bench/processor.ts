import { readFileSync } from 'node:fs'

/** proc(5), utime and stime: in USER_HZ, 100 a second on every Linux of today. */
const TICK_US = 10_000

/** Processor time that the processes have taken so far, all together, in microseconds; in steps of ten thousand. */
export const processorUs = (pids: readonly number[]): number => pids.reduce((sum, pid) => sum + ofOne(pid), 0)

function ofOne(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // from the third on
  return (Number(fields[11]) + Number(fields[12])) * TICK_US
}
