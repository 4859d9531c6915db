import { describe, expect, test } from 'vitest'
import { parseGroupRecord } from '../../protocols/epoch/messages.ts'
import {
  abortEpoch,
  cameTooLate,
  commitEpoch,
  createGroup,
  displaced,
  openEpoch,
  removeGroup,
  takeOver
} from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'

const vm = (id: string) => ({ id, mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' })
const owners = { a: 'p1', b: 'p2' }
const hash = (digit: string) => digit.repeat(64)

const made = createGroup('g', [vm('a'), vm('b')], owners)(null) as GroupRecord
const opened = openEpoch('p1', 10_000, made.version)(made) as GroupRecord

describe('the changes of a group record', () => {
  test('an epoch number is never used twice, also not after an abort', () => {
    const aborted = abortEpoch(1, 1)(opened) as GroupRecord
    const next = openEpoch('p2', 1, aborted.version)(aborted) as GroupRecord
    expect(next.open?.epoch).toBe(2)
  })
  test('a change tried again on a state that contains its effect changes nothing', () => {
    const images = { a: hash('1'), b: hash('2') }
    const committed = commitEpoch(1, 1, images)(opened) as GroupRecord
    expect(committed.committed?.epoch).toBe(1)
    for (const change of [commitEpoch(1, 1, images), abortEpoch(1, 1), openEpoch('p1', 1, made.version)]) {
      expect(change(committed)).toBeUndefined()
    }
    const taken = takeOver(1, owners)(committed) as GroupRecord
    expect(takeOver(1, owners)(taken)).toBeUndefined()
    expect(commitEpoch(1, 2, images)(taken)).toBeUndefined()
  })
  test('half an epoch cannot be committed', () => {
    expect(commitEpoch(1, 1, { a: hash('1') })(opened)).toBeUndefined()
  })
  test('a removed group is gone for every change but a new creation, which uses no number again', () => {
    const removed = removeGroup(opened) as GroupRecord
    expect(removeGroup(removed)).toBeUndefined()
    expect(openEpoch('p1', 1, removed.version)(removed)).toBeUndefined()
    expect(takeOver(removed.generation, owners)(removed)).toBeUndefined()
    const again = createGroup('g', [vm('a')], { a: 'p1' })(removed) as GroupRecord
    expect([again.generation, again.lastEpoch, again.committed]).toEqual([3, 1, null])
  })
  test.each(['outputCommit', 'openFlow'] as const)(
    '%s stays with its group in every generation, and a group without it has no word of it',
    setting => {
      const held = createGroup('g', [vm('a')], { a: 'p1' }, 0, { [setting]: true })(null) as GroupRecord
      const taken = takeOver(1, owners)(held) as GroupRecord
      expect([held, taken].map(record => parseGroupRecord(record)?.[setting])).toEqual([true, true])
      const again = createGroup('g', [vm('a')], { a: 'p1' })(removeGroup(taken) as GroupRecord) as GroupRecord
      expect(again).not.toHaveProperty(setting)
      expect(parseGroupRecord(again)).toEqual(again)
    }
  )
  test('a change comes too late when the group is of a newer generation than it was made for, and not by the same change', () => {
    const taken = takeOver(1, { a: 'p1', b: 'p3' })(opened) as GroupRecord
    const again = takeOver(2, { a: 'p1', b: 'p3' })(taken) as GroupRecord
    expect([opened, taken, again].map(now => cameTooLate(now, 1))).toEqual([false, true, true])
    expect([opened, taken, again].map(now => cameTooLate(now, 1, { b: 'p3', a: 'p1' }))).toEqual([false, false, true])
    expect(cameTooLate(taken, 1, { a: 'p1', b: 'p1' })).toBe(true)
  })
  test('whoever loses a VM is fenced, and nobody else', () => {
    const taken = takeOver(1, { a: 'p1', b: 'p3' })(opened) as GroupRecord
    expect(displaced(opened, taken)).toEqual(['p2'])
    expect(taken.open).toBeNull()
  })
})
