/**
 * Keeps the overhead of epochs under a share of the VMs' time and the loss with a host under a time, by what epochs cost lately
 * (`cost-model.ts`). The interval is the one that costs the least of those that keep both; where none does, the overhead is kept:
 * epochs that are taken faster than they can be made would lose more.
 *
 * It is a loop: what an epoch costs depends on the interval, which is chosen by what epochs cost. It settles because each step is
 * monotone in the interval that was: with a longer interval more pages have changed, so that making an epoch takes longer (but
 * less than in proportion: pages that are written again count once).
 *
 *     by overhead:  next = interval · overhead / limit        grows with the interval
 *     by loss:      next = interval · limit / (interval + time to make an epoch)   grows with it, too
 *
 * A monotone step never overshoots its fixed point: from below it comes from below. (The obvious `limit − time to make` falls as
 * the interval grows, and goes back and forth about it.) Against noise it goes by
 * quantiles of the last epochs, leaves the interval alone while it is nearly right, and lets it grow slowly. With load that stays it
 * settles within 40 epochs (`test/unit/policy-adaptive.test.ts` has the loads).
 */
import { bestIntervalMs, epochCostMs } from './cost-model.ts'
import { costsOf, type EpochCost, quantile } from './measures.ts'
import { baseMs, endMs, type PolicyFor, type PolicyNow } from './policy.ts'
import { timeText } from './words.ts'
import type { SeenEpoch } from '../../../protocols/epoch/history.ts'

/** So many epochs say what one costs: half of them may be unusual. A guess. */
const LAST = 5
/** Aimed at is so much of a limit, so that what varies stays under it. A guess. */
const MARGIN = 0.9
/** An interval within so much of the one aimed at is left alone. A guess. */
const CLOSE = 0.1
/** The next interval is at most so much longer than the last: a quiet minute is not yet a quiet hour. A guess. */
const GROWTH = 1.5
/**
 * Of the time that an epoch took, the VMs have so much for themselves before the next. A guess. Of the last epochs' usual time,
 * too: where it is what sets the interval, an epoch that was made quickly would have the next one come early, with fewer pages, so
 * that that one is made quickly, too (with costs that vary by a fifth the interval went off its middle by up to 34 % so, and
 * goes by up to 29 % now, in 1,500 loads).
 */
export const REST = 1 / 4
/** Before anything is measured: half of what may be lost, a guess. */
const FIRST = 1 / 2

interface Limits {
  /** 0 to 1. */
  readonly overhead: number
  readonly lossMs: number
  readonly atLeastMs: number
  readonly atMostMs: number
}

export const adaptive: PolicyFor<'adaptive'> = (history, now, { overheadPercent, ...rest }) => {
  const limits = { ...rest, overhead: overheadPercent / 100 }
  const costs = costsOf(history).slice(-LAST)
  if (costs.length === 0) {
    const everyMs = within(FIRST * limits.lossMs, limits)
    return { atMs: dueAfter(history, now, everyMs), why: `${timeText(everyMs)}, as what epochs cost is not known yet` }
  }
  const { everyMs, why } = adaptedInterval(costs, limits)
  return { atMs: dueAfter(history, now, everyMs), why: `${timeText(everyMs)}: ${why}` }
}

/** Each epoch says by itself where it would have the interval: what one cost and how long another's was have nothing in common. */
export function adaptedInterval(costs: readonly EpochCost[], limits: Limits): { everyMs: number; why: string } {
  const usual = (of: (cost: EpochCost) => number, at = 1 / 2): number => quantile(costs.map(of), at)
  const lastMs = usual(({ intervalMs }) => intervalMs)
  const shortestMs = usual(cost => epochCostMs(cost) / (MARGIN * limits.overhead))
  // The second shortest of five: a single slow epoch is no reason, and what often takes long is.
  const longestMs = usual(cost => (cost.intervalMs * MARGIN * limits.lossMs) / (cost.intervalMs + madeMs(cost)), 2 / 5)
  const wantedMs = Math.max(
    shortestMs,
    Math.min(
      longestMs,
      usual(cost => bestIntervalMs(cost))
    )
  )
  const boundMs = within(wantedMs, limits)
  const isClose = Math.abs(lastMs - boundMs) <= CLOSE * boundMs
  const newestMs = Math.max(lastMs, costs.at(-1)?.intervalMs ?? 0)
  const keptMs = isClose ? within(lastMs, limits) : Math.min(boundMs, within(GROWTH * newestMs, limits))
  const usuallyMadeMs = usual(madeMs, 4 / 5)
  const everyMs = Math.max(keptMs, (1 + REST) * usuallyMadeMs)
  const found = { everyMs, shortestMs, longestMs, costMs: usual(epochCostMs), madeMs: usuallyMadeMs }
  return { everyMs, why: wordsOf(found, limits) }
}

const madeMs = ({ creationMs, mergeMs }: EpochCost): number => creationMs + mergeMs

const within = (ms: number, { atLeastMs, atMostMs }: Limits): number => Math.min(Math.max(ms, atLeastMs), atMostMs)

/** Not while the last one is being made, nor at once after it. Whole turns, as an interval has them, would be jumps. */
function dueAfter(history: readonly SeenEpoch[], now: PolicyNow, everyMs: number): number {
  const base = baseMs(history, now)
  return base + Math.max(everyMs, (1 + REST) * Math.max(0, endMs(history) - base))
}

interface Found {
  readonly everyMs: number
  readonly shortestMs: number
  readonly longestMs: number
  readonly costMs: number
  readonly madeMs: number
}

function wordsOf({ everyMs, shortestMs, longestMs, costMs, madeMs }: Found, limits: Limits): string {
  const lossMs = everyMs + madeMs
  const both = `${((100 * costMs) / everyMs).toFixed(1)} % overhead, at most ${timeText(lossMs)} lost`
  const isOver = shortestMs > longestMs && lossMs > limits.lossMs
  return isOver ? `${both}: both limits cannot be kept, and the overhead is` : both
}
