import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Clock, ControlBus, Log } from '../../node/ports.ts'
import { type Effect, FailureDetectorCore, MAX_LOCAL_HEALTH } from '../../protocols/failure-detector/core.ts'
import { parseSwimMessage, type SwimMessage, type Update } from '../../protocols/failure-detector/messages.ts'
import { Rumours, retransmissions } from '../../protocols/failure-detector/rumours.ts'
import { createFailureDetector } from '../../protocols/failure-detector/shell.ts'
import { suspicionTimeoutMs, wantedConfirmations } from '../../protocols/failure-detector/suspicion.ts'
import { SETTINGS, seeded } from '../sim/swim-world.ts'

type Send = Extract<Effect, { kind: 'send' }>

/** One core among silent members, driven by hand. */
class Bench {
  readonly core: FailureDetectorCore
  nowMs = 0
  timerMs = Number.POSITIVE_INFINITY
  readonly sends: Send[] = []
  readonly changes: Extract<Effect, { kind: 'changed' }>[] = []

  constructor(count: number) {
    const ids = ['me', ...Array.from({ length: count - 1 }, (_, i) => `p${i}`)]
    this.core = new FailureDetectorCore('me', ids, SETTINGS, seeded(1))
    this.take(this.core.step({ kind: 'start' }, 0))
  }

  take(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (effect.kind === 'timer') this.timerMs = effect.atMs
      else if (effect.kind === 'send') this.sends.push(effect)
      else this.changes.push(effect)
    }
  }

  message(from: string, message: SwimMessage): void {
    this.take(this.core.step({ kind: 'message', from, message }, this.nowMs))
  }

  hint(peer: string, connected: boolean): void {
    this.take(this.core.step({ kind: 'connection', peer, connected }, this.nowMs))
  }

  /** Runs the timers up to then. */
  until(nowMs: number): void {
    while (this.timerMs <= nowMs) {
      this.nowMs = Math.max(this.nowMs, this.timerMs)
      this.take(this.core.step({ kind: 'timer' }, this.nowMs))
    }
    this.nowMs = nowMs
  }

  /** Lets everything come late. */
  stall(ms: number): void {
    this.nowMs += ms
    this.take(this.core.step({ kind: 'timer' }, this.nowMs))
  }

  sent(kind: SwimMessage['kind']): Send[] {
    return this.sends.filter(send => send.message.kind === kind)
  }
}

const claim = (peer: string, state: Update['state'], incarnation: number, from: string): Update => ({
  peer,
  state,
  incarnation,
  from
})
const gossip = (...updates: Update[]): SwimMessage => ({ kind: 'gossip', updates })

