/**
 * Whom to tell people of who claims leases longer than we grant: each member the 1st, 2nd, 4th, … time, and when it claims another length
 * than the one told last, as after a start with another config. One that varies its claims as it likes is told of for that once a
 * minute. Pure.
 */
import type { PeerId } from '../core.ts'

/** A config is hardly mended in less. A guess. */
export const ANOTHER_EVERY_MS = 60_000

interface Told {
  count: number
  /** Told when there are so many. */
  next: number
  theirMs: number
  atMs: number
}

export class LongerClaims {
  readonly #tell: (peer: PeerId, theirMs: number, count: number) => void
  /** As many as there are members. */
  readonly #members = new Map<PeerId, Told>()

  constructor(tell: (peer: PeerId, theirMs: number, count: number) => void) {
    this.#tell = tell
  }

  take(peer: PeerId, theirMs: number, nowMs: number): void {
    const told = this.#members.get(peer) ?? { count: 0, next: 1, theirMs, atMs: nowMs }
    this.#members.set(peer, told)
    told.count++
    const isAnother = theirMs !== told.theirMs && nowMs - told.atMs >= ANOTHER_EVERY_MS
    if (told.count < told.next && !isAnother) return
    if (told.count >= told.next) told.next *= 2
    told.theirMs = theirMs
    told.atMs = nowMs
    this.#tell(peer, theirMs, told.count)
  }
}
