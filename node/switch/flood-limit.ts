import type { Clock } from '../ports.ts'

/** A group's frames to addresses that nobody has been heard under, each of which goes to all. A guess. */
const PER_SECOND = 1_000

/** A bucket of tokens that fills at PER_SECOND and holds as many. */
export class FloodLimit {
  readonly #clock: Clock
  #tokens = PER_SECOND
  #filledMs: number

  constructor(clock: Clock) {
    this.#clock = clock
    this.#filledMs = clock.now()
  }

  /** Takes a token, where there is one. */
  allows(): boolean {
    const nowMs = this.#clock.now()
    this.#tokens = Math.min(PER_SECOND, this.#tokens + ((nowMs - this.#filledMs) * PER_SECOND) / 1000)
    this.#filledMs = nowMs
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }
}