describe('probing', () => {
  test('each round pings every member once, in an order that changes (SWIM 4.3)', () => {
    const bench = new Bench(6)
    const order: string[] = []
    for (let period = 0; period < 10; period++) {
      while (bench.sent('ping').length === period) bench.until(bench.timerMs)
      const ping = bench.sent('ping')[period] as Send
      order.push(ping.to)
      bench.message(ping.to, { kind: 'ack', seq: ping.message.kind === 'ping' ? ping.message.seq : 0, updates: [] })
    }
    expect(new Set(order.slice(0, 5)).size).toBe(5)
    expect(new Set(order.slice(5)).size).toBe(5)
    expect(order.slice(0, 5)).not.toEqual(order.slice(5))
  })

  test('without an ack k others are asked, and without theirs the member is suspected at the period’s end (SWIM 3.1)', () => {
    const bench = new Bench(6)
    while (bench.sent('ping').length === 0) bench.until(bench.timerMs)
    const startMs = bench.nowMs
    const target = (bench.sent('ping')[0] as Send).to
    bench.until(startMs + SETTINGS.probeTimeoutMs - 1)
    expect(bench.sent('ping-req')).toHaveLength(0)
    bench.until(startMs + SETTINGS.probeTimeoutMs)
    const asked = bench.sent('ping-req').map(send => send.to)
    expect(new Set(asked).size).toBe(SETTINGS.indirectProbes)
    expect(asked).not.toContain(target)
    bench.until(startMs + SETTINGS.periodMs - 1)
    expect(bench.changes).toEqual([])
    bench.until(startMs + SETTINGS.periodMs)
    expect(bench.changes[0]).toMatchObject({ peer: target, liveness: 'suspect' })
  })

  test('a helper pings, and answers with the ack, or with a nack at 80 % of the timeout (Lifeguard IV-A)', () => {
    const bench = new Bench(4)
    bench.message('p0', { kind: 'ping-req', seq: 7, target: 'p1', updates: [] })
    const ping = bench.sent('ping').find(send => send.to === 'p1') as Send
    bench.until(SETTINGS.probeTimeoutMs * 0.8)
    expect(bench.sent('nack').map(send => send.message)).toMatchObject([{ seq: 7 }])
    bench.message('p1', { kind: 'ack', seq: (ping.message as { seq: number }).seq, updates: [] })
    expect(bench.sent('ack').map(send => [send.to, send.message])).toMatchObject([['p0', { seq: 7 }]])
  })

  test('a broken connection makes a probe through others at once, and their nacks a suspicion', () => {
    const bench = new Bench(5)
    bench.message('p2', gossip())
    bench.hint('p2', false)
    const asked = bench.sent('ping-req')
    expect(asked).toHaveLength(3)
    expect(bench.changes).toEqual([])
    for (const { to, message } of asked) {
      bench.message(to, { kind: 'nack', seq: (message as { seq: number }).seq, updates: [] })
    }
    expect(bench.changes).toMatchObject([{ peer: 'p2', liveness: 'suspect' }])
    expect(bench.core.localHealth).toBe(0)
  })

  test('a broken connection alone accuses nobody whom another still reaches', () => {
    const bench = new Bench(5)
    bench.message('p2', gossip())
    bench.hint('p2', false)
    const { to, message } = bench.sent('ping-req')[0] as Send
    bench.message(to, { kind: 'ack', seq: (message as { seq: number }).seq, updates: [] })
    expect(bench.changes).toEqual([])
  })

  test('a suspected member is told so first (Lifeguard: buddy system)', () => {
    const bench = new Bench(5)
    bench.message('p1', gossip(claim('p0', 'suspect', 0, 'p1'), claim('p3', 'suspect', 0, 'p1')))
    bench.message('p3', { kind: 'ping', seq: 1, updates: [] })
    const ack = bench.sent('ack')[0] as Send
    expect(ack.message.updates[0]).toEqual(claim('p3', 'suspect', 0, 'p1'))
  })
})

