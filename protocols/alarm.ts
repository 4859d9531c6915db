/** The one timer of a shell whose core says when it wants to be woken. */
import type { Clock } from '../node/ports.ts'

export class Alarm {
  readonly #clock: Clock
  readonly #ring: () => void
  #atMs = Number.POSITIVE_INFINITY
  #cancel: () => void = () => {}

  /** `ring` is called at the time last set, or within a millisecond after it. */
  constructor(clock: Clock, ring: () => void) {
    this.#clock = clock
    this.#ring = ring
  }

  /** In the time of `clock.now()`; takes the place of what was set before. Infinity: never. */
  set(atMs: number): void {
    if (atMs === this.#atMs) return
    this.#cancel()
    this.#atMs = atMs
    if (atMs === Number.POSITIVE_INFINITY) return
    this.#cancel = this.#clock.after(Math.max(0, Math.ceil(atMs - this.#clock.now())), () => {
      this.#atMs = Number.POSITIVE_INFINITY
      this.#ring()
    })
  }
}
