import { describe, expect, test } from 'vitest'
import { EpochCore, type EpochEffect, PREPARED_PATIENCE_MS, STAND_IN_MS } from '../../protocols/epoch/core.ts'
import { abortEpoch, commitEpoch, createGroup, openEpoch, takeOver } from '../../protocols/epoch/record.ts'
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
    expect(peer.step({ kind: 'message', from: 'p2', message: about }, 60)).toEqual([
      { kind: 'cut', vm: 'a', epoch: 1, hurry: false }
    ])
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
    expect(peer.step({ kind: 'timer' }, 1_235)).toContainEqual({ kind: 'cut', vm: 'a', epoch: 4, hurry: false })
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
    expect(peer.step({ kind: 'marker', vm: 'a', epoch: 2 }, 6)).toEqual([
      { kind: 'cut', vm: 'a', epoch: 2, hurry: true }
    ])
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
  const copying = { kind: 'copying' as const, group: 'g', generation: 1, epoch: 1, vm: 'b' }
  test('a VM that is prepared waits as long as the owner of another one says that its copying gets on', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: openEpoch('p1', 60_000, made.version)(made) as GroupRecord }, 1)
    peer.step({ kind: 'vm-prepared', vm: 'a', epoch: 1 }, 50)
    for (let nowMs = 1_000; nowMs <= 25_000; nowMs += 4_000) {
      peer.step({ kind: 'message', from: 'p2', message: copying }, nowMs)
      const effects = peer.step({ kind: 'timer' }, nowMs + 3_999)
      expect(kinds(effects)).not.toContain('cut')
      expect(kinds(effects)).not.toContain('abort')
    }
    const prepared = { ...copying, kind: 'prepared' as const }
    expect(kinds(peer.step({ kind: 'message', from: 'p2', message: prepared }, 30_000))).toEqual(['cut'])
  })
  test('where the owner of a VM that is not prepared is silent, the epoch fails, and nobody is cut', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    peer.step({ kind: 'vm-prepared', vm: 'a', epoch: 1 }, 50)
    peer.step({ kind: 'message', from: 'p2', message: copying }, 1_000)
    const atMs = 1_000 + PREPARED_PATIENCE_MS
    expect(peer.step({ kind: 'timer' }, atMs - 1)).toContainEqual({ kind: 'timer', atMs })
    const effects = peer.step({ kind: 'timer' }, atMs)
    expect(kinds(effects)).not.toContain('cut')
    const reason = expect.stringContaining('nothing was heard of b')
    expect(effects).toContainEqual({ kind: 'broadcast', message: { ...copying, kind: 'failed', vm: 'a', reason } })
    expect(kinds(effects)).toContain('abort')
  })
  test('an owner says that its VM is being copied, of an epoch that is not decided', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    const said = { kind: 'broadcast', message: { ...copying, vm: 'a' } }
    expect(peer.step({ kind: 'vm-copying', vm: 'a', epoch: 1 }, 2)).toEqual([said])
    peer.step({ kind: 'record', record: abortEpoch(1, 1)(opened) as GroupRecord }, 3)
    expect(peer.step({ kind: 'vm-copying', vm: 'a', epoch: 1 }, 4)).toEqual([])
  })
  test('that a VM was cut tells a peer which missed it that all are prepared', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    peer.step({ kind: 'vm-prepared', vm: 'a', epoch: 1 }, 50)
    const effects = peer.step({ kind: 'message', from: 'p2', message: cutOf('b', 1, times) }, 60)
    expect(effects).toContainEqual({ kind: 'cut', vm: 'a', epoch: 1, hurry: false })
  })
  test('a frame of the new colour hurries a VM that has been told to cut', () => {
    const peer = core('p1', { a: 0 })
    peer.step({ kind: 'record', record: opened }, 1)
    peer.step({ kind: 'vm-prepared', vm: 'a', epoch: 1 }, 50)
    peer.step({ kind: 'message', from: 'p2', message: { ...copying, kind: 'prepared' } }, 60)
    const hurried = { kind: 'cut', vm: 'a', epoch: 1, hurry: true }
    expect(peer.step({ kind: 'marker', vm: 'a', epoch: 1 }, 61)).toEqual([hurried])
    expect(peer.step({ kind: 'marker', vm: 'a', epoch: 1 }, 62)).toEqual([])
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
  test('a frame of an epoch that was opened and aborted unseen lets its colour be taken when the record tells of it', () => {
    const owner = core('p1', { a: 0 })
    owner.step({ kind: 'record', record: opened }, 0)
    owner.step({ kind: 'cut-done', vm: 'a', epoch: 1, counts: {}, atWallMs: 1, ...times }, 1)
    const first = abortEpoch(1, 1)(opened) as GroupRecord
    const next = openEpoch('p2', 10_000, first.version)(first) as GroupRecord
    const second = abortEpoch(1, 2)(next) as GroupRecord
    expect(owner.step({ kind: 'marker', vm: 'a', epoch: 2 }, 5)).toEqual([{ kind: 'refresh' }])
    const voided = owner.step({ kind: 'record', record: second }, 6).filter(({ kind }) => kind === 'voided')
    expect(voided).toMatchObject([{ epoch: 1 }, { epoch: 2 }])
    expect(kinds(owner.step({ kind: 'record', record: { ...second, version: second.version + 1 } }, 7))).toEqual([])
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
