/**
 * What it would mean for a VM if its host died now: back after so long, with so much lost; and whether that is what its
 * objective allows (in words of disaster recovery, RTO and RPO). Pure.
 *
 * Parts that were measured count, those of the last time (`measured-parts.ts`). Detection and decision follow from settings,
 * so before the first failover they are worked out from them; a restore follows from the VM and its host, so that is not known
 * before one was measured.
 */
import type { VmObjective } from '../../protocols/group.ts'
import type { Obstacle, OutlookParts, VmOutlook } from '../../protocols/overview/outlook.ts'

export interface OutlookNow {
  readonly nowMs: number
  /** When what would be gone back to was committed, or when the VM began where nothing is committed. */
  readonly sinceMs: number
  /** While it is there, no VM of the group would come back. */
  readonly obstacle?: Obstacle | undefined
}

/** `measured`: null where it was not. */
export function outlookOf(
  objective: VmObjective | undefined,
  measured: OutlookParts,
  bySettings: { readonly detectMs: number; readonly decideMs: number },
  { nowMs, sinceMs, obstacle }: OutlookNow
): VmOutlook {
  const detectMs = measured.detectMs ?? bySettings.detectMs
  const decideMs = measured.decideMs ?? bySettings.decideMs
  const never = obstacle !== undefined
  const backMs = never || measured.runsMs === null ? null : detectMs + decideMs + measured.runsMs
  const lossMs = Math.max(0, nowMs - sinceMs)
  const over = (most: number | undefined, value: number): boolean => most !== undefined && value > most
  const wouldBe = { backMs: never ? Number.POSITIVE_INFINITY : (backMs ?? 0), lossMs }
  return {
    backMs,
    ...(never && { never, why: obstacle }),
    parts: { detectMs, decideMs, runsMs: measured.runsMs },
    bySettings: (['detectMs', 'decideMs'] as const).filter(part => measured[part] === null),
    lossMs,
    missed: (['backMs', 'lossMs'] as const).filter(name => over(objective?.[name], wouldBe[name]))
  }
}

/** The same, of another moment or by another clock: what the VM would lose. */
export function withLoss(outlook: VmOutlook, objective: VmObjective | undefined, lossMs: number): VmOutlook {
  const isMissed = objective?.lossMs !== undefined && lossMs > objective.lossMs
  const others = outlook.missed.filter(name => name !== 'lossMs')
  return { ...outlook, lossMs, missed: isMissed ? [...others, 'lossMs'] : others }
}

/**
 * Detection and decision as the settings let expect them: a period until a probe fails and is repeated, the shortest
 * suspicion (with enough peers that confirm it); then until the dead host's lease has run out, by the slowest clock.
 */
export function partsBySettings(
  { periodMs, suspicionMinMs }: { readonly periodMs: number; readonly suspicionMinMs: number },
  { durationMs, driftPerMille }: { readonly durationMs: number; readonly driftPerMille: number }
): { detectMs: number; decideMs: number } {
  const detectMs = periodMs + suspicionMinMs
  return { detectMs, decideMs: Math.max(0, Math.round(durationMs * (1 + driftPerMille / 1_000)) - detectMs) }
}
