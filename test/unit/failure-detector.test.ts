import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MAX_LOCAL_HEALTH } from '../../protocols/failure-detector/core.ts'
import type { Update } from '../../protocols/failure-detector/messages.ts'
import { Rumours, retransmissions } from '../../protocols/failure-detector/rumours.ts'
import { suspicionTimeoutMs, wantedConfirmations } from '../../protocols/failure-detector/suspicion.ts'
import { SETTINGS } from '../sim/swim-world.ts'
import { Bench, claim, gossip, type Send, seqOf } from './failure-detector-support.ts'

const isBad = ({ state }: Update): boolean => state !== 'alive'

describe('probing', () => {
  test('each round pings every member once, in an order that changes (SWIM 4.3)', () => {
    const bench = new Bench(6)
    const order: string[] = []
    for (let period = 0; period < 10; period++) {
      while (bench.sent('ping').length === period) bench.until(bench.timerMs)
      const ping = bench.sent('ping')[period] as Send
      order.push(ping.to)
      bench.ack(ping)
    }
    expect(new Set(order.slice(0, 5)).size).toBe(5)
    expect(new Set(order.slice(5)).size).toBe(5)
    expect(order.slice(0, 5)).not.toEqual(order.slice(5))
  })

  test('without an ack k others are asked, and without theirs the member is suspected at the period’s end (SWIM 3.1)', () => {
    const bench = new Bench(6, { lifeguard: true, allowances: false })
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

  test('while the connection stands an ack may come a suspicion’s time later, and nobody is told before', () => {
    const pinged = (): { bench: Bench; ping: Send; endMs: number } => {
      const bench = new Bench(6)
      while (bench.sent('ping').length === 0) bench.until(bench.timerMs)
      const ping = bench.sent('ping')[0] as Send
      bench.message(ping.to, gossip())
      return { bench, ping, endMs: bench.nowMs + SETTINGS.periodMs + SETTINGS.suspicionMinMs }
    }
    const late = pinged()
    late.bench.until(late.endMs - 1)
    expect(late.bench.changes).toEqual([])
    expect(late.bench.sends.flatMap(send => send.message.updates)).toEqual([])
    late.bench.ack(late.ping)
    late.bench.until(late.endMs)
    expect(late.bench.changes.map(change => change.peer)).not.toContain(late.ping.to)
    const never = pinged()
    never.bench.until(never.endMs)
    expect(never.bench.changes[0]).toMatchObject({ peer: never.ping.to, liveness: 'suspect' })
    const broken = pinged()
    broken.bench.hint(broken.ping.to, false)
    broken.bench.until(broken.bench.nowMs + 2 * SETTINGS.probeTimeoutMs)
    expect(broken.bench.changes[0]).toMatchObject({ peer: broken.ping.to, liveness: 'suspect' })
  })

  test('who was cut off tells nobody else whom it holds for dead, and each of them first that it does', () => {
    const bench = new Bench(4)
    const hintAll = (connected: boolean) => {
      for (const id of ['p0', 'p1', 'p2']) bench.hint(id, connected)
    }
    hintAll(true)
    hintAll(false)
    bench.until(20 * SETTINGS.periodMs)
    expect(
      bench.changes
        .filter(({ liveness }) => liveness === 'dead')
        .map(({ peer }) => peer)
        .sort()
    ).toEqual(['p0', 'p1', 'p2'])
    const before = bench.sends.length
    hintAll(true)
    for (const id of ['p0', 'p1', 'p2']) bench.message(id, { kind: 'ping', seq: 1, incarnation: 0, updates: [] })
    bench.message('p0', gossip(claim('p0', 'alive', 1, 'p0')))
    bench.until(bench.nowMs + SETTINGS.periodMs)
    const told = bench.sends.slice(before).map(({ to, message }) => ({ to, about: message.updates.filter(isBad) }))
    expect(told.flatMap(({ to, about }) => about.filter(({ peer }) => peer !== to))).toEqual([])
    for (const id of ['p0', 'p1', 'p2'])
      expect(told.find(({ to }) => to === id)?.about).toEqual([claim(id, 'dead', 0, 'me')])
  })

  test('each of the dead is pinged in its turn, with the claim first that it is dead', () => {
    const bench = new Bench(4)
    bench.message('p0', gossip(claim('p1', 'dead', 2, 'p0'), claim('p2', 'dead', 3, 'p0')))
    for (let answered = 0; bench.nowMs < 25 * SETTINGS.periodMs; bench.until(bench.timerMs)) {
      for (; answered < bench.sends.length; answered++) {
        const send = bench.sends[answered] as Send
        if (send.to === 'p0' && send.message.kind === 'ping') bench.ack(send)
      }
    }
    const pings = bench.sent('ping').filter(send => send.to !== 'p0')
    expect(pings.slice(0, 4).map(send => send.message.updates[0])).toEqual([
      claim('p1', 'dead', 2, 'me'),
      claim('p2', 'dead', 3, 'me'),
      claim('p1', 'dead', 2, 'me'),
      claim('p2', 'dead', 3, 'me')
    ])
  })

  test('who suspects a member tells it so at once (Lifeguard IV-C)', () => {
    const bench = new Bench(6)
    while (bench.changes.length === 0) bench.until(bench.timerMs)
    const { peer } = bench.changes[0] as { peer: string }
    const told = bench.sent('ping').findLast(send => send.to === peer)
    expect(told?.message.updates).toEqual([claim(peer, 'suspect', 0, 'me')])
  })

  test('a helper pings, and answers with the ack, or with a nack at 80 % of the timeout (Lifeguard IV-A)', () => {
    const bench = new Bench(4)
    bench.message('p0', { kind: 'ping-req', seq: 7, target: 'p1', updates: [] })
    const ping = bench.sent('ping').find(send => send.to === 'p1') as Send
    bench.until(SETTINGS.probeTimeoutMs * 0.8)
    expect(bench.sent('nack').map(send => send.message)).toMatchObject([{ seq: 7 }])
    bench.ack(ping)
    expect(bench.sent('ack').map(send => [send.to, send.message])).toMatchObject([['p0', { seq: 7 }]])
  })

  test('a helper that is asked about one member again and again by one other remembers the last question only', () => {
    const bench = new Bench(4)
    for (let seq = 1; seq <= 50; seq++) bench.message('p0', { kind: 'ping-req', seq, target: 'p1', updates: [] })
    bench.message('p2', { kind: 'ping-req', seq: 7, target: 'p1', updates: [] })
    bench.until(SETTINGS.probeTimeoutMs * 0.8)
    expect(bench.sent('nack').map(({ to, message }) => [to, seqOf(message)])).toEqual([
      ['p0', 50],
      ['p2', 7]
    ])
  })

  test('a broken connection makes a probe through others at once, and their nacks a suspicion', () => {
    const bench = new Bench(5)
    bench.message('p2', gossip())
    bench.hint('p2', false)
    const asked = bench.sent('ping-req')
    expect(asked).toHaveLength(3)
    expect(bench.changes).toEqual([])
    for (const { to, message } of asked) {
      bench.message(to, { kind: 'nack', seq: seqOf(message), updates: [] })
    }
    expect(bench.changes).toMatchObject([{ peer: 'p2', liveness: 'suspect' }])
    expect(bench.core.localHealth).toBe(0)
  })

  test('a connection that is there again makes a ping, also of who is alive to us: we may be dead to it', () => {
    const bench = new Bench(6)
    bench.hint('p1', true)
    expect(bench.sent('ping')).toHaveLength(0)
    bench.hint('p1', false)
    for (const { to, message } of bench.sent('ping-req')) {
      bench.message(to, { kind: 'ack', seq: seqOf(message), incarnation: 0, updates: [] })
    }
    expect(bench.sent('ping')).toHaveLength(0)
    bench.hint('p1', true)
    expect(bench.sent('ping').map(({ to }) => to)).toEqual(['p1'])
  })

  test('a broken connection alone accuses nobody whom another still reaches', () => {
    const bench = new Bench(5)
    bench.message('p2', gossip())
    bench.hint('p2', false)
    const { to, message } = bench.sent('ping-req')[0] as Send
    bench.message(to, { kind: 'ack', seq: seqOf(message), incarnation: 0, updates: [] })
    expect(bench.changes).toEqual([])
  })

  test('a suspected member is told so first (Lifeguard IV-C: buddy system)', () => {
    const bench = new Bench(5)
    bench.message('p1', gossip(claim('p0', 'suspect', 0, 'p1'), claim('p3', 'suspect', 0, 'p1')))
    bench.message('p3', { kind: 'ping', seq: 1, incarnation: 0, updates: [] })
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
      for (const name of names) one.message(name, { kind: 'ack', seq: 0, incarnation: 0, updates: [] })
      one.hint('p4', false)
      for (const from of suspectors) one.message(from, gossip(claim('p4', 'suspect', 0, from)))
      // Everything else is answered; only the suspect is silent.
      let answered = 0
      while (!one.changes.some(change => change.peer === 'p4' && change.liveness === 'dead')) {
        for (; answered < one.sends.length; answered++) {
          const send = one.sends[answered] as Send
          if (send.message.kind === 'ping' && send.to !== 'p4') one.ack(send)
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
      bench.message('p0', { kind: 'ack', seq: 0, incarnation: 0, updates: [] })
      bench.nowMs = bench.timerMs = 6_000 // it has settled
      for (const from of ['p0', 'p1', 'p2']) bench.message(from, gossip(claim('p0', 'suspect', 0, from)))
      bench.until(6_000 + breakAtMs)
      bench.hint('p0', false)
      while (!bench.changes.some(change => change.liveness === 'dead')) bench.until(bench.timerMs)
      return bench.nowMs - 6_000
    }
    expect(diesAt(0)).toBe(SETTINGS.suspicionMinMs)
    expect(diesAt(100)).toBe(100 + SETTINGS.suspicionMinMs)
    expect(diesAt(500)).toBe(1.5 * SETTINGS.suspicionMinMs)
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

  test('who has just started learns incarnations from pings and acks, and tells nobody what all know', () => {
    const bench = new Bench(4)
    bench.message('p0', { kind: 'ping', seq: 1, incarnation: 7, updates: [] })
    expect(bench.core.view.get('p0')?.incarnation).toBe(7)
    expect(bench.core.view.rumours.size).toBe(0)
    bench.message('p1', gossip(claim('p2', 'dead', 3, 'p1')))
    bench.message('p2', { kind: 'ping', seq: 1, incarnation: 3, updates: [] })
    expect(bench.core.view.get('p2')?.state).toBe('dead')
    bench.message('p2', { kind: 'ack', seq: 1, incarnation: 4, updates: [] })
    expect(bench.changes.at(-1)).toMatchObject({ peer: 'p2', liveness: 'alive' })
    bench.message('p1', { kind: 'ping', seq: 2, incarnation: 0, updates: [claim('me', 'suspect', 5, 'p1')] })
    expect(bench.sent('ack').at(-1)?.message).toMatchObject({ incarnation: 6 })
  })

  test('however much happens, news is told at a bounded pace, and a confirmation makes nobody speak', () => {
    const bench = new Bench(200)
    const periods = 20
    for (let i = 0; i < periods * 40; i++) {
      bench.until((i * SETTINGS.periodMs) / 40)
      bench.message('p1', gossip(claim(`p${i % 150}`, i % 300 < 150 ? 'suspect' : 'alive', Math.floor(i / 150), 'p1')))
    }
    const most = SETTINGS.indirectProbes * (5 + 2 * periods)
    expect(bench.sent('gossip').length).toBeGreaterThan(most / 2)
    expect(bench.sent('gossip').length).toBeLessThanOrEqual(most)
    const calm = new Bench(10)
    calm.message('p1', gossip(claim('p3', 'suspect', 0, 'p1')))
    calm.until(10)
    const before = calm.sent('gossip').length
    calm.message('p2', gossip(claim('p3', 'suspect', 0, 'p2')))
    calm.until(20)
    expect(calm.sent('gossip')).toHaveLength(before)
    calm.message('p4', { kind: 'ping', seq: 1, incarnation: 0, updates: [] })
    expect(calm.sent('ack').at(-1)?.message.updates).toContainEqual(claim('p3', 'suspect', 0, 'p2'))
  })
})

test('plain SWIM, for comparison: no nacks, no multiplier, no buddy, a fixed suspicion (DSN 2002)', () => {
  const bench = new Bench(4, { lifeguard: false, allowances: false })
  bench.message('p0', { kind: 'ping-req', seq: 7, target: 'p1', updates: [] })
  for (const from of ['p0', 'p1']) bench.message(from, gossip(claim('p2', 'suspect', 0, from)))
  bench.message('p2', { kind: 'ping', seq: 1, incarnation: 0, updates: [] })
  expect((bench.sent('ack')[0] as Send).message.updates[0]).toEqual(claim('p2', 'suspect', 0, 'p0'))
  bench.message('p0', gossip(claim('me', 'suspect', 0, 'p0')))
  bench.until(SETTINGS.suspicionMinMs - 1)
  expect(bench.changes.find(change => change.liveness === 'dead')).toBeUndefined()
  bench.until(SETTINGS.suspicionMinMs)
  expect(bench.changes.find(change => change.liveness === 'dead')).toMatchObject({ peer: 'p2' })
  expect(bench.sent('nack')).toEqual([])
  expect(bench.core.localHealth).toBe(0)
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

  test('what has arrived is read before anybody is declared dead', () => {
    const bench = new Bench(5)
    bench.message('p0', gossip())
    bench.hint('p0', false)
    for (const from of ['p1', 'p2', 'p3']) bench.message(from, gossip(claim('p0', 'suspect', 0, from)))
    while (bench.timerMs < SETTINGS.suspicionMinMs - 10) bench.until(bench.timerMs)
    // Too short for a stall, too long for the end of the suspicion.
    bench.nowMs = SETTINGS.suspicionMinMs + 10
    bench.take(bench.core.step({ kind: 'timer' }, bench.nowMs))
    expect(bench.core.view.get('p0')?.state).toBe('suspect')
    bench.message('p0', gossip(claim('p0', 'alive', 1, 'p0')))
    expect(bench.core.view.get('p0')?.state).toBe('alive')
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
