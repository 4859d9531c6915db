/**
 * How much of each member is taken a second (a rate limiter of fixed windows): a member's second begins with the first that is counted
 * of it, so that it may be twice as much within some second. Pure.
 */
import type { PeerId } from './core.ts'

const WINDOW_MS = 1_000

interface Window {
  count: number
  readonly endsMs: number
}

export class RateLimit {
  readonly #perSecond: number
  /** In the order of their ends: a window is put in when it begins, and all last as long. */
  readonly #windows = new Map<PeerId, Window>()

  constructor(perSecond: number) {
    this.#perSecond = perSecond
  }

  /** Counts one more of `peer`. False: it is beyond the bound. `nowMs`: of a clock that never goes back. */
  allows(peer: PeerId, nowMs: number): boolean {
    for (const [known, { endsMs }] of this.#windows) {
      if (nowMs < endsMs) break
      this.#windows.delete(known)
    }
    const window = this.#windows.get(peer) ?? { count: 0, endsMs: nowMs + WINDOW_MS }
    this.#windows.set(peer, window)
    return ++window.count <= this.#perSecond
  }

  /** Members of whom anything is kept: those that were counted within the last second. */
  get size(): number {
    return this.#windows.size
  }
}
