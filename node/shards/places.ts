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

type Manifest = Pick<StreamManifest, 'stream' | 'holders' | 'grids'>

interface Known {
  /** Grids of a column by peer. */
  readonly held: Map<PeerId, ReadonlyMap<number, number>>
  /** Who has said that it lacks a column of a grid: `COLUMN PEER` → grids. */
  readonly lacking: Map<string, Set<number>>
}

export class ColumnPlaces {
  readonly #streams = new Map<StreamId, Known>()

  /** What `peer` has of a stream, in place of what was known of it. */
  note(stream: StreamId, peer: PeerId, columns: readonly HeldColumn[]): void {
    const known = this.#fresh(stream)
    known.held.set(peer, new Map(columns.map(({ column, grids }) => [column, grids])))
    for (const { column } of columns) known.lacking.delete(`${column} ${peer}`)
  }

  /** `peer` has been asked for this column of a grid, and lacks it or has it wrongly. */
  lacks(stream: StreamId, grid: number, column: number, peer: PeerId): void {
    const { lacking } = this.#fresh(stream)
    const grids = lacking.get(`${column} ${peer}`) ?? new Set()
    lacking.set(`${column} ${peer}`, grids.add(grid))
  }

  /**
   * Who may have the column of that grid, but its planned holder: those that have been heard to have it in all grids, then in
   * some; not who has said that it lacks this one.
   */
  of(manifest: Manifest, grid: number, column: number): readonly PeerId[] {
    const known = this.#streams.get(manifest.stream)
    if (known === undefined) return []
    const [whole, partly]: [PeerId[], PeerId[]] = [[], []]
    for (const [peer, columns] of known.held) {
      const grids = columns.get(column) ?? 0
      if (grids === 0 || peer === manifest.holders[column] || lacksIt(known, grid, column, peer)) continue
      if (grids >= manifest.grids.length) whole.push(peer)
      else partly.push(peer)
    }
    return [...whole, ...partly]
  }

  /** Whom to ask for a column of a grid, in order: the planned holder, then others; and last it, where it has said that it lacks it. */
  inOrder(manifest: Manifest, grid: number, column: number): readonly PeerId[] {
    const planned = manifest.holders[column]
    const others = this.of(manifest, grid, column)
    if (planned === undefined) return others
    const known = this.#streams.get(manifest.stream)
    const hasNone = known?.held.get(planned)?.has(column) === false
    return hasNone || lacksIt(known, grid, column, planned) ? [...others, planned] : [planned, ...others]
  }

  /** Everybody who may have the column of that grid: nobody who has said that it lacks it. */
  possible(manifest: Manifest, grid: number, column: number): readonly PeerId[] {
    const known = this.#streams.get(manifest.stream)
    return this.inOrder(manifest, grid, column).filter(peer => !lacksIt(known, grid, column, peer))
  }

  forget(stream: StreamId): void {
    this.#streams.delete(stream)
  }

  #fresh(stream: StreamId): Known {
    const known: Known = this.#streams.get(stream) ?? { held: new Map(), lacking: new Map() }
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

const lacksIt = (known: Known | undefined, grid: number, column: number, peer: PeerId): boolean =>
  known?.lacking.get(`${column} ${peer}`)?.has(grid) === true
