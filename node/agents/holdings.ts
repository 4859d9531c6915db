/**
 * Who has which columns, as far as this peer has heard (`have` of the shard protocol). An answer stays true until its peer is
 * disconnected: a peer never forgets a stream that is kept, and looks after its own damage. So peers are asked once, and again
 * when they come back, where they lacked something, and where a column seems to be nowhere; and all of them now and then
 * (`repair.ts`), since one that has found damage may have no room to repair it.
 */
import type { PeerId } from '../../protocols/core.ts'
import { messageOf } from '../errors.ts'
import type { ColumnHolders, Log, StreamId } from '../ports.ts'
import type { KeptStream } from './kept-streams.ts'

export interface HoldingsDeps extends Pick<ColumnHolders, 'have'> {
  readonly log: Log
}

interface Heard {
  readonly columns: ReadonlyMap<number, number>
  /** False: the peer has been away since. */
  fresh: boolean
}

export class Holdings {
  readonly #deps: HoldingsDeps
  readonly #streams = new Map<StreamId, Map<PeerId, Heard>>()

  constructor(deps: HoldingsDeps) {
    this.#deps = deps
  }

  /**
   * Asks `peers`, which are within reach, what they have of the streams: all of them with `anew`, else where it is not known, or
   * where none of `staying` is known to have some column. Resolves with those that have not answered some question.
   */
  async look(
    streams: readonly KeptStream[],
    peers: readonly PeerId[],
    { staying, anew }: { staying: readonly PeerId[]; anew: boolean }
  ): Promise<Set<PeerId>> {
    const silent = new Set<PeerId>()
    const kept = new Set(streams.map(({ stream }) => stream))
    for (const stream of this.#streams.keys()) if (!kept.has(stream)) this.#streams.delete(stream)
    for (const stream of streams) {
      const first = peers.filter(peer => anew || this.#isDue(stream, peer))
      await this.#ask(stream, first, silent)
      const somewhere = this.places(stream).every(places =>
        places.some(peer => peers.includes(peer) && staying.includes(peer))
      )
      if (!somewhere)
        await this.#ask(
          stream,
          peers.filter(peer => !first.includes(peer)),
          silent
        )
    }
    return silent
  }

  /** Of each column: who is known to have it in all grids. */
  places(stream: KeptStream): PeerId[][] {
    return this.#having(stream, grids => grids >= stream.grids)
  }

  /** Of each column: who is known to have it in some grids, and not in all. */
  partly(stream: KeptStream): PeerId[][] {
    return this.#having(stream, grids => grids > 0 && grids < stream.grids)
  }

  /** How many grids of a column `peer` is known to have. */
  gridsAt(peer: PeerId, stream: StreamId, column: number): number {
    return this.#streams.get(stream)?.get(peer)?.columns.get(column) ?? 0
  }

  /** What a peer that comes back has must be asked anew; until then it counts as what it was. */
  disconnected(peer: PeerId): void {
    for (const heard of this.#streams.values()) {
      const known = heard.get(peer)
      if (known !== undefined) known.fresh = false
    }
  }

  /** Something has changed at `peer`. */
  forget(peer: PeerId, stream: StreamId): void {
    this.#streams.get(stream)?.delete(peer)
  }

  #having({ stream, holders }: KeptStream, enough: (grids: number) => boolean): PeerId[][] {
    const heard = [...(this.#streams.get(stream) ?? [])]
    return holders.map((_, column) =>
      heard.flatMap(([peer, { columns }]) => (enough(columns.get(column) ?? 0) ? [peer] : []))
    )
  }

  #isDue({ stream, holders, grids }: KeptStream, peer: PeerId): boolean {
    const known = this.#streams.get(stream)?.get(peer)
    if (known?.fresh !== true) return true
    return holders.some((planned, column) => planned === peer && (known.columns.get(column) ?? 0) < grids)
  }

  async #ask({ stream }: KeptStream, peers: readonly PeerId[], silent: Set<PeerId>): Promise<void> {
    const heard = this.#streams.get(stream) ?? new Map<PeerId, Heard>()
    this.#streams.set(stream, heard)
    await Promise.all(
      peers.map(async peer => {
        if (silent.has(peer)) return // its patience for one question is long enough for all
        try {
          const columns = await this.#deps.have(peer, stream)
          heard.set(peer, { columns: new Map(columns.map(({ column, grids }) => [column, grids])), fresh: true })
        } catch (error) {
          silent.add(peer)
          this.#deps.log.debug({ peer, stream, error: messageOf(error) }, 'a peer does not say what it has of a stream')
        }
      })
    )
  }
}
