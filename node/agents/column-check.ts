/**
 * Checks a stored column for who has doubts of it: as the store does, by its checksums, and then against the hashes of the
 * stream's manifest, as whoever reads it. What was put wrong has right checksums, and only so its holder learns of it.
 */
import { DiapauseError, messageOf } from '../errors.ts'
import type { ColumnState, Log, ShardStore, StreamId, StreamManifest } from '../ports.ts'
import type { KeptStreams } from './kept-streams.ts'

export interface ColumnCheckDeps {
  readonly store: Pick<ShardStore, 'verifyColumn' | 'readColumn' | 'refuteColumn'>
  readonly kept: Pick<KeptStreams, 'find' | 'manifest'>
  /** False: what `read` gives of a column is not what the manifest says (`shards/damage.ts`). */
  matches(
    manifest: StreamManifest,
    grid: number,
    column: number,
    read: (offset: number, length: number) => Promise<Uint8Array>
  ): Promise<boolean>
  readonly log: Log
}

export class ColumnCheck {
  readonly #deps: ColumnCheckDeps
  /** Of the stream that was checked last: many grids of one are mostly. */
  #last: StreamManifest | undefined

  constructor(deps: ColumnCheckDeps) {
    this.#deps = deps
  }

  /** A column that is not what the manifest says is damaged until it is put again. */
  async verify(stream: StreamId, grid: number, column: number): Promise<ColumnState> {
    const { store, log } = this.#deps
    const state = await store.verifyColumn(stream, grid, column)
    if (state !== 'whole') return state
    const manifest = await this.#manifest(stream)
    if (manifest === undefined || (await this.#matches(manifest, grid, column))) return state
    log.error({ stream, grid, column }, 'a stored column is not what its manifest says: it is rebuilt from others')
    await store.refuteColumn(stream, grid, column)
    return 'damaged'
  }

  async #matches(manifest: StreamManifest, grid: number, column: number): Promise<boolean> {
    const read = (offset: number, length: number): Promise<Uint8Array> =>
      this.#deps.store.readColumn(manifest.stream, grid, column, offset, length)
    return await this.#deps.matches(manifest, grid, column, read)
  }

  /** Undefined where nothing is kept that leans on the stream, or its manifest is out of reach: then nobody knows better. */
  async #manifest(stream: StreamId): Promise<StreamManifest | undefined> {
    if (this.#last?.stream === stream) return this.#last
    const { kept, log } = this.#deps
    const found = kept.find(stream)
    if (found === undefined) return undefined
    try {
      this.#last = await kept.manifest(found)
      return this.#last
    } catch (error) {
      if (!(error instanceof DiapauseError)) throw error
      log.debug({ stream, error: messageOf(error) }, 'a column is checked without its manifest')
      return undefined
    }
  }
}
