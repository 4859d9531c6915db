/**
 * The adaptive policy on simulated loads: it settles, keeps what it promises, and does not swing. A load writes pages of a
 * working set at random, so that a longer interval changes more of them, but less than in proportion.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { PolicyOf } from '../../config/policy.ts'
import { REST } from '../../node/planning/policies/adaptive.ts'
import { nextEpoch } from '../../node/planning/policies/choose.ts'
import { epochCostMs } from '../../node/planning/policies/cost-model.ts'
import type { SeenEpoch } from '../../protocols/epoch/history.ts'
import { imageOf, seenEpoch } from './epoch-history-support.ts'

interface Load {
  /** Pages that are written at all, and writes a second. */
  readonly pages: number
  readonly writes: number
  /** Pause and making of an epoch: fixed, and for each page. Milliseconds. */
  readonly pauseMs: number
  readonly pauseMsPerPage: number
  readonly makeMs: number
  readonly makeMsPerPage: number
}

const loads: fc.Arbitrary<Load> = fc.record({
  pages: fc.integer({ min: 100, max: 1_000_000 }),
  writes: fc.integer({ min: 0, max: 500_000 }),
  pauseMs: fc.integer({ min: 1, max: 60 }),
  pauseMsPerPage: fc.constantFrom(0, 0.0001, 0.001),
  makeMs: fc.integer({ min: 20, max: 2_000 }),
  // 4 KiB at 10 MB/s to 1 GB/s
  makeMsPerPage: fc.double({ min: 0.004, max: 0.4, noNaN: true })
})
const policies: fc.Arbitrary<PolicyOf<'adaptive'>> = fc.record({
  kind: fc.constant('adaptive' as const),
  overheadPercent: fc.constantFrom(1, 5, 20),
  lossMs: fc.constantFrom(5_000, 30_000, 300_000),
  atLeastMs: fc.constantFrom(500, 1_000),
  atMostMs: fc.constantFrom(60_000, 600_000)
})

const changedPages = ({ pages, writes }: Load, intervalMs: number): number =>
  pages * (1 - Math.exp((-writes * intervalMs) / 1_000 / pages))

function costAt(load: Load, intervalMs: number): { pauseMs: number; creationMs: number } {
  const changed = changedPages(load, intervalMs)
  return {
    pauseMs: load.pauseMs + changed * load.pauseMsPerPage,
    creationMs: load.makeMs + changed * load.makeMsPerPage
  }
}

/** `noise`: of each epoch's cost, 0 where there is none. */
function run(
  policy: PolicyOf<'adaptive'>,
  epochs: number,
  loadAt: (epoch: number) => Load,
  noise = () => 0
): SeenEpoch[] {
  const history: SeenEpoch[] = []
  let nowMs = 1_000_000
  const sinceMs = nowMs
  for (let i = 0; i < epochs; i++) {
    const next = nextEpoch(policy, history, { nowMs, sinceMs })
    const openedAtMs = Math.max(nowMs, next?.atMs ?? 0)
    const intervalMs = openedAtMs - (history.at(-1)?.openedAtMs ?? sinceMs)
    const load = loadAt(i)
    const { pauseMs, creationMs } = costAt(load, intervalMs)
    const factor = 1 + noise()
    const image = imageOf(4096 * changedPages(load, intervalMs))
    const vms = { a: { pauseMs: pauseMs * factor, durableMs: creationMs * factor, image } }
    history.push(seenEpoch(i + 1, { openedAtMs, tookMs: creationMs * factor, vms }))
    nowMs = openedAtMs + creationMs * factor
  }
  return history
}

const intervalsOf = (history: readonly SeenEpoch[]): number[] =>
  history.slice(1).map(({ openedAtMs }, i) => openedAtMs - (history[i]?.openedAtMs ?? 0))

/** By trying all intervals in steps of 1 %: those that keep a limit under the load. */
function trying(policy: PolicyOf<'adaptive'>, load: Load, share: number) {
  const all: number[] = []
  for (let ms = policy.atLeastMs; ms < policy.atMostMs; ms *= 1.01) all.push(ms)
  all.push(policy.atMostMs)
  const possible = all.filter(ms => ms >= (1 + REST) * costAt(load, ms).creationMs)
  const overhead = (ms: number) => epochCostMs(costAt(load, ms)) / ms
  const lost = (ms: number) => ms + costAt(load, ms).creationMs
  return {
    overhead,
    lost,
    cheap: possible.filter(ms => overhead(ms) <= (share * policy.overheadPercent) / 100),
    safe: possible.filter(ms => lost(ms) <= share * policy.lossMs)
  }
}

