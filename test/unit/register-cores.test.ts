import { describe, expect, test } from 'vitest'
import { Acceptor, type AcceptorEffect, type LeaseGuard } from '../../protocols/register/acceptor.ts'
import { FREE_COUNTERS, MAX_LEAP } from '../../protocols/register/leaps.ts'
import {
  type Accepted,
  type AcceptorMessage,
  type Ballot,
  type Fence,
  MAX_COUNTER,
  type ProposerMessage,
  ZERO_BALLOT
} from '../../protocols/register/messages.ts'
import { Proposer, type ProposerEffect } from '../../protocols/register/proposer.ts'
import type { ChangeOptions } from '../../protocols/register/request.ts'
import { decodeValue, encodeValue } from '../../protocols/register/value.ts'
import { firstVoters } from '../../protocols/register/voters.ts'

const KEY = 'group/a'
const VOTERS = ['v1', 'v2', 'v3']
const ballot = (counter: number, peer = 'p'): Ballot => ({ counter, peer })
const accepted = (counter: number, value: unknown, fence: Fence[] = [], generation = 0): Accepted => ({
  ballot: ballot(counter),
  value: encodeValue(value),
  generation,
  fence
})

class Guard implements LeaseGuard {
  blocked = 0
  readonly told: (number | null)[] = []
  remember(): number {
    return 0
  }
  open(): void {}
  adopted(): void {}
  accepted(_key: string, generation: number | null): void {
    this.told.push(generation)
  }
  blockedForMs(_key: string, fence: readonly Fence[]): number {
    return fence.length > 0 ? this.blocked : 0
  }
}

const kinds = (effects: readonly AcceptorEffect[]): string[] =>
  effects.map(effect => (effect.kind === 'send' ? effect.message.kind : effect.kind))

