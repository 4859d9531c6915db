/**
 * From whom a column can be read now: the places that are known of it, by how good they are; and the search for others.
 * Holders are asked what they have (`have`) when a planned one is gone or lacks its column, once for all reads of a stream.
 */
import type { PeerId } from '../../protocols/core.ts'
import { messageOf } from '../errors.ts'
import type { Clock, Log, StreamId, StreamManifest } from '../ports.ts'
import type { Holders, Standing } from './holders.ts'
import type { AskColumns, ColumnPlaces } from './places.ts'

/** What was heard counts so long before all are asked again: a repair takes seconds at least. A guess. */
const REMEMBER_MS = 3_000
/** Who has not said by then what it has is not waited for. A guess: as long as the longest forced timeout. */
const PATIENCE_MS = 2_000

export interface SourcesOptions {
  readonly places: ColumnPlaces
  readonly holders: Pick<Holders, 'standing' | 'mayReturn'>
  readonly clock: Clock
  readonly log: Log
  /** Whom to ask; this peer may be among them. */
  peers(): readonly PeerId[]
  readonly askColumns: AskColumns
}

export class Sources {
  readonly #options: SourcesOptions
  /** Searches of the last seconds, the oldest first. */
  readonly #searches = new Map<StreamId, { readonly at: number; readonly done: Promise<void> }>()

  constructor(options: SourcesOptions) {
    this.#options = options
  }

  /** The best of its places. */
  standing(manifest: StreamManifest, grid: number, column: number): Standing {
    const peer = this.pick(manifest, grid, column)
    return peer === undefined ? 'gone' : this.#options.holders.standing(peer)
  }

  /** Whom to ask for a column of a grid: the first good one, else a doubtful one. Undefined: nobody within reach, or all were tried. */
  pick(manifest: StreamManifest, grid: number, column: number, tried?: ReadonlySet<PeerId>): PeerId | undefined {
    const { places, holders } = this.#options
    const order = places.inOrder(manifest, grid, column).filter(peer => tried?.has(peer) !== true)
    return (
      order.find(peer => holders.standing(peer) === 'good') ?? order.find(peer => holders.standing(peer) === 'doubtful')
    )
  }

  /** Somebody within reach is known to have one of these columns besides its planned holder. */
  elsewhere(manifest: StreamManifest, grid: number, columns: readonly number[]): boolean {
    const { places, holders } = this.#options
    return columns.some(column => places.of(manifest, grid, column).some(peer => holders.standing(peer) !== 'gone'))
  }

  /** How many of these columns somebody may have who can be asked, or soon again. */
  within(manifest: StreamManifest, grid: number, columns: readonly number[]): number {
    const { places, holders } = this.#options
    const mayAnswer = (peer: PeerId): boolean => holders.standing(peer) !== 'gone' || holders.mayReturn(peer)
    return columns.filter(column => places.possible(manifest, grid, column).some(mayAnswer)).length
  }

  lacks(stream: StreamId, grid: number, column: number, peer: PeerId): void {
    this.#options.places.lacks(stream, grid, column, peer)
  }

  /** Asks all within reach what they have of a stream, unless they were asked just now. */
  search(stream: StreamId): Promise<void> {
    const now = this.#options.clock.now()
    for (const [old, { at }] of this.#searches) {
      if (at + REMEMBER_MS > now) break
      this.#searches.delete(old)
    }
    const known = this.#searches.get(stream)
    if (known !== undefined) return known.done
    const done = this.#askAll(stream)
    this.#searches.set(stream, { at: now, done })
    return done
  }

  #askAll(stream: StreamId): Promise<void> {
    const { peers, holders, askColumns, places, clock, log } = this.#options
    const asked = [...new Set(peers())].filter(peer => holders.standing(peer) !== 'gone')
    const answers = asked.map(async peer => {
      try {
        places.note(stream, peer, await askColumns(peer, stream))
      } catch (error) {
        log.debug({ peer, stream, error: messageOf(error) }, 'a peer does not say what it has of a stream')
      }
    })
    return new Promise(resolve => {
      const cancel = clock.after(PATIENCE_MS, resolve)
      void Promise.all(answers).then(() => {
        cancel()
        resolve()
      })
    })
  }
}
