/** What a policy does with a group: planners reckon it, people are shown it. */

/** What some time with epochs was like, or would have been. Times in milliseconds. */
export interface PolicyOutcome {
  readonly overMs: number
  readonly epochs: number
  readonly aborted: number
  /** The usual and the shortest and longest time between epochs. */
  readonly intervalMs: { readonly median: number; readonly least: number; readonly most: number }
  readonly pauseMs: { readonly total: number; readonly median: number; readonly most: number }
  /** Part of the time that VMs lost to epochs, 0 to 1. */
  readonly overhead: number
  /** With a host that dies at any moment: what is lost on average and at the worst. */
  readonly lossMs: { readonly mean: number; readonly most: number }
  readonly changedBytes: number
  readonly storedBytes: number
}

/** Between failures that cost a group its host. 30 days: a guess, reboots that nobody planned among them. */
export const FAILURE_EVERY_MS = 30 * 86_400_000

/**
 * Part of the time that counts, 0 to 1: neither lost to epochs, nor with a host, nor down. The result of the cost model
 * (`node/planning/policies/cost-model.ts`).
 */
export const availabilityOf = (
  { overhead, lossMs, downMs }: { readonly overhead: number; readonly lossMs: number; readonly downMs: number },
  failureEveryMs = FAILURE_EVERY_MS
): number => Math.max(0, 1 - overhead - Math.min(1, (lossMs + downMs) / failureEveryMs))

/** What a policy would have done with a past that was recorded. */
export interface SimulatedPolicy {
  readonly was: PolicyOutcome
  readonly wouldBe: PolicyOutcome
  /** What the policy said last. */
  readonly why: string
  /** The simulated epochs, oldest first: for a picture. */
  readonly epochs: readonly { readonly atMs: number; readonly pauseMs: number; readonly lossMs: number }[]
}
