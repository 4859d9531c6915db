/**
 * What a policy would have done with a group's past: recorded history is replayed through it, with a model of what its epochs
 * would have cost. Pure.
 *
 * The model: between two recorded epochs pages changed evenly. An epoch at another time has changed what changed since the one
 * before it; how long its pause is, how long it takes and what is stored follow from that by a line through the recorded
 * epochs (least squares, never falling). Pages that were written in several intervals count in each: of an epoch that
 * would have stood for several recorded ones the model says too much, so that longer intervals cost less than is said here;
 * and of one that is shorter too little. The failure it is judged by is of any host at any moment.
 */
import type { SeenEpoch } from '../../../protocols/epoch/history.ts'
import type { PolicyOutcome, SimulatedPolicy } from '../../../protocols/epoch/policy-outcome.ts'
import { epochCostMs } from './cost-model.ts'
import { costOf, costsOf, type EpochCost, quantile, sum } from './measures.ts'
import { HISTORY_SHOWN, type PolicyNext, type PolicyNow } from './policy.ts'

/** Epochs that are simulated at the most: an interval that is too short for a long history ends early. */
export const MAX_SIMULATED = 5_000
/** From fewer recorded epochs nothing is concluded. A line needs two; a guess. */
export const FEWEST_RECORDED = 3

/** What a simulation asks the policy, to be answered as a policy does. */
export interface SimulatedMoment {
  readonly history: readonly SeenEpoch[]
  readonly now: PolicyNow
}

/** `next`: the policy with its settings. Undefined: too little is recorded (`FEWEST_RECORDED`). */
export function simulatePolicy(
  recorded: readonly SeenEpoch[],
  next: (history: readonly SeenEpoch[], now: PolicyNow) => PolicyNext | undefined
): SimulatedPolicy | undefined {
  const simulation = simulating(recorded)
  let step = simulation.next()
  while (step.done !== true) step = simulation.next(next(step.value.history, step.value.now))
  return step.value
}

/** As `simulatePolicy`, a question at a time: a peer has other things to do in between, and may have to wait for answers. */
export function* simulating(
  recorded: readonly SeenEpoch[]
): Generator<SimulatedMoment, SimulatedPolicy | undefined, PolicyNext | undefined> {
  const costs = costsOf(recorded)
  const [first] = costs
  const last = costs.at(-1)
  if (first === undefined || last === undefined || costs.length < FEWEST_RECORDED) return undefined
  const fromMs = first.epoch.openedAtMs - first.intervalMs
  const toMs = last.epoch.openedAtMs
  const model = modelOf(costs)
  const made: SeenEpoch[] = []
  let nowMs = fromMs
  let why = ''
  while (made.length < MAX_SIMULATED) {
    const answer = yield { history: made.slice(-HISTORY_SHOWN), now: { nowMs, sinceMs: fromMs } }
    if (answer === undefined) break
    ;({ why } = answer)
    const atMs = Math.max(answer.atMs, nowMs)
    if (atMs > toMs) break
    const epoch = model.epochAt(atMs, made.at(-1)?.openedAtMs ?? fromMs, made.length + 1, last.epoch)
    made.push(epoch)
    nowMs = atMs + Math.max(1, epoch.tookMs ?? 0)
  }
  const within = recorded.filter(({ openedAtMs }) => openedAtMs > fromMs && openedAtMs <= toMs)
  const epochs = made.map((epoch, i) => ({
    atMs: epoch.openedAtMs,
    pauseMs: costOf(epoch).pauseMs,
    lossMs: epoch.openedAtMs + (epoch.tookMs ?? 0) - (made[i - 1]?.openedAtMs ?? fromMs)
  }))
  return { was: outcomeOf(within, fromMs, toMs), wouldBe: outcomeOf(made, fromMs, toMs), why, epochs }
}

interface Model {
  epochAt(atMs: number, sinceMs: number, number: number, like: SeenEpoch): SeenEpoch
}

function modelOf(costs: readonly EpochCost[]): Model {
  const lineOf = (of: (cost: EpochCost) => number): Line =>
    lineThrough(costs.map(cost => [cost.changedBytes, of(cost)]))
  const pause = lineOf(({ pauseMs }) => pauseMs)
  const creation = lineOf(({ creationMs }) => creationMs)
  const merge = lineOf(({ mergeMs }) => mergeMs)
  const stored = lineOf(({ storedBytes }) => storedBytes)
  return {
    epochAt(atMs, sinceMs, number, { group, generation }) {
      const changed = changedBetween(costs, sinceMs, atMs)
      const creationMs = at(creation, changed)
      const pages = Math.round(changed / 4096)
      const image = {
        pages,
        pagesNonZero: pages,
        pagesChanged: pages,
        bytesRaw: pages * 4096,
        bytesData: Math.round(at(stored, changed)),
        bytesStored: Math.round(at(stored, changed)),
        inFlightFrames: 0
      }
      const vms = { all: { pauseMs: at(pause, changed), durableMs: creationMs, image } }
      const tookMs = creationMs + at(merge, changed)
      return { group, generation, epoch: number, outcome: 'committed', openedAtMs: atMs, tookMs, vms }
    }
  }
}

