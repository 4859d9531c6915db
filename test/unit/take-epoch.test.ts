/** A snapshot that somebody asked for, while others take some too. */
import { expect, test } from 'vitest'
import { setImmediate } from 'node:timers/promises'
import { EventFeed } from '../../node/edge/events.ts'
import { DiapauseError } from '../../node/errors.ts'
import { takeEpoch } from '../../node/operations/take-epoch.ts'
import type { FateFacts } from '../../protocols/epoch/record.ts'
import type { OpenEpoch } from '../../protocols/group.ts'

/** A group in which the next epoch is `next`, after `open`. Its deadline passes when `late` is called. */
function group(first: number | null, next = 8) {
  const openOf = (epoch: number | null): OpenEpoch | null =>
    epoch === null ? null : { epoch, proposer: 'p2', deadlineMs: 4_000 }
  const events = new EventFeed(() => 0)
  const timers = new Map<() => void, number>()
  const world: FateFacts & { open: OpenEpoch | null; proposals: number } = {
    open: openOf(first),
    proposals: 0,
    committed: null,
    lastEpoch: 8
  }
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
    /** The deadline passes; by then `as` is known. */
    async late(as: Partial<FateFacts> = { open: null }) {
      await setImmediate()
      Object.assign(world, as)
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
  expect([world.proposals, timers.size]).toEqual([2, 1]) // of its own, and the other's is gone
  await end('epoch.committed', 8)
  expect(await taken).toEqual({ epoch: 8, outcome: 'committed' })
  expect(timers.size).toBe(0)
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

const committed = (epoch: number, previousEpoch: number) => ({
  epoch,
  previousEpoch,
  generation: 1,
  images: {},
  stats: {}
})

test.each([
  { what: 'committed', as: { open: null, committed: committed(8, 7) }, is: { epoch: 8, outcome: 'committed' } },
  { what: 'aborted', as: { open: null }, is: { epoch: 8, outcome: 'aborted' } },
  {
    what: 'forgotten',
    as: { open: null, committed: committed(11, 10), lastEpoch: 11 },
    is: { code: 'EPOCH_FORGOTTEN' }
  }
])(
  'ends by the record where the epoch was $what while this peer was away, which no event tells',
  async ({ as, is }) => {
    const { late, taken, timers } = group(null)
    const result = taken.catch((error: unknown) => error)
    await late({}) // open still: there is no majority
    expect(timers.size).toBe(1)
    await late(as)
    expect(await result).toMatchObject(is)
    expect(timers.size).toBe(0)
  }
)
