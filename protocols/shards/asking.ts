/**
 * How much is asked of a peer at once and how long it is waited for, by what is asked; and who leaves questions unanswered: a
 * peer of an older version drops kinds that it does not know (`have`, `check`, `file`, `paths`) without a word. Such kinds have
 * places of their own, so that what hangs there holds up no read, and who left one unanswered is asked no more for a while. Pure.
 */
import type { PeerId } from '../core.ts'
import type { ShardRequest } from './messages.ts'

/** Reads, and as many writes, under way to one peer: keeps a disk and a link busy at 64 KiB to 1 MiB each. A guess. */
export const IN_FLIGHT = 16
/** After this without an answer a peer counts as unreachable: a third of an epoch's default deadline. A guess. */
const REQUEST_TIMEOUT_MS = 10_000
/** It is answered from memory, and a read that looks for columns waits no longer (`node/shards/sources.ts`). A guess. */
const HAVE_TIMEOUT_MS = 2_000
/** A `check` reads MAX_CHECKED columns from disk: several times what a read does. A guess. */
const CHECK_TIMEOUTS = 3
/**
 * Who has left a question unanswered is asked again after the first of these; twice as long after each time that it is silent
 * again, at most the second: how often an older version costs HAVE_TIMEOUT_MS. Who knows the kind is silent too, once, where it
 * just starts or its connection was replaced by another: such a peer counted as away for a minute after it had come back. Guesses.
 */
const SILENT_MS = { first: 1_000, most: 60_000 } as const

export type Lot = 'read' | 'write' | 'have' | 'check' | 'file'

/**
 * `have` is small, and a restore asks it of some tens of streams; of the checks one at a time keeps a disk busy, and of pieces
 * of files two a link. Guesses.
 */
export const PLACES: Readonly<Record<Lot, number>> = { read: IN_FLIGHT, write: IN_FLIGHT, have: 4, check: 2, file: 2 }

/** Kinds that peers of older versions drop; what came with the same version has one lot. */
const YOUNG: Readonly<Partial<Record<ShardRequest['kind'], Lot>>> = {
  have: 'have',
  check: 'check',
  file: 'file',
  paths: 'file'
}
const youngLot = (kind: ShardRequest['kind']): Lot | undefined => YOUNG[kind]

/** How long an answer may take. `requestTimeoutMs`: for tests. */
export function timeoutMsOf(kind: ShardRequest['kind'], requestTimeoutMs = REQUEST_TIMEOUT_MS): number {
  if (kind === 'have') return Math.min(HAVE_TIMEOUT_MS, requestTimeoutMs)
  return kind === 'check' ? CHECK_TIMEOUTS * requestTimeoutMs : requestTimeoutMs
}

interface Silence {
  untilMs: number
  readonly lastsMs: number
  /** Of the questions. */
  readonly ids: Set<number>
}

/**
 * Who has lately left a question of a YOUNG kind unanswered, and of which kind: who does not know one may know another, and
 * who is late with one need not be with another. An answer shows that the peer knows the kind; one that comes late, that it was
 * only slow.
 */
export class Unanswered {
  readonly #peers = new Map<PeerId, Map<Lot, Silence>>()

  note(peer: PeerId, { id, kind }: Pick<ShardRequest, 'id' | 'kind'>, nowMs: number): void {
    const lot = youngLot(kind)
    if (lot === undefined) return
    const lots = this.#peers.get(peer) ?? new Map<Lot, Silence>()
    const known = lots.get(lot)
    // Of questions that were asked together each is noted.
    const again = known === undefined || known.untilMs <= nowMs
    const lastsMs = again ? Math.min(2 * (known?.lastsMs ?? SILENT_MS.first / 2), SILENT_MS.most) : known.lastsMs
    const ids = again ? new Set<number>() : known.ids
    this.#peers.set(peer, lots.set(lot, { untilMs: nowMs + lastsMs, lastsMs, ids: ids.add(id) }))
  }

  answered(peer: PeerId, kind: ShardRequest['kind']): void {
    const lot = youngLot(kind)
    if (lot !== undefined) this.#peers.get(peer)?.delete(lot)
  }

  /** An answer has come that nobody waits for. */
  late(peer: PeerId, id: number): void {
    const lots = this.#peers.get(peer)
    for (const [lot, { ids }] of lots ?? []) if (ids.has(id)) lots?.delete(lot)
  }

  /** Whether it is of no use to ask this of it now. */
  covers(peer: PeerId, kind: ShardRequest['kind'], nowMs: number): boolean {
    const lot = youngLot(kind)
    const known = lot && this.#peers.get(peer)?.get(lot)
    return known !== undefined && known.untilMs > nowMs
  }

  /** It is disconnected: it may come back as a newer version. */
  forget(peer: PeerId): void {
    this.#peers.delete(peer)
  }
}