describe('claims (SWIM 4.2)', () => {
  test('a suspicion about oneself is refuted with a higher incarnation, also a stale one', () => {
    const bench = new Bench(3)
    bench.message('p0', gossip(claim('me', 'suspect', 4, 'p0')))
    bench.until(20)
    expect(bench.sends.flatMap(send => send.message.updates)).toContainEqual(claim('me', 'alive', 5, 'me'))
    expect(bench.core.localHealth).toBe(1)
    bench.sends.length = 0
    bench.message('p0', gossip(claim('me', 'dead', 2, 'p0')))
    bench.until(60)
    expect(bench.sends.flatMap(send => send.message.updates)).toContainEqual(claim('me', 'alive', 5, 'me'))
    expect(bench.core.localHealth).toBe(1)
  })

  test('claims end in the same view whatever the order in which they come', () => {
    const claims = fc.array(
      fc.record({
        peer: fc.constant('p0'),
        state: fc.constantFrom('alive' as const, 'suspect' as const, 'dead' as const),
        incarnation: fc.nat(3),
        from: fc.constantFrom('p0', 'p1', 'p2')
      }),
      { minLength: 1, maxLength: 8 }
    )
    // Plainly: the highest incarnation counts; in it dead over suspect over alive.
    const rank = { alive: 0, suspect: 1, dead: 2 }
    const plain = (list: readonly Update[]): string => {
      const start = claim('p0', 'alive', 0, 'p0')
      const best = [start, ...list].reduce((a, b) =>
        b.incarnation > a.incarnation || (b.incarnation === a.incarnation && rank[b.state] > rank[a.state]) ? b : a
      )
      return `${best.state} ${best.incarnation}`
    }
    fc.assert(
      fc.property(claims, list => {
        const bench = new Bench(4)
        for (const update of list) bench.message('p1', gossip(update))
        const view = bench.core.view.get('p0')
        expect(`${view?.state} ${view?.incarnation}`).toBe(plain(list))
      })
    )
  })

  test('independent confirmations shorten a suspicion to its minimum, repeated ones do not (Lifeguard IV-B)', () => {
    const names = ['p0', 'p1', 'p2', 'p3', 'p4']
    const diesAt = (...suspectors: string[]): number => {
      const one = new Bench(6)
      for (const name of names) one.message(name, { kind: 'ack', seq: 0, updates: [] })
      one.hint('p4', false)
      for (const from of suspectors) one.message(from, gossip(claim('p4', 'suspect', 0, from)))
      // Everything else is answered; only the suspect is silent.
      let answered = 0
      while (!one.changes.some(change => change.peer === 'p4' && change.liveness === 'dead')) {
        for (; answered < one.sends.length; answered++) {
          const { to, message } = one.sends[answered] as Send
          if (message.kind === 'ping' && to !== 'p4') one.message(to, { kind: 'ack', seq: message.seq, updates: [] })
        }
        one.until(one.timerMs)
      }
      return one.nowMs
    }
    expect(diesAt('p0', 'p1', 'p2', 'p3')).toBe(SETTINGS.suspicionMinMs)
    expect(diesAt('p0', 'p0', 'p0', 'p0')).toBe(diesAt('p0'))
    expect(diesAt('p0', 'p1')).toBeLessThan(diesAt('p0'))
  })

  test('while the connection stands a suspicion lasts longer, and from its break on only the usual time', () => {
    const diesAt = (breakAtMs: number): number => {
      const bench = new Bench(4)
      bench.message('p0', { kind: 'ack', seq: 0, updates: [] })
      bench.nowMs = bench.timerMs = 6_000 // it has settled
      for (const from of ['p0', 'p1', 'p2']) bench.message(from, gossip(claim('p0', 'suspect', 0, from)))
      bench.until(6_000 + breakAtMs)
      bench.hint('p0', false)
      while (!bench.changes.some(change => change.liveness === 'dead')) bench.until(bench.timerMs)
      return bench.nowMs - 6_000
    }
    expect(diesAt(0)).toBe(SETTINGS.suspicionMinMs)
    expect(diesAt(100)).toBe(100 + SETTINGS.suspicionMinMs)
    expect(diesAt(900)).toBe(2.5 * SETTINGS.suspicionMinMs)
  })

  test('the suspicion time falls with the logarithm of confirmations', () => {
    expect(suspicionTimeoutMs(0, 3, 400, 1_200)).toBe(1_200)
    expect(suspicionTimeoutMs(1, 3, 400, 1_200)).toBeCloseTo(800)
    expect(suspicionTimeoutMs(3, 3, 400, 1_200)).toBe(400)
    expect(suspicionTimeoutMs(9, 3, 400, 1_200)).toBe(400)
    expect([2, 3, 4, 5, 100].map(wantedConfirmations)).toEqual([0, 1, 2, 3, 3])
  })

  test('a rumour is told λ·ln(n + 1) times, the least told first (SWIM 4.1)', () => {
    const rumours = new Rumours(10)
    for (let i = 0; i < 4; i++) rumours.add(claim(`p${i}`, 'dead', 0, 'me'))
    const told: Record<string, number> = {}
    for (;;) {
      const some = rumours.take(2, undefined)
      if (some.length === 0) break
      for (const { peer } of some) told[peer] = (told[peer] ?? 0) + 1
      const counts = ['p0', 'p1', 'p2', 'p3'].map(peer => told[peer] ?? 0)
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
    }
    expect(Object.values(told)).toEqual(new Array(4).fill(retransmissions(10)))
  })
})

describe('a process that stood still (Lifeguard: local health)', () => {
  test('after ten seconds it accuses nobody, forgets its probes and knows that it is slow', () => {
    const bench = new Bench(5)
    while (bench.sent('ping').length === 0) bench.until(bench.timerMs)
    bench.stall(10_000)
    expect(bench.changes).toEqual([])
    expect(bench.core.localHealth).toBeGreaterThan(0)
    expect(bench.timerMs - bench.nowMs).toBeLessThanOrEqual(SETTINGS.probeTimeoutMs)
  })

  test('a suspicion does not run out while nothing could be heard', () => {
    const bench = new Bench(5)
    bench.message('p1', gossip(claim('p0', 'suspect', 0, 'p1')))
    bench.until(10)
    bench.stall(60_000)
    expect(bench.changes.map(change => change.liveness)).toEqual(['suspect'])
    bench.message('p0', gossip(claim('p0', 'alive', 1, 'p0')))
    expect(bench.changes.at(-1)).toMatchObject({ peer: 'p0', liveness: 'alive' })
  })

  test('local health stays within its bounds and slows the probing down', () => {
    const bench = new Bench(5)
    for (let i = 0; i < 40; i++) bench.stall(500)
    expect(bench.core.localHealth).toBe(MAX_LOCAL_HEALTH)
    while (bench.sent('ping').length === 0) bench.until(bench.timerMs)
    const startMs = bench.nowMs
    bench.until(startMs + SETTINGS.probeTimeoutMs * (MAX_LOCAL_HEALTH + 1) - 1)
    expect(bench.sent('ping-req')).toHaveLength(0)
    bench.until(startMs + SETTINGS.probeTimeoutMs * (MAX_LOCAL_HEALTH + 1))
    expect(bench.sent('ping-req').length).toBeGreaterThan(0)
  })
})

