import { describe, expect, test } from 'vitest'
import { Acceptor, type AcceptorEffect, type LeaseGuard } from '../../protocols/register/acceptor.ts'
import { Collector } from '../../protocols/register/collector.ts'
import {
  type Accepted,
  type AcceptorMessage,
  type Ballot,
  type ProposerMessage,
  ZERO_BALLOT
} from '../../protocols/register/messages.ts'
import { Proposer, type ProposerEffect, type ProposerInput } from '../../protocols/register/proposer.ts'
import { DELETED } from '../../protocols/register/request.ts'
import { encodeValue, TOMBSTONE } from '../../protocols/register/value.ts'
import { firstVoters } from '../../protocols/register/voters.ts'

const KEY = 'group/a'
const VOTERS = ['v1', 'v2', 'v3']
const ballot = (counter: number, peer = 'p'): Ballot => ({ counter, peer })
const accepted = (counter: number, value: Uint8Array, generation = 0): Accepted => ({
  ballot: ballot(counter),
  value,
  generation,
  fence: []
})
const value = (counter: number, generation = 0): Accepted => accepted(counter, encodeValue('x'), generation)
const tombstone = (counter: number, generation = 0): Accepted => accepted(counter, TOMBSTONE, generation)

describe('an acceptor', () => {
  const make = (forgotten = ZERO_BALLOT) => {
    const told: (number | null)[] = []
    const guard: LeaseGuard = {
      remember: () => 0,
      open: () => {},
      adopted: () => {},
      blockedForMs: () => 0,
      accepted: (_key, generation) => told.push(generation)
    }
    const voters = firstVoters(VOTERS)
    const acceptor = new Acceptor({ self: 'v1', voters, records: new Map(), forgotten, guard })
    const ask = (message: ProposerMessage): AcceptorEffect[] => {
      const from = message.kind === 'prepare' ? message.ballot.peer : 'p'
      return acceptor.step({ kind: 'message', from, message }, 0)
    }
    const accept = (what: Accepted, promise = what.ballot): string => {
      const answers = ask({ kind: 'accept', version: 1, key: KEY, accepted: what, promise })
      return answers.map(each => (each.kind === 'send' ? each.message.kind : each.kind)).join(' ')
    }
    const prepare = (at: Ballot, key = KEY): AcceptorEffect[] => ask({ kind: 'prepare', version: 1, key, ballot: at })
    const forget = (counter: number): AcceptorEffect[] =>
      ask({ kind: 'forget', version: 1, key: KEY, ballot: ballot(counter) })
    return { acceptor, accept, prepare, forget, told }
  }

  test('forgets a tombstone and keeps its ballot, below which it takes nothing any more', () => {
    const { acceptor, accept, prepare, forget, told } = make()
    accept(value(3, 4))
    accept(tombstone(7, 5))
    expect(told).toEqual([4, null])
    expect(forget(7)).toEqual([
      { kind: 'forget', promise: ballot(7) },
      { kind: 'erase', keys: [KEY] }
    ])
    expect(acceptor.knows(KEY)).toBe(false)
    // An accept that was sent before the deletion, and the tombstone itself, come late.
    expect(accept(value(3))).toBe('conflict')
    expect(accept(tombstone(7))).toBe('conflict')
    expect(prepare(ballot(6))).toMatchObject([{ message: { kind: 'conflict', seen: ballot(7) } }])
    expect(prepare(ballot(7, 'q'))).toMatchObject([
      { kind: 'persist' },
      { message: { kind: 'promised', accepted: null } }
    ])
    expect(accept(value(8))).toBe('persist accepted')
  })

  test('forgets nothing that has a value, another ballot, or a promise to somebody since', () => {
    const alive = make()
    alive.accept(value(7))
    expect(alive.forget(7)).toEqual([])
    const other = make()
    other.accept(tombstone(8))
    expect(other.forget(7)).toEqual([])
    const promised = make()
    promised.accept(tombstone(7))
    promised.prepare(ballot(9))
    expect(promised.forget(7)).toEqual([])
    const unknown = make()
    expect(unknown.forget(7)).toEqual([])
    expect([alive, other, promised].map(({ acceptor }) => acceptor.knows(KEY))).toEqual([true, true, true])
  })

  test('remembers after a restart what it forgot, for every register that it does not know', () => {
    const { prepare, accept } = make(ballot(7))
    expect(prepare(ballot(7), 'another')).toMatchObject([{ message: { kind: 'conflict', seen: ballot(7) } }])
    expect(accept(value(5))).toBe('conflict')
    expect(prepare(ballot(8), 'another')).toMatchObject([{ kind: 'persist' }, {}])
  })

  test('tells registers with a value from deleted ones and from those that were only asked about', () => {
    const { acceptor, accept, prepare } = make()
    prepare(ballot(1), 'asked')
    accept(value(2))
    expect([acceptor.keys(), acceptor.empty()]).toEqual([[KEY], ['asked']])
    accept(tombstone(3))
    expect([acceptor.keys(), acceptor.empty()]).toEqual([[], ['asked', KEY]])
  })
})

