/** How many messages an hour a target is sent: a bucket of tokens that fills evenly. */

const HOUR_MS = 3_600_000
/** So many at once, where there were none for a while. A guess: a bad minute. */
const MOST_AT_ONCE = 10

export class Delay {
  readonly #everyMs: number
  readonly #most: number
  /** When the bucket would be full if nothing more was taken. */
  #fullMs = Number.NEGATIVE_INFINITY

  constructor(perHour: number) {
    this.#everyMs = HOUR_MS / perHour
    this.#most = Math.min(perHour, MOST_AT_ONCE)
  }

  /** From when one more may be sent. */
  freeMs(nowMs: number): number {
    return Math.max(nowMs, this.#fullMs - (this.#most - 1) * this.#everyMs)
  }

  take(nowMs: number): void {
    this.#fullMs = Math.max(this.#fullMs, nowMs) + this.#everyMs
  }
}
