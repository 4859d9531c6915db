/**
 * Which peers have a column besides the holder that its manifest names: a repair may have put it elsewhere. All of it is
 * hearsay, and harmless: whatever comes is checked against the manifest. Pure.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { HeldColumn } from '../../protocols/shards/messages.ts'
import type { StreamId, StreamManifest } from '../ports.ts'

/** Streams of which something is known at once; the one that was noted longest ago goes first. A guess: an image leans on some tens. */
const MAX_STREAMS = 1_024

/** Asks a peer (which may be this one) what it has of a stream. Rejects where it cannot tell. */
export type AskColumns = (peer: PeerId, stream: StreamId) => Promise<readonly HeldColumn[]>

interface Known {
  /** Grids of a column by peer. */
  readonly held: Map<PeerId, ReadonlyMap<number, number>>
  /** Who has said that it lacks a column: `COLUMN PEER`. */
  readonly lacking: Set<string>
}

export class ColumnPlaces {
  readonly #streams = new Map<StreamId, Known>()

  /** What `peer` has of a stream, in place of what was known of it. */
  note(stream: StreamId, peer: PeerId, columns: readonly HeldColumn[]): void {
    const known = this.#fresh(stream)
    known.held.set(peer, new Map(columns.map(({ column, grids }) => [column, grids])))
    for (const { column } of columns) known.lacking.delete(`${column} ${peer}`)
  }

  /** `peer` has been asked for this column, and lacks it or has it wrongly. */
  lacks(stream: StreamId, column: number, peer: PeerId): void {
    const known = this.#fresh(stream)
    const held = known.held.get(peer)
    if (held?.has(column)) known.held.set(peer, new Map([...held].filter(([each]) => each !== column)))
    known.lacking.add(`${column} ${peer}`)
  }

  /** Who has been heard to have the whole column, but its planned holder. */
  of(manifest: Pick<StreamManifest, 'stream' | 'holders' | 'grids'>, column: number): readonly PeerId[] {
    const held = this.#streams.get(manifest.stream)?.held
    if (held === undefined) return []
    const whole = [...held].filter(([, columns]) => (columns.get(column) ?? 0) >= manifest.grids.length)
    return whole.map(([peer]) => peer).filter(peer => peer !== manifest.holders[column])
  }

  /** Whom to ask for a column, in order: the planned holder, then others; and last it, where it has said that it lacks it. */
  inOrder(manifest: Pick<StreamManifest, 'stream' | 'holders' | 'grids'>, column: number): readonly PeerId[] {
    const planned = manifest.holders[column]
    const others = this.of(manifest, column)
    if (planned === undefined) return others
    const lacking = this.#streams.get(manifest.stream)?.lacking.has(`${column} ${planned}`) === true
    return lacking ? [...others, planned] : [planned, ...others]
  }

  forget(stream: StreamId): void {
    this.#streams.delete(stream)
  }

  #fresh(stream: StreamId): Known {
    const known = this.#streams.get(stream) ?? { held: new Map(), lacking: new Set() }
    this.#streams.delete(stream)
    this.#streams.set(stream, known)
    if (this.#streams.size > MAX_STREAMS) {
      for (const oldest of this.#streams.keys()) {
        this.#streams.delete(oldest)
        break
      }
    }
    return known
  }
}