/** So many epochs after a load has changed. */
const SETTLED = 40
/** Of the interval, from then on. */
const SWING = 0.15

const swingOf = (intervals: readonly number[]): number => Math.max(...intervals) / Math.min(...intervals) - 1

describe('the adaptive policy', () => {
  test('settles under any load that stays: from then on the interval swings by no more than 15 %', () => {
    fc.assert(
      fc.property(policies, loads, (policy, load) => {
        const intervals = intervalsOf(run(policy, SETTLED + 40, () => load))
        expect(swingOf(intervals.slice(SETTLED))).toBeLessThanOrEqual(SWING)
      }),
      { numRuns: 200 }
    )
  })

  test('keeps the overhead where any interval does, and the loss where any interval keeps both', () => {
    fc.assert(
      fc.property(policies, loads, (policy, load) => {
        const settledMs = intervalsOf(run(policy, SETTLED + 10, () => load)).at(-1) ?? 0
        // With the margin that it aims at, what it keeps it keeps for certain.
        const { cheap, safe, overhead, lost } = trying(policy, load, 0.8)
        if (cheap.length > 0) expect(overhead(settledMs)).toBeLessThanOrEqual(policy.overheadPercent / 100)
        const both = cheap.filter(ms => safe.includes(ms))
        if (both.length > 0) expect(lost(settledMs)).toBeLessThanOrEqual(policy.lossMs)
      }),
      { numRuns: 200 }
    )
  })

  test('after a load has changed it goes to its new interval without swinging about it, and stays', () => {
    fc.assert(
      fc.property(policies, loads, loads, (policy, first, then) => {
        const changeAt = 60
        const history = run(policy, changeAt + SETTLED + 30, i => (i < changeAt ? first : then))
        const intervals = intervalsOf(history).slice(changeAt - 1)
        expect(swingOf(intervals.slice(SETTLED))).toBeLessThanOrEqual(SWING)
        // Once it has turned it does not turn again by more than it may swing.
        const turns = bigTurns(intervals, SWING)
        expect(turns).toBeLessThanOrEqual(2)
      }),
      { numRuns: 200 }
    )
  })

  test('with costs that vary by a fifth the interval stays within a third of its middle', () => {
    fc.assert(
      fc.property(policies, loads, fc.integer(), (policy, load, seed) => {
        let state = (seed >>> 0) + 1
        const noise = (): number => {
          state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
          return 0.4 * (state / 2 ** 32 - 0.5)
        }
        const intervals = intervalsOf(run(policy, SETTLED + 60, () => load, noise)).slice(SETTLED)
        const middle = intervals.toSorted((a, b) => a - b)[intervals.length >> 1] ?? 0
        for (const ms of intervals) expect(Math.abs(ms - middle)).toBeLessThanOrEqual(middle / 3)
      }),
      { numRuns: 200 }
    )
  })

  test('a single epoch that takes ten times as long changes nothing', () => {
    const load = { pages: 50_000, writes: 2_000, pauseMs: 10, pauseMsPerPage: 0, makeMs: 300, makeMsPerPage: 0.04 }
    const policy = { kind: 'adaptive', overheadPercent: 5, lossMs: 30_000, atLeastMs: 500, atMostMs: 600_000 } as const
    let calls = 0
    const history = run(
      policy,
      80,
      () => load,
      () => (calls++ === 50 ? 9 : 0)
    )
    expect(swingOf(intervalsOf(history).slice(SETTLED))).toBeLessThanOrEqual(SWING)
  })
})

/** How often the way turns back by more than `part` of where it is. */
function bigTurns(values: readonly number[], part: number): number {
  let turns = 0
  let direction = 0
  let extreme = values[0] ?? 0
  for (const value of values) {
    if (direction >= 0 && value > extreme) extreme = value
    else if (direction <= 0 && value < extreme) extreme = value
    else if (Math.abs(value - extreme) > part * extreme) {
      turns++
      direction = value > extreme ? 1 : -1
      extreme = value
    }
    if (direction === 0 && value !== values[0]) direction = Math.sign(value - (values[0] ?? 0))
  }
  return turns
}
