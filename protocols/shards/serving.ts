/**
 * What this peer is serving, by asker: how much at most, reads in turns, and which of them nobody waits for any more. Pure.
 */
import type { PeerId } from '../core.ts'
import { Lane } from './lane.ts'

/** Requests of one peer served at once, and bytes of their payloads: twice what an asker has under way. */
const SERVED = 64
const SERVED_BYTES = 64 << 20
/**
 * Reads of one peer at once; the rest wait, since what has been read and handed to the transport cannot be cancelled. Four keep
 * disk and link busy at 64 KiB to 1 MiB each: a guess.
 */
const READS = 4

/** A request that is being served. */
export interface Served {
  readonly id: number
  cancelled: boolean
  /** Runs it in its turn among the reads of its asker. */
  inTurn<T>(operation: () => Promise<T>): Promise<T>
  end(): void
}

interface Asker {
  bytes: number
  readonly requests: Set<Served>
  readonly reads: Lane
}

export class Serving {
  readonly #askers = new Map<PeerId, Asker>()

  /** `bytes`: what serving it keeps in memory. Undefined: too much is being served to this asker already. */
  begin(from: PeerId, id: number, bytes: number): Served | undefined {
    const asker = this.#askers.get(from) ?? { bytes: 0, requests: new Set<Served>(), reads: new Lane(READS) }
    if (asker.requests.size >= SERVED || asker.bytes + bytes > SERVED_BYTES) return undefined
    this.#askers.set(from, asker)
    asker.bytes += bytes
    const served: Served = {
      id,
      cancelled: false,
      inTurn: operation => asker.reads.run(operation),
      end: () => {
        asker.bytes -= bytes
        asker.requests.delete(served)
        if (asker.requests.size === 0) this.#askers.delete(from)
      }
    }
    asker.requests.add(served)
    return served
  }

  /** Of one that is not being served (any more) nothing is kept. */
  cancel(from: PeerId, id: number): void {
    for (const served of this.#askers.get(from)?.requests ?? []) if (served.id === id) served.cancelled = true
  }
}
