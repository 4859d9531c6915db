/** What a policy would have done with a recorded past: against what was, and against a plain count of losses. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { nextEpoch } from '../../node/planning/policies/choose.ts'
import { lineThrough, MAX_SIMULATED, simulatePolicy } from '../../node/planning/policies/simulate.ts'
import type { SeenEpoch } from '../../protocols/epoch/history.ts'
import { imageOf, MIB, seenEpoch } from './epoch-history-support.ts'

const START = 1_000_000

/** One epoch every `everyMs` in which `mebibytesPerSecond` change; a pause of 5 ms and 1 ms a MiB, 50 ms and 10 ms a MiB to make it. */
function recorded(count: number, everyMs: number, mebibytesPerSecond: (epoch: number) => number): SeenEpoch[] {
  return Array.from({ length: count }, (_, i) => {
    const changed = (mebibytesPerSecond(i) * everyMs) / 1_000
    const vms = { a: { pauseMs: 5 + changed, durableMs: 50 + 10 * changed, image: imageOf(changed * MIB) } }
    return seenEpoch(i + 1, { openedAtMs: START + i * everyMs, tookMs: 50 + 10 * changed, vms })
  })
}

const every = (everyMs: number) => (history: readonly SeenEpoch[], now: { nowMs: number; sinceMs: number }) =>
  nextEpoch({ kind: 'interval', everyMs }, history, now)

describe('recorded history replayed through a policy', () => {
  test('gives what was, where the policy is the one that was', () => {
    const history = recorded(101, 10_000, i => 1 + (i % 3))
    const { was, wouldBe } = simulatePolicy(history, every(10_000)) ?? {}
    expect(was?.epochs).toBe(100)
    expect(wouldBe?.epochs).toBe(100)
    for (const key of ['pauseMs', 'lossMs', 'intervalMs'] as const) {
      for (const [name, value] of Object.entries(was?.[key] ?? {})) {
        expect(Reflect.get(wouldBe?.[key] ?? {}, name)).toBeCloseTo(value, 3)
      }
    }
    expect(wouldBe?.overhead).toBeCloseTo(was?.overhead ?? 0, 9)
    expect(wouldBe?.storedBytes).toBeCloseTo(was?.storedBytes ?? 0, -4)
  })

  test('with a longer interval has fewer and longer pauses, less overhead, and more to lose', () => {
    const history = recorded(101, 10_000, () => 2)
    const { was, wouldBe } = simulatePolicy([...recorded(1, 1, () => 0), ...history.slice(1)], every(50_000)) ?? {}
    expect(wouldBe?.epochs).toBe(20)
    expect(was?.lossMs.most).toBeCloseTo(10_000 + 250, 0)
    expect(wouldBe?.lossMs.most).toBeGreaterThan(50_000)
    expect(wouldBe?.overhead).toBeLessThanOrEqual(was?.overhead ?? 0)
    // What changed is counted once, whatever the interval.
    expect(wouldBe?.changedBytes).toBeCloseTo(was?.changedBytes ?? 0, -5)
  })

  test('with the adaptive policy keeps the loss that it promises over a past whose load changes', () => {
    const history = recorded(300, 10_000, i => (i < 150 ? 0.5 : 6))
    const limits = { overheadPercent: 5, lossMs: 8_000, atLeastMs: 500, atMostMs: 600_000 }
    const adaptive = (past: readonly SeenEpoch[], now: { nowMs: number; sinceMs: number }) =>
      nextEpoch({ kind: 'adaptive', ...limits }, past, now)
    const { was, wouldBe } = simulatePolicy(history, adaptive) ?? {}
    expect(was?.lossMs.most).toBeGreaterThan(10_000)
    expect(wouldBe?.lossMs.most).toBeLessThanOrEqual(8_000)
    expect(wouldBe?.overhead).toBeLessThanOrEqual(0.05)
  })

  test('says nothing where too little was recorded, and ends where a policy asks for too much', () => {
    expect(
      simulatePolicy(
        recorded(3, 10_000, () => 1),
        every(1_000)
      )
    ).toBeUndefined()
    const { wouldBe, why } =
      simulatePolicy(
        recorded(1_000, 60_000, () => 0),
        every(100)
      ) ?? {}
    expect(wouldBe?.epochs).toBe(MAX_SIMULATED)
    expect(why).toBe('every 100 ms')
  })

  test('counts what would be lost as a look at every moment does', () => {
    const steps = fc.array(fc.record({ gap: fc.integer({ min: 1, max: 40 }), took: fc.integer({ min: 0, max: 30 }) }), {
      minLength: 5,
      maxLength: 12
    })
    fc.assert(
      fc.property(steps, all => {
        let atMs = START
        const history = all.map(({ gap, took }, i) => {
          const epoch = seenEpoch(i + 1, { openedAtMs: atMs, tookMs: 100 * took, vms: { a: { pauseMs: 1 } } })
          atMs += 100 * (took + gap)
          return epoch
        })
        const { was } = simulatePolicy(history, every(1_000)) ?? {}
        const lastMs = history.at(-1)?.openedAtMs ?? 0
        let total = 0
        let most = 0
        for (let ms = START; ms < lastMs; ms += 10) {
          const by = history.slice(1).filter(({ openedAtMs, tookMs = 0 }) => openedAtMs + tookMs <= ms)
          const lost = ms - (by.at(-1)?.openedAtMs ?? START)
          total += lost + 5
          most = Math.max(most, lost + 10)
        }
        expect(was?.lossMs.mean).toBeCloseTo(total / ((lastMs - START) / 10), 6)
        expect(was?.lossMs.most).toBeCloseTo(most, 6)
      })
    )
  })
})

test('a line through points has the least squares of all that do not fall and do not begin below zero', () => {
  const points = fc.array(fc.tuple(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 50 })), {
    minLength: 2,
    maxLength: 8
  })
  fc.assert(
    fc.property(points, all => {
      const errorOf = ({ atZero, slope }: { atZero: number; slope: number }): number =>
        all.reduce((sum, [x, y]) => sum + (atZero + slope * x - y) ** 2, 0)
      const found = lineThrough(all)
      const least = errorOf(found)
      for (let atZero = 0; atZero <= 60; atZero += 3) {
        for (let slope = 0; slope <= 6; slope += 0.25) {
          expect(errorOf({ atZero, slope })).toBeGreaterThanOrEqual(least - 1e-6)
        }
      }
    }),
    { numRuns: 60 }
  )
})
