/**
 * Loss of power: what was synced is on the disk after the next mount, and nothing else need be. `kill -9` alone loses
 * nothing that was written, so only this tests whether a peer syncs before it speaks.
 *
 * What it does not show: a disk that loses what its own cache had taken, since the file below the loop device keeps that.
 */
import { signal } from '../../demo/processes.ts'
import { type Fault, type Heal, once, type Target } from '../fault.ts'
import { run } from './tools.ts'

export const losePower: Fault = {
  name: 'power-loss',
  about: 'it loses its power, and what was not synced',
  lasts: { leastMs: 1_000, mostMs: 30_000 },
  reach: 'one',
  counts: { as: 'powerLosses', of: () => 1 },
  begin: target => cut([target])
}

/** A rack is the target and a half of the others, rounded up: of three hosts two, and the rest is no majority. */
export const loseRackPower: Fault = {
  name: 'rack-power-loss',
  about: 'it and half of the others lose their power at once, and what was not synced',
  lasts: { leastMs: 1_000, mostMs: 20_000 },
  reach: 'many',
  counts: { as: 'powerLosses', of: target => 1 + rack(target) },
  begin: target => cut([target, ...drawn(target, rack(target))])
}

export const loseAllPower: Fault = {
  name: 'all-power-loss',
  about: 'all hosts lose their power at once, and what was not synced',
  lasts: { leastMs: 0, mostMs: 5_000 },
  reach: 'all',
  counts: { as: 'powerLosses', of: target => 1 + target.others.length },
  begin: target => cut([target, ...target.others])
}

/** So many others are in its rack. */
const rack = ({ others }: Target): number => Math.ceil(others.length / 2)

function drawn({ others, random }: Target, count: number): Target[] {
  const order = others.map(other => ({ other, at: random() })).sort((a, b) => a.at - b.at)
  return order.slice(0, count).map(({ other }) => other)
}

/**
 * All stand still before their disks are gone: a host without power tells nobody anything, and a process that lives some
 * milliseconds longer than its disk could. From `shutdown` on the file system takes nothing more, not even its own log.
 */
async function cut(targets: readonly Target[]): Promise<Heal> {
  for (const target of targets)
    for (const pid of [target.peerPid(), ...target.qemuPids()]) if (pid !== undefined) signal(pid, 'SIGSTOP')
  await Promise.all(targets.map(({ disk }) => run('xfs_io', ['-x', '-c', 'shutdown', disk.mounted])))
  const starts = await Promise.all(targets.map(target => target.halt()))
  return once(async () => {
    await Promise.all(
      targets.map(async ({ disk }, i) => {
        await disk.unmount()
        await disk.mount()
        await starts[i]?.()
      })
    )
  })
}
