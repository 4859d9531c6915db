/** Policies: what the edge asks of a peer about when epochs are taken, and shows of it; part of `PeerView`. */
import { type EpochPolicy, policySchema } from '../../config/policy.ts'
import { check, problemText } from '../../config/words.ts'
import type { SimulatedPolicy } from '../../protocols/epoch/policy-outcome.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { UsageError } from '../errors.ts'

export interface PolicyView {
  /** GROUP_UNKNOWN. */
  show(group: string): Promise<GroupPolicy>
  /** Undefined: as the config of who owns its first VM says. GROUP_UNKNOWN, MEMBER_OLDER; UsageError POLICY_UNKNOWN. */
  set(group: string, policy: EpochPolicy | undefined): Promise<GroupRecord>
  /** Recorded history through a policy, and what was. GROUP_UNKNOWN, HISTORY_SHORT, SIMULATION_SLOW, POLICY_FAILED; UsageError POLICY_UNKNOWN. */
  simulate(group: string, policy: EpochPolicy): Promise<PolicySimulation>
}

/** Times in milliseconds; `…AtMs` and `nowMs` by the wall clock of the peer that was asked. */
export interface GroupPolicy {
  readonly group: string
  /** Null: epochs on request only. */
  readonly policy: EpochPolicy | null
  /** In a line. */
  readonly text: string
  /** It is the group's own, and not that of the config. */
  readonly own: boolean
  /** Name of the member that takes its epochs. */
  readonly keeper: string
  readonly nowMs: number
  /** When the next epoch is due by what this peer remembers. Null: none is by itself. */
  readonly next: { readonly atMs: number; readonly why: string } | null
  /** Why the policy gives no answer here: the interval of the config stands in. */
  readonly failed?: string | undefined
  /** Of the last epochs, the usual one. Null: too few are remembered. */
  readonly costs: EpochCosts | null
}

export interface EpochCosts {
  /** Of so many epochs. */
  readonly epochs: number
  readonly intervalMs: number
  readonly pauseMs: number
  /** Until its images were durable; from then until it was committed. */
  readonly creationMs: number
  readonly mergeMs: number
  readonly changedBytes: number
  readonly storedBytes: number
  /** From a host's death until its VMs run again, the slowest VM; null: no restore of it was measured. */
  readonly downMs: number | null
  /** At this interval: part of their time that VMs lose to epochs, what a failure loses, and what part of the time counts. */
  readonly overhead: number
  readonly lossMeanMs: number
  readonly lossWorstMs: number
  readonly availability: number
}

export interface PolicySimulation extends SimulatedPolicy {
  readonly group: string
  readonly text: string
}

/** UsageError API_BAD_REQUEST lists every problem. */
export function parsePolicy(raw: unknown): EpochPolicy {
  const shape = check(policySchema, raw)
  if (shape.ok) return shape.value
  const lines = shape.problems.map(problem => `  ${problemText(problem)}`)
  throw new UsageError('API_BAD_REQUEST', `the policy cannot be:\n${lines.join('\n')}`)
}
