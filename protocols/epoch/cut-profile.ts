/**
 * When each VM of a group begins with its part of an epoch, so that all are cut within milliseconds of each other. Pure.
 *
 * A VM's way to its cut has two parts, with the core's wait for all others between them:
 *
 *     mark ──prepareMs──▶ prepared ── all are ──▶ told to cut ──leadMs──▶ its colour turns
 *
 * *Preparing* copies RAM while the VM runs: 50 ms to seconds, by its RAM and its host's disk. A VM that is done early only
 * waits and writes pages, which then have to be copied again in its lead. So who takes longest begins at once, and the
 * others later. Late is worse than early here, since one that comes last holds all others back: a VM waits only as long
 * as it would not be the last even if it took its worst and the slowest its best.
 *
 * The *lead* is the last scan for written pages, QEMU's start of its device stream and the drain of the NIC: some 10 ms,
 * and hundreds where many pages are left. Who takes longest goes at once, the others later by the difference of what is
 * usual, so that they arrive together; early and late are equally wrong.
 *
 * Owners tell both times of every cut with its frame counts, so every peer has the same profile and plans its own VMs
 * alone. Nothing depends on a plan: a frame of the new colour cuts at once. Usual, best and worst are quantiles of the
 * last cuts and not a mean with a deviation (as RFC 6298 has it for round trips): the first cut of a generation copies
 * all of RAM and takes tens of times as long as those after it, which a mean would remember for ten epochs.
 */

/** How long one cut took. */
export interface CutTimes {
  /** From the mark until all was copied that can be copied while the VM runs. */
  readonly prepareMs: number
  /** From the word to cut until the VM stood still, was drained and had the new colour. */
  readonly leadMs: number
  /** How long the VM stood still: for people and policies. Absent where a member would not understand it. */
  readonly pauseMs?: number | undefined
}

/** Durations within which something is expected to be done: rarely sooner, rarely later. */
export interface Expected {
  readonly bestMs: number
  readonly worstMs: number
}

/** Cuts that are remembered of each VM. A guess: what is different for as many is how it is now. */
export const REMEMBERED_CUTS = 8
/** From fewer nothing is concluded: the first is of all RAM, and the one after it has to do with what was written since. */
export const FEWEST_CUTS = 3
/** In a row of eight the second lowest. */
const BEST = 0.25
const USUAL = 0.5
/** A lead is told apart from waiting for the group only so far. A guess: a round of copying, many times a usual lead. */
export const MAX_LEAD_DELAY_MS = 500

/** What is known of a VM of which nothing is known: it may be done at once or never. */
const UNKNOWN: Expected = { bestMs: 0, worstMs: Number.POSITIVE_INFINITY }

/** The past cuts of a group's VMs in one generation. */
export class CutProfile {
  readonly #cuts = new Map<string, readonly CutTimes[]>()

  note(vm: string, times: CutTimes): void {
    this.#cuts.set(vm, [...(this.#cuts.get(vm) ?? []), times].slice(-REMEMBERED_CUTS))
  }

  /** VMs run elsewhere now. */
  forget(): void {
    this.#cuts.clear()
  }

  /** How long after the mark `vm` begins to prepare, as one of `vms`. At most `capMs`. */
  prepareDelayMs(vm: string, vms: readonly string[], capMs: number): number {
    return delayOf(vm, this.#expected(vms, preparing), capMs)
  }

  /** How long after all of `vms` are prepared `vm` is told to cut. */
  leadDelayMs(vm: string, vms: readonly string[]): number {
    return delayOf(vm, this.#expected(vms, leading), MAX_LEAD_DELAY_MS)
  }

  #expected(vms: readonly string[], of: (cuts: readonly CutTimes[]) => Expected): Map<string, Expected> {
    return new Map(
      vms.map(vm => {
        const cuts = this.#cuts.get(vm) ?? []
        return [vm, cuts.length < FEWEST_CUTS ? UNKNOWN : of(cuts)]
      })
    )
  }
}

/**
 * The start of one VM's work, in milliseconds after the first one's: as late as it can be without being the last to be
 * done. 0 for whoever may be the slowest, and where its own time is unknown.
 */
export function delayOf(vm: string, expected: ReadonlyMap<string, Expected>, capMs: number): number {
  const { worstMs } = expected.get(vm) ?? UNKNOWN
  const slowestMs = Math.max(0, ...[...expected.values()].map(({ bestMs }) => bestMs))
  return Math.min(Math.max(0, slowestMs - worstMs), capMs)
}

function preparing(cuts: readonly CutTimes[]): Expected {
  const times = cuts.map(({ prepareMs }) => prepareMs)
  return { bestMs: quantile(times, BEST), worstMs: Math.max(...times) }
}

function leading(cuts: readonly CutTimes[]): Expected {
  const usualMs = quantile(
    cuts.map(({ leadMs }) => leadMs),
    USUAL
  )
  return { bestMs: usualMs, worstMs: usualMs }
}

/** The least of `values` that is not below a part `at` (0 to 1) of them: nearest rank. */
export function quantile(values: readonly number[], at: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(at * sorted.length) - 1)] ?? Number.NaN
}
