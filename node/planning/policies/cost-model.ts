/**
 * What epochs at an interval are worth and cost: HA = F(frequency, creation, merging, switching, recovery) of Chan and Chieu
 * (IBM, Middleware 2012 industry), with what is measured here in their places.
 *
 * | theirs | here |
 * |---|---|
 * | frequency | one epoch an interval |
 * | creation | from an epoch's opening until the images of all its VMs are durable |
 * | merging | from then until it is committed: nothing is merged, since an image refers to older pages where they lie, but only a whole epoch can be restored |
 * | switching | detection of a dead host, and the decision about its VMs |
 * | recovery | from the decision until they run |
 *
 * An epoch costs its VMs their pause, and of the time in which it is made a share, because copying competes with them. Where a
 * host dies, what was done since the opening of the last committed epoch is lost: at the worst an interval and the making of an
 * epoch, on average half an interval and that. Of many intervals the one with the least loss of time is Young's (A first order
 * approximation to the optimum checkpoint interval, CACM 17(9), 1974): sqrt(2 · cost of an epoch · time between failures).
 */
import { availabilityOf, FAILURE_EVERY_MS } from '../../../protocols/epoch/policy-outcome.ts'

/** Milliseconds. */
export interface Availability {
  readonly creationMs: number
  readonly mergeMs: number
  readonly pauseMs: number
  readonly switchMs: number
  readonly recoverMs: number
}

/**
 * Of the time in which an epoch is made its VMs lose so much. 0.05: a guess; a pipeline that takes a third of a core of a host
 * whose cores are mostly idle.
 */
export const MAKING_SHARE = 0.05

/** What one epoch takes from its VMs. */
export const epochCostMs = ({ pauseMs, creationMs }: Pick<Availability, 'pauseMs' | 'creationMs'>): number =>
  pauseMs + MAKING_SHARE * creationMs

export interface Estimate {
  /** Part of their time that VMs lose to epochs, 0 to 1. */
  readonly overhead: number
  readonly lossMeanMs: number
  readonly lossWorstMs: number
  /** From a host's death until its VMs run again. */
  readonly downMs: number
  /** Part of the time that counts, 0 to 1: neither lost to epochs, nor with a host, nor down. */
  readonly availability: number
}

export function estimate(intervalMs: number, costs: Availability, failureEveryMs = FAILURE_EVERY_MS): Estimate {
  const { creationMs, mergeMs, switchMs, recoverMs } = costs
  const overhead = Math.min(1, epochCostMs(costs) / intervalMs)
  const madeMs = creationMs + mergeMs
  const lossMeanMs = intervalMs / 2 + madeMs
  const downMs = switchMs + recoverMs
  const availability = availabilityOf({ overhead, lossMs: lossMeanMs, downMs }, failureEveryMs)
  return { overhead, lossMeanMs, lossWorstMs: intervalMs + madeMs, downMs, availability }
}

/** The interval at which the least time is lost to epochs and failures together. */
export const bestIntervalMs = (
  costs: Pick<Availability, 'pauseMs' | 'creationMs'>,
  failureEveryMs = FAILURE_EVERY_MS
): number => Math.sqrt(2 * epochCostMs(costs) * failureEveryMs)
