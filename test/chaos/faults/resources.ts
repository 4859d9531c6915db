/** Hosts that run short of something: time on a processor, memory, file descriptors. Disks are in `disk.ts`. */
import { readFileSync, readdirSync } from 'node:fs'
import { hasCode, messageOf } from '../../../node/errors.ts'
import { type Fault, nothing, once } from '../fault.ts'
import { limit, needsGroups } from './groups.ts'
import { needsPrograms, run } from './tools.ts'

const PERIOD_US = 100_000

/** All that the host runs now, and what that starts; a peer that is started anew has all of it again. */
export const starved: Fault = {
  name: 'starved',
  about: 'all that it runs has 5 to 20 % of one processor together',
  lasts: { leastMs: 2_000, mostMs: 30_000 },
  reach: 'one',
  needs: needsGroups('cpu'),
  async begin(target) {
    const quota = Math.round(PERIOD_US * (0.05 + 0.15 * target.random()))
    return await limit({ of: 'cpu', quotaUs: quota, periodUs: PERIOD_US }, () => target.pids())
  }
}

/**
 * What it has stays; of what it takes from now on (files in the page cache count, too) it may have so much. Beyond that the
 * kernel takes back what it can and then kills, as on a host that has no more.
 */
export const shortOfMemory: Fault = {
  name: 'short-of-memory',
  about: 'all that it runs may take 16 to 96 MiB more together',
  lasts: { leastMs: 2_000, mostMs: 20_000 },
  reach: 'one',
  needs: needsGroups('memory'),
  async begin(target) {
    const mib = Math.round(16 + 80 * target.random())
    return await limit({ of: 'memory', bytes: mib << 20 }, () => target.pids())
  }
}

/** So many more than it has open: none for some, one connection for others. */
const MOST_FREE = 4

/** The peer's soft limit: what is open stays open, and nothing more can be opened or accepted. */
export const noDescriptors: Fault = {
  name: 'no-descriptors',
  about: 'its peer can open no file and no connection more',
  lasts: { leastMs: 1_000, mostMs: 20_000 },
  reach: 'one',
  needs: needsPrograms('prlimit'),
  async begin(target) {
    const pid = target.peerPid()
    const before = pid === undefined ? undefined : softLimit(pid)
    if (pid === undefined || before === undefined) return nothing
    const born = startOf(pid)
    const free = Math.floor(target.random() * (MOST_FREE + 1))
    await setSoftLimit(pid, limitThatLeaves(free, pid))
    return once(async () => {
      if (startOf(pid) === born) await setSoftLimit(pid, before)
    })
  }
}

/** Numbers below the limit may be given, the lowest first: so many of them are free. */
function limitThatLeaves(free: number, pid: number): number {
  const used = new Set(readdirSync(`/proc/${pid}/fd`).map(Number))
  let number = 0
  for (let left = free; left > 0 || used.has(number); number++) if (!used.has(number)) left--
  return number
}

async function setSoftLimit(pid: number, value: number | 'unlimited'): Promise<void> {
  await run('prlimit', ['--pid', String(pid), `--nofile=${value}:`]).catch((error: unknown) => {
    if (!/No such process/.test(messageOf(error))) throw error
  })
}

/** Undefined: there is no such process any more. */
function softLimit(pid: number): number | 'unlimited' | undefined {
  const found = /^Max open files\s+(\S+)/m.exec(readOf(pid, 'limits') ?? '')?.[1]
  return found === undefined ? undefined : found === 'unlimited' ? found : Number(found)
}

/** Tells a process from a later one with its number. */
function startOf(pid: number): string | undefined {
  const stat = readOf(pid, 'stat')
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19]
}

function readOf(pid: number, name: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'latin1')
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ESRCH')) return undefined
    throw error
  }
}
