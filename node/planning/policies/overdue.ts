/** Whether a group was saved as often as its policy says: for how long it was not. Pure. */
import type { EpochPolicy } from '../../../config/policy.ts'

/** Times the longest that a policy lets pass: one epoch that comes to nothing is nothing to be told of. A guess. */
const PATIENCE = 3
/** At least: clocks of hosts differ, and restored VMs need a while. A guess. */
const AT_LEAST_MS = 60_000

/** The longest that lies between two epochs by a policy; undefined: any time may, or nobody here can tell. */
export function longestMs(policy: EpochPolicy): number | undefined {
  switch (policy.kind) {
    case 'interval':
      return policy.everyMs
    case 'delta-size':
    case 'adaptive':
      return policy.atMostMs
    case 'windows': {
      const each = [policy.otherwiseMs, ...policy.windows.map(({ everyMs }) => everyMs)]
      return each.includes(0) ? undefined : Math.max(...each)
    }
    case 'own':
      return undefined
  }
}

/** For how long nothing was committed, where that is much longer than the policy says; undefined: it is not. */
export function overdueMs(
  policy: EpochPolicy | undefined,
  committedMs: number | undefined,
  nowMs: number
): number | undefined {
  const longest = policy && longestMs(policy)
  if (longest === undefined || committedMs === undefined) return undefined
  const sinceMs = nowMs - committedMs
  return sinceMs > Math.max(PATIENCE * longest, longest + AT_LEAST_MS) ? sinceMs : undefined
}
