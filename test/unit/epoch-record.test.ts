import { describe, expect, test } from 'vitest'
import { holdEpoch, releaseEpoch } from '../../protocols/epoch/kept.ts'
import { parseGroupRecord } from '../../protocols/epoch/messages.ts'
import {
  abortEpoch,
  cameTooLate,
  commitEpoch,
  createGroup,
  displaced,
  importGroup,
  openEpoch,
  removeGroup,
  renewReservation,
  reserveGroup,
  takeOver
} from '../../protocols/epoch/record.ts'
import { type GroupRecord, keptImages } from '../../protocols/group.ts'

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
  test('an epoch that is held keeps its images when others are committed, until it is released', () => {
    const [first, second] = [
      { a: hash('1'), b: hash('2') },
      { a: hash('3'), b: hash('2') }
    ]
    const committed = commitEpoch(1, 1, first)(opened) as GroupRecord
    expect(holdEpoch(2, 'a', 'p1 x')(committed)).toBeUndefined()
    const held = holdEpoch(1, 'a', 'p1 x')(committed) as GroupRecord
    const twice = holdEpoch(1, 'b', 'p2 y')(held) as GroupRecord
    expect(holdEpoch(1, 'c', 'p1 x')(held)).toBeUndefined()
    const later = openEpoch('p1', 1, twice.version)(twice) as GroupRecord
    const newer = takeOver(1, owners)(commitEpoch(1, 2, second)(later) as GroupRecord) as GroupRecord
    expect(parseGroupRecord(JSON.parse(JSON.stringify(newer)))).toEqual(newer)
    expect(keptImages(newer).sort()).toEqual([hash('1'), hash('2'), hash('3')])
    const released = releaseEpoch('p1 x')(newer) as GroupRecord
    expect(keptImages(released).sort()).toEqual([hash('2'), hash('3')])
    expect(releaseEpoch('p1 x')(released)).toBeUndefined()
    expect(keptImages(releaseEpoch('p2 y')(released) as GroupRecord).sort()).toEqual([hash('2'), hash('3')])
    expect(keptImages(removeGroup(newer) as GroupRecord)).toEqual([])
    const again = holdEpoch(2, 'a', 'p1 z', by => by.startsWith('p1 '))(newer) as GroupRecord
    expect(again.held?.map(({ by }) => by)).toEqual(['p2 y', 'p1 z'])
  })
  test('a group is imported under numbers that were taken for it, and only by who took them', () => {
    const reserve = reserveGroup('g', [vm('a')], 'p1', 6)
    const reserved = reserve(null) as GroupRecord
    expect(reserved).toMatchObject({ version: 7, generation: 7, lastEpoch: 0, removed: true, committed: null })
    const images = { a: hash('1') }
    const imported = importGroup(reserved, { a: 'p2' }, images)(reserved) as GroupRecord
    expect(parseGroupRecord(JSON.parse(JSON.stringify(imported)))).toEqual(imported)
    expect(imported).toMatchObject({ generation: 8, lastEpoch: 1, owners: { a: 'p2' }, removed: false })
    expect(imported.committed).toEqual({ epoch: 1, generation: 7, previousEpoch: 0, images })
    expect(reserve(imported)).toBeUndefined()
    const taken = reserve(reserved) as GroupRecord
    expect(taken).toMatchObject({ version: 8, generation: 8 })
    for (const now of [null, taken, imported]) {
      expect(importGroup(reserved, { a: 'p2' }, images)(now)).toBeUndefined()
      expect(renewReservation(reserved)(now)).toBeUndefined()
    }
    const renewed = renewReservation(reserved)(reserved) as GroupRecord
    expect(renewed).toEqual({ ...reserved, version: 8 })
    expect(importGroup(reserved, { a: 'p2' }, images)(renewed)).toMatchObject({ version: 9, generation: 8 })
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
