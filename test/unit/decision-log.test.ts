/** The decision log as it runs: on a real disk, between peers on a bus, in the time of a clock that stands still. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { whyText } from '../../node/edge/why.ts'
import { openDecisionStore } from '../../node/store/decision-log.ts'
import type { DecisionStore } from '../../protocols/decisions/chronicle.ts'
import type { Fact } from '../../protocols/decisions/facts.ts'
import { MAX_AGO_MS, type Story } from '../../protocols/decisions/merge.ts'
import { DECISIONS_PROTOCOL } from '../../protocols/decisions/messages.ts'
import { ANSWER_MS, MAX_ANSWERS_PER_S } from '../../protocols/decisions/shell.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { DecisionTrace } from '../../protocols/register/trace.ts'
import { DecisionWorld } from './decision-world.ts'
import { aGroup, aVm } from './group-records.ts'

let directory: string

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'diapause-decisions-'))
})
afterEach(async () => {
  await rm(directory, { recursive: true })
})

const about = { group: 'bank', generation: 1 }
const failed = (why: string): Fact => ({ kind: 'vm-failed', ...about, vm: 'vm1', why })
const asked = { group: 'bank', vm: 'vm1', agoMs: MAX_AGO_MS, here: false }
const here = { ...asked, here: true }
const kinds = ({ told }: Story): string[] => told.map(({ by, fact }) => `${by} ${fact.kind}`)
const record = (fields: Partial<GroupRecord>): GroupRecord =>
  aGroup({ id: 'bank', vms: [aVm('vm1'), aVm('vm2')], owners: { vm1: 'p1', vm2: 'p2' }, ...fields })

/** A directory that knows what it was told. */
class Directory {
  readonly #handlers: ((record: GroupRecord) => void)[] = []
  #record: GroupRecord | undefined

  onRecord(handler: (record: GroupRecord) => void): void {
    this.#handlers.push(handler)
  }

  get(): GroupRecord | undefined {
    return this.#record
  }

