import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type DatedEpoch, epochsToKeep, keepBy, roomForEpochs } from '../../node/planning/retention-policy.ts'
import { keepHeld, keptEpochs, MAX_RECORD_TEXT_BYTES, recordTextBytes } from '../../protocols/epoch/kept.ts'
import { retentionSchema } from '../../config/schema.ts'
import { MAX_GROUP_VMS } from '../../config/vm.ts'
import { MAX_KEPT } from '../../protocols/epoch/messages.ts'
import { commitEpoch, createGroup, openEpoch } from '../../protocols/epoch/record.ts'
import type { GroupRecord, RetentionPolicy } from '../../protocols/group.ts'
import { encodeValue } from '../../protocols/register/value.ts'

const HOUR = 3_600_000
const START = Date.UTC(2026, 0, 5) // a Monday

const policies = fc.record({
  keepLast: fc.integer({ min: 1, max: 4 }),
  hourly: fc.integer({ min: 0, max: 5 }),
  daily: fc.integer({ min: 0, max: 4 }),
  weekly: fc.integer({ min: 0, max: 3 })
})

/** Epochs of a clock that mostly goes on, at times by days, and at times jumps back or ahead by hours or a year. */
const histories = fc
  .array(
    fc.oneof(
      { weight: 6, arbitrary: fc.integer({ min: 0, max: 2 * HOUR }) },
      { weight: 2, arbitrary: fc.integer({ min: 0, max: 9 * 24 * HOUR }) },
      { weight: 1, arbitrary: fc.constantFrom(-HOUR, HOUR, -26 * HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR) }
    ),
    { minLength: 1, maxLength: 60 }
  )
  .map(steps => {
    let wallMs = START
    return steps.map((step, i): DatedEpoch => {
      wallMs += step
      return { epoch: i + 1, wallMs }
    })
  })

/** By the words of the policy, from calendars, and slowly. */
function slowly(policy: RetentionPolicy, epochs: readonly DatedEpoch[]): number[] {
  const hourOf = ({ wallMs = 0 }: DatedEpoch) => new Date(wallMs).toISOString().slice(0, 13)
  const dayOf = ({ wallMs = 0 }: DatedEpoch) => new Date(wallMs).toISOString().slice(0, 10)
  const weekOf = ({ wallMs = 0 }: DatedEpoch) => {
    const day = new Date(wallMs)
    while (day.getUTCDay() !== 1) day.setUTCDate(day.getUTCDate() - 1)
    return day.toISOString().slice(0, 10)
  }
  const lastOfEach = (nameOf: (epoch: DatedEpoch) => string, count: number): number[] => {
    const names = [...new Set(epochs.toSorted((a, b) => b.epoch - a.epoch).map(nameOf))].slice(0, count)
    return names.map(name => Math.max(...epochs.filter(each => nameOf(each) === name).map(({ epoch }) => epoch)))
  }
  const kept = [
    ...lastOfEach(({ epoch }) => String(epoch), policy.keepLast),
    ...lastOfEach(hourOf, policy.hourly),
    ...lastOfEach(dayOf, policy.daily),
    ...lastOfEach(weekOf, policy.weekly)
  ]
  return [...new Set(kept)].sort((a, b) => a - b)
}

const numbers = (kept: ReadonlySet<number>): number[] => [...kept].sort((a, b) => a - b)

describe('which epochs are kept', () => {
  test('they are those that a plain reading of the policy names, whatever the clock does', () => {
    fc.assert(
      fc.property(policies, histories, (policy, epochs) => {
        expect(numbers(epochsToKeep(policy, epochs))).toEqual(slowly(policy, epochs))
      }),
      { numRuns: 300 }
    )
  })
  test('asked at each commit of what was kept until then, it keeps what it would of all epochs there ever were', () => {
    fc.assert(
      fc.property(policies, histories, (policy, epochs) => {
        let kept: DatedEpoch[] = []
        for (const epoch of epochs) {
          const wanted = epochsToKeep(policy, [...kept, epoch])
          kept = [...kept, epoch].filter(each => wanted.has(each.epoch))
        }
        expect(kept.map(({ epoch }) => epoch)).toEqual(slowly(policy, epochs))
      }),
      { numRuns: 300 }
    )
  })
  test('the newest are kept by number: a clock that jumps by an hour, ahead or back, drops none of them', () => {
    fc.assert(
      fc.property(policies, histories, fc.constantFrom(-HOUR, HOUR), (policy, epochs, jump) => {
        const after = epochs.map(({ epoch, wallMs = 0 }, i) => ({
          epoch,
          wallMs: i < epochs.length / 2 ? wallMs : wallMs + jump
        }))
        const kept = epochsToKeep(policy, after)
        for (const { epoch } of epochs.slice(-policy.keepLast)) expect(kept).toContain(epoch)
      })
    )
  })
  test('an epoch from a clock that was a year ahead takes one place, and leaves it again as others come', () => {
    const policy = { keepLast: 1, hourly: 3, daily: 0, weekly: 0 }
    const hours = [0, 1, 2, 365 * 24, 3, 4, 5, 6]
    const epochs = hours.map((hour, i) => ({ epoch: i + 1, wallMs: START + hour * HOUR }))
    expect(numbers(epochsToKeep(policy, epochs.slice(0, 5)))).toEqual([3, 4, 5])
    expect(numbers(epochsToKeep(policy, epochs))).toEqual([6, 7, 8])
  })
  test('what people hold stays, and takes nobody’s place; what has no date is kept among the newest only', () => {
    const policy = { keepLast: 2, hourly: 1, daily: 0, weekly: 0 }
    const epochs = [1, 2, 3, 4].map(epoch => ({ epoch }))
    expect(numbers(epochsToKeep(policy, epochs))).toEqual([3, 4])
    expect(numbers(epochsToKeep(policy, epochs, new Set([1])))).toEqual([1, 3, 4])
  })
})

