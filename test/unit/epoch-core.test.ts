import { describe, expect, test } from 'vitest'
import { EpochCore, type EpochEffect, PREPARED_PATIENCE_MS, STAND_IN_MS } from '../../protocols/epoch/core.ts'
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
const stats = {
  pages: 1,
  pagesNonZero: 1,
  pagesChanged: 1,
  bytesRaw: 1,
  bytesData: 1,
  bytesStored: 1,
  inFlightFrames: 0
}

const made = createGroup('g', [vm('a'), vm('b')], owners)(null) as GroupRecord
const opened = openEpoch('p1', 10_000, made.version)(made) as GroupRecord

function core(self: string, ready: Record<string, number> = {}): EpochCore {
  const made_ = new EpochCore({ self, members: () => ['p1', 'p2', 'p3'] })
  made_.step({ kind: 'record', record: made }, 0)
  for (const [id, colour] of Object.entries(ready)) made_.step({ kind: 'vm-ready', vm: id, colour }, 0)
  return made_
}
const kinds = (effects: EpochEffect[]) => effects.map(effect => effect.kind)
const durable = (id: string, epoch = 1) => ({
  kind: 'durable' as const,
  group: 'g',
  generation: 1,
  epoch,
  vm: id,
  manifest: hash(id === 'a' ? '1' : '2'),
  stats
})
const times = { prepareMs: 50, leadMs: 10 }
const cutOf = (id: string, epoch: number, took: { prepareMs: number; leadMs: number }) => ({
  kind: 'cut' as const,
  group: 'g',
  generation: 1,
  epoch,
  vm: id,
  counts: {},
  atWallMs: 1,
  ...took
})

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

