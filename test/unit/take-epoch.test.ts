/** A snapshot that somebody asked for, while others take some too. */
import { expect, test } from 'vitest'
import { setImmediate } from 'node:timers/promises'
import { EventFeed } from '../../node/edge/events.ts'
import { DiapauseError } from '../../node/errors.ts'
import { takeEpoch } from '../../node/operations/take-epoch.ts'
import type { OpenEpoch } from '../../protocols/group.ts'

/** A group in which the next epoch is `next`, after `open`. Its deadline passes when `late` is called. */
function group(first: number | null, next = 8) {
  const openOf = (epoch: number | null): OpenEpoch | null =>
    epoch === null ? null : { epoch, proposer: 'p2', deadlineMs: 4_000 }
  const events = new EventFeed(() => 0)
  const timers = new Map<() => void, number>()
  const world = { open: openOf(first), proposals: 0 }
  const deps = {
    events,
    directory: { get: () => world },
    epochClock: {
      async propose() {
        world.proposals++
        if (world.open !== null) throw new DiapauseError('EPOCH_OPEN', 'one is open')
        world.open = openOf(next)
        return world
      }
    },
    clock: {
      after(ms: number, run: () => void) {
        timers.set(run, ms)
        return () => void timers.delete(run)
      }
    }
  }
  return {
    world,
    timers,
    taken: takeEpoch(deps, 'g'),
    async end(kind: 'epoch.committed' | 'epoch.aborted', epoch: number, of = 'g') {
      await setImmediate()
      if (of === 'g') world.open = null
      events.emit(kind, { group: of, epoch, reason: 'too slow' })
      await setImmediate()
    },
    async late() {
      await setImmediate()
      world.open = null
      for (const run of timers.keys()) run()
      await setImmediate()
    }
  }
}

test('comes of itself where none is open, and says why it was aborted', async () => {
  const { end, taken } = group(null)
  await end('epoch.aborted', 8)
  expect(await taken).toEqual({ epoch: 8, outcome: 'aborted', reason: 'too slow' })
})

test('waits for an epoch that is open, and not for those of other groups', async () => {
  const { end, taken, world, timers } = group(7)
  await end('epoch.committed', 7, 'another')
  expect([world.proposals, [...timers.values()]]).toEqual([1, [4_000]])
  await end('epoch.aborted', 7)
  expect([world.proposals, timers.size]).toEqual([2, 0])
  await end('epoch.committed', 8)
  expect(await taken).toEqual({ epoch: 8, outcome: 'committed' })
})

test('waits no longer than until the deadline of the open epoch', async () => {
  const { late, end, taken, world } = group(7)
  await late()
  expect(world.proposals).toBe(2)
  await end('epoch.committed', 8)
  expect(await taken).toMatchObject({ epoch: 8 })
})

test('fails where others are first again and again', async () => {
  const { taken, world, timers } = group(7)
  const refused = taken.catch((error: unknown) => error)
  for (let tries = 1; tries < 3; tries++) {
    await setImmediate()
    for (const run of timers.keys()) run()
  }
  expect(await refused).toMatchObject({ code: 'EPOCH_OPEN' })
  expect(world.proposals).toBe(3)
})
