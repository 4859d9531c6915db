import type { DetectorSettings } from '../../config/schema.ts'
import type { PeerId } from '../core.ts'

/**
 * How long a suspicion lasts before the member is declared dead (Lifeguard, arXiv 1707.00788, section IV-B): from
 * `maxMs` with no independent confirmation down to `minMs` with `wanted` of them, falling with the logarithm. The first
 * confirmations say the most; a peer that is alone in its suspicion is more likely the slow one itself.
 */
export function suspicionTimeoutMs(confirmations: number, wanted: number, minMs: number, maxMs: number): number {
  if (wanted <= 0) return minMs
  const fraction = Math.log(confirmations + 1) / Math.log(wanted + 1)
  return Math.max(minMs, maxMs - (maxMs - minMs) * fraction)
}

/** Lifeguard's K: more confirmations than this shorten nothing. */
const MAX_WANTED = 3

/** Confirmations that can be expected among `members` not dead, oneself and the suspect included. */
export const wantedConfirmations = (members: number): number => Math.max(0, Math.min(MAX_WANTED, members - 2))

/** Enough for a turn of the event loop, in which what has arrived is read. */
const LAST_LOOK_MS = 5

export interface Terms {
  /** Confirmations that shorten it. */
  readonly wanted: number
  /** Multiplies the settings: how sure we may be. */
  readonly factor: number
  /** What has arrived is read before it ends. */
  readonly lastLook: boolean
}

/** One member's, in the view of one peer. */
export class Suspicion {
  /** All who suspect, the first included; at least one. */
  readonly by: Set<PeerId>
  startMs: number
  deadlineMs: number
  readonly #settings: DetectorSettings
  readonly #wanted: number
  #factor: number
  #looked: boolean
  /** Time during which this process stood still does not count. */
  #stalledMs = 0

  constructor(settings: DetectorSettings, by: PeerId, terms: Terms, nowMs: number) {
    this.#settings = settings
    this.#wanted = terms.wanted
    this.#factor = terms.factor
    this.#looked = !terms.lastLook
    this.by = new Set([by])
    this.startMs = nowMs
    this.deadlineMs = this.#planned()
  }

  /** When `over` is to be asked next. */
  get dueMs(): number {
    return this.#looked ? this.deadlineMs : this.deadlineMs - LAST_LOOK_MS
  }

  /**
   * True where it has run out. Never at the first look: a process that stood still finds its timers before the messages
   * that came meanwhile, and a refutation may be among them.
   */
  over(nowMs: number): boolean {
    if (nowMs < this.dueMs) return false
    if (this.#looked) return true
    this.#looked = true
    this.deadlineMs = Math.max(this.deadlineMs, nowMs + LAST_LOOK_MS)
    return false
  }

  /** An independent confirmation (Lifeguard, section IV-B). False where it says nothing new, or nothing that counts. */
  confirm(by: PeerId): boolean {
    if (this.by.has(by) || this.by.size > this.#wanted) return false
    this.by.add(by)
    this.deadlineMs = Math.min(this.deadlineMs, this.#planned())
    return true
  }

  /** There is reason to be surer: counted anew from now without a factor, where that ends sooner. */
  hasten(nowMs: number): void {
    this.startMs = nowMs
    this.#stalledMs = 0
    this.#factor = 1
    this.deadlineMs = Math.min(this.deadlineMs, this.#planned())
  }

  /** This process stood still for `lateMs`: the end moves by that, and is no sooner than `graceMs` from now. */
  stalled(lateMs: number, graceMs: number, nowMs: number): void {
    this.#stalledMs += lateMs
    this.#looked = false
    this.deadlineMs = Math.max(this.deadlineMs + lateMs, nowMs + graceMs)
  }

  #planned(): number {
    const { suspicionMinMs, suspicionMaxMs } = this.#settings
    const timeoutMs = suspicionTimeoutMs(this.by.size - 1, this.#wanted, suspicionMinMs, suspicionMaxMs)
    return this.startMs + this.#stalledMs + this.#factor * timeoutMs
  }
}
