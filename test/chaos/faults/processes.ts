/** Processes that are killed, or stand still: the peer, the hypervisors of its VMs, or both. */
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
  counts: { as: 'kills', of: target => (target.peerPid() === undefined ? 0 : 1) },
  async begin(target) {
    await end(target, [target.peerPid()])
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
  begin: async target => stand([target.peerPid()])
}

export const stopQemu: Fault = {
  name: 'stop-qemu',
  about: 'its VMs stand still (SIGSTOP), its peer lives',
  lasts: { leastMs: 1_000, mostMs: 20_000 },
  reach: 'one',
  begin: async target => stand(target.qemuPids())
}

/** As a virtual machine that is paused with all that runs in it. */
export const stopHost: Fault = {
  name: 'stop-host',
  about: 'all that it runs stands still (SIGSTOP)',
  lasts: { leastMs: 1_000, mostMs: 60_000 },
  reach: 'one',
  begin: async target => stand([target.peerPid(), ...target.qemuPids()])
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

/** 1 where there is something to kill. */
function runs(target: Target): number {
  return target.peerPid() === undefined && target.qemuPids().length === 0 ? 0 : 1
}

async function end(target: Target, found: readonly (number | undefined)[]): Promise<void> {
  const pids = found.filter(pid => pid !== undefined)
  killAll(pids)
  const left = () => [target.peerPid(), ...target.qemuPids()].filter(pid => pid !== undefined && pids.includes(pid))
  await waitUntil(() => left().length === 0, GONE_MS)
}

function stand(found: readonly (number | undefined)[]): Heal {
  const pids = found.filter(pid => pid !== undefined)
  for (const pid of pids) signal(pid, 'SIGSTOP')
  return once(async () => {
    for (const pid of pids) signal(pid, 'SIGCONT')
  })
}
