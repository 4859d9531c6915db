/**
 * What a policy is: a function of what became of earlier epochs, the time and its settings, which says when the next epoch is
 * due and why. It has no clock and keeps nothing, so it can be asked again at any time, by a simulation too, and whoever takes
 * a group over goes on where the one before it stopped.
 */
import type { PolicyKind, PolicyOf } from '../../../config/policy.ts'
import type { SeenEpoch } from '../../../protocols/epoch/history.ts'

/** Wall clock, milliseconds. */
export interface PolicyNow {
  readonly nowMs: number
  /** No epoch is due by what was before: the group began then, or a generation of it, or this peer's care for it. */
  readonly sinceMs: number
}

export interface PolicyNext {
  /** By the same clock. In the past: at once. */
  readonly atMs: number
  /** For people, in a few words. */
  readonly why: string
}

/** `history`: the group's last epochs, oldest first, none of them under way. Undefined: none is due by itself for a day at least. */
export type Policy<Settings> = (
  history: readonly SeenEpoch[],
  now: PolicyNow,
  settings: Settings
) => PolicyNext | undefined

export type PolicyFor<K extends PolicyKind> = Policy<PolicyOf<K>>

/** As many epochs as a policy is shown. A guess: an hour and more at most settings, and quickly read. */
export const HISTORY_SHOWN = 64

/** From when on the next epoch's time runs: the start of the last one, unless all has begun anew since. */
export const baseMs = (history: readonly SeenEpoch[], { sinceMs }: PolicyNow): number =>
  Math.max(sinceMs, history.at(-1)?.openedAtMs ?? 0)

/** When the last one was over. */
export const endMs = (history: readonly SeenEpoch[]): number => {
  const last = history.at(-1)
  return last === undefined ? 0 : last.openedAtMs + (last.tookMs ?? 0)
}

/**
 * The first multiple of `everyMs` after the base at which no epoch is under way: one that takes longer than the interval costs
 * its successor a turn, so that the VMs have some time for themselves.
 */
export function dueEvery(history: readonly SeenEpoch[], now: PolicyNow, everyMs: number): number {
  const base = baseMs(history, now)
  const turns = Math.max(1, Math.ceil((endMs(history) - base) / everyMs))
  return base + turns * everyMs
}
