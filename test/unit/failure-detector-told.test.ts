import { describe, expect, it } from 'vitest'
import type { Clock, ControlBus } from '../../node/ports.ts'
import { createFailureDetector } from '../../protocols/failure-detector/shell.ts'
import { BURST, EVERY_MS, type ToldChange, ToldChanges } from '../../protocols/failure-detector/told.ts'
import { SETTINGS, seeded } from '../sim/swim-world.ts'
import { claim, gossip } from './failure-detector-support.ts'
import { memoryLog } from './store-support.ts'

/** Its time passes by hand, a millisecond at a time. */
class HandClock implements Clock {
  #nowMs = 0
  #timers: { readonly atMs: number; readonly fn: () => void }[] = []

  now(): number {
    return this.#nowMs
  }

  after(ms: number, fn: () => void): () => void {
    const timer = { atMs: this.#nowMs + ms, fn }
    this.#timers.push(timer)
    return () => void (this.#timers = this.#timers.filter(each => each !== timer))
  }

  pass(ms: number): void {
    for (const untilMs = this.#nowMs + ms; this.#nowMs < untilMs; ) {
      this.#nowMs++
      const due = this.#timers.filter(({ atMs }) => atMs <= this.#nowMs)
      this.#timers = this.#timers.filter(each => !due.includes(each))
      for (const { fn } of due) fn()
    }
  }

  get waiting(): number {
    return this.#timers.length
  }
}

const sumOf = (told: readonly ToldChange[]): number => told.reduce((sum, { leftOut = 0 }) => sum + 1 + leftOut, 0)

describe('changes of members, as people are told of them', () => {
  it('are bounded while a member makes up ever more, counted, and end with what is believed; who acts on them gets all', () => {
    const clock = new HandClock()
    const log = memoryLog()
    const told: ToldChange[] = []
    let deliver = (_from: string, _message: unknown): void => {}
    const bus: ControlBus = {
      self: 'me',
      send: () => true,
      on: (_, parse, handle) => (deliver = (from, message) => handle(from, parse(message)))
    }
    const detector = createFailureDetector({
      self: 'me',
      members: ['me', 'liar', 'b', 'c'],
      bus,
      clock,
      random: seeded(1),
      settings: SETTINGS,
      log,
      onTold: change => void told.push(change)
    })
    const changes: string[] = []
    detector.onChange((peer, liveness) => void changes.push(`${peer} ${liveness}`))
    detector.start()
    const lie = (n: number): void => {
      for (const peer of ['b', 'c']) {
        deliver('liar', gossip(claim(peer, 'dead', n, 'liar')))
        deliver('liar', gossip(claim(peer, 'alive', n + 1, peer)))
      }
    }
    const forMs = 4_000
    for (let n = 1; n <= forMs; n++) {
      lie(n)
      clock.pass(1)
    }
    expect(changes.length).toBeGreaterThan(4 * forMs - 10)
    const lines = () => log.lines.filter(({ message }) => message === 'liveness').map(({ fields }) => fields)
    expect(told.length).toBeLessThanOrEqual(3 * (BURST + forMs / EVERY_MS + 1))
    clock.pass(EVERY_MS)
    expect(sumOf(told)).toBe(changes.length)
    for (const peer of ['b', 'c'])
      expect(told.findLast(change => change.peer === peer)?.liveness).toBe(detector.livenessOf(peer))
    expect(lines()).toEqual(told.map(change => ({ ...change, localHealth: expect.any(Number) as number })))
    lie(forMs + 1)
    const before = told.length
    detector.stop()
    clock.pass(10 * EVERY_MS)
    expect([told.length, clock.waiting]).toEqual([before, 0])
  })

  it('are told each as it happens where they are not too many, and of one member whatever others do', () => {
    const clock = new HandClock()
    const told: ToldChange[] = []
    const changes = new ToldChanges(clock, change => void told.push(change))
    const peers = Array.from({ length: 50 }, (_, i) => `p${i}`)
    for (let i = 0; i < 1_000; i++) changes.take({ peer: 'flapping', liveness: 'suspect', why: `${i}` })
    told.length = 0
    for (let i = 0; i < BURST; i++)
      for (const peer of peers) changes.take({ peer, liveness: i % 2 === 0 ? 'dead' : 'alive', why: '' })
    expect(told.length).toBe(BURST * peers.length)
    expect(told.filter(({ leftOut }) => leftOut !== undefined)).toEqual([])
  })

  it('leave nothing behind of members that have been quiet for a while', () => {
    const clock = new HandClock()
    const changes = new ToldChanges(clock, () => {})
    for (let i = 0; i < 50; i++) changes.take({ peer: `p${i}`, liveness: 'dead', why: '' })
    expect(changes.size).toBe(50)
    clock.pass(EVERY_MS)
    changes.take({ peer: 'new', liveness: 'dead', why: '' })
    expect(changes.size).toBe(1)
  })
})
