/** Members that come and go, and what a step costs where there are many. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ProbeOrder } from '../../protocols/failure-detector/order.ts'
import { SETTINGS, SwimWorld, seeded } from '../sim/swim-world.ts'
import { Bench, claim, gossip, type Send, seqOf } from './failure-detector-support.ts'

describe('a member that is removed', () => {
  test('is probed and asked no more, and nothing about it or by it is told', () => {
    const bench = new Bench(6)
    for (const id of ['p0', 'p1']) bench.message('p2', gossip(claim(id, 'suspect', 0, 'p2')))
    bench.message('p0', gossip(claim('p3', 'suspect', 0, 'p0')))
    bench.message('p2', { kind: 'ping-req', seq: 9, target: 'p0', updates: [] })
    bench.members('p1', 'p2', 'p3', 'p4')
    bench.sends.length = 0
    bench.until(20 * SETTINGS.suspicionMaxMs)
    const involved = bench.sends.flatMap(({ to, message }) => [
      to,
      'target' in message ? message.target : to,
      ...message.updates.flatMap(({ peer, from }) => [peer, from])
    ])
    expect(new Set(involved)).toEqual(new Set(['p1', 'p2', 'p3', 'p4', 'me']))
    expect(bench.core.view.get('p0')).toBeUndefined()
    expect(bench.changes.filter(change => change.peer === 'p0').map(change => change.liveness)).toEqual(['suspect'])
  })

  test('is not heard any more, and neither are others about it', () => {
    const bench = new Bench(4)
    bench.members('p1', 'p2')
    bench.sends.length = 0
    bench.message('p0', { kind: 'ping', seq: 1, incarnation: 0, updates: [claim('p1', 'dead', 5, 'p0')] })
    bench.message('p1', gossip(claim('p0', 'suspect', 9, 'p1'), claim('p2', 'suspect', 0, 'p0')))
    expect(bench.sends).toEqual([])
    expect(bench.changes).toEqual([])
  })

  test('takes its accusations with it: who is suspected by nobody else is alive', () => {
    const bench = new Bench(5)
    bench.message('p0', gossip(claim('p2', 'suspect', 0, 'p0'), claim('p3', 'suspect', 0, 'p0')))
    bench.message('p1', gossip(claim('p3', 'suspect', 0, 'p1')))
    bench.members('p1', 'p2', 'p3')
    expect(['p2', 'p3'].map(id => bench.core.view.get(id)?.state)).toEqual(['alive', 'suspect'])
    bench.sends.length = 0
    bench.message('p3', { kind: 'ping', seq: 1, incarnation: 0, updates: [] })
    expect((bench.sends[0] as Send).message.updates[0]).toEqual(claim('p3', 'suspect', 0, 'p1'))
  })

  test('is no helper whose nack is missed', () => {
    const bench = new Bench(5)
    bench.message('p0', gossip())
    bench.hint('p0', false)
    const asked = bench.sent('ping-req')
    bench.members(...['p0', 'p1', 'p2', 'p3'].filter(id => id !== asked[0]?.to))
    for (const { to, message } of asked) bench.message(to, { kind: 'nack', seq: seqOf(message), updates: [] })
    expect(bench.changes).toMatchObject([{ peer: 'p0', liveness: 'suspect' }])
    expect(bench.core.localHealth).toBe(0)
  })

  test('leaves nothing behind, however many come and go', () => {
    const bench = new Bench(3)
    for (let round = 0; round < 200; round++) {
      const id = `guest${round}`
      bench.members('p0', 'p1', id)
      bench.message('p0', gossip(claim(id, 'suspect', 0, 'p0')))
      bench.message(id, gossip(claim('p1', 'suspect', round, id)))
      bench.until(bench.nowMs + 10)
    }
    bench.members('p0', 'p1')
    expect(bench.core.view.others).toHaveLength(2)
    expect(bench.core.view.rumours.size).toBeLessThanOrEqual(2)
    bench.sends.length = 0
    bench.until(bench.nowMs + 20 * SETTINGS.periodMs)
    expect(new Set(bench.sends.map(send => send.to))).toEqual(new Set(['p0', 'p1']))
  })
})

describe('a member that is added', () => {
  test('is alive, is probed, and has ten times as long until it has been up for a while', () => {
    const bench = new Bench(3)
    bench.until(60_000)
    bench.members('p0', 'p1', 'new')
    expect(bench.core.view.get('new')?.state).toBe('alive')
    bench.sends.length = 0
    const suspectedMs = bench.nowMs
    for (const from of ['p0', 'p1']) bench.message(from, gossip(claim('new', 'suspect', 0, from)))
    bench.until(suspectedMs + 10 * SETTINGS.suspicionMinMs - 1)
    expect(bench.sends.map(send => send.to)).toContain('new')
    expect(bench.core.view.get('new')?.state).toBe('suspect')
    bench.until(suspectedMs + 10 * SETTINGS.suspicionMaxMs)
    expect(bench.core.view.get('new')?.state).toBe('dead')
  })

  test('has come up where a connection to it has, though it was not heard yet', () => {
    const diesAt = (connected: boolean): number => {
      const bench = new Bench(4)
      if (connected) bench.hint('p0', true)
      bench.nowMs = bench.timerMs = 10_000
      for (const from of ['p0', 'p1', 'p2']) bench.message('p1', gossip(claim('p0', 'suspect', 0, from)))
      while (bench.core.view.get('p0')?.state !== 'dead') bench.until(bench.timerMs)
      return bench.nowMs - 10_000
    }
    expect(diesAt(true)).toBe(1.5 * SETTINGS.suspicionMinMs)
    expect(diesAt(false)).toBe(10 * SETTINGS.suspicionMinMs)
  })

  test('again is a new one: nothing is known of its earlier life, and it can refute what others know', () => {
    const bench = new Bench(4)
    bench.message('p1', gossip(claim('p0', 'dead', 6, 'p1')))
    bench.members('p1', 'p2')
    bench.members('p0', 'p1', 'p2')
    expect(bench.core.view.get('p0')).toMatchObject({ state: 'alive', incarnation: 0, suspicion: undefined })
    bench.message('p1', gossip(claim('p0', 'dead', 6, 'p1')))
    expect(bench.core.view.get('p0')?.state).toBe('dead')
    bench.message('p0', { kind: 'ack', seq: 0, incarnation: 7, updates: [] })
    expect(bench.core.view.get('p0')?.state).toBe('alive')
  })

  test('in whole clusters views agree after members were removed and added, some of them crashed, by seed', () => {
    for (let seed = 1; seed <= 10; seed++) {
      const world = new SwimWorld(seed, 8)
      world.run(6_000)
      world.kill('n1', seed % 2 === 0)
      world.run(6_300)
      const some = ['n1', 'n2', 'n3', 'n4', 'n5', 'n6']
      world.setMembers([...some, 'n8', 'n9'])
      world.run(12_000)
      expect({ seed, agreed: world.agreed() }).toMatchObject({ agreed: true })
      world.kill('n0', false)
      world.restart('n0', true)
      world.setMembers([...some, 'n0', 'n9'])
      world.run(18_000)
      expect({ seed, agreed: world.agreed() }).toMatchObject({ agreed: true })
      const stay = ['n2', 'n3', 'n4', 'n5', 'n6']
      const wrong = world.observed.filter(
        seen => seen.liveness === 'dead' && stay.includes(seen.by) && [...stay, 'n9'].includes(seen.peer)
      )
      expect({ seed, wrong }).toMatchObject({ wrong: [] })
    }
  })
})

describe('the order of probes (SWIM 4.3)', () => {
  test('reaches everyone within two rounds, whoever comes and goes before and between', () => {
    const step = fc.oneof(
      fc.constant('next'),
      fc.constant('two rounds'),
      fc.nat(9).map(id => String(id))
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.nat(), (steps, seed) => {
        const members = new Set(['0', '1', '2'])
        const order = new ProbeOrder([...members], seeded(seed))
        for (const what of steps) {
          if (what === 'next') expect([...members, undefined]).toContain(order.next())
          else if (what === 'two rounds') {
            expect(new Set(Array.from({ length: 2 * members.size - 1 }, () => order.next()))).toEqual(members)
          } else if (members.delete(what)) order.delete(what)
          else {
            members.add(what)
            order.add(what)
          }
          expect(order.length).toBe(members.size)
        }
      })
    )
  })

  test('puts a newcomer at a random place, as often into what is left of the round as that is long', () => {
    let ahead = 0
    for (let seed = 0; seed < 400; seed++) {
      const order = new ProbeOrder(
        Array.from({ length: 100 }, (_, i) => String(i)),
        seeded(seed)
      )
      for (let i = 0; i < 75; i++) order.next()
      order.add('new')
      const rest = Array.from({ length: order.length - 75 }, () => order.next())
      if (rest.slice(0, 25).includes('new')) ahead++
    }
    expect(ahead / 400).toBeGreaterThan(0.15)
    expect(ahead / 400).toBeLessThan(0.35)
  })
})

/** Calls `run` and returns the size of the largest array, map or set that was walked as a whole meanwhile. */
function largestWalk(run: () => void): number {
  let largest = 0
  const kept: (() => void)[] = []
  const watch = (prototype: object, names: readonly PropertyKey[], sizeOf: (on: never) => number): void => {
    for (const name of names) {
      const descriptor = Object.getOwnPropertyDescriptor(prototype, name) as PropertyDescriptor
      const original = descriptor.value as (...args: unknown[]) => unknown
      Object.defineProperty(prototype, name, {
        ...descriptor,
        value(this: never, ...args: unknown[]) {
          largest = Math.max(largest, sizeOf(this))
          return original.apply(this, args)
        }
      })
      kept.push(() => Object.defineProperty(prototype, name, descriptor))
    }
  }
  const walks = ['forEach', 'keys', 'values', 'entries', Symbol.iterator]
  watch(Map.prototype, walks, (on: Map<unknown, unknown>) => on.size)
  watch(Set.prototype, walks, (on: Set<unknown>) => on.size)
  const lists = ['filter', 'map', 'find', 'some', 'every', 'reduce', 'slice', 'concat', 'sort', 'indexOf', 'includes']
  watch(Array.prototype, [...walks, ...lists], (on: unknown[]) => on.length)
  try {
    run()
  } finally {
    for (const restore of kept) restore()
  }
  return largest
}

describe('a step among 300 members', () => {
  test('walks through no list of all of them, nor draws more than a few random numbers', () => {
    const bench = new Bench(300)
    for (let i = 0; i < 299; i++) bench.hint(`p${i}`, true)
    const life = (): void => {
      for (let i = 0; i < 40; i++) {
        const sent = bench.sends.length
        bench.until(bench.timerMs)
        for (const send of bench.sends.slice(sent)) if (send.message.kind === 'ping' && i % 3 > 0) bench.ack(send)
        bench.message(`p${i}`, gossip(claim(`p${i + 50}`, 'suspect', 0, `p${i}`)))
        bench.message(`p${i}`, { kind: 'ping-req', seq: i, target: `p${i + 1}`, updates: [] })
        bench.hint(`p${i + 100}`, false)
        bench.sends.length = 0
      }
    }
    expect(largestWalk(() => new Set(new Array(300).fill(0).values()))).toBe(300)
    const largest = largestWalk(life)
    // What is under way, suspects and rumours, is far less than 300 here; a list of all members is 299.
    expect(largest).toBeLessThan(200)
    expect(largest).toBeGreaterThan(0)
  })
})
