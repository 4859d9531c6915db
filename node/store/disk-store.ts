/** The port over segments, index and manifests, once all of them are open (`shard-store.ts`). */
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { ColumnPlace, ColumnState, Log, ShardStore, StoreSpace, StreamId } from '../ports.ts'
import type { Catalog, Location } from './catalog.ts'
import { Columns } from './columns.ts'
import { compact, type Mover, segmentToEmpty } from './compaction.ts'
import { type Files, storeError } from './files.ts'
import { checkColumn, checkPlace, countGrids } from './inventory.ts'
import type { Manifests } from './manifests.ts'
import { Readers } from './readers.ts'
import { streamHash } from './record.ts'
import { segmentName } from './recovery.ts'
import type { Space } from './space.ts'
import { placeKey, recordBytes, type SegmentUse, type StreamState } from './stream-state.ts'
import { StreamWriter } from './writer.ts'

/** Segment files open for writing: one a VM that is being captured, and some. A guess. */
const MAX_OPEN_WRITERS = 64

export interface StoreContext {
  readonly files: Files
  readonly catalog: Catalog
  readonly log: Log
  readonly segmentsDir: string
  readonly segmentBytes: number
  readonly space: Space
}

export class DiskShardStore implements ShardStore {
  readonly #context: StoreContext
  readonly #manifests: Manifests
  readonly #readers: Readers
  readonly #streams = new Map<StreamId, StreamState>()
  /** Streams whose writer may have an open file, the least recently used first. */
  readonly #writing = new Set<StreamState>()
  readonly #columns: Columns
  /** Nobody waits for it but `close`: space kept, segments emptied. */
  #housekeeping: Promise<void> = Promise.resolve()
  #nextSegment: number
  #closing: Promise<void> | undefined

  constructor(context: StoreContext, manifests: Manifests, nextSegment: number) {
    this.#context = context
    this.#manifests = manifests
    this.#nextSegment = nextSegment
    const pathOf = (segment: number): string => this.#pathOf(segment)
    this.#readers = new Readers(pathOf)
    this.#columns = new Columns({ ...context, readers: this.#readers, pathOf })
  }

  adopt(stream: StreamId, segment: number, use: SegmentUse): void {
    this.#state(stream, undefined).segments.set(segment, use)
  }

  /** What an open store does beside: keeps its reserve, and empties segments that are mostly dead. */
  keepHouse(): void {
    this.#later(() => this.#context.space.keepReserve())
    for (const state of this.#streams.values()) this.#compactLater(state)
  }

  async putColumn(stream: StreamId, grid: number, column: number, bytes: Uint8Array): Promise<void> {
    checkPlace(stream, grid, column)
    checkColumn(bytes)
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
    await this.#inTurn(state, grid, column, () => this.#put(state, grid, column, bytes))
  }

  /** One after the other for a place. */
  async #inTurn(state: StreamState, grid: number, column: number, work: () => Promise<void>): Promise<void> {
    const key = placeKey(grid, column)
    const before = state.puts.get(key)
    const put = before === undefined ? work() : before.catch(() => {}).then(work)
    state.puts.set(key, put)
    try {
      await put
    } finally {
      if (state.puts.get(key) === put) state.puts.delete(key)
    }
  }