describe('a proposer', () => {
  const make = () => {
    const parts = { settings: { roundTimeoutMs: 400, giveUpMs: 2_000 }, random: () => 0.5, reserved: 0, traces: false }
    const proposer = new Proposer({ self: 'p', voters: firstVoters(VOTERS), ...parts })
    let asked: Ballot = ballot(1)
    const step = (input: ProposerInput, nowMs = 0): ProposerEffect[] => {
      const effects = proposer.step(input, nowMs)
      for (const effect of effects) {
        if (effect.kind !== 'send' || effect.message.kind === 'list') continue
        asked = effect.message.kind === 'accept' ? effect.message.accepted.ballot : effect.message.ballot
      }
      return effects
    }
    const answer = (from: string, message: { kind: AcceptorMessage['kind'] } & Record<string, unknown>) =>
      step({ kind: 'answer', from, message: { key: KEY, ballot: asked, ...message } as unknown as AcceptorMessage })
    const promised = (from: string, what: Accepted | null) => answer(from, { kind: 'promised', accepted: what })
    return { step, answer, promised }
  }
  const collect: ProposerInput = { kind: 'collect', id: 1, key: KEY }
  const remove = (only: (current: unknown) => boolean = () => true): ProposerInput => ({
    kind: 'delete',
    id: 1,
    key: KEY,
    next: current => (current === null || !only(current) ? undefined : DELETED),
    options: { fence: () => ['owner'] }
  })

  test('deletes by a change that raises the generation and waits for the leases of who owned it', () => {
    const { step, answer, promised } = make()
    step(remove())
    promised('v1', value(1, 4))
    expect(promised('v2', value(1, 4))[0]).toMatchObject({
      message: { accepted: { value: TOMBSTONE, generation: 5, fence: [{ holder: 'owner', below: 5 }] } }
    })
    answer('v1', { kind: 'accepted' })
    expect(answer('v2', { kind: 'accepted' })).toMatchObject([{ kind: 'done', value: null, generation: 5 }])
  })

  test('leaves a register alone that is not the one to be deleted, or is deleted already', () => {
    for (const found of [value(1, 4), tombstone(1, 4), null]) {
      const { step, promised } = make()
      step(remove(() => false))
      promised('v1', found)
      const kept = found !== null && found.value.byteLength > 0 ? 'x' : null
      expect(promised('v2', found)).toMatchObject([{ kind: 'done', value: kept }])
    }
  })

  test('reads a deleted register as nothing, and makes it anew above its generation only', () => {
    const { step, answer, promised } = make()
    step({ kind: 'read', id: 1, key: KEY })
    answer('v1', { kind: 'state', accepted: tombstone(1, 5) })
    expect(answer('v2', { kind: 'state', accepted: tombstone(1, 5) })).toMatchObject([{ kind: 'done', value: null }])
    const make6 = (generation: number): ProposerInput => ({
      kind: 'change',
      id: 2,
      key: KEY,
      next: current => [current],
      options: { generation: () => generation }
    })
    step(make6(4))
    promised('v1', tombstone(1, 5))
    expect(promised('v2', tombstone(1, 5))).toMatchObject([{ kind: 'failed', error: { name: 'TypeError' } }])
    step(make6(6))
    promised('v1', tombstone(1, 5))
    expect(promised('v2', tombstone(1, 5))[0]).toMatchObject({
      message: { kind: 'accept', accepted: { generation: 6 } }
    })
  })

  test('collects: a tombstone on every voter, without a promise beyond it, and then the word to forget', () => {
    const { step, answer, promised } = make()
    step(collect)
    promised('v1', tombstone(1, 5))
    const [offered] = promised('v2', tombstone(1, 5))
    if (offered?.kind !== 'send' || offered.message.kind !== 'accept') throw new Error('no accept')
    expect(offered.message).toMatchObject({ accepted: { value: TOMBSTONE, generation: 5 } })
    expect(offered.message.promise).toEqual(offered.message.accepted.ballot)
    answer('v1', { kind: 'accepted' })
    expect(answer('v2', { kind: 'accepted' })).toEqual([])
    const ended = answer('v3', { kind: 'accepted' })
    const forget = { kind: 'forget', key: KEY, ballot: offered.message.accepted.ballot }
    expect(ended).toMatchObject([...VOTERS.map(to => ({ kind: 'send', to, message: forget })), { kind: 'done' }])
  })

  test('collects nothing where a voter is away, refuses, or finds the register written again', () => {
    const away = make()
    away.step(collect)
    for (const from of ['v1', 'v2']) away.promised(from, tombstone(1))
    for (const from of ['v1', 'v2']) away.answer(from, { kind: 'accepted' })
    const error = { kind: 'failed', error: { code: 'REGISTER_UNCOLLECTED' } }
    expect(away.step({ kind: 'tick' }, 400)).toMatchObject([error])
    const refused = make()
    refused.step(collect)
    for (const from of ['v1', 'v2']) refused.promised(from, tombstone(1))
    expect(refused.answer('v3', { kind: 'conflict', of: 'accept', seen: ballot(9, 'q') })).toMatchObject([error])
    const written = make()
    written.step(collect)
    written.promised('v1', value(1))
    expect(written.promised('v2', value(1))).toMatchObject([{ kind: 'done', value: 'x' }])
  })

  test('looks for itself before it collects: what it remembers may be of before a deletion by others', () => {
    const { step, answer, promised } = make()
    step({ kind: 'change', id: 1, key: KEY, next: () => 'x', options: {} })
    for (const from of ['v1', 'v2']) promised(from, null)
    for (const from of ['v1', 'v2']) answer(from, { kind: 'accepted' })
    expect(step(collect)).toMatchObject(VOTERS.map(to => ({ to, message: { kind: 'prepare' } })))
  })
})

describe('a collector', () => {
  test('picks what had no value in two passes, some at once, and not before its time', () => {
    const collector = new Collector(1_000, () => 0, 0)
    expect(collector.wakeAtMs()).toBe(500)
    expect(collector.due(['a', 'b'], 499)).toEqual([])
    expect(collector.due(['a', 'b'], 500)).toEqual([])
    expect(collector.due(['b', 'c'], 999)).toEqual([])
    expect(collector.due(['b', 'c'], 1_000)).toEqual(['b'])
    const many = Array.from({ length: 200 }, (_, i) => `k${i}`)
    collector.due(many, 2_000)
    expect(collector.due(many, 3_000)).toHaveLength(64)
  })
})
