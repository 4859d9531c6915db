/** Policies that the operator supplies as modules: when a group's next epoch is due. */
import type { SeenEpoch } from '../../protocols/epoch/history.ts'

export interface PolicyModules {
  /** Those of the config that could be loaded. */
  readonly names: readonly string[]
  /**
   * What the module's `next` says; undefined: no epoch is due by itself. POLICY_UNKNOWN: there is none by this name, or it could
   * not be loaded, which the message says why. POLICY_FAILED: it has thrown, said what is no answer, or took too long.
   */
  next(name: string, question: PolicyQuestion): Promise<{ atMs: number; why: string } | undefined>
  /**
   * The same module in a thread of its own, which `end` ends: for questions of people, whose settings may be such that the module
   * fails, which is not to cost a group its policy. As `next`, with no wait for others. POLICY_UNKNOWN.
   */
  alone(name: string): LonePolicy
  close(): Promise<void>
}

export interface LonePolicy {
  next(question: PolicyQuestion): ReturnType<PolicyModules['next']>
  end(): Promise<void>
}

export interface PolicyQuestion {
  /** The group's last epochs, oldest first, none of them under way. */
  readonly history: readonly SeenEpoch[]
  /** Wall clock; no epoch is due by what was before `sinceMs`. */
  readonly now: { readonly nowMs: number; readonly sinceMs: number }
  readonly settings: Readonly<Record<string, string | number | boolean>>
}
