/** The policies by their kind, and how they are told to people. */
import type { EpochPolicy } from '../../../config/policy.ts'
import type { SeenEpoch } from '../../../protocols/epoch/history.ts'
import { adaptive } from './adaptive.ts'
import { deltaSize } from './delta-size.ts'
import { interval } from './interval.ts'
import { HISTORY_SHOWN, type PolicyNext, type PolicyNow } from './policy.ts'
import { windows } from './windows.ts'
import { timeText } from './words.ts'

/** Those that are part of the program: `own` is a module that the operator supplies. */
export type BuiltIn = Exclude<EpochPolicy, { kind: 'own' }>

/** When the next epoch is due by a policy. `history` may have one under way, and be longer than a policy is shown. */
export function nextEpoch(policy: BuiltIn, history: readonly SeenEpoch[], now: PolicyNow): PolicyNext | undefined {
  const shown = shownHistory(history)
  switch (policy.kind) {
    case 'interval':
      return interval(shown, now, policy)
    case 'delta-size':
      return deltaSize(shown, now, policy)
    case 'adaptive':
      return adaptive(shown, now, policy)
    case 'windows':
      return windows(shown, now, policy)
  }
}

/** What a policy is shown: the last epochs that are over, or of which no end is known because a newer one has begun. */
export function shownHistory(history: readonly SeenEpoch[]): readonly SeenEpoch[] {
  const underWay = history.at(-1)?.outcome === 'open' ? 1 : 0
  const over = history.length - underWay
  return history.slice(Math.max(0, over - HISTORY_SHOWN), over)
}

/** Of a group without a policy of its own: as `epochs.policy` says, or an interval. Undefined: on request only. */
export const policyOrDefault = (
  own: EpochPolicy | undefined,
  { policy, intervalMs }: { readonly policy?: EpochPolicy | undefined; readonly intervalMs: number }
): EpochPolicy | undefined =>
  own ?? policy ?? (intervalMs === 0 ? undefined : { kind: 'interval', everyMs: intervalMs })

export const policyName = (policy: EpochPolicy): string => (policy.kind === 'own' ? `own ${policy.name}` : policy.kind)

/** In a line, with all that it goes by. */
export function policyText(policy: EpochPolicy): string {
  switch (policy.kind) {
    case 'interval':
      return `interval: every ${timeText(policy.everyMs)}`
    case 'delta-size':
      return `delta-size: when ${policy.mebibytes} MiB have changed, ${boundsText(policy)}`
    case 'adaptive': {
      const { overheadPercent, lossMs } = policy
      return `adaptive: overhead under ${overheadPercent} %, loss under ${timeText(lossMs)}, ${boundsText(policy)}`
    }
    case 'windows': {
      const each = policy.windows.map(({ cron, everyMs }) => `"${cron}" ${everyText(everyMs)}`)
      return `windows (${policy.timeZone}): ${each.join('; ')}; otherwise ${everyText(policy.otherwiseMs)}`
    }
    case 'own':
      return `own: module ${policy.name} ${JSON.stringify(policy.settings)}`
  }
}

const everyText = (everyMs: number): string => (everyMs === 0 ? 'none' : `every ${timeText(everyMs)}`)

const boundsText = ({ atLeastMs, atMostMs }: { readonly atLeastMs: number; readonly atMostMs: number }): string =>
  `every ${timeText(atLeastMs)} to ${timeText(atMostMs)}`