describe('the epoch core', () => {
  test('the record that opens an epoch is the marker: every VM here that can be cut is prepared', () => {
    expect(kinds(core('p1', { a: 0 }).step({ kind: 'record', record: opened }, 1))).toContain('prepare')
    expect(kinds(core('p3').step({ kind: 'record', record: opened }, 1))).not.toContain('prepare')
  })
  test('VMs are cut when all of the group are prepared, each once', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    const own = peer.step({ kind: 'vm-prepared', vm: 'a', epoch: 1 }, 50)
    expect(kinds(own)).toEqual(['broadcast', 'timer'])
    const about = { kind: 'prepared' as const, group: 'g', generation: 1, epoch: 1, vm: 'b' }
    expect(peer.step({ kind: 'message', from: 'p2', message: about }, 60)).toEqual([{ kind: 'cut', vm: 'a', epoch: 1 }])
    expect(peer.step({ kind: 'message', from: 'p2', message: about }, 61)).toEqual([])
  })
  /** A peer that knows how long its VM a and the VM b of p2 take, with an epoch 4 that has just been opened at 1,000. */
  function experienced(a: { prepareMs: number; leadMs: number }, b: { prepareMs: number; leadMs: number }) {
    const peer = core('p1', { a: 0 })
    let record = made
    for (let epoch = 1; epoch <= 3; epoch++) {
      record = openEpoch('p2', 100_000, record.version)(record) as GroupRecord
      peer.step({ kind: 'record', record }, 0)
      peer.step({ kind: 'marker', vm: 'a', epoch }, 0)
      peer.step({ kind: 'cut-done', vm: 'a', epoch, counts: {}, atWallMs: 1, ...a }, 0)
      peer.step({ kind: 'message', from: 'p2', message: cutOf('b', epoch, b) }, 0)
      record = commitEpoch(1, epoch, { a: hash('1'), b: hash('2') })(record) as GroupRecord
      peer.step({ kind: 'record', record }, 0)
    }
    record = openEpoch('p2', 100_000, record.version)(record) as GroupRecord
    return { peer, record, begun: peer.step({ kind: 'record', record }, 1_000) }
  }
  test('a VM that prepares fast begins later, when it will still not be the last', () => {
    const { peer, begun } = experienced({ prepareMs: 100, leadMs: 10 }, { prepareMs: 900, leadMs: 10 })
    expect(kinds(begun)).not.toContain('prepare')
    expect(begun).toContainEqual({ kind: 'timer', atMs: 1_800 })
    expect(kinds(peer.step({ kind: 'timer' }, 1_799))).not.toContain('prepare')
    expect(peer.step({ kind: 'timer' }, 1_800)).toContainEqual({ kind: 'prepare', vm: 'a', epoch: 4 })
  })
  test('a VM that prepares slowly begins at once, and so does every VM of a group that was restored', () => {
    const slow = { prepareMs: 900, leadMs: 10 }
    expect(kinds(experienced(slow, times).begun)).toContain('prepare')
    const { peer, record } = experienced(times, slow)
    const taken = takeOver(1, owners)(record) as GroupRecord
    peer.step({ kind: 'record', record: taken }, 2_000)
    peer.step({ kind: 'vm-ready', vm: 'a', colour: 3 }, 2_000)
    const again = openEpoch('p2', 100_000, taken.version)(taken) as GroupRecord
    expect(kinds(peer.step({ kind: 'record', record: again }, 3_000))).toContain('prepare')
  })
  test('of VMs that are all prepared the one with the shorter lead is cut later by the difference', () => {
    const { peer } = experienced({ prepareMs: 50, leadMs: 10 }, { prepareMs: 50, leadMs: 45 })
    peer.step({ kind: 'vm-prepared', vm: 'a', epoch: 4 }, 1_100)
    const about = { kind: 'prepared' as const, group: 'g', generation: 1, epoch: 4, vm: 'b' }
    expect(peer.step({ kind: 'message', from: 'p2', message: about }, 1_200)).toEqual([{ kind: 'timer', atMs: 1_235 }])
    expect(peer.step({ kind: 'timer' }, 1_235)).toContainEqual({ kind: 'cut', vm: 'a', epoch: 4 })
  })
  test('a frame of the new colour cuts a VM whose time has not come', () => {
    const { peer } = experienced(times, { prepareMs: 900, leadMs: 10 })
    expect(kinds(peer.step({ kind: 'marker', vm: 'a', epoch: 4 }, 1_010))).toEqual(['prepare', 'cut'])
  })
  test('news of a cut that has come to nothing does not end the next one, which is under way', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    peer.step({ kind: 'marker', vm: 'a', epoch: 1 }, 2)
    peer.step({ kind: 'cut-done', vm: 'a', epoch: 1, counts: {}, atWallMs: 1, ...times }, 3)
    const aborted = abortEpoch(1, 1)(opened) as GroupRecord
    const next = openEpoch('p2', 10_000, aborted.version)(aborted) as GroupRecord
    expect(peer.step({ kind: 'record', record: next }, 4)).toContainEqual({ kind: 'prepare', vm: 'a', epoch: 2 })
    peer.step({ kind: 'vm-failed', vm: 'a', epoch: 1, reason: 'its capture was cancelled' }, 5)
    // The VM is not prepared a second time, which would wait for the first for ever.
    expect(peer.step({ kind: 'marker', vm: 'a', epoch: 2 }, 6)).toEqual([{ kind: 'cut', vm: 'a', epoch: 2 }])
  })
  test('a cut that ends late, because its epoch came to nothing, lets the VM be prepared for the epoch that is open by then', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    const aborted = abortEpoch(1, 1)(opened) as GroupRecord
    const next = openEpoch('p2', 10_000, aborted.version)(aborted) as GroupRecord
    expect(kinds(peer.step({ kind: 'record', record: next }, 4))).not.toContain('prepare')
    const late = peer.step({ kind: 'vm-failed', vm: 'a', epoch: 1, reason: 'its capture was cancelled' }, 5)
    expect(late).toContainEqual({ kind: 'prepare', vm: 'a', epoch: 2 })
  })
  test('a VM that is prepared waits for the others no longer than its patience', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    peer.step({ kind: 'vm-prepared', vm: 'a', epoch: 1 }, 50)
    expect(kinds(peer.step({ kind: 'timer' }, 49 + PREPARED_PATIENCE_MS))).not.toContain('cut')
    expect(kinds(peer.step({ kind: 'timer' }, 50 + PREPARED_PATIENCE_MS))).toContain('cut')
  })
  test('a VM that is still being restored is excused at once: the epoch fails now and not at its deadline', () => {
    const late = core('p1')
    const effects = late.step({ kind: 'record', record: opened }, 1)
    expect(effects).toContainEqual(
      expect.objectContaining({ kind: 'broadcast', message: expect.objectContaining({ kind: 'failed', vm: 'a' }) })
    )
    expect(kinds(effects)).toContain('abort')
    expect(late.step({ kind: 'vm-ready', vm: 'a', colour: 0 }, 5)).toEqual([])
  })
  test('what became of an epoch is learned also when reports of the next one come before its record', () => {
    const owner = core('p1', { a: 0 })
    owner.step({ kind: 'record', record: opened }, 0)
    owner.step({ kind: 'cut-done', vm: 'a', epoch: 1, counts: {}, atWallMs: 1, ...times }, 1)
    const images = { a: hash('1'), b: hash('2') }
    const committed = commitEpoch(1, 1, images)(opened) as GroupRecord
    const next = openEpoch('p2', 10_000, committed.version)(committed) as GroupRecord
    expect(owner.step({ kind: 'marker', vm: 'a', epoch: 2 }, 5)).toEqual([{ kind: 'refresh' }])
    owner.step({ kind: 'message', from: 'p2', message: durable('b', 2) }, 6)
    const effects = kinds(owner.step({ kind: 'record', record: next }, 7))
    expect(effects.slice(0, 3)).toEqual(['committed', 'opened', 'prepare'])
  })
  test('a peer that missed the record of a commit learns it from the one after the next commit', () => {
    const watcher = core('p3')
    watcher.step({ kind: 'record', record: opened }, 0)
    const images = { a: hash('1'), b: hash('2') }
    const first = commitEpoch(1, 1, images)(opened) as GroupRecord
    const again = openEpoch('p2', 10_000, first.version)(first) as GroupRecord
    const second = commitEpoch(1, 2, images)(again) as GroupRecord
    expect(kinds(watcher.step({ kind: 'record', record: second }, 9))).toEqual(['committed'])
  })
  test('of an epoch that two missed commits lie behind nothing is reported: the record does not tell what became of it', () => {
    const watcher = core('p3')
    watcher.step({ kind: 'record', record: opened }, 0)
    let record = opened
    for (let epoch = 1; epoch <= 3; epoch++) {
      if (epoch > 1) record = openEpoch('p2', 10_000, record.version)(record) as GroupRecord
      record = commitEpoch(1, epoch, { a: hash('1'), b: hash('2') })(record) as GroupRecord
    }
    expect(watcher.step({ kind: 'record', record }, 9)).toEqual([])
    const next = openEpoch('p2', 10_000, record.version)(record) as GroupRecord
    expect(kinds(watcher.step({ kind: 'record', record: next }, 10))).toEqual(['opened', 'timer'])
  })
  test('what became of an epoch is reported once, however late a frame of its colour or a VM of ours comes', () => {
    const late = core('p1', { a: 0 })
    const aborted = abortEpoch(1, 1)(opened) as GroupRecord
    late.step({ kind: 'record', record: opened }, 1)
    expect(late.step({ kind: 'record', record: aborted }, 2)).toMatchObject([
      { kind: 'voided', reason: expect.stringContaining('deadline') }
    ])
    for (const nowMs of [3, 4]) {
      const voided = { kind: 'voided', epoch: 1, reason: undefined }
      expect(late.step({ kind: 'marker', vm: 'a', epoch: 1 }, nowMs)).toEqual([voided])
    }
    expect(late.step({ kind: 'vm-prepared', vm: 'a', epoch: 1 }, 5)).toEqual([])
    const next = openEpoch('p2', 10_000, aborted.version)(aborted) as GroupRecord
    expect(kinds(late.step({ kind: 'record', record: next }, 6))).not.toContain('voided')
    const behind = core('p1', { a: 0 })
    behind.step({ kind: 'record', record: aborted }, 1)
    expect(behind.step({ kind: 'marker', vm: 'a', epoch: 1 }, 2)).toMatchObject([
      { reason: expect.stringContaining('aborted before') }
    ])
    expect(behind.step({ kind: 'marker', vm: 'a', epoch: 1 }, 3)).toMatchObject([{ reason: undefined }])
  })
  test('a frame of a newer colour cuts its receiver before the record has come, and the record does not cut it again (Lai, Yang 1987)', () => {
    const early = core('p1', { a: 0 })
    expect(kinds(early.step({ kind: 'marker', vm: 'a', epoch: 1 }, 1))).toEqual(['prepare', 'cut'])
    expect(early.step({ kind: 'marker', vm: 'a', epoch: 1 }, 2)).toEqual([])
    early.step({ kind: 'cut-done', vm: 'a', epoch: 1, counts: { b: 3 }, atWallMs: 9, ...times }, 3)
    expect(kinds(early.step({ kind: 'record', record: opened }, 4))).not.toContain('prepare')
  })
  test('a frame of an aborted colour gives the colour without a cut', () => {
    const behind = core('p1', { a: 0 })
    const aborted = abortEpoch(1, 1)(opened) as GroupRecord
    behind.step({ kind: 'record', record: aborted }, 1)
    expect(kinds(behind.step({ kind: 'marker', vm: 'a', epoch: 1 }, 2))).toEqual(['voided'])
  })
  test('the proposer commits at once when every image is durable, the others stand in by rank', () => {
    const proposer = core('p1', { a: 0 })
    const other = core('p2', { b: 0 })
    for (const peer of [proposer, other]) {
      peer.step({ kind: 'record', record: opened }, 0)
      peer.step({ kind: 'message', from: 'p2', message: durable('b') }, 50)
    }
    expect(proposer.step({ kind: 'message', from: 'p1', message: durable('a') }, 60)[0]).toEqual({
      kind: 'commit',
      generation: 1,
      epoch: 1,
      images: { a: hash('1'), b: hash('2') }
    })
    expect(kinds(other.step({ kind: 'message', from: 'p1', message: durable('a') }, 60))).toEqual(['timer'])
    expect(kinds(other.step({ kind: 'timer' }, 60 + 2 * STAND_IN_MS))).toContain('commit')
  })
  test('a change that came to nothing is tried again', () => {
    const proposer = core('p1', { a: 0 })
    proposer.step({ kind: 'record', record: opened }, 0)
    proposer.step({ kind: 'message', from: 'p1', message: durable('a') }, 1)
    const [first, again] = proposer.step({ kind: 'message', from: 'p2', message: durable('b') }, 2)
    expect(first?.kind).toBe('commit')
    expect(again?.kind === 'timer' && kinds(proposer.step({ kind: 'timer' }, again.atMs))).toContain('commit')
  })
  test('past the deadline the proposer aborts first and names the VM that is missing', () => {
    const proposer = core('p1', { a: 0 })
    proposer.step({ kind: 'record', record: opened }, 0)
    proposer.step({ kind: 'message', from: 'p1', message: durable('a') }, 1)
    expect(kinds(proposer.step({ kind: 'timer' }, 9_999))).toEqual(['timer'])
    const [abort] = proposer.step({ kind: 'timer' }, 10_000)
    expect(abort).toMatchObject({ kind: 'abort', epoch: 1, reason: expect.stringContaining('b not durable') })
  })
  test('a failure reported by an owner aborts at once instead of at the deadline', () => {
    const proposer = core('p1', { a: 0 })
    proposer.step({ kind: 'record', record: opened }, 0)
    const message = { kind: 'failed' as const, group: 'g', generation: 1, epoch: 1, vm: 'b', reason: 'disk full' }
    expect(proposer.step({ kind: 'message', from: 'p2', message }, 5)[0]).toMatchObject({
      kind: 'abort',
      reason: 'b: disk full'
    })
  })
  test('reports of an older generation are ignored', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: takeOver(1, owners)(opened) as GroupRecord }, 1)
    expect(peer.step({ kind: 'message', from: 'p2', message: durable('b') }, 2)).toEqual([])
  })
  test('a report of a VM by a peer that does not own it is ignored: what it names may be nowhere', () => {
    const proposer = core('p1', { a: 0 })
    proposer.step({ kind: 'record', record: opened }, 0)
    proposer.step({ kind: 'message', from: 'p1', message: durable('a') }, 1)
    const failed = { kind: 'failed' as const, group: 'g', generation: 1, epoch: 1, vm: 'b', reason: 'so it says' }
    for (const message of [durable('b'), failed, cutOf('b', 1, times), { ...durable('c'), vm: 'c' }]) {
      expect(proposer.step({ kind: 'message', from: 'p3', message }, 2)).toEqual([])
    }
    expect(kinds(proposer.step({ kind: 'message', from: 'p2', message: durable('b') }, 3))).toContain('commit')
  })
  test('a takeover in the middle voids the epoch and forgets which VMs could be cut', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    const taken = takeOver(1, owners)(opened) as GroupRecord
    expect(kinds(peer.step({ kind: 'record', record: taken }, 2))).toEqual(['voided'])
    const again = openEpoch('p1', 1_000, taken.version)(taken) as GroupRecord
    expect(kinds(peer.step({ kind: 'record', record: again }, 3))).not.toContain('prepare')
  })
  test('a committed epoch reports its duration and the skew between the cuts', () => {
    const peer = core('p3')
    peer.step({ kind: 'record', record: opened }, 100)
    for (const [id, atWallMs] of [
      ['a', 1_000],
      ['b', 1_004.5]
    ] as const) {
      const message = { ...cutOf(id, 1, times), atWallMs }
      expect(peer.step({ kind: 'message', from: owners[id], message }, 110)[0]).toMatchObject({
        kind: 'expect',
        sender: id
      })
    }
    const committed = commitEpoch(1, 1, { a: hash('1'), b: hash('2') })(opened) as GroupRecord
    const effects = peer.step({ kind: 'record', record: committed }, 350)
    expect(effects).toEqual([{ kind: 'committed', epoch: 1, commitMs: 250, skewMs: 4.5 }])
  })
  test('an older record changes nothing', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    expect(peer.step({ kind: 'record', record: made }, 2)).toEqual([])
    expect(peer.record?.version).toBe(opened.version)
  })
})
