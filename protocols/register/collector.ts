/**
 * Which deleted registers this peer tries to collect, and when. Whoever deletes a register tries at once; where a voter
 * was away then, or the deleter died, some voter that still has the tombstone does it later. A collection (proposer.ts,
 * request 'collect') is safe at any time, by any peer, several at once; the waiting only saves work.
 *
 * What a register without a value is collected for, besides its deletion: a change that found nothing and left it so
 * has left its promise.
 */
import type { Random } from '../core.ts'

/** Registers in one pass. With a pass every 10 s ten thousand take less than half an hour. A guess. */
const AT_ONCE = 64

export class Collector {
  readonly #everyMs: number
  readonly #random: Random
  #seen: ReadonlySet<string> = new Set()
  #atMs: number

  constructor(everyMs: number, random: Random, nowMs: number) {
    this.#everyMs = everyMs
    this.#random = random
    this.#atMs = nowMs + this.#waitMs()
  }

  wakeAtMs(): number {
    return this.#atMs
  }

  /** Of the registers without a value those to be collected now: they had none in the pass before. */
  due(empty: readonly string[], nowMs: number): string[] {
    if (nowMs < this.#atMs) return []
    this.#atMs = nowMs + this.#waitMs()
    const due = empty.filter(key => this.#seen.has(key))
    this.#seen = new Set(empty)
    // Not the same ones as every other voter.
    const start = Math.floor(this.#random() * due.length)
    return [...due.slice(start), ...due.slice(0, start)].slice(0, AT_ONCE)
  }

  #waitMs(): number {
    return this.#everyMs * (0.5 + this.#random())
  }
}
