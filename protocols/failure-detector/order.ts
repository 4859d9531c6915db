import type { PeerId, Random } from '../core.ts'

/**
 * Whom to probe next: everyone once in a random order, then everyone in another (SWIM, section 4.3). So a member is
 * probed by each other one within 2n - 1 periods, and by somebody in about every period.
 *
 * The order is drawn while it is walked (Fisher-Yates, one swap a step), so that no step costs more than another.
 */
export class ProbeOrder {
  readonly #random: Random
  readonly #ids: PeerId[]
  /** Before it those of this round. */
  #at = 0

  constructor(ids: readonly PeerId[], random: Random) {
    this.#ids = [...ids]
    this.#random = random
  }

  get length(): number {
    return this.#ids.length
  }

  /** Undefined where there is nobody. */
  next(): PeerId | undefined {
    if (this.#ids.length === 0) return undefined
    if (this.#at >= this.#ids.length) this.#at = 0
    this.#swap(this.#at, this.#at + Math.floor(this.#random() * (this.#ids.length - this.#at)))
    return this.#ids[this.#at++]
  }

  /**
   * At a random place of the round, which may be one that has passed (SWIM, section 4.3). Were it always ahead, all
   * others would probe a newcomer at about the same time.
   */
  add(id: PeerId): void {
    const last = this.#ids.push(id) - 1
    if (this.#random() * (last + 1) < this.#at) this.#swap(this.#at++, last)
  }

  delete(id: PeerId): void {
    let hole = this.#ids.indexOf(id)
    if (hole < 0) return
    if (hole < this.#at) {
      this.#at--
      this.#swap(hole, this.#at)
      hole = this.#at
    }
    this.#swap(hole, this.#ids.length - 1)
    this.#ids.pop()
  }

  #swap(a: number, b: number): void {
    const held = this.#ids[a] as PeerId
    this.#ids[a] = this.#ids[b] as PeerId
    this.#ids[b] = held
  }
}