/** What changed evenly in each recorded interval, as far as it is within [fromMs, toMs]. `costs` are in their order. */
function changedBetween(costs: readonly EpochCost[], fromMs: number, toMs: number): number {
  let low = 0
  for (let high = costs.length; low < high; ) {
    const middle = (low + high) >> 1
    if ((costs[middle]?.epoch.openedAtMs ?? 0) <= fromMs) low = middle + 1
    else high = middle
  }
  let bytes = 0
  for (let i = low; i < costs.length; i++) {
    const cost = costs[i]
    if (cost === undefined) break
    const endMs = cost.epoch.openedAtMs
    const startMs = endMs - cost.intervalMs
    if (startMs >= toMs) break
    const sharedMs = Math.min(endMs, toMs) - Math.max(startMs, fromMs)
    bytes += (cost.changedBytes * Math.max(0, sharedMs)) / cost.intervalMs
  }
  return bytes
}

interface Line {
  readonly atZero: number
  readonly slope: number
}

const at = ({ atZero, slope }: Line, x: number): number => Math.max(0, atZero + slope * x)

/** Least squares; level where it would fall, and through the origin where it would begin below it. */
export function lineThrough(points: readonly (readonly [number, number])[]): Line {
  const n = Math.max(1, points.length)
  const meanX = sum(points.map(([x]) => x)) / n
  const meanY = sum(points.map(([, y]) => y)) / n
  const spread = sum(points.map(([x]) => (x - meanX) ** 2))
  const together = sum(points.map(([x, y]) => (x - meanX) * (y - meanY)))
  const slope = spread === 0 ? 0 : Math.max(0, together / spread)
  const atZero = meanY - slope * meanX
  if (atZero >= 0) return { atZero, slope }
  const squares = sum(points.map(([x]) => x ** 2))
  return { atZero: 0, slope: squares === 0 ? 0 : sum(points.map(([x, y]) => x * y)) / squares }
}

function outcomeOf(epochs: readonly SeenEpoch[], fromMs: number, toMs: number): PolicyOutcome {
  const committed = epochs.filter(({ outcome }) => outcome === 'committed')
  const costs = committed.map(costOf)
  const starts = [fromMs, ...committed.map(({ openedAtMs }) => openedAtMs)]
  const intervals = committed.map(({ openedAtMs }, i) => openedAtMs - (starts[i] ?? fromMs))
  const pauses = costs.map(({ pauseMs }) => pauseMs)
  const overMs = toMs - fromMs
  const { mean, most } = losses(committed, fromMs, toMs)
  return {
    overMs,
    epochs: committed.length,
    aborted: epochs.length - committed.length,
    intervalMs: { median: quantile(intervals, 1 / 2), least: least(intervals), most: Math.max(0, ...intervals) },
    pauseMs: { total: sum(pauses), median: quantile(pauses, 1 / 2), most: Math.max(0, ...pauses) },
    overhead: overMs === 0 ? 0 : sum(costs.map(epochCostMs)) / overMs,
    lossMs: { mean, most },
    changedBytes: sum(costs.map(({ changedBytes }) => changedBytes)),
    storedBytes: sum(costs.map(({ storedBytes }) => storedBytes))
  }
}

const least = (values: readonly number[]): number => (values.length === 0 ? 0 : Math.min(...values))

/**
 * What a failure at each moment would cost: the time since the opening of the last epoch that is committed by then. It grows
 * evenly and falls at each commit to what that epoch took.
 */
function losses(committed: readonly SeenEpoch[], fromMs: number, toMs: number): { mean: number; most: number } {
  let area = 0
  let most = 0
  let sinceMs = fromMs
  let openedMs = fromMs
  const ends = committed.map(({ openedAtMs, tookMs = 0 }) => [openedAtMs + tookMs, openedAtMs] as const)
  for (const [endMs, nextMs] of [...ends, [toMs, toMs] as const]) {
    const untilMs = Math.min(Math.max(endMs, sinceMs), toMs)
    area += ((untilMs - openedMs) ** 2 - (sinceMs - openedMs) ** 2) / 2
    most = Math.max(most, untilMs - openedMs)
    sinceMs = untilMs
    if (endMs <= toMs) openedMs = Math.max(openedMs, nextMs)
  }
  return { mean: toMs === fromMs ? 0 : area / (toMs - fromMs), most }
}
