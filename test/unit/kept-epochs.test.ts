/** Epochs that a group keeps beside the committed one: held, released, dropped, gone back to. */
import { describe, expect, test } from 'vitest'
import { planRetention } from '../../node/planning/retention.ts'
import { keepBy } from '../../node/planning/retention-policy.ts'
import {
  BEFORE_RESTORE,
  dropEpoch,
  goBackTo,
  holdByName,
  holdEpoch,
  keptEpochs,
  MAX_RECORD_TEXT_BYTES,
  recordTextBytes,
  releaseByName,
  setRetention
} from '../../protocols/epoch/kept.ts'
import { MAX_GROUP_VMS } from '../../config/vm.ts'
import { MAX_HOLDS, parseGroupRecord } from '../../protocols/epoch/messages.ts'
import { commitEpoch, createGroup, fateOf, openEpoch, removeGroup, takeOver } from '../../protocols/epoch/record.ts'
import { type GroupRecord, keptImages } from '../../protocols/group.ts'
import { encodeValue } from '../../protocols/register/value.ts'

const vm = (id: string) => ({ id, mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' })
const hashOf = (epoch: number, id: string) => `${epoch}${id.charCodeAt(0)}`.padStart(64, '0')
const policy = (keepLast: number) => ({ keepLast, hourly: 0, daily: 0, weekly: 0 })

function made(ids = ['a', 'b']): GroupRecord {
  const owners = Object.fromEntries(ids.map(id => [id, 'p1']))
  return createGroup('g', ids.map(vm), owners)(null) as GroupRecord
}

function commit(record: GroupRecord, keepLast: number): GroupRecord {
  const opened = openEpoch('p1', 1, record.version)(record) as GroupRecord
  const { lastEpoch: epoch, generation } = opened
  const images = Object.fromEntries(record.vms.map(({ id }) => [id, hashOf(epoch, id)]))
  return commitEpoch(generation, epoch, images, keepBy(policy(keepLast), epoch))(opened) as GroupRecord
}

const commits = (record: GroupRecord, count: number, keepLast: number): GroupRecord =>
  Array.from({ length: count }).reduce<GroupRecord>(now => commit(now, keepLast), record)

const numbers = (record: GroupRecord): number[] => keptEpochs(record).map(({ epoch }) => epoch)
const asStored = (record: GroupRecord): GroupRecord | null => parseGroupRecord(JSON.parse(JSON.stringify(record)))

describe('kept epochs in a group’s record', () => {
  test('a record of before there were any stays readable, and keeps its epoch as soon as that is asked for', () => {
    const committed = { epoch: 7, generation: 2, previousEpoch: 6, images: { a: hashOf(7, 'a'), b: hashOf(7, 'b') } }
    const numbersThen = { version: 20, generation: 2, lastEpoch: 7, open: null, removed: false }
    const old = { id: 'g', vms: [vm('a'), vm('b')], owners: { a: 'p1', b: 'p1' }, ...numbersThen, committed }
    const record = asStored(old) as GroupRecord
    expect(record).toEqual(old)
    expect(numbers(record)).toEqual([7])
    expect(numbers(commits(record, 2, 3))).toEqual([7, 8, 9])
    expect(commit(record, 1)).not.toHaveProperty('kept')
  })
  test('a commit adds the epoch and drops those that nobody asks for, and what is kept is never forgotten', () => {
    const record = commits(made(), 5, 3)
    expect(numbers(record)).toEqual([3, 4, 5])
    expect(keptImages(record).sort()).toEqual(
      [3, 4, 5].flatMap(epoch => ['a', 'b'].map(id => hashOf(epoch, id))).sort()
    )
    expect(asStored(record)).toEqual(record)
    const images = keptImages(record).map(hash => {
      const epoch = Number(hash.slice(-3, -2))
      return { streams: [{ stream: `g/a/1/${epoch}`, manifest: `m${epoch}` }] }
    })
    const streams = [1, 2, 3, 4, 5, 6].map(epoch => `g/a/1/${epoch}`)
    const facts = { streams, manifests: [], gone: new Set<string>(), floor: 0, about: new Map() }
    expect(planRetention({ ...facts, groups: [{ record, images }] }).streams).toEqual(['g/a/1/1', 'g/a/1/2'])
    // While one manifest cannot be read, nobody knows what it needs.
    expect(planRetention({ ...facts, groups: [{ record, images: images.slice(1) }] }).streams).toEqual([])
  })
  test('what became of a kept epoch is known for as long as it is kept', () => {
    const record = commits(made(), 5, 3)
    expect([1, 3, 4, 5, 6].map(epoch => fateOf(record, epoch))).toEqual([
      'decided',
      'committed',
      'committed',
      'committed',
      'unknown'
    ])
  })
  test('an epoch that is held by a name stays until its last name is released', () => {
    const held = holdByName(1, 'release')(holdByName(1, 'audit')(commit(made(), 1)) as GroupRecord) as GroupRecord
    expect(holdByName(1, 'audit')(held)).toBeUndefined()
    expect(holdByName(2, 'audit')(held)).toBeUndefined()
    const later = commits(held, 4, 2)
    expect(numbers(later)).toEqual([1, 4, 5])
    expect(asStored(later)).toEqual(later)
    expect(dropEpoch(1)(later)).toBeUndefined()
    const once = releaseByName(1, 'audit')(later) as GroupRecord
    expect(releaseByName(1, 'audit')(once)).toBeUndefined()
    expect(numbers(commit(once, 2))).toEqual([1, 5, 6])
    const free = releaseByName(1, undefined)(once) as GroupRecord
    expect(free).not.toHaveProperty('holds')
    expect(numbers(free)).toEqual([1, 4, 5])
    expect(numbers(dropEpoch(1)(free) as GroupRecord)).toEqual([4, 5])
    expect(numbers(commit(free, 2))).toEqual([5, 6])
  })
  test('the committed epoch cannot be dropped, and what is dropped never comes back', () => {
    const record = commits(made(), 3, 3)
    expect(dropEpoch(3)(record)).toBeUndefined()
    const dropped = dropEpoch(2)(record) as GroupRecord
    for (const change of [dropEpoch(2), holdByName(2, 'late'), holdEpoch(2, 'a', 'p1 x'), goBackTo(1, 2)]) {
      expect(change(dropped)).toBeUndefined()
    }
  })
  test('any kept epoch can be read while it is kept, and goes on to be kept while it is read', () => {
    const record = commits(made(), 3, 2)
    const reading = holdEpoch(2, 'a', 'p1 x')(record) as GroupRecord
    expect(keptImages(commits(reading, 3, 1))).toContain(hashOf(2, 'a'))
  })
  test('an epoch that is read as a whole costs no room while it is kept, and stays when it goes', () => {
    const ids = Array.from({ length: MAX_GROUP_VMS }, (_, i) => `${String.fromCharCode(97 + (i % 26))}${i}`)
    const full = commits(made(ids), 20, 20)
    const reading = holdEpoch(full.lastEpoch, undefined, 'p1 x')(full) as GroupRecord
    expect(recordTextBytes(reading) - recordTextBytes(full)).toBeLessThan(100)
    expect(() => encodeValue(reading)).not.toThrow()
    let record = commit(reading, 20)
    expect(numbers(record)).toHaveLength(numbers(full).length)
    for (let i = 0; i < 20; i++) {
      expect(keptImages(record)).toEqual(expect.arrayContaining(Object.values(full.committed?.images ?? {})))
      expect(() => encodeValue(record)).not.toThrow()
      expect(asStored(record)).toEqual(record)
      record = commit(record, 3)
    }
    const small = commits(made(), 3, 3)
    const dropped = dropEpoch(2)(holdEpoch(2, undefined, 'p1 x')(small) as GroupRecord) as GroupRecord
    expect(numbers(dropped)).toEqual([1, 3])
    expect(keptImages(dropped)).toContain(hashOf(2, 'b'))
  })
  test('a removed group keeps nothing, nor has it a word of what it kept', () => {
    const removed = removeGroup(holdByName(2, 'x')(commits(made(), 3, 2)) as GroupRecord) as GroupRecord
    expect(keptImages(removed)).toEqual([])
    for (const word of ['kept', 'holds', 'held']) expect(removed).not.toHaveProperty(word)
  })
  test('a policy of its own counts from the next commit on, and stays in every generation', () => {
    const record = setRetention(policy(3))(commits(made(), 3, 1)) as GroupRecord
    expect(setRetention(policy(3))(record)).toBeUndefined()
    expect(numbers(record)).toEqual([3])
    const later = commits(takeOver(1, record.owners)(record) as GroupRecord, 4, 1)
    expect(numbers(later)).toEqual([5, 6, 7])
    expect(asStored(later)).toEqual(later)
  })
  test('so many epochs are held as have room in the record beside all else, and a commit always has room', () => {
    const ids = Array.from({ length: MAX_GROUP_VMS }, (_, i) => `${String.fromCharCode(97 + (i % 26))}${i}`)
    let record = made(ids)
    let held = 0
    for (let i = 0; i < MAX_HOLDS + 2; i++) {
      record = commit(record, 64)
      const next = holdByName(record.lastEpoch, 'x')(record)
      if (next !== undefined) held += 1
      record = next ?? record
      expect(recordTextBytes(record)).toBeLessThanOrEqual(MAX_RECORD_TEXT_BYTES + 1_000)
    }
    expect(held).toBeGreaterThan(3)
    expect(held).toBeLessThan(MAX_HOLDS)
    expect(numbers(record).length).toBeGreaterThanOrEqual(held)
    let small = made(['a'])
    for (let i = 0; i < MAX_HOLDS + 2; i++) {
      small = commit(small, 1)
      small = holdByName(small.lastEpoch, 'x')(small) ?? small
    }
    expect(small.holds).toHaveLength(MAX_HOLDS)
    expect(asStored(small)).toEqual(small)
  })
})

describe('a group that goes back', () => {
  test('is of a new generation in which the epoch is the committed one, and what was committed is held', () => {
    const record = commits(made(), 5, 4)
    const back = goBackTo(1, 3)(record) as GroupRecord
    expect(back).toMatchObject({
      generation: 2,
      version: record.version + 1,
      open: null,
      lastEpoch: 5,
      owners: record.owners
    })
    expect(back.committed).toEqual({
      epoch: 3,
      generation: 1,
      previousEpoch: 0,
      images: record.kept?.[1]?.images,
      wallMs: 3
    })
    expect(numbers(back)).toEqual([2, 3, 4, 5])
    expect(back.holds).toEqual([{ epoch: 5, name: BEFORE_RESTORE }])
    expect(asStored(back)).toEqual(back)
    expect(goBackTo(1, 3)(back)).toBeUndefined()
    expect([4, 5].map(epoch => fateOf(back, epoch))).toEqual(['committed', 'committed'])
  })
  test('uses no number again, and can go forth to what it has left', () => {
    const back = goBackTo(1, 2)(commits(made(), 5, 4)) as GroupRecord
    const later = commit(back, 2)
    expect(later.committed).toMatchObject({ epoch: 6, generation: 2, previousEpoch: 2 })
    expect(numbers(later)).toEqual([5, 6])
    const forth = goBackTo(2, 5)(later) as GroupRecord
    expect(forth.committed).toMatchObject({ epoch: 5, generation: 1 })
    expect(forth.holds).toEqual([{ epoch: 6, name: BEFORE_RESTORE }])
  })
  test('does not where there is no room for the hold on what was committed, and never makes what nobody can read', () => {
    let record = commit(made(['a']), 3)
    for (let i = 0; i < MAX_HOLDS; i++) {
      record = holdByName(record.lastEpoch, 'x')(record) as GroupRecord
      record = commit(record, 3)
    }
    expect(record.holds).toHaveLength(MAX_HOLDS)
    expect(goBackTo(1, 1)(record)).toBeUndefined()
    const released = releaseByName(1, 'x')(record) as GroupRecord
    const back = goBackTo(1, 2)(released) as GroupRecord
    expect(asStored(back)).toEqual(back)
    expect(back.holds).toHaveLength(MAX_HOLDS)
    // The hold of the last time makes room for this one.
    expect(goBackTo(2, 3)(back)).toMatchObject({ committed: { epoch: 3 } })
  })
  test('to what is committed anyway is a restore as after a failure, and loses nothing', () => {
    const record = commits(made(), 3, 2)
    expect(goBackTo(1, 3)(record)).toEqual(takeOver(1, record.owners)(record))
  })
})