  async #put(state: StreamState, grid: number, column: number, bytes: Uint8Array): Promise<void> {
    const there = await this.#lookUp(state, grid, column)
    // A damaged column is put again behind, and the index turned to it.
    if (there !== undefined && !state.damaged.has(placeKey(grid, column))) {
      const stored = await this.#readWhole(state, grid, column, there.payloadBytes)
      if (stored !== undefined) {
        if (Buffer.compare(stored, bytes) === 0) return
        throw new DiapauseError(
          'SHARD_CONFLICT',
          `column ${column} of grid ${grid} of ${state.stream} has other bytes here`
        )
      }
    }
    await this.#append(state, grid, column, bytes, there)
    if (there !== undefined) this.#compactLater(state)
  }

  async #append(
    state: StreamState,
    grid: number,
    column: number,
    bytes: Uint8Array,
    before: Location | undefined
  ): Promise<void> {
    await this.#context.space.claim(recordBytes(bytes.length))
    this.#writing.delete(state)
    this.#writing.add(state)
    await this.#context.space.noting(state.writer.append(grid, column, bytes))
    state.damaged.delete(placeKey(grid, column))
    state.refuted.delete(placeKey(grid, column))
    const use = before && state.segments.get(before.segment)
    if (before !== undefined && use !== undefined) use.deadBytes += recordBytes(before.payloadBytes)
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

  async #readWhole(state: StreamState, grid: number, column: number, length: number): Promise<Uint8Array | undefined> {
    try {
      return await this.#columns.read(state, grid, column, 0, length)
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
    const state = this.#streams.get(stream)
    if (state === undefined) throw new DiapauseError('SHARD_MISSING', `nothing of ${stream} is here`)
    return await this.#columns.read(state, grid, column, offset, length)
  }

  async verifyColumn(stream: StreamId, grid: number, column: number): Promise<ColumnState> {
    checkPlace(stream, grid, column)
    this.#checkOpen()
    const state = this.#streams.get(stream)
    return state === undefined ? 'missing' : await this.#columns.verify(state, grid, column)
  }

  async refuteColumn(stream: StreamId, grid: number, column: number): Promise<void> {
    this.#checkOpen()
    const state = this.#streams.get(stream)
    if (state === undefined || (await this.#context.catalog.get(state.hex, grid, column)) === undefined) return
    for (const places of [state.damaged, state.refuted]) places.add(placeKey(grid, column))
  }

  async columns(stream: StreamId): Promise<{ column: number; grids: number }[]> {
    this.#checkOpen()
    const state = this.#streams.get(stream)
    if (state === undefined) return []
    const whole: { column: number }[] = []
    for await (const place of this.#columns.list(state)) {
      if (!state.damaged.has(placeKey(place.grid, place.column))) whole.push(place)
    }
    return countGrids(whole)
  }

  async *eachColumn(after?: ColumnPlace): AsyncGenerator<ColumnPlace & { bytes: number }> {
    this.#checkOpen()
    for (const stream of [...this.#streams.keys()].sort()) {
      const state = this.#streams.get(stream)
      if (state === undefined || (after !== undefined && stream < after.stream)) continue
      const from = after?.stream === stream ? after : undefined
      for await (const { grid, column, payloadBytes } of this.#columns.list(state, from)) {
        yield { stream, grid, column, bytes: payloadBytes }
        this.#checkOpen()
      }
    }
  }

  async space(): Promise<StoreSpace> {
    this.#checkOpen()
    const uses = [...this.#streams.values()].flatMap(({ segments }) => [...segments.values()])
    const sum = (of: (use: SegmentUse) => number): number => uses.reduce((total, use) => total + of(use), 0)
    const deadBytes = sum(use => use.deadBytes)
    const freeBytes = await this.#context.space.offeredBytes()
    return { liveBytes: sum(use => use.bytes) - deadBytes, deadBytes, freeBytes }
  }

  async putManifest(hash: string, bytes: Uint8Array): Promise<void> {
    this.#checkOpen()
    await this.#context.space.claim(bytes.length)
    await this.#context.space.noting(this.#manifests.put(hash, bytes))
  }

  async getManifest(hash: string): Promise<Uint8Array | undefined> {
    this.#checkOpen()
    return await this.#manifests.get(hash)
  }

  async streams(): Promise<{ stream: StreamId; bytes: number }[]> {
    this.#checkOpen()
    return [...this.#streams.values()]
      .map(({ stream, segments }) => ({
        stream,
        bytes: [...segments.values()].reduce((sum, { bytes }) => sum + bytes, 0)
      }))
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
    await this.#quiet(state)
    this.#writing.delete(state)
    try {
      await this.#remove(state, [...state.segments.keys()])
      this.#streams.delete(state.stream)
      this.#later(() => this.#context.space.keepReserve())
    } finally {
      state.dropping = undefined
    }
  }

  async #quiet(state: StreamState): Promise<void> {
    await state.compacting
    while (state.puts.size > 0) await Promise.allSettled(state.puts.values())
    await state.writer.settle()
  }

  /** Index first: if power is lost before the files are gone, they are found again whole, and dropped again. */
  async #remove(state: StreamState, segments: readonly number[]): Promise<void> {
    const forget = (): Promise<void> => this.#context.catalog.forget(state.hex, new Set(segments))
    const forgotten = await forget().then(
      () => true,
      (error: unknown) => {
        // A disk without any room: the files make some. An index that knows more than there is does no harm.
        if (hasCode(error, 'STORE_FULL')) return false
        throw error
      }
    )
    for (const segment of segments) {
      await this.#readers.forget(segment)
      await unlink(this.#pathOf(segment)).catch(error => {
        if (!hasCode(error, 'ENOENT')) throw storeError(`dropping ${state.stream} failed`, error)
      })
      state.segments.delete(segment)
    }
    await this.#context.files.syncDirectory(this.#context.segmentsDir)
    this.#context.space.forget()
    if (!forgotten) await forget()
  }

  async dropManifest(hash: string): Promise<void> {
    this.#checkOpen()
    await this.#manifests.drop(hash)
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      for (const state of this.#streams.values()) {
        await state.dropping?.catch(() => {})
        await this.#quiet(state)
      }
      await this.#housekeeping
      await this.#readers.close()
      await this.#context.catalog.close()
    })()
    return this.#closing
  }

  #state(stream: StreamId, highest: StreamState['highest']): StreamState {
    const known = this.#streams.get(stream)
    if (known !== undefined) return known
    const hash = streamHash(stream)
    const segments = new Map<number, SegmentUse>()
    const writer = new StreamWriter(
      {
        ...this.#context,
        pathOf: segment => this.#pathOf(segment),
        nextSegment: () => this.#nextSegment++,
        grown: (segment, bytes) => segments.set(segment, { bytes, deadBytes: segments.get(segment)?.deadBytes ?? 0 })
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
      refuted: new Set(),
      compacting: undefined,
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

  #later(work: () => Promise<void>): void {
    this.#housekeeping = this.#housekeeping
      .then(() => (this.#closing === undefined ? work() : undefined))
      .catch((error: unknown) => this.#context.log.warn({ error: messageOf(error) }, 'keeping the shard store failed'))
  }

  #compactLater(state: StreamState): void {
    if (segmentToEmpty(state) === undefined || this.#closing !== undefined) return
    if (state.compacting !== undefined) {
      void state.compacting.then(() => this.#compactLater(state))
      return
    }
    state.compacting = compact(state, this.#mover)
      .catch((error: unknown) => {
        const { stream } = state
        this.#context.log.warn({ stream, error: messageOf(error) }, 'a segment could not be emptied')
      })
      .finally(() => {
        state.compacting = undefined
      })
  }

  readonly #mover: Mover = {
    columnsIn: (state, segment) => this.#columnsIn(state, segment),
    stopped: state => state.dropping !== undefined || this.#closing !== undefined,
    move: (state, segment, grid, column) => this.#move(state, segment, grid, column),
    remove: (state, segment) => this.#remove(state, [segment])
  }

  async *#columnsIn(state: StreamState, segment: number): AsyncGenerator<{ grid: number; column: number }> {
    for await (const place of this.#columns.list(state)) if (place.segment === segment) yield place
  }

  async #move(state: StreamState, segment: number, grid: number, column: number): Promise<boolean> {
    let moved = true
    await this.#inTurn(state, grid, column, async () => {
      const there = await this.#context.catalog.get(state.hex, grid, column)
      if (there?.segment !== segment) return
      const refuted = state.refuted.has(placeKey(grid, column))
      const bytes = refuted ? undefined : await this.#readWhole(state, grid, column, there.payloadBytes)
      if (bytes === undefined) moved = false
      else await this.#append(state, grid, column, bytes, there)
    })
    return moved
  }

  #pathOf(segment: number): string {
    return join(this.#context.segmentsDir, segmentName(segment))
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) throw new DiapauseError('STORE_CLOSED', 'the shard store is closed')
  }
}
