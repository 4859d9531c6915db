/** Processes that are killed, or stand still: the peer, the hypervisors of its VMs, or both. */
import { readdirSync, readlinkSync, realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { DiapauseError } from '../../../node/errors.ts'
import { killAll, signal, waitUntil } from '../../demo/processes.ts'
import { type Fault, type Heal, nothing, once, type Target } from '../fault.ts'

/** After this a process that was killed and still runs hangs in the kernel. */
const GONE_MS = 10_000

/** The peer alone, kill -9: its VMs' hypervisors are orphans that it finds when it is back, or end with it. */
export const killPeer: Fault = {
  name: 'kill-peer',
  about: 'its peer is killed (-9)',
  lasts: { leastMs: 0, mostMs: 0 },
  reach: 'one',
  counts: { as: 'kills', of: target => (peerIsThere(target) ? 1 : 0) },
  async begin(target) {
    const pid = target.peerPid()
    await end(target, pid === undefined ? [] : [pid])
    return nothing
  }
}

export const killQemu: Fault = {
  name: 'kill-qemu',
  about: 'its VMs are killed (-9), its peer lives',
  lasts: { leastMs: 0, mostMs: 0 },
  reach: 'one',
  counts: { as: 'kills', of: target => (target.qemuPids().length === 0 ? 0 : 1) },
  async begin(target) {
    await end(target, target.qemuPids())
    return nothing
  }
}

/** As when a host loses power and comes back later. */
export const killHost: Fault = {
  name: 'kill-host',
  about: 'all that it runs is killed (-9), and it stays down',
  lasts: { leastMs: 1_000, mostMs: 30_000 },
  reach: 'one',
  counts: { as: 'kills', of: runs },
  begin: target => target.halt()
}

/** Its VMs run on, and nobody serves them; when it goes on, it does not know how late it is. */
export const stopPeer: Fault = {
  name: 'stop-peer',
  about: 'its peer stands still (SIGSTOP)',
  lasts: { leastMs: 1_000, mostMs: 60_000 },
  reach: 'one',
  begin: async target => stand(() => [target.peerPid()].flatMap(pid => pid ?? []))
}

export const stopQemu: Fault = {
  name: 'stop-qemu',
  about: 'its VMs stand still (SIGSTOP), its peer lives',
  lasts: { leastMs: 1_000, mostMs: 20_000 },
  reach: 'one',
  begin: async target => stand(() => target.qemuPids())
}

/** As a virtual machine that is paused with all that runs in it. */
export const stopHost: Fault = {
  name: 'stop-host',
  about: 'all that it runs stands still (SIGSTOP)',
  lasts: { leastMs: 1_000, mostMs: 60_000 },
  reach: 'one',
  begin: async target => stand(() => target.pids())
}

/** Power is back at once for all, and no peer is there to tell the others what was agreed: it is on their disks. */
export const killAllHosts: Fault = {
  name: 'kill-all-hosts',
  about: 'all that all hosts run is killed (-9), and they stay down',
  lasts: { leastMs: 0, mostMs: 5_000 },
  reach: 'all',
  counts: { as: 'kills', of: target => [target, ...target.others].reduce((sum, each) => sum + runs(each), 0) },
  async begin(target) {
    const heals = await Promise.all([target, ...target.others].map(each => each.halt()))
    return once(async () => void (await Promise.all(heals.map(heal => heal()))))
  }
}

/** 1 where there is something to kill: VMs, or a peer that is there (`counts` of a fault). */
export function runs(target: Target): number {
  return peerIsThere(target) || target.qemuPids().length > 0 ? 1 : 0
}

function peerIsThere(target: Target): boolean {
  const pid = target.peerPid()
  const { mounted } = target.disk
  // Of the folder above: a file system that was shut down tells nothing, not even of its root.
  const folder = `${join(realpathSync(dirname(mounted)), basename(mounted))}/`
  return pid !== undefined && openFiles(pid).some(path => path.startsWith(folder))
}

/** Paths; none where it has ended. */
function openFiles(pid: number): string[] {
  const folder = `/proc/${pid}/fd`
  try {
    return readdirSync(folder).flatMap(name => linkOf(`${folder}/${name}`) ?? [])
  } catch {
    return [] // it is gone
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined // closed while we looked
  }
}

async function end(target: Target, pids: readonly number[]): Promise<void> {
  killAll(pids)
  const left = () => target.pids().filter(pid => pids.includes(pid))
  if (await waitUntil(() => left().length === 0, GONE_MS)) return
  throw new DiapauseError('CHAOS_FAULT', `${left().join(', ')} on ${target.host.name} survived kill -9`)
}

/** Until nobody is new: one that is not stopped yet may start others. */
export function stand(find: () => readonly number[]): Heal {
  const pids = new Set<number>()
  for (let found = find(); found.some(pid => !pids.has(pid)); found = find())
    for (const pid of found) {
      signal(pid, 'SIGSTOP')
      pids.add(pid)
    }
  return once(async () => {
    for (const pid of pids) signal(pid, 'SIGCONT')
  })
}
