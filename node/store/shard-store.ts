/**
 * Shards and manifests on this peer's disk. Segment files hold the truth, level holds where things lie.
 *
 *   DIR/format                 "diapause shard store 1"
 *   DIR/segments/N.segment     records of one stream, append-only (`record.ts`, `writer.ts`)
 *   DIR/index/                 level (`catalog.ts`), rebuilt from the segments where it lags or is lost (`recovery.ts`)
 *   DIR/manifests/SHA256       (`manifests.ts`)
 *
 * A put resolves after fdatasync of its segment (and of the directory, for a new file). The index knows it then, and
 * writes it in the background.
 */
import { mkdir, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError, hasCode } from '../errors.ts'
import type { Clock, ColumnPlace, ColumnState, Log, ShardStore, StreamId } from '../ports.ts'
import { readBlocks } from './blocks.ts'
import type { Catalog, ListedColumn, Location } from './catalog.ts'
import { type Files, nodeFiles, storeError } from './files.ts'
import { countGrids } from './inventory.ts'
import { type Manifests, openManifests } from './manifests.ts'
import { checkFormat, openIndex } from './opening.ts'
import { Readers } from './readers.ts'
import {
  CHECKSUM_BLOCK_BYTES,
  MAX_COLUMN,
  MAX_GRID,
  MAX_PAYLOAD_BYTES,
  MAX_STREAM_ID_BYTES,
  recordHeadBytes,
  streamHash
} from './record.ts'
import { segmentName } from './recovery.ts'
import { readRecord } from './scan.ts'
import { SEGMENT_BYTES, StreamWriter } from './writer.ts'

/** Segment files open for writing: one a VM that is being captured, and some. A guess. */
const MAX_OPEN_WRITERS = 64

export interface ShardStoreOptions {
  readonly log: Log
  readonly clock: Clock
  /** For tests: a smaller segment size, and file operations that fail. */
  readonly segmentBytes?: number
  readonly files?: Files
}

/** Opens or makes the store in `dir`. STORE_VERSION, STORE_LOCKED, STORE_FULL, STORE_IO. */
export async function openShardStore(dir: string, options: ShardStoreOptions): Promise<ShardStore> {
  const { log, clock, files = nodeFiles, segmentBytes = SEGMENT_BYTES } = options
  const started = clock.now()
  const segmentsDir = join(dir, 'segments')
  await mkdir(segmentsDir, { recursive: true })
  await checkFormat(dir)
  const { catalog, recovered } = await openIndex(join(dir, 'index'), segmentsDir, log)
  try {
    const manifests = await openManifests(join(dir, 'manifests'), files, log)
    await files.syncDirectory(dir)
    const store = new DiskShardStore(
      { files, catalog, log, segmentsDir, segmentBytes },
      manifests,
      recovered.nextSegment
    )
    for (const { segment, stream, bytes } of recovered.segments) store.adopt(stream, segment, bytes)
    const facts = { dir, segments: recovered.segments.length, tookMs: Math.round(clock.now() - started) }
    log.info(facts, 'shard store is open')
    return store
  } catch (error) {
    await catalog.close()
    throw error
  }
}

interface StreamState {
  readonly stream: StreamId
  readonly hex: string
  readonly segments: Map<number, number>
  readonly writer: StreamWriter
  /** Puts under way, by grid and column: a second put of the same place waits for the first. */
  readonly puts: Map<string, Promise<void>>
  /** Column → the last of its grids that was put; undefined for a stream that was here before this run of the store. */
  readonly highest: Map<number, number> | undefined
  /** Grids and columns that were found damaged and not put again. */
  readonly damaged: Set<string>
  dropping: Promise<void> | undefined
}

type ListedPlace = Pick<ListedColumn, 'grid' | 'column'>

interface Context {
  readonly files: Files
  readonly catalog: Catalog
  readonly log: Log
  readonly segmentsDir: string
  readonly segmentBytes: number
}

