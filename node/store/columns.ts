/** Reads of a stream's columns: ranges for those who want them, everything for those who verify, lists. */
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { ColumnState, Log } from '../ports.ts'
import { readBlocks, readUpTo } from './blocks.ts'
import type { Catalog, ListedColumn, Location } from './catalog.ts'
import type { Files } from './files.ts'
import type { Readers } from './readers.ts'
import { CHECKSUM_BLOCK_BYTES, encodeSegmentHeader, recordHeadBytes, streamHash } from './record.ts'
import { readRecord } from './scan.ts'
import { placeKey, type StreamState } from './stream-state.ts'

export interface ColumnsContext {
  readonly catalog: Catalog
  readonly readers: Readers
  readonly files: Files
  readonly log: Log
  pathOf(segment: number): string
}

export class Columns {
  readonly #context: ColumnsContext

  constructor(context: ColumnsContext) {
    this.#context = context
  }

  /** SHARD_MISSING, SHARD_INVALID, SHARD_CORRUPT. */
  async read(state: StreamState, grid: number, column: number, offset: number, length: number): Promise<Uint8Array> {
    const what = `column ${column} of grid ${grid} of ${state.stream}`
    const there = await this.#context.catalog.get(state.hex, grid, column)
    if (there === undefined) throw new DiapauseError('SHARD_MISSING', `${what} is not here`)
    const inside = Number.isInteger(offset) && Number.isInteger(length) && offset >= 0 && length >= 0
    if (!inside || offset + length > there.payloadBytes) {
      throw new DiapauseError('SHARD_INVALID', `${what} has ${there.payloadBytes} bytes, not ${offset} + ${length}`)
    }
    const from = Math.floor(offset / CHECKSUM_BLOCK_BYTES) * CHECKSUM_BLOCK_BYTES
    const to = Math.min(there.payloadBytes, Math.ceil((offset + length) / CHECKSUM_BLOCK_BYTES) * CHECKSUM_BLOCK_BYTES)
    let bytes: Buffer | undefined
    let cause: unknown
    try {
      bytes = await this.#context.readers.with(there.segment, file => readBlocks(file, { ...there, from, to }))
    } catch (error) {
      cause = error
    }
    if (bytes !== undefined) return bytes.subarray(offset - from, offset - from + length)
    // Put again or moved between the look into the index and the read?
    if (await this.#isElsewhere(state, grid, column, there)) return await this.read(state, grid, column, offset, length)
    state.damaged.add(placeKey(grid, column))
    if (hasCode(cause, 'ENOENT')) state.writer.leave(there.segment)
    const why = cause === undefined ? 'damaged on this disk' : `not readable (${messageOf(cause)})`
    throw new DiapauseError('SHARD_CORRUPT', `${what} is ${why}; it will be rebuilt from other peers`, { cause })
  }

  async verify(state: StreamState, grid: number, column: number): Promise<ColumnState> {
    const there = await this.#context.catalog.get(state.hex, grid, column)
    if (there === undefined) return 'missing'
    const end = there.payloadOffset + there.payloadBytes
    // From the record's head: what a lost index is built from again must be right too.
    const head = there.payloadOffset - recordHeadBytes(there.payloadBytes)
    try {
      const record = await this.#context.readers.with(there.segment, async file => {
        await this.#mendHeader(there.segment, state.stream, await readUpTo(file, 0, headerOf(state).length))
        return await readRecord(file, head, end, streamHash(state.stream))
      })
      const same = record?.grid === grid && record.column === column && record.payloadBytes === there.payloadBytes
      if (same && record.whole && record.checksums.equals(there.checksums)) {
        if (state.refuted.has(placeKey(grid, column))) return 'damaged'
        // Also where a read had failed for a moment only (no file descriptor left), or met a put of the same place.
        state.damaged.delete(placeKey(grid, column))
        return 'whole'
      }
    } catch (error) {
      // A segment that somebody has removed: what the index places there was lost as by any damage.
      if (hasCode(error, 'ENOENT')) state.writer.leave(there.segment)
    }
    if (await this.#isElsewhere(state, grid, column, there)) return await this.verify(state, grid, column)
    state.damaged.add(placeKey(grid, column))
    return 'damaged'
  }

  /** By pages, so that nothing of the index is pinned while whoever asked takes its time. */
  async *list(state: StreamState, after?: Pick<ListedColumn, 'grid' | 'column'>): AsyncGenerator<ListedColumn> {
    for (let last = after; ; ) {
      const page = await this.#context.catalog.page(state.hex, last)
      yield* page
      last = page.at(-1)
      if (last === undefined) return
    }
  }

  async #isElsewhere(state: StreamState, grid: number, column: number, was: Location): Promise<boolean> {
    const now = await this.#context.catalog.get(state.hex, grid, column)
    return now?.segment !== was.segment || now.payloadOffset !== was.payloadOffset
  }

  /** Without its header a segment is lost with its index. What must stand there is known, so nobody else is needed. */
  async #mendHeader(segment: number, stream: string, found: Buffer): Promise<void> {
    const right = encodeSegmentHeader(stream)
    if (found.equals(right)) return
    const path = this.#context.pathOf(segment)
    try {
      const file = await this.#context.files.openSegment(path, false)
      try {
        await file.writeAll([right], 0)
      } finally {
        await file.close()
      }
      this.#context.log.error({ path }, "a segment's header was damaged and has been written again")
    } catch (error) {
      this.#context.log.error({ path, error: messageOf(error) }, "a segment's damaged header cannot be written again")
    }
  }
}

const headerOf = ({ stream }: StreamState): Buffer => encodeSegmentHeader(stream)
