/**
 * Whom to ask for a symbol, and how long to wait. Pure but for the ports it looks at.
 *
 * The forced timeout turns a slow read into a degraded one. It adapts: four times the median of the last answers from
 * *all* holders, and at least the setting. The median over all, because one slow holder must not excuse itself, and
 * because when all are slow (a busy machine) more reads would make it worse. Sources: J. Dean and L. A. Barroso, "The Tail
 * at Scale" (CACM 2013) hedges a request once it is slower than most (they take the 95th percentile); the factor 4 is that
 * of RFC 6298's variation term, and here a guess. Late answers count as well, else the median would never learn.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { FailureDetector, Transport } from '../ports.ts'

const SAMPLES = 32
const FACTOR = 4
/** A wait beyond this helps nobody: the whole restore has about a second. A guess. */
const CEILING_MS = 2_000

/** good: ask first. doubtful: only where the good ones are too few. gone: cannot be asked. */
export type Standing = 'good' | 'doubtful' | 'gone'

export class Holders {
  readonly #transport: Pick<Transport, 'self' | 'connected'>
  readonly #detector: Pick<FailureDetector, 'livenessOf'> | undefined
  readonly #floorMs: number
  readonly #samples: number[] = []
  /** Requests that are past the forced timeout and unanswered. */
  readonly #late = new Map<PeerId, number>()
  #next = 0

  constructor(
    transport: Pick<Transport, 'self' | 'connected'>,
    detector: Pick<FailureDetector, 'livenessOf'> | undefined,
    floorMs: number
  ) {
    this.#transport = transport
    this.#detector = detector
    this.#floorMs = floorMs
  }

  standing(peer: PeerId): Standing {
    if (peer === this.#transport.self) return 'good'
    if (!this.#transport.connected(peer)) return 'gone'
    // A holder that owes a late answer is asked again only in need, or every read would wait for it anew.
    if (this.#late.has(peer)) return 'doubtful'
    return (this.#detector?.livenessOf(peer) ?? 'alive') === 'alive' ? 'good' : 'doubtful'
  }

  isSelf(peer: PeerId): boolean {
    return peer === this.#transport.self
  }

  /** An answer came after `ms`. */
  answered(ms: number): void {
    this.#samples[this.#next] = ms
    this.#next = (this.#next + 1) % SAMPLES
  }

  /** A request is late; the result is called when it has ended. */
  late(peer: PeerId): () => void {
    this.#late.set(peer, (this.#late.get(peer) ?? 0) + 1)
    return () => {
      const left = (this.#late.get(peer) ?? 1) - 1
      if (left === 0) this.#late.delete(peer)
      else this.#late.set(peer, left)
    }
  }

  forcedTimeoutMs(): number {
    const sorted = [...this.#samples].sort((a, b) => a - b)
    const median = sorted[sorted.length >> 1] ?? 0
    return Math.max(this.#floorMs, Math.min(CEILING_MS, FACTOR * median))
  }
}
