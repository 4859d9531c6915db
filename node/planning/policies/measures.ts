/**
 * What epochs cost, as their history has it. Of VMs of which a number is missing (their host was not heard) the others stand
 * for it. Pure.
 */
import type { SeenEpoch } from '../../../protocols/epoch/history.ts'

const PAGE_BYTES = 4096

/** Of one committed epoch, and the time since the one opened before it. */
export interface EpochCost {
  readonly epoch: SeenEpoch
  readonly intervalMs: number
  /** The longest pause of its VMs: as a group they stand still for that long. */
  readonly pauseMs: number
  /** From its opening until all images were durable, and from then until it was committed. */
  readonly creationMs: number
  readonly mergeMs: number
  /** Pages that had changed, and what was stored of them with parity, of all VMs. */
  readonly changedBytes: number
  readonly storedBytes: number
}

/**
 * Committed epochs that say what the next one will cost: not the first of a generation, which is of all RAM, nor one of which
 * nothing was measured. An aborted epoch is no interval's end, since the pages stay changed, so it counts into the next.
 */
export function costsOf(history: readonly SeenEpoch[]): EpochCost[] {
  const costs: EpochCost[] = []
  let before: SeenEpoch | undefined
  for (const epoch of history) {
    if (epoch.outcome !== 'committed') continue
    const intervalMs = epoch.openedAtMs - (before?.openedAtMs ?? Number.POSITIVE_INFINITY)
    const usable = before?.generation === epoch.generation && intervalMs > 0 && Object.keys(epoch.vms).length > 0
    if (usable) costs.push({ epoch, intervalMs, ...costOf(epoch) })
    before = epoch
  }
  return costs
}

/** Of one, whatever came before it. */
export function costOf(epoch: SeenEpoch): Omit<EpochCost, 'epoch' | 'intervalMs'> {
  const vms = Object.values(epoch.vms)
  const tookMs = epoch.tookMs ?? 0
  const made = vms.map(({ prepareMs = 0, leadMs = 0, durableMs = 0 }) => prepareMs + leadMs + durableMs)
  const creationMs = Math.min(tookMs, Math.max(0, ...made))
  return {
    pauseMs: Math.max(0, ...vms.map(({ pauseMs = 0 }) => pauseMs)),
    creationMs,
    mergeMs: tookMs - creationMs,
    changedBytes: PAGE_BYTES * sum(vms.map(({ image }) => image?.pagesChanged ?? 0)),
    storedBytes: sum(vms.map(({ image }) => image?.bytesStored ?? 0))
  }
}

export const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

/** The least of `values` that is not below a part `at` (0 to 1) of them: nearest rank. 0 of none. */
export function quantile(values: readonly number[], at: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(at * sorted.length) - 1)] ?? 0
}
