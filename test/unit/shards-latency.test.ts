import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Liveness } from '../../node/ports.ts'
import { Holders } from '../../node/shards/holders.ts'
import { Latencies, LatencySketch } from '../../node/shards/latency.ts'

const all = (): boolean => true
const KIB = 1024

describe('a sketch of latencies', () => {
  it('gives each quantile to a fifth, beside sorting all of them', () => {
    const latency = fc.double({ min: 0.1, max: 20_000, noNaN: true })
    fc.assert(
      fc.property(fc.array(latency, { minLength: 8, maxLength: 255 }), fc.constantFrom(0.5, 0.9, 0.98, 1), (all, q) => {
        const sketch = new LatencySketch()
        for (const ms of all) sketch.add(ms)
        const exact = all.sort((a, b) => a - b)[Math.ceil(q * all.length) - 1] ?? 0
        const told = sketch.quantile(q) ?? 0
        expect(told / exact).toBeGreaterThan(0.999)
        expect(told / exact).toBeLessThan(2 ** 0.25 * 1.001)
      })
    )
  })

  it('says nothing of a few, and forgets what was long ago', () => {
    const sketch = new LatencySketch()
    for (let i = 0; i < 7; i++) sketch.add(1_000)
    expect(sketch.quantile(0.5)).toBeUndefined()
    for (let i = 0; i < 2_000; i++) sketch.add(1_000)
    for (let i = 0; i < 2_000; i++) sketch.add(1)
    expect(sketch.quantile(0.98)).toBeLessThan(1.2)
  })
})

describe('what a read may take', () => {
  it('is what most peers take: those that are slow have one voice each, however often they are asked', () => {
    const latencies = new Latencies()
    for (let i = 0; i < 20; i++) for (const peer of ['a', 'b']) latencies.add(peer, KIB, 2)
    for (let i = 0; i < 2_000; i++) for (const peer of ['slow', 'slower']) latencies.add(peer, KIB, 500)
    expect(latencies.expectedMs(KIB, all)).toBeLessThan(2.5)
    expect(latencies.expectedMs(KIB, peer => peer.startsWith('slow'))).toBeGreaterThan(400)
    expect(latencies.expectedMs(KIB, () => false)).toBeUndefined()
  })

  it('depends on its size: larger reads, where there were none, take more by as much at most', () => {
    const latencies = new Latencies()
    for (let i = 0; i < 20; i++) latencies.add('a', 64 * KIB, 2)
    expect(latencies.expectedMs(1024 * KIB, all)).toBeGreaterThan(30)
    expect(latencies.expectedMs(1024 * KIB, all)).toBeLessThan(2 * 16 * 1.2)
    for (let i = 0; i < 20; i++) latencies.add('a', 1024 * KIB, 9)
    expect(latencies.expectedMs(1024 * KIB, all)).toBeLessThan(11)
    expect(latencies.expectedMs(200 * KIB, all)).toBeLessThan(11)
    expect(latencies.expectedMs(KIB, all)).toBeLessThan(2.5)
  })
})

describe('a holder', () => {
  function world(floorMs = 20) {
    const state = { now: 0, connected: true, liveness: 'alive' as Liveness }
    const holders = new Holders({
      transport: { self: 'me', connected: () => state.connected },
      detector: { livenessOf: () => state.liveness },
      clock: { now: () => state.now },
      floorMs
    })
    return { state, holders }
  }

  it('is waited for as long as such reads take, but no less than the setting says, and two seconds at most', () => {
    const { holders } = world()
    expect(holders.forcedTimeoutMs(KIB)).toBe(50)
    for (let i = 0; i < 20; i++) holders.answered('a', KIB, 1, true)
    expect(holders.forcedTimeoutMs(KIB)).toBe(20)
    for (let i = 0; i < 300; i++) holders.answered('a', KIB, 100, false)
    expect(holders.forcedTimeoutMs(KIB)).toBeGreaterThan(99)
    for (let i = 0; i < 300; i++) holders.answered('a', KIB, 9_000, false)
    expect(holders.forcedTimeoutMs(KIB)).toBe(2_000)
    for (let i = 0; i < 600; i++) holders.answered('me', KIB, 1, true)
    expect(holders.forcedTimeoutMs(KIB)).toBe(2_000)
  })

  it('is doubtful while it owes a late answer, or is suspected, and gone without a connection; oneself never', () => {
    const { state, holders } = world()
    expect(holders.standing('a')).toBe('good')
    const ended = holders.late('a', state.now)
    expect(holders.standing('a')).toBe('doubtful')
    ended()
    expect(holders.standing('a')).toBe('good')
    state.liveness = 'suspect'
    expect(holders.standing('a')).toBe('doubtful')
    state.connected = false
    expect(holders.standing('a')).toBe('gone')
    expect(holders.standing('me')).toBe('good')
  })

  it('that is late three times in a row is not asked for a while, twice as long each time, until it is in time again', () => {
    const { state, holders } = world()
    const late = (): void => {
      const startedAt = state.now
      state.now += 20
      holders.late('a', startedAt)()
    }
    const restMs = (): number => {
      const from = state.now
      while (holders.standing('a') === 'doubtful') state.now++
      return state.now - from
    }
    late()
    late()
    expect(restMs()).toBe(0)
    const rests = Array.from({ length: 6 }, () => {
      late()
      return restMs()
    })
    expect(rests).toEqual([250, 500, 1_000, 2_000, 4_000, 4_000])
    holders.answered('a', KIB, 2, true)
    late()
    expect(restMs()).toBe(0)
  })

  it('whose late answer was given up is not asked for as long again', () => {
    const { state, holders } = world()
    const ended = holders.late('a', 0)
    state.now = 30
    holders.givenUp('a', KIB, 30)
    ended()
    expect(holders.standing('a')).toBe('doubtful')
    state.now = 59
    expect(holders.standing('a')).toBe('doubtful')
    state.now = 60
    expect(holders.standing('a')).toBe('good')
  })

  it('that lets many requests wait at once was late once', () => {
    const { state, holders } = world()
    state.now = 20
    const ends = Array.from({ length: 9 }, () => holders.late('a', 0))
    for (const end of ends) end()
    expect(holders.standing('a')).toBe('good')
  })
})
