/**
 * How long each peer takes to answer a read, and what a read may take. Pure.
 *
 * Each peer has a sketch of its latencies for each size of read: counts in buckets that grow by a fixed factor, so that
 * every quantile is right to that factor, whatever the scale (C. Masson, J. Rim and H. Lee, "DDSketch", VLDB 2019). Counts are
 * halved now and then, so that it tells of late what was long ago.
 *
 * What a read may take is a quantile not of all answers but of each peer's own, and of those the lower median: one peer,
 * one voice. A slow holder does not excuse itself by being asked often, nor do two of four; where most are slow (a
 * busy machine or network) they are not to blame, and degraded reads would only make it worse.
 *
 * The quantile: J. Dean and L. A. Barroso, "The Tail at Scale" (CACM 2013), send a second request after the 95th percentile,
 * which costs 5 % more requests. A degraded read costs k more, three by default, so 2 % of them cost about as much.
 */
import type { PeerId } from '../../protocols/core.ts'

const QUANTILE = 0.98
/** A quarter of a doubling: quantiles are right to a fifth. From 0.1 ms to 26 s. Guesses. */
const BUCKETS_A_DOUBLING = 4
const SMALLEST_MS = 0.1
const BUCKETS = 18 * BUCKETS_A_DOUBLING
/** Answers after which all counts are halved: the quantile above then stands on one to three hundred. A guess. */
const WINDOW = 256
/** Fewer say nothing of a quantile. A guess. */
const FEWEST = 8
/** Reads of up to so many bytes are alike: one symbol, a few, and all that one request asks for (`fetcher.ts`). */
const SIZES = [64 << 10, 256 << 10, 1 << 20]

export class LatencySketch {
  readonly #counts = new Float64Array(BUCKETS)
  #total = 0

  add(ms: number): void {
    const bucket = Math.ceil(Math.log2(Math.max(ms, SMALLEST_MS) / SMALLEST_MS) * BUCKETS_A_DOUBLING)
    const at = Math.min(BUCKETS - 1, bucket)
    this.#counts[at] = (this.#counts[at] ?? 0) + 1
    this.#total++
    if (this.#total < WINDOW) return
    for (let i = 0; i < BUCKETS; i++) this.#counts[i] = (this.#counts[i] ?? 0) / 2
    this.#total /= 2
  }

  /** Milliseconds that the share `q` of answers took at most, to the upper edge of its bucket; undefined: too few came. */
  quantile(q: number): number | undefined {
    if (this.#total < FEWEST) return undefined
    let left = q * this.#total
    let bucket = 0
    while (bucket < BUCKETS - 1 && left > (this.#counts[bucket] ?? 0)) left -= this.#counts[bucket++] ?? 0
    return SMALLEST_MS * 2 ** (bucket / BUCKETS_A_DOUBLING)
  }
}

export class Latencies {
  /** By peer; within it by size. */
  readonly #peers = new Map<PeerId, readonly LatencySketch[]>()

  add(peer: PeerId, bytes: number, ms: number): void {
    let sizes = this.#peers.get(peer)
    if (sizes === undefined) {
      sizes = SIZES.map(() => new LatencySketch())
      this.#peers.set(peer, sizes)
    }
    sizes[sizeOf(bytes)]?.add(ms)
  }

  /** What a read of so many bytes takes with a peer that is well, of those that `counts` names; undefined: nobody knows yet. */
  expectedMs(bytes: number, counts: (peer: PeerId) => boolean): number | undefined {
    const voices: number[] = []
    for (const [peer, sizes] of this.#peers) {
      const ms = counts(peer) ? quantileFor(sizes, sizeOf(bytes)) : undefined
      if (ms !== undefined) voices.push(ms)
    }
    return voices.sort((a, b) => a - b)[(voices.length - 1) >> 1]
  }
}

function sizeOf(bytes: number): number {
  const size = SIZES.findIndex(most => bytes <= most)
  return size === -1 ? SIZES.length - 1 : size
}

/**
 * Of reads of that size; else of larger ones, which take no less; else of smaller ones, times what it is larger, which is the
 * most that it can take.
 */
function quantileFor(sizes: readonly LatencySketch[], size: number): number | undefined {
  for (let i = size; i < sizes.length; i++) {
    const ms = sizes[i]?.quantile(QUANTILE)
    if (ms !== undefined) return ms
  }
  for (let i = size - 1; i >= 0; i--) {
    const ms = sizes[i]?.quantile(QUANTILE)
    if (ms !== undefined) return (ms * (SIZES[size] ?? 0)) / (SIZES[i] ?? 1)
  }
  return undefined
}
