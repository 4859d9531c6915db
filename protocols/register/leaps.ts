/**
 * Ballots that nobody who keeps the rules can have come to. Pure.
 *
 * A ballot must be above all that a voter has promised, and the numbers end (`MAX_COUNTER`): a member that made up the last one, once,
 * would end all registers for good, for nobody could go beyond it. So the upper half of them is given out slowly. Whoever keeps the rules
 * never gets there, and nothing is refused below. A liar does, by one message; then all go on from where that has led them, step by
 * step, and to use up what is left it needs four years.
 *
 * A voter that is new by then, or has been away, cannot know how far the others have been led. It believes what two members show it.
 */
import type { PeerId } from '../core.ts'

/** Below, ballots are taken as they come: 446 years at 10,000 a second. */
export const FREE_COUNTERS = 2 ** 47
/** Above: at once, and again after 17 minutes. Far more than those that a peer reserves, and forgets when it starts again. */
export const MAX_LEAP = 2 ** 30
/** A guess: a hundred times the 10,000 a second of above. */
const ROOM_PER_MS = 2 ** 20 / 1_000

export class Leaps {
  #room = MAX_LEAP
  #atMs = 0
  /** The highest that was refused, by member. */
  readonly #refused = new Map<PeerId, number>()

  /**
   * Whether a ballot of `from` is taken where `highest` is the highest that was; that counts. `nowMs`: of a clock that never goes
   * back.
   */
  allows(from: PeerId, counter: number, highest: number, nowMs: number): boolean {
    if (counter <= FREE_COUNTERS) return true
    const by = counter - Math.max(highest, FREE_COUNTERS, this.#shownByTwo())
    if (by <= 0) return true
    this.#room = Math.min(MAX_LEAP, this.#room + (nowMs - this.#atMs) * ROOM_PER_MS)
    this.#atMs = nowMs
    if (by > this.#room) {
      this.#refused.set(from, Math.max(counter, this.#refused.get(from) ?? 0))
      return false
    }
    this.#room -= by
    return true
  }

  #shownByTwo(): number {
    let [first, second] = [0, 0]
    for (const counter of this.#refused.values()) {
      if (counter > first) [first, second] = [counter, first]
      else second = Math.max(second, counter)
    }
    return second
  }
}