class DiskShardStore implements ShardStore {
  readonly #context: Context
  readonly #manifests: Manifests
  readonly #readers: Readers
  readonly #streams = new Map<StreamId, StreamState>()
  /** Streams whose writer may have an open file, the least recently used first. */
  readonly #writing = new Set<StreamState>()
  #nextSegment: number
  #closing: Promise<void> | undefined

  constructor(context: Context, manifests: Manifests, nextSegment: number) {
    this.#context = context
    this.#manifests = manifests
    this.#nextSegment = nextSegment
    this.#readers = new Readers(segment => this.#pathOf(segment))
  }

  adopt(stream: StreamId, segment: number, bytes: number): void {
    this.#state(stream, undefined).segments.set(segment, bytes)
  }

  async putColumn(stream: StreamId, grid: number, column: number, bytes: Uint8Array): Promise<void> {
    checkPlace(stream, grid, column)
    if (bytes.length === 0 || bytes.length > MAX_PAYLOAD_BYTES) {
      throw new DiapauseError('SHARD_INVALID', `a column has 1 to ${MAX_PAYLOAD_BYTES} bytes, and not ${bytes.length}`)
    }
    this.#checkOpen()
    for (
      let drop = this.#streams.get(stream)?.dropping;
      drop !== undefined;
      drop = this.#streams.get(stream)?.dropping
    ) {
      await drop.catch(() => {})
      this.#checkOpen()
    }
    const state = this.#state(stream, new Map())
    const key = placeKey(grid, column)
    const before = state.puts.get(key)
    const put =
      before === undefined
        ? this.#put(state, grid, column, bytes)
        : before.catch(() => {}).then(() => this.#put(state, grid, column, bytes))
    state.puts.set(key, put)
    try {
      await put
    } finally {
      if (state.puts.get(key) === put) state.puts.delete(key)
    }
  }

  async #put(state: StreamState, grid: number, column: number, bytes: Uint8Array): Promise<void> {
    const there = await this.#lookUp(state, grid, column)
    if (there !== undefined) {
      const stored = await this.#readWhole(state.stream, grid, column, there.payloadBytes)
      // A damaged column is put again behind, and the index turned to it.
      if (stored !== undefined) {
        if (Buffer.compare(stored, bytes) === 0) return
        throw new DiapauseError(
          'SHARD_CONFLICT',
          `column ${column} of grid ${grid} of ${state.stream} has other bytes here`
        )
      }
    }
    this.#writing.delete(state)
    this.#writing.add(state)
    await state.writer.append(grid, column, bytes)
    state.damaged.delete(placeKey(grid, column))
    await this.#closeIdleWriters()
  }