describe('an acceptor', () => {
  const make = (guard = new Guard()) => {
    const records = new Map()
    const voters = firstVoters(VOTERS)
    const acceptor = new Acceptor({ self: 'v1', voters, records, forgotten: ZERO_BALLOT, guard })
    const proposer = (message: ProposerMessage) => (message.kind === 'prepare' ? message.ballot.peer : 'p')
    return (message: ProposerMessage, from = proposer(message), nowMs = 0) =>
      acceptor.step({ kind: 'message', from, message }, nowMs)
  }
  const prepare = (counter: number, peer?: string): ProposerMessage => ({
    kind: 'prepare',
    version: 1,
    key: KEY,
    ballot: ballot(counter, peer)
  })
  const accept = (counter: number, value: unknown, fence: Fence[] = []): ProposerMessage => ({
    kind: 'accept',
    version: 1,
    key: KEY,
    accepted: accepted(counter, value, fence, fence.length),
    promise: ballot(counter + 1)
  })

  test('persists before it answers', () => {
    const step = make()
    expect(kinds(step(prepare(1)))).toEqual(['persist', 'promised'])
    expect(kinds(step(accept(1, 'x')))).toEqual(['persist', 'accepted'])
  })

  test('refuses what is below its promise, and says what it has seen', () => {
    const step = make()
    step(prepare(5))
    expect(step(prepare(4))).toMatchObject([{ message: { kind: 'conflict', of: 'prepare', seen: ballot(5) } }])
    expect(step(accept(4, 'x'))).toMatchObject([{ message: { kind: 'conflict', of: 'accept', seen: ballot(5) } }])
    expect(step(prepare(5, 'a'))).toMatchObject([{ message: { kind: 'conflict' } }])
    expect(kinds(step(prepare(5, 'z')))).toEqual(['persist', 'promised'])
  })

  test('takes no ballot of another than who sends it', () => {
    const step = make()
    expect(step(prepare(1, 'q'), 'p')).toEqual([])
    expect(step(accept(1, 'x'), 'q')).toEqual([])
    expect(kinds(step(accept(1, 'x'), 'p'))).toEqual(['persist', 'accepted'])
  })

  test('takes no ballot that nobody can have come to, however it is brought, and goes on from where it was led', () => {
    const step = make()
    expect(step(prepare(MAX_COUNTER, 'q'))).toEqual([{ kind: 'leap', from: 'q', counter: MAX_COUNTER }])
    expect(kinds(step(prepare(FREE_COUNTERS, 'q')))).toEqual(['persist', 'promised'])
    expect(kinds(step(prepare(FREE_COUNTERS + MAX_LEAP, 'q')))).toEqual(['persist', 'promised'])
    expect(kinds(step(accept(FREE_COUNTERS + MAX_LEAP, 'x'), 'p'))).toEqual(['leap']) // it asks for a promise of one more
    expect(kinds(step(prepare(FREE_COUNTERS + MAX_LEAP + 1), 'p', 1))).toEqual(['persist', 'promised'])
    expect(kinds(step(prepare(FREE_COUNTERS + 2 * MAX_LEAP, 'q'), 'q', 2))).toEqual(['leap'])
    expect(kinds(step(prepare(FREE_COUNTERS + MAX_LEAP + 2), 'p', 2))).toEqual(['persist', 'promised'])
  })

  test('takes what others have come to where it is new, when two members have shown it, and no more', () => {
    const step = make()
    const far = FREE_COUNTERS + 2 ** 40
    expect(kinds(step(prepare(MAX_COUNTER, 'liar')))).toEqual(['leap'])
    expect(kinds(step(prepare(MAX_COUNTER, 'liar')))).toEqual(['leap'])
    expect(kinds(step(prepare(far)))).toEqual(['leap'])
    expect(kinds(step(prepare(far + 2)))).toEqual(['persist', 'promised'])
    expect(kinds(step(prepare(MAX_COUNTER, 'liar')))).toEqual(['leap'])
  })

  test('with an accept promises the next ballot too', () => {
    const step = make()
    step(accept(1, 'x'))
    expect(kinds(step(accept(2, 'y')))).toEqual(['persist', 'accepted'])
    expect(step(prepare(2))).toMatchObject([{ message: { kind: 'conflict', seen: ballot(3) } }])
  })

  test('answers a repeated message as before, without writing', () => {
    const step = make()
    step(prepare(1))
    expect(kinds(step(prepare(1)))).toEqual(['promised'])
    step(accept(1, 'x'))
    expect(kinds(step(accept(1, 'x')))).toEqual(['accepted'])
  })

  test('refuses a fenced accept while a lease runs, and takes it afterwards', () => {
    const guard = new Guard()
    const step = make(guard)
    guard.blocked = 70
    expect(step(accept(1, 'x', [{ holder: 'h', below: 1 }]))).toMatchObject([
      { message: { kind: 'leased', retryMs: 70 } }
    ])
    expect(guard.told).toEqual([])
    guard.blocked = 0
    expect(kinds(step(accept(1, 'x', [{ holder: 'h', below: 1 }])))).toEqual(['persist', 'accepted'])
    expect(guard.told).toEqual([1])
  })
})

/** Drives a proposer by hand: what it sends, and answers as the test says. */
class Bench {
  nowMs = 1_000
  effects: ProposerEffect[] = []
  readonly proposer: Proposer
  #id = 0

  constructor(reserved = 0) {
    const settings = { roundTimeoutMs: 400, giveUpMs: 2_000 }
    const parts = { settings, random: () => 0.5, reserved, traces: false }
    this.proposer = new Proposer({ self: 'p', voters: firstVoters(VOTERS), ...parts })
  }

