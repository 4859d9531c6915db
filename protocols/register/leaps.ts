/**
 * How far ballots may leap ahead of those that were seen before. Pure.
 *
 * A ballot must be above all that a voter has promised, and the numbers end (`MAX_COUNTER`): one member that made up the last one, once,
 * would end all registers for good, for nobody who keeps the rules can go beyond it. So voters take no ballot, and proposers follow
 * none, that is further ahead than rules can have brought it: room for a leap comes back slowly, and to use up what there is would take
 * eight years of leaps as fast as they are taken.
 */

/** At once: a voter that is new, or was away for long, meets ballots that others have come to meanwhile: in 20 years, at 100 a second. */
export const MAX_LEAP = 2 ** 36
/** Afterwards. A hundred times what a busy cluster uses (10,000 ballots a second); `MAX_LEAP` is back in 18 hours. */
const ROOM_PER_MS = 2 ** 20 / 1_000

export class Leaps {
  #room = MAX_LEAP
  #atMs = 0

  /** Whether counters may grow `by` now, which then counts. `nowMs`: of a clock that never goes back. */
  allows(by: number, nowMs: number): boolean {
    if (by <= 0) return true
    this.#room = Math.min(MAX_LEAP, this.#room + (nowMs - this.#atMs) * ROOM_PER_MS)
    this.#atMs = nowMs
    if (by > this.#room) return false
    this.#room -= by
    return true
  }
}
