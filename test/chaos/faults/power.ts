/**
 * Loss of power: what was synced is on the disk after the next mount, and nothing else need be. `kill -9` alone loses
 * nothing that was written, so only this tests whether a peer syncs before it speaks.
 *
 * What it does not show: a disk that loses what its own cache had taken, since the file below the loop device keeps that.
 */
import { type Fault, type Heal, once, type Target } from '../fault.ts'
import { runs, stand } from './processes.ts'
import { needsPrograms, run } from './tools.ts'

export const losePower: Fault = {
  name: 'power-loss',
  about: 'it loses its power, and what was not synced',
  lasts: { leastMs: 1_000, mostMs: 30_000 },
  reach: 'one',
  needs: needsPrograms('xfs_io'),
  counts: { as: 'powerLosses', of: runs },
  begin: target => cut([target])
}

/** A rack is the target and a half of the others, rounded up: of three hosts two, and the rest is no majority. */
export const loseRackPower: Fault = {
  name: 'rack-power-loss',
  about: 'it and half of the others lose their power at once, and what was not synced',
  lasts: { leastMs: 1_000, mostMs: 20_000 },
  reach: 'many',
  needs: needsPrograms('xfs_io'),
  counts: { as: 'powerLosses', of: target => running(rack(target)) },
  begin: target => cut(rack(target))
}

export const loseAllPower: Fault = {
  name: 'all-power-loss',
  about: 'all hosts lose their power at once, and what was not synced',
  lasts: { leastMs: 0, mostMs: 5_000 },
  reach: 'all',
  needs: needsPrograms('xfs_io'),
  counts: { as: 'powerLosses', of: target => running([target, ...target.others]) },
  begin: target => cut([target, ...target.others])
}

function rack(target: Target): Target[] {
  const { others, random } = target
  const order = others.map(other => ({ other, at: random() })).sort((a, b) => a.at - b.at)
  return [target, ...order.slice(0, Math.ceil(others.length / 2)).map(({ other }) => other)]
}

const running = (targets: readonly Target[]): number => targets.reduce((sum, target) => sum + runs(target), 0)

/**
 * All stand still before their disks are gone: a host without power tells nobody anything, and a process that lives some
 * milliseconds longer than its disk could. From `shutdown` on the file system takes nothing more, not even its own log.
 */
async function cut(targets: readonly Target[]): Promise<Heal> {
  for (const target of targets) stand(() => target.pids())
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
