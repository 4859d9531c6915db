/**
 * Whom to ask for a symbol, and how long to wait. Pure but for the ports it looks at.
 *
 * The forced timeout turns a slow read into a degraded one. It is what such a read takes with peers that are well
 * (`latency.ts` says how that is known), at least the setting and at most CEILING_MS. Late answers count as well, else
 * nobody would ever learn that all have become slow; of a read that was given up counts how long it had taken by then.
 *
 * A holder that was late several times in a row is not asked for a while, or each read of what it holds would wait for it
 * anew: then one read asks it, and where that is late too the while is twice as long.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { Clock, FailureDetector, Transport } from '../ports.ts'
import { Latencies } from './latency.ts'

/** A wait beyond this helps nobody: the whole restore has about a second. A guess. */
const CEILING_MS = 2_000
/** Before anybody has answered. A guess: connections are cold. */
const FIRST_MS = 50
/** Late so often in a row: of healthy peers 2 % are late, and one in 100,000 three times. */
const STRIKES = 3
/** Not asked for so long, and in the end. Guesses: a pause of garbage collection; less than a failure detector takes. */
const REST_MS = 250
const LONGEST_REST_MS = 4_000

/** good: ask first. doubtful: only where the good ones are too few. gone: cannot be asked. */
export type Standing = 'good' | 'doubtful' | 'gone'

export interface HoldersOptions {
  readonly transport: Pick<Transport, 'self' | 'connected'>
  readonly detector?: Pick<FailureDetector, 'livenessOf'> | undefined
  readonly clock: Pick<Clock, 'now'>
  /** The shortest forced timeout. */
  readonly floorMs: number
}

interface Record {
  /** Requests that are past the forced timeout and unanswered. */
  owed: number
  strikes: number
  struckAt: number
  restUntil: number
}

export class Holders {
  readonly #options: HoldersOptions
  readonly #latencies = new Latencies()
  /** Of those that have been late since their last answer in time. */
  readonly #late = new Map<PeerId, Record>()

  constructor(options: HoldersOptions) {
    this.#options = options
  }

  standing(peer: PeerId): Standing {
    const { transport, detector, clock } = this.#options
    if (peer === transport.self) return 'good'
    if (!transport.connected(peer)) return 'gone'
    const late = this.#late.get(peer)
    if (late !== undefined && (late.owed > 0 || clock.now() < late.restUntil)) return 'doubtful'
    return (detector?.livenessOf(peer) ?? 'alive') === 'alive' ? 'good' : 'doubtful'
  }

  /** Cannot be asked now, and lives as far as anybody knows: its link was reset, or this host or that one stands still. */
  mayReturn(peer: PeerId): boolean {
    const { transport, detector } = this.#options
    if (peer === transport.self || transport.connected(peer)) return false
    return detector !== undefined && detector.livenessOf(peer) !== 'dead'
  }

  isSelf(peer: PeerId): boolean {
    return peer === this.#options.transport.self
  }

  /** A read of `bytes` was answered after `ms`. */
  answered(peer: PeerId, bytes: number, ms: number, inTime: boolean): void {
    if (this.isSelf(peer)) return
    this.#latencies.add(peer, bytes, ms)
    if (inTime) this.#late.delete(peer)
  }

  /** A late read of `bytes` was given up after `ms`: its holder is not asked for as long again. */
  givenUp(peer: PeerId, bytes: number, ms: number): void {
    if (this.isSelf(peer)) return
    this.#latencies.add(peer, bytes, ms)
    const late = this.#late.get(peer)
    if (late !== undefined) late.restUntil = Math.max(late.restUntil, this.#options.clock.now() + ms)
  }

  /** A request that began at `startedAt` is late; the result is called when it has ended. */
  late(peer: PeerId, startedAt: number): () => void {
    const late = this.#late.get(peer) ?? { owed: 0, strikes: 0, struckAt: -Infinity, restUntil: -Infinity }
    this.#late.set(peer, late)
    late.owed++
    // What was asked before the last strike is late for the same reason.
    if (startedAt >= late.struckAt) {
      late.strikes++
      late.struckAt = this.#options.clock.now()
      const doublings = late.strikes - STRIKES
      if (doublings >= 0) late.restUntil = late.struckAt + Math.min(LONGEST_REST_MS, REST_MS * 2 ** doublings)
    }
    return () => {
      late.owed--
    }
  }

  /** For a read of so many bytes. */
  forcedTimeoutMs(bytes = 0): number {
    const expected = this.#latencies.expectedMs(bytes, peer => this.#options.transport.connected(peer)) ?? FIRST_MS
    return Math.max(this.#options.floorMs, Math.min(CEILING_MS, expected))
  }
}
