/** The ballots of one proposer: each is used once, also across restarts, and is above all that it has seen. */
import type { PeerId } from '../core.ts'
import type { Ballot } from './messages.ts'

/** Ballots are reserved on disk by this many at once, so that one fsync serves many rounds. A guess. */
const RESERVE_BLOCK = 10_000

export class Ballots {
  readonly #self: PeerId
  readonly #reserve: (counter: number) => void
  #counter: number
  #reserved: number

  /**
   * `reserved`: as remembered from disk; counters start above it, so a restart never uses a ballot twice.
   * `reserve`: counters up to this one may be used from now on; to be on disk before anything with them is sent.
   */
  constructor(self: PeerId, reserved: number, reserve: (counter: number) => void) {
    this.#self = self
    this.#reserve = reserve
    this.#counter = reserved
    this.#reserved = reserved
  }

  next(): Ballot {
    this.#counter += 1
    if (this.#counter > this.#reserved) {
      this.#reserved = this.#counter + RESERVE_BLOCK
      this.#reserve(this.#reserved)
    }
    return { counter: this.#counter, peer: this.#self }
  }

  /** Another proposer is at `ballot`: the next of ours is above it. */
  passed({ counter }: Ballot): void {
    this.#counter = Math.max(this.#counter, counter)
  }
}