describe('messages', () => {
  test('well-formed ones pass unchanged', () => {
    const updates = [claim('p0', 'suspect', 3, 'p1')]
    const list: SwimMessage[] = [
      { kind: 'ping', seq: 1, updates },
      { kind: 'ack', seq: 2 ** 32 - 1, updates: [] },
      { kind: 'nack', seq: 0, updates },
      { kind: 'ping-req', seq: 5, target: 'p3', updates },
      { kind: 'gossip', updates }
    ]
    for (const message of list) expect(parseSwimMessage(message)).toEqual(message)
  })

  test('anything else throws SWIM_SHAPE and nothing else', () => {
    const near = fc.record(
      {
        kind: fc.oneof(fc.constantFrom('ping', 'ack', 'ping-req', 'nack', 'gossip'), fc.anything()),
        seq: fc.oneof(fc.nat(), fc.anything()),
        target: fc.oneof(fc.string(), fc.anything()),
        updates: fc.oneof(
          fc.array(
            fc.record(
              { peer: fc.anything(), state: fc.anything(), incarnation: fc.anything(), from: fc.anything() },
              { requiredKeys: [] }
            )
          ),
          fc.constant([]),
          fc.anything()
        )
      },
      { requiredKeys: [] }
    )
    fc.assert(
      fc.property(fc.oneof(near, fc.anything()), value => {
        try {
          const message = parseSwimMessage(value)
          new Bench(3).message('p0', message)
        } catch (error) {
          expect(error).toMatchObject({ code: 'SWIM_SHAPE' })
        }
      }),
      { numRuns: 1_000 }
    )
    const tooMany = new Array(33).fill(claim('p0', 'dead', 0, 'p1'))
    expect(() => parseSwimMessage({ kind: 'gossip', updates: tooMany })).toThrow(/list/)
    expect(() => parseSwimMessage({ kind: 'gossip', updates: [claim('p0', 'dead', 2 ** 41, 'p1')] })).toThrow(
      /incarnation/
    )
  })

  test('messages and claims of peers that are no members change nothing', () => {
    const bench = new Bench(3)
    bench.message('stranger', gossip(claim('p0', 'dead', 9, 'stranger')))
    bench.message('p0', gossip(claim('stranger', 'dead', 9, 'p0')))
    expect(bench.changes).toEqual([])
  })
})

test('the shell reports changes, lists the living and is silent after stop', () => {
  let nowMs = 0
  let timer: (() => void) | undefined
  const clock: Clock = {
    now: () => nowMs,
    after(_ms, fn) {
      timer = fn
      return () => {
        timer = undefined
      }
    }
  }
  let deliver: (from: string, message: unknown) => void = () => {}
  const sent: string[] = []
  const bus: ControlBus = {
    self: 'a',
    send: (to, protocol) => sent.push(`${to} ${protocol}`) > 0,
    on(_protocol, parse, handler) {
      deliver = (from, message) => handler(from, parse(message))
    }
  }
  const quiet = (): void => {}
  const log: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet }
  const detector = createFailureDetector({
    self: 'a',
    members: ['c', 'b', 'a'],
    bus,
    clock,
    random: seeded(1),
    settings: SETTINGS,
    log
  })
  const seen: string[] = []
  detector.onChange((peer, liveness) => void seen.push(`${peer} ${liveness}`))
  detector.start()
  expect(detector.alive()).toEqual(['a', 'b', 'c'])
  deliver('b', gossip(claim('c', 'dead', 0, 'b')))
  expect(seen).toEqual(['c dead'])
  expect(detector.alive()).toEqual(['a', 'b'])
  expect(['a', 'b', 'c', 'x'].map(peer => detector.livenessOf(peer))).toEqual(['alive', 'alive', 'dead', 'dead'])
  nowMs = 300
  timer?.()
  expect(sent).toContain('b swim')
  detector.stop()
  expect(timer).toBeUndefined()
  deliver('c', gossip(claim('c', 'alive', 1, 'c')))
  expect(seen).toEqual(['c dead'])
})
