/**
 * Changes as people are told of them, in log and events. Others act on every change; but a member that lies, or one that comes and goes,
 * makes as many as it likes, and is not to fill a log (a token bucket for each member that is told of: ITU-T I.371, virtual scheduling).
 * What is left out is counted, and the newest is told in the end: whoever reads does not end with something else than what is believed.
 */
import type { Clock, Liveness } from '../../node/ports.ts'
import type { PeerId } from '../core.ts'

/** So many changes of a member are told each as it happens: ten hosts' ends and returns in a row. A guess. */
export const BURST = 32
/** After these, one of each member in so long. 2 s: what people bear to be late; a guess. */
export const EVERY_MS = 2_000

export interface ToldChange {
  readonly peer: PeerId
  readonly liveness: Liveness
  readonly why: string
  /** So many before it, of the same member, were not told; absent for none. */
  readonly leftOut?: number
}

interface Told {
  /** When all that was told is paid for. */
  paidMs: number
  /** The newest that is not told yet. */
  held: ToldChange | undefined
  cancelTimer(): void
}

export class ToldChanges {
  readonly #clock: Clock
  readonly #tell: (change: ToldChange) => void
  readonly #members = new Map<PeerId, Told>()

  constructor(clock: Clock, tell: (change: ToldChange) => void) {
    this.#clock = clock
    this.#tell = tell
  }

  take(change: ToldChange): void {
    const nowMs = this.#clock.now()
    const told = this.#toldOf(change.peer, nowMs)
    if (told.held !== undefined) {
      told.held = { ...change, leftOut: (told.held.leftOut ?? 0) + 1 }
      return
    }
    const waitMs = Math.max(told.paidMs, nowMs) - nowMs - (BURST - 1) * EVERY_MS
    if (waitMs <= 0) return this.#pay(told, change, nowMs)
    told.held = change
    told.cancelTimer = this.#clock.after(waitMs, () => {
      const { held } = told
      told.held = undefined
      if (held !== undefined) this.#pay(told, held, this.#clock.now())
    })
  }

  /** Nothing more is told. */
  stop(): void {
    for (const { cancelTimer } of this.#members.values()) cancelTimer()
    this.#members.clear()
  }

  /** Members of whom anything is kept: those with changes of late. */
  get size(): number {
    return this.#members.size
  }

  #toldOf(peer: PeerId, nowMs: number): Told {
    const known = this.#members.get(peer)
    if (known !== undefined) return known
    for (const [id, { paidMs, held }] of this.#members)
      if (paidMs <= nowMs && held === undefined) this.#members.delete(id)
    const told: Told = { paidMs: nowMs, held: undefined, cancelTimer: () => {} }
    this.#members.set(peer, told)
    return told
  }

  #pay(told: Told, change: ToldChange, nowMs: number): void {
    told.paidMs = Math.max(told.paidMs, nowMs) + EVERY_MS
    this.#tell(change)
  }
}