  change(next: (current: unknown) => unknown, options: ChangeOptions = {}): void {
    this.effects = this.proposer.step({ kind: 'change', id: this.#id++, key: KEY, next, options }, this.nowMs)
  }

  read(): void {
    this.effects = this.proposer.step({ kind: 'read', id: this.#id++, key: KEY }, this.nowMs)
  }

  /** To the last question. */
  answer(from: string, message: { kind: AcceptorMessage['kind'] } & Record<string, unknown>): void {
    const full = { key: KEY, ballot: this.asked, ...message } as unknown as AcceptorMessage
    this.#keep(this.proposer.step({ kind: 'answer', from, message: full }, this.nowMs))
  }

  later(ms: number): void {
    const untilMs = this.nowMs + ms
    for (;;) {
      const at = this.proposer.wakeAtMs()
      if (at > untilMs) break
      this.nowMs = Math.max(this.nowMs, at)
      this.#keep(this.proposer.step({ kind: 'tick' }, this.nowMs))
    }
    this.nowMs = untilMs
  }

  #keep(effects: ProposerEffect[]): void {
    if (effects.length > 0) this.effects = effects
  }

  get sent(): ProposerMessage[] {
    return this.effects.flatMap(effect => (effect.kind === 'send' ? [effect.message] : []))
  }

  get #question(): ProposerMessage {
    const message = this.sent[0]
    if (message === undefined) throw new Error('nothing was asked')
    if (message.kind !== 'list') this.#asked = message.kind === 'accept' ? message.accepted.ballot : message.ballot
    return message
  }

  #asked: Ballot = ballot(1)
  get asked(): Ballot {
    return this.sent.length > 0 ? (this.#question, this.#asked) : this.#asked
  }

  /** Value and fence of the accept that was sent last. */
  get proposed(): { value: unknown; fence: readonly Fence[]; generation: number } {
    const message = this.#question
    if (message.kind !== 'accept') throw new Error(`${message.kind} was sent`)
    return { ...message.accepted, value: decodeValue(message.accepted.value) }
  }

  get result(): ProposerEffect | undefined {
    return this.effects.find(({ kind }) => kind === 'done' || kind === 'failed')
  }
}

const takeover: ChangeOptions = { fence: () => ['old'], generation: () => 5 }

describe('a proposer', () => {
  test('prepares, applies the change to the highest accepted value, and needs a majority of accepts', () => {
    const bench = new Bench()
    bench.change(current => `${String(current)}+`)
    expect(bench.sent.map(({ kind }) => kind)).toEqual(['prepare', 'prepare', 'prepare'])
    bench.answer('v1', { kind: 'promised', accepted: { ...accepted(1, 'old'), ballot: ballot(1, 'q') } })
    bench.answer('v2', { kind: 'promised', accepted: { ...accepted(2, 'new'), ballot: ballot(2, 'q') } })
    expect(bench.proposed.value).toBe('new+')
    bench.answer('v1', { kind: 'accepted' })
    expect(bench.result).toBeUndefined()
    bench.answer('v1', { kind: 'accepted' })
    expect(bench.result).toBeUndefined()
    bench.answer('v3', { kind: 'accepted' })
    expect(bench.result).toMatchObject({ kind: 'done', value: 'new+' })
  })

  test('skips prepare after a success, and falls back to it after a conflict', () => {
    const bench = new Bench()
    const add = (current: unknown): unknown => ((current as number | null) ?? 0) + 1
    bench.change(add)
    for (const voter of VOTERS.slice(1)) bench.answer(voter, { kind: 'promised', accepted: null })
    for (const voter of VOTERS.slice(1)) bench.answer(voter, { kind: 'accepted' })
    bench.change(add)
    expect(bench.proposed.value).toBe(2)
    for (const voter of VOTERS.slice(1)) bench.answer(voter, { kind: 'conflict', of: 'accept', seen: ballot(90, 'q') })
    bench.later(50)
    expect(bench.sent[0]).toMatchObject({ kind: 'prepare' })
    expect(bench.asked.counter).toBeGreaterThan(90)
  })

  test('goes beyond the ballots that voters have seen, and of no stranger, and of no answer to what it did not ask', () => {
    const bench = new Bench()
    bench.change(() => 1)
    bench.answer('stranger', { kind: 'conflict', of: 'prepare', seen: ballot(1_000_000, 'q') })
    bench.answer('v1', { kind: 'conflict', of: 'prepare', ballot: ballot(7), seen: ballot(1_000_000, 'q') })
    bench.answer('v1', { kind: 'conflict', key: 'other', of: 'prepare', seen: ballot(1_000_000, 'q') })
    for (const voter of ['v1', 'v2']) bench.answer(voter, { kind: 'conflict', of: 'prepare', seen: ballot(50, 'q') })
    bench.later(50)
    expect(bench.asked.counter).toBeGreaterThan(50)
    expect(bench.asked.counter).toBeLessThan(100)
  })

  test('reserves its ballots on disk and starts above them after a restart', () => {
    const bench = new Bench()
    bench.read()
    const reserved = bench.effects[0]
    if (reserved?.kind !== 'reserve') throw new Error('a reservation must come before what it allows')
    expect(reserved.counter).toBeGreaterThanOrEqual(bench.asked.counter)
    const reborn = new Bench(reserved.counter)
    reborn.read()
    expect(reborn.asked.counter).toBeGreaterThan(reserved.counter)
  })

  test('answers a read from a majority that agrees, and finishes what is half done where none does', () => {
    const bench = new Bench()
    bench.read()
    const [older, newer] = [accepted(1, 'older'), { ...accepted(2, 'newer'), ballot: ballot(2, 'q') }]
    bench.answer('v1', { kind: 'state', accepted: newer })
    bench.answer('v2', { kind: 'state', accepted: older })
    expect(bench.result).toBeUndefined()
    bench.answer('v3', { kind: 'state', accepted: older })
    expect(bench.result).toMatchObject({ kind: 'done', value: 'older' })
    bench.read()
    bench.answer('v1', { kind: 'state', accepted: newer })
    bench.answer('v2', { kind: 'state', accepted: older })
    bench.later(100)
    expect(bench.sent[0]).toMatchObject({ kind: 'prepare' })
  })

  test('calls next again on a value that holds its own first try, so next must look before it changes', () => {
    const bench = new Bench()
    const seen: unknown[] = []
    bench.change(current => {
      seen.push(current)
      return current === 'mine' ? undefined : 'mine'
    })
    for (const voter of VOTERS.slice(1)) bench.answer(voter, { kind: 'promised', accepted: null })
    const first = bench.sent[0]
    if (first?.kind !== 'accept') throw new Error('expected an accept')
    bench.later(450)
    expect(bench.sent[0]).toMatchObject({ kind: 'prepare' })
    bench.answer('v1', { kind: 'promised', accepted: first.accepted })
    bench.answer('v2', { kind: 'promised', accepted: null })
    expect(seen).toEqual([null, 'mine'])
    expect(bench.proposed.value).toBe('mine')
  })

  test('carries the fence of a half-done change, and waits for answers that might make that needless', () => {
    const half = { ...accepted(9, 'taken', [{ holder: 'old', below: 5 }], 5), ballot: ballot(9, 'q') }
    const bench = new Bench()
    bench.change(current => `${String(current)}+`)
    bench.answer('v1', { kind: 'promised', accepted: half })
    bench.answer('v2', { kind: 'promised', accepted: null })
    expect(bench.sent.map(({ kind }) => kind)).toEqual(['prepare', 'prepare', 'prepare'])
    bench.later(100)
    expect(bench.proposed).toMatchObject({ value: 'taken+', generation: 5, fence: [{ holder: 'old', below: 5 }] })

    const other = new Bench()
    other.change(current => `${String(current)}+`)
    other.answer('v1', { kind: 'promised', accepted: half })
    other.answer('v2', { kind: 'promised', accepted: null })
    other.answer('v3', { kind: 'promised', accepted: null })
    expect(other.proposed).toMatchObject({ value: 'null+', generation: 0, fence: [] })
  })

  test('rejects a takeover from a healthy holder, and waits out a lease that ends within the round', () => {
    const bench = new Bench()
    bench.change(() => 'taken', takeover)
    for (const voter of VOTERS.slice(1)) bench.answer(voter, { kind: 'promised', accepted: null })
    bench.answer('v1', { kind: 'leased', retryMs: 900 })
    bench.answer('v2', { kind: 'leased', retryMs: 700 })
    expect(bench.result).toMatchObject({ error: { code: 'REGISTER_LEASED', details: { retryMs: 900 } } })

    const patient = new Bench()
    patient.change(() => 'taken', takeover)
    for (const voter of VOTERS.slice(1)) patient.answer(voter, { kind: 'promised', accepted: null })
    patient.answer('v1', { kind: 'leased', retryMs: 30 })
    patient.answer('v2', { kind: 'leased', retryMs: 20 })
    expect(patient.result).toBeUndefined()
    patient.later(30)
    expect(patient.effects).toMatchObject([{ kind: 'send', to: 'v1', message: { kind: 'accept' } }])
    patient.answer('v1', { kind: 'accepted' })
    patient.answer('v2', { kind: 'accepted' })
    expect(patient.result).toMatchObject({ kind: 'done', value: 'taken', generation: 5 })
  })

  test('gives up after its time and says whether the change may have happened', () => {
    const bench = new Bench()
    bench.change(() => 'x')
    bench.later(2_000)
    expect(bench.result).toMatchObject({ error: { code: 'REGISTER_UNAVAILABLE', details: { uncertain: false } } })
    bench.change(() => 'x')
    for (const voter of VOTERS.slice(1)) bench.answer(voter, { kind: 'promised', accepted: null })
    bench.later(2_000)
    expect(bench.result).toMatchObject({ error: { code: 'REGISTER_UNAVAILABLE', details: { uncertain: true } } })
    expect(bench.proposer.wakeAtMs()).toBe(Number.POSITIVE_INFINITY)
  })

  test('runs changes of one register one after another, and refuses more than it can hold', () => {
    const bench = new Bench()
    for (let i = 0; i < 257; i++) bench.change(() => i)
    expect(bench.result).toBeUndefined()
    bench.change(() => 'too many')
    expect(bench.result).toMatchObject({ error: { code: 'REGISTER_BUSY' } })
  })

  test('ignores answers of strangers, to other keys and of other phases', () => {
    const bench = new Bench()
    bench.change(() => 'x')
    bench.answer('v1', { kind: 'promised', accepted: null })
    for (const stray of [{ kind: 'accepted' as const }, { kind: 'state' as const, accepted: null }])
      bench.answer('v2', stray)
    bench.answer('stranger', { kind: 'promised', accepted: null })
    bench.answer('v2', { kind: 'promised', accepted: null, key: 'group/b' })
    expect(bench.sent[0]).toMatchObject({ kind: 'prepare' })
    bench.answer('v2', { kind: 'promised', accepted: null })
    expect(bench.proposed.value).toBe('x')
  })

  test('rejects values that are too large, generations that fall and fences without a new generation', () => {
    const attempts: [() => unknown, ChangeOptions, object][] = [
      [() => new Uint8Array(64 * 1024), {}, { code: 'REGISTER_VALUE' }],
      [() => 'x', { generation: () => -1 }, { name: 'TypeError' }],
      [() => 'x', { fence: () => ['h'] }, { name: 'TypeError' }],
      [
        () => {
          throw new RangeError('no')
        },
        {},
        { name: 'RangeError' }
      ]
    ]
    for (const [next, options, error] of attempts) {
      const bench = new Bench()
      bench.change(next, options)
      for (const voter of VOTERS.slice(1)) bench.answer(voter, { kind: 'promised', accepted: null })
      expect(bench.result).toMatchObject({ kind: 'failed', error })
    }
  })
})
