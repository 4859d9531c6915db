/** The change of when a group's epochs are taken by themselves. Pure. */
import type { EpochPolicy } from '../../config/policy.ts'
import type { GroupRecord } from '../group.ts'

/** Undefined: as the config of who owns its first VM says. Nothing where it is so already, or where there is no group. */
export function setPolicy(policy: EpochPolicy | undefined) {
  return (current: GroupRecord | null): GroupRecord | undefined => {
    if (current === null || current.removed) return undefined
    if (JSON.stringify(current.policy) === JSON.stringify(policy)) return undefined
    const { policy: _, ...rest } = current
    return { ...rest, version: current.version + 1, ...(policy && { policy }) }
  }
}