const hashOf = (epoch: number, vm: number) => `${epoch}`.padStart(32, '0') + `${vm}`.padStart(32, '0')
const policyOf = (keepLast: number) => ({ keepLast, hourly: 0, daily: 0, weekly: 0 })

function groupOf(size: number): GroupRecord {
  const vms = Array.from({ length: size }, (_, i) => ({
    id: `vm${i}`,
    mac: '52:54:00:00:00:01',
    memoryMiB: 64,
    kernel: '/boot/vmlinuz',
    initrd: '/boot/initrd.img',
    append: 'console=ttyS0'
  }))
  const owners = Object.fromEntries(vms.map(({ id }) => [id, '12D3KooW'.padEnd(52, 'x')]))
  return createGroup('g', vms, owners)(null) as GroupRecord
}

function commitNext(record: GroupRecord, keeping: Parameters<typeof commitEpoch>[3]): GroupRecord {
  const opened = openEpoch('p1', 1, record.version)(record) as GroupRecord
  const epoch = opened.lastEpoch
  const images = Object.fromEntries(record.vms.map(({ id }, i) => [id, hashOf(epoch, i)]))
  return commitEpoch(record.generation, epoch, images, keeping)(opened) as GroupRecord
}

describe('the room in a group’s record', () => {
  test.each([1, 4, 16, MAX_GROUP_VMS])(
    'with %i VMs the oldest epochs go where there are too many, never those held',
    size => {
      const first = commitNext(groupOf(size), keepBy(policyOf(64), START))
      const room = roomForEpochs(first)
      let record: GroupRecord = { ...first, holds: [{ epoch: 1, name: 'first' }] }
      const count = Math.min(64, room) + 5
      for (let i = 0; i < count; i++) record = commitNext(record, keepBy(policyOf(64), START + i))
      expect(recordTextBytes(record)).toBeLessThanOrEqual(MAX_RECORD_TEXT_BYTES)
      expect(() => encodeValue(record)).not.toThrow()
      const kept = keptEpochs(record).map(({ epoch }) => epoch)
      expect(kept[0]).toBe(1)
      expect(kept.slice(1)).toEqual(
        Array.from({ length: kept.length - 1 }, (_, i) => record.lastEpoch + 2 - kept.length + i)
      )
      expect(kept.length).toBeGreaterThanOrEqual(Math.min(64, room - 1))
      expect(kept.length).toBeLessThanOrEqual(Math.min(65, MAX_KEPT))
    }
  )
  test('the record has room for as many epochs as the README says', () => {
    const rooms = [1, 8, MAX_GROUP_VMS].map(size => roomForEpochs(groupOf(size)))
    for (const [i, said] of [256, 89, 8].entries()) expect(rooms[i]).toBeGreaterThanOrEqual(said)
  })
  test('it says when the last epoch was committed, also where only one is kept', () => {
    const first = commitNext(groupOf(2), keepBy(retentionSchema.parse({}), START))
    expect(first.committed?.wallMs).toBe(START)
    const second = commitNext(first, keepBy(retentionSchema.parse({}), START + 10_000))
    expect(keptEpochs(second)).toMatchObject([{ epoch: 2, wallMs: START + 10_000 }])
  })
  test('where nothing is asked to be kept and a member is older the record has no word that it would not know', () => {
    let record = commitNext(groupOf(2), keepBy(policyOf(1), START, ['old']))
    record = commitNext(record, keepBy(policyOf(1), START, ['old']))
    expect(Object.keys(record)).not.toEqual(expect.arrayContaining(['kept']))
    expect(Object.keys(record.committed ?? {}).sort()).toEqual(['epoch', 'generation', 'images', 'previousEpoch'])
    expect(keepHeld.keep(record)).toEqual([])
  })
  test('a group’s own policy counts, not that of who commits', () => {
    let record: GroupRecord = { ...groupOf(1), retention: policyOf(3) }
    for (let i = 0; i < 5; i++) record = commitNext(record, keepBy(policyOf(1), START + i))
    expect(keptEpochs(record)).toMatchObject([
      { epoch: 3, wallMs: START + 2 },
      { epoch: 4, wallMs: START + 3 },
      { epoch: 5, wallMs: START + 4 }
    ])
  })
})