  /** Grids come in order mostly: what is behind all that were ever put is not in the index, and need not be asked for. */
  async #lookUp(state: StreamState, grid: number, column: number): Promise<Location | undefined> {
    const { highest } = state
    if (highest === undefined || grid <= (highest.get(column) ?? -1)) {
      return await this.#context.catalog.get(state.hex, grid, column)
    }
    highest.set(column, grid)
    return undefined
  }

  async #readWhole(stream: StreamId, grid: number, column: number, length: number): Promise<Uint8Array | undefined> {
    try {
      return await this.readColumn(stream, grid, column, 0, length)
    } catch (error) {
      if (hasCode(error, 'SHARD_CORRUPT') || hasCode(error, 'SHARD_MISSING')) return undefined
      throw error
    }
  }

  async readColumn(
    stream: StreamId,
    grid: number,
    column: number,
    offset: number,
    length: number
  ): Promise<Uint8Array> {
    checkPlace(stream, grid, column)
    this.#checkOpen()
    const what = `column ${column} of grid ${grid} of ${stream}`
    const state = this.#streams.get(stream)
    const there = state && (await this.#context.catalog.get(state.hex, grid, column))
    if (there === undefined) throw new DiapauseError('SHARD_MISSING', `${what} is not here`)
    const inside = Number.isInteger(offset) && Number.isInteger(length) && offset >= 0 && length >= 0
    if (!inside || offset + length > there.payloadBytes) {
      throw new DiapauseError('SHARD_INVALID', `${what} has ${there.payloadBytes} bytes, not ${offset} + ${length}`)
    }
    const from = Math.floor(offset / CHECKSUM_BLOCK_BYTES) * CHECKSUM_BLOCK_BYTES
    const to = Math.min(there.payloadBytes, Math.ceil((offset + length) / CHECKSUM_BLOCK_BYTES) * CHECKSUM_BLOCK_BYTES)
    const bytes = await this.#readers
      .with(there.segment, file => readBlocks(file, { ...there, from, to }))
      .catch(cause => {
        // Dropped between the look into the index and the read.
        if (hasCode(cause, 'ENOENT')) throw new DiapauseError('SHARD_MISSING', `${what} is not here`, { cause })
        throw new DiapauseError('SHARD_CORRUPT', `${what} cannot be read: ${String(cause)}`, { cause })
      })
    if (bytes === undefined) {
      state?.damaged.add(placeKey(grid, column))
      throw new DiapauseError('SHARD_CORRUPT', `${what} is damaged on this disk; it will be rebuilt from other peers`)
    }
    return bytes.subarray(offset - from, offset - from + length)
  }

  async verifyColumn(stream: StreamId, grid: number, column: number): Promise<ColumnState> {
    checkPlace(stream, grid, column)
    this.#checkOpen()
    const state = this.#streams.get(stream)
    const there = state && (await this.#context.catalog.get(state.hex, grid, column))
    if (state === undefined || there === undefined) return 'missing'
    const end = there.payloadOffset + there.payloadBytes
    // From the record's head: what a lost index is built from again must be right too.
    const head = there.payloadOffset - recordHeadBytes(there.payloadBytes)
    try {
      const record = await this.#readers.with(there.segment, file => readRecord(file, head, end, streamHash(stream)))
      const same = record?.grid === grid && record.column === column && record.payloadBytes === there.payloadBytes
      if (same && record.whole && record.checksums.equals(there.checksums)) return 'whole'
    } catch (error) {
      state.damaged.add(placeKey(grid, column))
      if (hasCode(error, 'ENOENT')) return 'missing'
    }
    // Damaged, unless it was put again or dropped meanwhile.
    const now = await this.#context.catalog.get(state.hex, grid, column)
    if (now?.segment !== there.segment || now.payloadOffset !== there.payloadOffset) {
      return await this.verifyColumn(stream, grid, column)
    }
    state.damaged.add(placeKey(grid, column))
    return 'damaged'
  }

  async columns(stream: StreamId): Promise<{ column: number; grids: number }[]> {
    this.#checkOpen()
    const state = this.#streams.get(stream)
    if (state === undefined) return []
    const whole: ListedColumn[] = []
    for await (const place of this.#columnsOf(state)) {
      if (!state.damaged.has(placeKey(place.grid, place.column))) whole.push(place)
    }
    return countGrids(whole)
  }

  async *eachColumn(after?: ColumnPlace): AsyncGenerator<ColumnPlace & { bytes: number }> {
    this.#checkOpen()
    const names = [...this.#streams.keys()].sort()
    for (const stream of names) {
      const state = this.#streams.get(stream)
      if (state === undefined || (after !== undefined && stream < after.stream)) continue
      const from = after?.stream === stream ? after : undefined
      for await (const { grid, column, payloadBytes } of this.#columnsOf(state, from)) {
        yield { stream, grid, column, bytes: payloadBytes }
      }
    }
  }

  /** By pages, so that nothing of the index is pinned while whoever asked takes its time. */
  async *#columnsOf(state: StreamState, after?: ListedPlace): AsyncGenerator<ListedColumn> {
    let last = after
    for (;;) {
      this.#checkOpen()
      const page = await this.#context.catalog.page(state.hex, last)
      yield* page
      last = page.at(-1)
      if (last === undefined) return
    }
  }

  async putManifest(hash: string, bytes: Uint8Array): Promise<void> {
    this.#checkOpen()
    await this.#manifests.put(hash, bytes)
  }

  async getManifest(hash: string): Promise<Uint8Array | undefined> {
    this.#checkOpen()
    return await this.#manifests.get(hash)
  }

  async streams(): Promise<{ stream: StreamId; bytes: number }[]> {
    this.#checkOpen()
    return [...this.#streams.values()]
      .map(({ stream, segments }) => ({ stream, bytes: [...segments.values()].reduce((sum, bytes) => sum + bytes, 0) }))
      .filter(({ bytes }) => bytes > 0)
  }

  async manifests(): Promise<string[]> {
    this.#checkOpen()
    return await this.#manifests.list()
  }

  async dropStream(stream: StreamId): Promise<void> {
    this.#checkOpen()
    const state = this.#streams.get(stream)
    if (state === undefined) return
    state.dropping ??= this.#drop(state)
    await state.dropping
  }

  async #drop(state: StreamState): Promise<void> {
    // Puts that were accepted before the drop end first; later ones wait for the drop.
    while (state.puts.size > 0) await Promise.allSettled(state.puts.values())
    await state.writer.settle()
    this.#writing.delete(state)
    const segments = [...state.segments.keys()]
    try {
      // Index first: if power is lost before the files are gone, the stream is found again whole, and dropped again.
      await this.#context.catalog.forget(state.hex, new Set(segments))
      for (const segment of segments) {
        await this.#readers.forget(segment)
        await unlink(this.#pathOf(segment)).catch(error => {
          if (!hasCode(error, 'ENOENT')) throw storeError(`dropping ${state.stream} failed`, error)
        })
        state.segments.delete(segment)
      }
      await this.#context.files.syncDirectory(this.#context.segmentsDir)
      this.#streams.delete(state.stream)
    } finally {
      state.dropping = undefined
    }
  }

  async dropManifest(hash: string): Promise<void> {
    this.#checkOpen()
    await this.#manifests.drop(hash)
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      for (const state of this.#streams.values()) {
        await state.dropping?.catch(() => {})
        while (state.puts.size > 0) await Promise.allSettled(state.puts.values())
        await state.writer.settle()
      }
      await this.#readers.close()
      await this.#context.catalog.close()
    })()
    return this.#closing
  }

  #state(stream: StreamId, highest: StreamState['highest']): StreamState {
    const known = this.#streams.get(stream)
    if (known !== undefined) return known
    const hash = streamHash(stream)
    const segments = new Map<number, number>()
    const writer = new StreamWriter(
      {
        ...this.#context,
        pathOf: segment => this.#pathOf(segment),
        nextSegment: () => this.#nextSegment++,
        grown: (segment, bytes) => segments.set(segment, bytes)
      },
      stream,
      hash
    )
    const state: StreamState = {
      stream,
      hex: hash.toString('hex'),
      segments,
      writer,
      puts: new Map(),
      highest,
      damaged: new Set(),
      dropping: undefined
    }
    this.#streams.set(stream, state)
    return state
  }

  async #closeIdleWriters(): Promise<void> {
    for (const state of this.#writing) {
      if (this.#writing.size <= MAX_OPEN_WRITERS) return
      if (!state.writer.idle) continue
      this.#writing.delete(state)
      await state.writer.settle()
    }
  }

  #pathOf(segment: number): string {
    return join(this.#context.segmentsDir, segmentName(segment))
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new DiapauseError('STORE_CLOSED', 'the shard store is closed')
  }
}

const placeKey = (grid: number, column: number): string => `${grid} ${column}`

function checkPlace(stream: StreamId, grid: number, column: number): void {
  const id = Buffer.byteLength(stream)
  const numbers = Number.isInteger(grid) && grid >= 0 && grid <= MAX_GRID && Number.isInteger(column) && column >= 0
  if (numbers && column <= MAX_COLUMN && id > 0 && id <= MAX_STREAM_ID_BYTES) return
  throw new DiapauseError('SHARD_INVALID', `no such place: column ${column} of grid ${grid} of a stream of ${id} bytes`)
}
