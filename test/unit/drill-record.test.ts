/** What a group's record says of drills: when the next one is due, that one peer runs it, and what became of the last. */
import { describe, expect, test } from 'vitest'
import { beginDrill, drillDueInMs, endDrill, scheduleDrills } from '../../protocols/epoch/drills.ts'
import { MAX_DRILL_WORDS, parseGroupRecord } from '../../protocols/epoch/messages.ts'
import { commitEpoch, createGroup, openEpoch, takeOver } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'

const vm = (id: string) => ({ id, mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' })
const daily = { everyMs: 86_400_000, timeoutMs: 60_000 }

function made(): GroupRecord {
  return createGroup('g', [vm('a'), vm('b')], { a: 'p1', b: 'p2' })(null) as GroupRecord
}

function committed(): GroupRecord {
  const opened = openEpoch('p1', 1, 1)(made()) as GroupRecord
  const images = { a: 'a'.repeat(64), b: 'b'.repeat(64) }
  return commitEpoch(opened.generation, 1, images)(opened) as GroupRecord
}

const scheduled = (): GroupRecord => scheduleDrills({ ...daily, check: 'books' })(committed()) as GroupRecord
/** By one that takes itself for the keeper. */
const begin = (by: string, nowMs: number, begunMs?: number) => beginDrill(by, nowMs, begunMs, () => true)
const asStored = (record: GroupRecord | undefined): GroupRecord | null =>
  parseGroupRecord(JSON.parse(JSON.stringify(record)))

describe('drills in a group’s record', () => {
  test('a group without them has no word of them, also when its schedule is taken away', () => {
    expect(made()).not.toHaveProperty('drills')
    const record = scheduled()
    expect(asStored(record)).toEqual(record)
    expect(record.drills).toEqual({ schedule: { ...daily, check: 'books' } })
    expect(scheduleDrills(undefined)(record)).not.toHaveProperty('drills')
    expect(scheduleDrills({ ...daily, check: 'books' })(record)).toBeUndefined()
  })

  test('the first is due soon after there is an epoch, the next one an interval after it was begun', () => {
    expect(drillDueInMs(committed(), 5_000)).toBeUndefined()
    expect(drillDueInMs(scheduleDrills(daily)(made()) as GroupRecord, 5_000)).toBeUndefined()
    expect(drillDueInMs(scheduled(), 5_000)).toBeLessThan(60_000)
    const begun = begin('p1 r1', 5_000)(scheduled()) as GroupRecord
    expect(drillDueInMs(begun, 6_000)).toBe(daily.everyMs - 1_000)
    expect(drillDueInMs(begun, 5_000 + 2 * daily.everyMs)).toBe(0)
    expect(drillDueInMs(begun, -daily.everyMs)).toBe(daily.everyMs) // a clock that was set back
    const sooner = scheduleDrills({ ...daily, everyMs: 10_000 })(begun) as GroupRecord
    expect(drillDueInMs(sooner, 6_000)).toBe(9_000)
  })

  test('one peer runs it, once: a keeper, and where two think so, whoever was first', () => {
    const record = scheduled()
    const no = () => false
    expect(beginDrill('p2 r1', 5_000, undefined, no)(record)).toBeUndefined()
    const begun = begin('p1 r1', 5_000)(record) as GroupRecord
    expect(asStored(begun)?.drills?.schedule).toMatchObject({ begunMs: 5_000, runs: 'p1 r1' })
    expect(begin('p1 r1', 5_001)(begun)).toBeUndefined()
    expect(begin('p2 r1', 5_001)(begun)).toBeUndefined()
    expect(begin('p2 r7', 9_000, 5_000)(begun)?.drills?.schedule).toMatchObject({ runs: 'p2 r7' })
    // Asked of the record as it is then.
    const moved = takeOver(1, { a: 'p2', b: 'p2' })(begun) as GroupRecord
    const keeps = (now: GroupRecord) => now.owners['a'] === 'p1'
    expect(beginDrill('p1 r1', 9_000, 5_000, keeps)(moved)).toBeUndefined()
  })

  test('what became of it is told by who ran it, and by nobody else', () => {
    const outcome = { epoch: 1, by: 'p1', atMs: 9_000, tookMs: 4_000.5 }
    const begun = begin('p1 r1', 5_000)(scheduled()) as GroupRecord
    expect(endDrill(outcome, 'p1 r0')(begun)).toBeUndefined()
    const ended = endDrill({ ...outcome, failed: 'x'.repeat(1_000) }, 'p1 r1')(begun) as GroupRecord
    expect(asStored(ended)?.drills).toEqual({
      schedule: { ...daily, check: 'books', begunMs: 5_000 },
      last: { ...outcome, failed: 'x'.repeat(MAX_DRILL_WORDS) }
    })
    // One that somebody asked for leaves the schedule as it is.
    const asked = endDrill(outcome)(begun) as GroupRecord
    expect(asked.drills).toEqual({ schedule: begun.drills?.schedule, last: outcome })
    expect(endDrill(outcome)(committed())?.drills).toEqual({ last: outcome })
  })

  test('one by hand clears a failure, but not where it is of an older epoch than the one that failed', () => {
    const again = openEpoch('p1', 1, committed().version)(committed()) as GroupRecord
    const images = { a: 'c'.repeat(64), b: 'd'.repeat(64) }
    const second = commitEpoch(again.generation, 2, images)(again) as GroupRecord
    const outcome = { by: 'p1', atMs: 9_000, tookMs: 4_000 }
    const failed = endDrill({ ...outcome, epoch: 2, failed: 'no' })(second) as GroupRecord
    expect(endDrill({ ...outcome, epoch: 1 })(failed)).toBeUndefined()
    expect(endDrill({ ...outcome, epoch: 1, failed: 'nor this' })(failed)?.drills?.last).toMatchObject({ epoch: 1 })
    expect(endDrill({ ...outcome, epoch: 2 })(failed)?.drills).toEqual({ last: { ...outcome, epoch: 2 } })
    // Gone back to the older one, it is what the group would go on from.
    const back = { ...failed, committed: committed().committed }
    expect(endDrill({ ...outcome, epoch: 1 })(back)?.drills).toEqual({ last: { ...outcome, epoch: 1 } })
  })
})