  learn(fields: Partial<GroupRecord>): void {
    this.#record = record(fields)
    for (const handler of this.#handlers) handler(this.#record)
  }
}

describe('a decision log on a disk', () => {
  it('is there after a restart, in order, and knows that there was one', async () => {
    const world = new DecisionWorld()
    const first = await world.peer('p1', await openDecisionStore(directory, world.log))
    first.note(failed('a'))
    first.note(failed('b'))
    await first.stop()
    world.nowMs += 5_000
    const second = await world.peer('p1', await openDecisionStore(directory, world.log))
    second.note(failed('c'))
    const { told } = await second.why(here)
    expect(told.map(({ seq, atMs, fact }) => [seq, atMs, 'why' in fact && fact.why])).toEqual([
      [2, 1_000_000, 'a'],
      [3, 1_000_000, 'b'],
      [6, 1_005_000, 'c']
    ])
    await second.stop()
    expect(world.warnings).toEqual([])
  })

  it('is written in batches, without anybody waiting for it', async () => {
    const world = new DecisionWorld()
    const batches: number[] = []
    const store: DecisionStore = {
      load: async () => [],
      write: async ({ put }) => void batches.push(put.length),
      close: async () => {}
    }
    const decisions = await world.peer('p1', store)
    for (let i = 0; i < 40; i++) decisions.note(failed(`${i}`))
    expect(batches).toEqual([])
    world.pass(1_000)
    expect(batches).toEqual([41])
    await new Promise(setImmediate)
    const renewed: Fact = {
      kind: 'lease',
      ...about,
      event: 'renewed',
      leftMs: 800,
      granted: [],
      vms: [],
      newer: 0
    }
    decisions.note(renewed)
    world.pass(1_000)
    await new Promise(setImmediate)
    for (let i = 0; i < 49; i++) {
      decisions.note(renewed)
      world.pass(200)
    }
    expect(batches).toEqual([41, 1])
    world.pass(200)
    expect(batches).toEqual([41, 1, 1])
    await decisions.stop()
  })

  it('warns once of a full disk, stays whole in memory, and is written when there is room again', async () => {
    const world = new DecisionWorld()
    let full = true
    const disk = (await openDecisionStore(directory, world.log)) as DecisionStore
    const store: DecisionStore = {
      load: async () => [],
      write: changes => (full ? Promise.reject(new Error('No space left on device')) : disk.write(changes)),
      close: async () => {}
    }
    const decisions = await world.peer('p1', store)
    for (let minute = 0; minute < 5; minute++) {
      decisions.note(failed(`${minute}`))
      world.pass(60_000)
      await new Promise(setImmediate)
    }
    expect(world.warnings).toEqual([expect.stringContaining('cannot be written: it is kept in memory')])
    expect((await decisions.why(here)).told).toHaveLength(5)
    full = false
    world.pass(60_000)
    await decisions.stop()
    expect(world.warnings[1]).toContain('can be written again')
    expect((await disk.load()).filter(({ fact }) => fact.kind === 'vm-failed')).toHaveLength(5)
    await disk.close()
  })

  it('is written in parts where much has piled up, and whole when it stops', async () => {
    const world = new DecisionWorld()
    const batches: number[] = []
    const store: DecisionStore = {
      load: async () => [],
      write: async ({ put }) => void batches.push(put.length),
      close: async () => {}
    }
    const decisions = await world.peer('p1', store)
    for (let i = 0; i < 1_300; i++) decisions.note({ ...failed(`${i}`), group: `g${i % 100}` } as Fact)
    world.pass(1_000)
    await world.turns()
    expect(batches).toEqual([500])
    world.pass(1_000)
    await world.turns()
    expect(batches).toEqual([500, 500])
    await decisions.stop()
    expect(batches).toEqual([500, 500, 302])
  })

  it('is in memory only where the disk or its version cannot be used, and says so', async () => {
    const world = new DecisionWorld()
    const holder = await openDecisionStore(directory, world.log)
    expect(await openDecisionStore(directory, world.log)).toBeUndefined()
    expect(world.warnings).toEqual([expect.stringContaining('cannot be opened: decisions are kept in memory only')])
    await holder?.close()
    const db = new Level(directory)
    await db.put('format', 'diapause decisions 99')
    await db.close()
    expect(await openDecisionStore(directory, world.log)).toBeUndefined()
    const decisions = await world.peer('p1')
    decisions.note(failed('a'))
    world.pass(10_000)
    expect((await decisions.why(here)).told).toHaveLength(1)
    await decisions.stop()
  })

  it('loses entries that are damaged, and no others', async () => {
    const world = new DecisionWorld()
    const first = await world.peer('p1', await openDecisionStore(directory, world.log))
    for (const why of ['a', 'b', 'c']) first.note(failed(why))
    await first.stop()
    const db = new Level(directory)
    const [, , key = ''] = await db.keys({ gte: 'entry/group', lt: 'entry/h' }).all()
    await db.put(key, '{"seq":"torn')
    await db.close()
    const second = await world.peer('p1', await openDecisionStore(directory, world.log))
    expect((await second.why(here)).told.map(({ fact }) => 'why' in fact && fact.why)).toEqual(['a', 'b'])
    expect(world.warnings).toEqual(['entries of the decision log cannot be read and are dropped'])
    await second.stop()
  })
})

describe('what is noted of what others tell', () => {
  it('is each generation once, with who lost which VM by it', async () => {
    const world = new DecisionWorld()
    const [decisions, directory_] = [await world.peer('p1'), new Directory()]
    decisions.follow(directory_)
    directory_.learn({})
    directory_.learn({ version: 2, lastEpoch: 1 })
    const committed = { epoch: 7, generation: 1, previousEpoch: 0, images: {} }
    directory_.learn({ version: 9, generation: 2, owners: { vm1: 'p3', vm2: 'p2' }, committed })
    const { told, record: standing } = await decisions.why(here)
    expect(told.map(({ fact }) => fact).filter(fact => fact.kind === 'generation')).toMatchObject([
      { generation: 1, epoch: 0, displaced: {}, how: 'made' },
      { generation: 2, epoch: 7, displaced: { vm1: 'p1' }, how: 'changed' }
    ])
    expect(standing).toEqual({ owner: 'p3', generation: 2, epoch: 7, removed: false })
    directory_.learn({ version: 10, generation: 3, removed: true })
    directory_.learn({ version: 11, generation: 4 })
    expect((await decisions.why(here)).told.map(({ fact }) => fact).slice(-2)).toMatchObject([
      { generation: 3, how: 'removed', displaced: {} },
      { generation: 4, how: 'made', displaced: {} }
    ])
  })

  it('is a generation that was there before this peer heard of the group, which is no change', async () => {
    const world = new DecisionWorld()
    const [decisions, directory_] = [await world.peer('p1'), new Directory()]
    decisions.follow(directory_)
    directory_.learn({ version: 40, generation: 6 })
    const story = await decisions.why(here)
    expect(story.told.at(-1)?.fact).toMatchObject({ generation: 6, how: 'heard', displaced: {} })
    expect(whyText(story)).toContain('Not moved: nothing has happened that could move it.')
    // However much is noted since then, it is not told again.
    for (let i = 0; i < 300; i++) decisions.note(failed(`${i}`))
    directory_.learn({ version: 41, generation: 6 })
    expect((await decisions.why(here)).told.every(({ fact }) => fact.kind !== 'generation')).toBe(true)
  })

  it('are the votes on changes of owners, and of nothing else', async () => {
    const world = new DecisionWorld()
    const [decisions, directory_] = [await world.peer('p1'), new Directory()]
    decisions.follow(directory_)
    directory_.learn({})
    const trace: DecisionTrace = {
      key: 'group/bank',
      kind: 'change',
      outcome: 'chosen',
      version: 1,
      ballot: { counter: 10_041, peer: 'p1' },
      phase: 'accept',
      votes: { p1: 'accepted', p2: 'leased' },
      leaseMs: { p2: 310 },
      retryMs: undefined,
      generation: 1,
      rounds: 1,
      tookMs: 12
    }
    decisions.noteBallot(trace) // an epoch
    decisions.noteBallot({ ...trace, key: 'cluster', outcome: 'leased' })
    decisions.noteBallot({ ...trace, kind: 'read', generation: 2 })
    expect(kinds(await decisions.why(here))).toEqual(['p1 peer-started', 'p1 generation'])
    decisions.noteBallot({ ...trace, outcome: 'leased' })
    expect((await decisions.why(here)).told.at(-1)?.fact).toEqual({
      kind: 'ballot',
      group: 'bank',
      counter: 10_041,
      outcome: 'leased',
      rounds: 1,
      tookMs: 12,
      votes: [
        { peer: 'p1', vote: 'accepted' },
        { peer: 'p2', vote: 'leased', leaseMs: 310 },
        { peer: 'p3', vote: 'silent' }
      ]
    })
    decisions.note({ kind: 'plan', ...about, owners: {}, moves: [] })
    decisions.noteBallot({ ...trace, outcome: 'unavailable', ballot: undefined, votes: {}, generation: undefined })
    expect((await decisions.why(here)).told.at(-1)?.fact).toMatchObject({ outcome: 'unavailable', votes: [] })
  })

  it('is what became of VMs and of leases, with the VMs that a lease is for', async () => {
    const world = new DecisionWorld()
    const [decisions, directory_] = [await world.peer('p1'), new Directory()]
    decisions.follow(directory_)
    directory_.learn({})
    const vm = { group: 'bank', vm: 'vm1', generation: 1 }
    decisions.noteReport('vm.started', { ...vm, atMs: 5 })
    decisions.noteReport('vm.resumed', { ...vm, vm: 'vm2', epoch: 3, spawnToRunMs: 80 })
    decisions.noteReport('vm.failed', { ...vm, reason: 'x'.repeat(5_000) })
    decisions.noteReport('epoch.committed', { group: 'bank', epoch: 3 })
    const lease = { key: 'group/bank', generation: 1, remainingMs: 95, grantedBy: ['p1'], version: 1 }
    decisions.noteLease({ ...lease, kind: 'lapsing', newer: undefined })
    decisions.noteLease({ ...lease, key: 'cluster', kind: 'lapsing', newer: undefined })
    const { told } = await decisions.why(here)
    decisions.noteReport('vm.started', { vm: 'vm1' }) // of no group: a mistake, which costs nothing but itself
    expect(world.warnings).toEqual(['a fact for the decision log is not sound'])
    expect(told.slice(2).map(({ fact }) => fact)).toMatchObject([
      { kind: 'vm', vm: 'vm1', event: 'booted' },
      { kind: 'vm-failed', vm: 'vm1' },
      { kind: 'lease', event: 'lapsing', leftMs: 95, vms: ['vm1'] }
    ])
  })
})

describe('the story of a VM, asked of all peers', () => {
  it('has what each of them noted, and what they noted of the members that owned its group', async () => {
    const world = new DecisionWorld()
    const [p1, p2] = [await world.peer('p1'), await world.peer('p2')]
    world.leave('p3', 'gone')
    const directory_ = new Directory()
    p2.follow(directory_)
    directory_.learn({})
    world.nowMs += 10
    p1.note(failed('at p1'))
    world.nowMs += 10
    p2.note({ kind: 'suspected', peer: 'p1', by: 'p2', why: 'no ack', deadInMs: 400 })
    p2.note({ kind: 'suspected', peer: 'p9', by: 'p2', why: 'no ack', deadInMs: 400 })
    p2.note({ ...failed('of another group'), group: 'other' } as Fact)
    const story = await p1.why(asked)
    expect(kinds(story)).toEqual(['p2 peer-started', 'p2 generation', 'p1 vm-failed', 'p2 suspected'])
    expect(story).toMatchObject({
      by: 'p1',
      names: { p1: 'host-p1' },
      record: null,
      tellers: [{ peer: 'p1' }, { peer: 'p2', aheadMs: 0 }],
      silent: [{ peer: 'p3', why: 'not connected' }]
    })
    expect(kinds(await p1.why(here))).toEqual(['p1 vm-failed'])
  })

  it('does not wait for a peer that is silent, and names it', async () => {
    const world = new DecisionWorld()
    const p1 = await world.peer('p1')
    await world.peer('p2')
    world.leave('p3', 'silent')
    world.leave('p2', 'gone')
    p1.note(failed('x'))
    const story = p1.why(asked)
    await world.turns()
    world.pass(ANSWER_MS)
    expect((await story).silent).toEqual([
      { peer: 'p2', why: 'not connected' },
      { peer: 'p3', why: 'no answer within 2 s' }
    ])
  })

  it('takes from an answer only what is about the group, and no second answer', async () => {
    const world = new DecisionWorld()
    const p1 = await world.peer('p1')
    world.leave('p3', 'gone')
    const bus = world.bus('p2')
    const other = { seq: 1, atMs: 1, lastAtMs: 1, times: 1, fact: { ...failed('x'), group: 'other' } }
    bus.on(
      DECISIONS_PROTOCOL,
      message => message as { id: number },
      (from, { id }) => {
        const answer = { kind: 'answer', id, nowMs: world.nowMs, left: 0 }
        bus.send(from, DECISIONS_PROTOCOL, { ...answer, entries: [other, { ...other, fact: failed('y') }] })
        bus.send(from, DECISIONS_PROTOCOL, { ...answer, entries: [{ ...other, fact: failed('z') }] })
      }
    )
    p1.note(failed('x'))
    expect(kinds(await p1.why(asked))).toEqual(['p2 vm-failed', 'p1 vm-failed'])
  })

  it('shows by our clock what a peer tells whose clock is wrong', async () => {
    const world = new DecisionWorld()
    const [p1, p2] = [await world.peer('p1'), await world.peer('p2', undefined, 3_600_000)]
    world.leave('p3', 'gone')
    p1.note(failed('first'))
    world.nowMs += 10
    p2.note(failed('second'))
    const { told, tellers } = await p1.why(asked)
    expect(told.map(({ atMs }) => atMs)).toEqual([1_000_000, 1_000_010])
    expect(tellers[1]).toEqual({ peer: 'p2', left: 0, aheadMs: 3_600_000 })
  })

  it('refuses a group or a VM that nobody has heard of', async () => {
    const world = new DecisionWorld()
    const [p1, directory_] = [await world.peer('p1'), new Directory()]
    p1.follow(directory_)
    const code = (question: typeof asked) => p1.why(question).catch((error: { code: string }) => error.code)
    expect(await code(here)).toBe('GROUP_UNKNOWN')
    directory_.learn({})
    expect(await code({ ...here, vm: 'vm3' })).toBe('VM_UNKNOWN')
    expect(await p1.why(here)).toMatchObject({ vm: 'vm1' })
  })

  it('is told to others so many times a second and no more', async () => {
    const world = new DecisionWorld()
    const [p1] = [await world.peer('p1'), await world.peer('p2')]
    world.leave('p3', 'gone')
    p1.note(failed('x'))
    const stories = Array.from({ length: MAX_ANSWERS_PER_S + 5 }, () => p1.why(asked))
    await world.turns()
    world.pass(ANSWER_MS)
    const answered = (await Promise.all(stories)).filter(({ tellers }) => tellers.length === 2)
    expect(answered).toHaveLength(MAX_ANSWERS_PER_S)
  })
})
