/** What the failure detector tells the decision log, step by step. */
import { describe, expect, test } from 'vitest'
import type { Fact } from '../../protocols/decisions/facts.ts'
import { type Effect, FailureDetectorCore, type Input } from '../../protocols/failure-detector/core.ts'
import type { SwimMessage, Update } from '../../protocols/failure-detector/messages.ts'
import { SETTINGS, seeded } from '../sim/swim-world.ts'

/** One core among members that say only what the test says. */
class Bench {
  readonly #core: FailureDetectorCore
  nowMs = 0
  #timerMs = Number.POSITIVE_INFINITY
  readonly sends: Extract<Effect, { kind: 'send' }>[] = []
  readonly facts: Fact[] = []

  constructor(count: number) {
    const members = ['me', ...Array.from({ length: count - 1 }, (_, i) => `p${i}`)]
    this.#core = new FailureDetectorCore({ self: 'me', members, settings: SETTINGS, random: seeded(1) })
    this.step({ kind: 'start' })
  }

  step(input: Input): void {
    for (const effect of this.#core.step(input, this.nowMs)) {
      if (effect.kind === 'timer') this.#timerMs = effect.atMs
      else if (effect.kind === 'send') this.sends.push(effect)
      else if (effect.kind === 'note') this.facts.push(effect.fact)
    }
  }

  message(from: string, message: SwimMessage): void {
    this.step({ kind: 'message', from, message })
  }

  /** Runs the timers up to then. */
  until(nowMs: number): void {
    while (this.#timerMs <= nowMs) {
      this.nowMs = Math.max(this.nowMs, this.#timerMs)
      this.step({ kind: 'timer' })
    }
    this.nowMs = nowMs
  }
}

const claim = (peer: string, state: Update['state'], incarnation: number, from: string): Update => ({
  peer,
  state,
  incarnation,
  from
})
const gossip = (...updates: Update[]): SwimMessage => ({ kind: 'gossip', updates })

describe('what the decision log is told', () => {
  test('who suspects whom by which probe, who confirms it, how long is left, and that it is dead', () => {
    const bench = new Bench(4)
    for (const id of ['p0', 'p1', 'p2']) bench.message(id, gossip())
    bench.step({ kind: 'connection', peer: 'p0', connected: false })
    const asked = bench.sends.filter(({ message }) => message.kind === 'ping-req')
    for (const { to, message } of asked) {
      bench.message(to, { kind: 'nack', seq: (message as { seq: number }).seq, updates: [] })
    }
    bench.message('p1', gossip(claim('p0', 'suspect', 0, 'p1')))
    bench.message('p1', gossip(claim('p0', 'suspect', 0, 'p1')))
    bench.until(SETTINGS.suspicionMaxMs)
    // The others do not answer probes here, either.
    const [suspected, confirmed, dead] = bench.facts.filter(fact => 'peer' in fact && fact.peer === 'p0')
    expect(suspected).toEqual({
      kind: 'suspected',
      peer: 'p0',
      by: 'me',
      why: 'no connection, 2 of 2 others that were asked say the same',
      deadInMs: SETTINGS.suspicionMaxMs
    })
    expect(confirmed).toMatchObject({ kind: 'confirmed', peer: 'p0', by: 'p1', deadInMs: expect.any(Number) })
    const suspectedBy = ['me', 'p1']
    expect(dead).toEqual({
      kind: 'declared-dead',
      peer: 'p0',
      by: 'me',
      suspectedBy,
      afterMs: (confirmed as { deadInMs: number }).deadInMs
    })
  })

  test('how long it took a member to refute, and of what this one was accused itself', () => {
    const bench = new Bench(4)
    bench.message('p1', gossip(claim('p0', 'suspect', 0, 'p1')))
    bench.nowMs += 10
    bench.message('p0', gossip(claim('p0', 'alive', 1, 'p0')))
    bench.message('p2', gossip(claim('me', 'suspect', 0, 'p2')))
    expect(bench.facts).toMatchObject([
      { kind: 'suspected', peer: 'p0', by: 'p1' },
      { kind: 'refuted', peer: 'p0', was: 'suspect', afterMs: 10 },
      { kind: 'accused', peer: 'me', by: 'p2', of: 'suspect' }
    ])
  })
})
