/**
 * Symbols from their holders: those of one column that are wanted in the same turn of the event loop go in one request,
 * runs of adjacent rows as one range, and every symbol is checked against its hash before anyone sees it.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { Range } from '../../protocols/shards/messages.ts'
import { symbolHash } from '../erasure/encode.ts'
import { type GridShape, SYMBOL_HASH_BYTES, symbolHashOffset, symbolOffsetInColumn } from '../erasure/grid.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Clock, Log, StreamManifest } from '../ports.ts'
import type { Holders } from './holders.ts'

/** Bytes that one request asks for: an answer fits a message, and a slow link is seen soon. */
const REQUEST_BYTES = 1 << 20

export interface FetchedSymbol {
  /** `lost`: the holder has not got it, or not rightly. */
  settled(symbol: Uint8Array | 'lost'): void
  /** Still under way past the forced timeout. */
  late(): void
}

/** What reads ranges of a column: the shard service. */
export type ReadRanges = (
  peer: PeerId,
  stream: string,
  grid: number,
  column: number,
  ranges: readonly Range[]
) => Promise<Uint8Array>

interface Batch {
  readonly manifest: StreamManifest
  readonly shape: GridShape
  readonly grid: number
  readonly column: number
  readonly rows: Map<number, FetchedSymbol[]>
}

export class Fetcher {
  readonly #read: ReadRanges
  readonly #holders: Holders
  readonly #clock: Clock
  readonly #log: Log
  /** By stream, grid and column: what is asked for in this turn. */
  readonly #batches = new Map<string, Batch>()
  wrongHashes = 0

  constructor(read: ReadRanges, holders: Holders, clock: Clock, log: Log) {
    this.#read = read
    this.#holders = holders
    this.#clock = clock
    this.#log = log
  }

  fetch(
    manifest: StreamManifest,
    shape: GridShape,
    grid: number,
    column: number,
    row: number,
    to: FetchedSymbol
  ): void {
    const key = `${manifest.stream} ${grid} ${column}`
    let batch = this.#batches.get(key)
    if (batch === undefined || batch.manifest !== manifest) {
      const fresh: Batch = { manifest, shape, grid, column, rows: new Map() }
      batch = fresh
      this.#batches.set(key, fresh)
      queueMicrotask(() => {
        if (this.#batches.get(key) === fresh) this.#batches.delete(key)
        for (const rows of portions([...fresh.rows.keys()], shape.symbolBytes)) void this.#request(fresh, rows)
      })
    }
    const waiting = batch.rows.get(row)
    if (waiting === undefined) batch.rows.set(row, [to])
    else waiting.push(to)
  }

  async #request(batch: Batch, rows: readonly number[]): Promise<void> {
    const { manifest, shape, grid, column } = batch
    const peer = manifest.holders[column] ?? ''
    const waiting = rows.flatMap(row => batch.rows.get(row) ?? [])
    const started = this.#clock.now()
    let ended = (): void => {}
    const cancel = this.#clock.after(this.#holders.forcedTimeoutMs(), () => {
      ended = this.#holders.late(peer)
      for (const to of waiting) to.late()
    })
    try {
      const bytes = await this.#read(peer, manifest.stream, grid, column, rangesOf(rows, shape))
      if (bytes.length !== rows.length * shape.symbolBytes) {
        throw new DiapauseError('SHARD_CORRUPT', `${bytes.length} bytes came for ${rows.length} symbols`)
      }
      if (!this.#holders.isSelf(peer)) this.#holders.answered(this.#clock.now() - started)
      for (const [i, row] of rows.entries()) {
        const symbol = this.#checked(batch, row, bytes.subarray(i * shape.symbolBytes, (i + 1) * shape.symbolBytes))
        for (const to of batch.rows.get(row) ?? []) to.settled(symbol)
      }
    } catch (error) {
      this.#log.debug({ peer, stream: manifest.stream, grid, column, error: messageOf(error) }, 'symbols not read')
      for (const to of waiting) to.settled('lost')
    } finally {
      cancel()
      ended()
    }
  }

  #checked(batch: Batch, row: number, symbol: Uint8Array): Uint8Array | 'lost' {
    const { manifest, shape, grid, column } = batch
    const at = symbolHashOffset(shape, { column, row })
    const wanted = manifest.grids[grid]?.hashes.subarray(at, at + SYMBOL_HASH_BYTES) ?? new Uint8Array(0)
    if (Buffer.compare(symbolHash(symbol), wanted) === 0) return symbol
    this.wrongHashes++
    const holder = manifest.holders[column]
    this.#log.error(
      { holder, stream: manifest.stream, grid, column, row },
      'a symbol has a wrong hash and counts as lost'
    )
    return 'lost'
  }
}

/** Rows in ascending order, in requests of bounded size. */
function portions(rows: number[], symbolBytes: number): number[][] {
  const sorted = rows.sort((a, b) => a - b)
  const most = Math.max(1, Math.floor(REQUEST_BYTES / symbolBytes))
  const all: number[][] = []
  for (let at = 0; at < sorted.length; at += most) all.push(sorted.slice(at, at + most))
  return all
}

/** Adjacent rows become one range. */
function rangesOf(rows: readonly number[], shape: GridShape): Range[] {
  const ranges: { offset: number; length: number }[] = []
  for (const row of rows) {
    const offset = symbolOffsetInColumn(shape, row)
    const last = ranges.at(-1)
    if (last !== undefined && last.offset + last.length === offset) last.length += shape.symbolBytes
    else ranges.push({ offset, length: shape.symbolBytes })
  }
  return ranges
}
