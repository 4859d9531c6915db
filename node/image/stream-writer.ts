/**
 * Cuts the bytes of a stream into grids, has each coded, and ships its columns. Memory is bounded by credits: a grid
 * takes one when it is full and gives it back when all its columns are durable. `write` itself never waits (a parser
 * calls it in the middle of a chunk); the one who feeds it must stop feeding while `congestion()` is pending.
 */
import { encodeGrid } from '../erasure/encode.ts'
import { type GridShape, gridDataBytes, gridShape, lastSymbolBytes } from '../erasure/grid.ts'
import type { Codec, CodeShape, GridManifest, StreamId, StreamManifest } from '../ports.ts'

/** Bytes of columns under way at most, one grid at least: three grids of 5 × 5 symbols of 64 KiB. A guess. */
const UNDERWAY_BYTES = 5 << 20

export type PutColumn = (grid: number, column: number, bytes: Uint8Array) => Promise<void>

export class StreamWriter {
  readonly #stream: StreamId
  readonly #holders: readonly string[]
  readonly #shape: GridShape
  readonly #codec: Codec
  readonly #put: PutColumn
  readonly #credits: number
  readonly #grids: GridManifest[] = []
  readonly #underway = new Set<Promise<void>>()
  #failure: Error | undefined
  #spare: Uint8Array[] = []
  #buffer: Uint8Array
  #filled = 0
  #gridCount = 0
  #dataBytes = 0
  #durableColumns = 0

  constructor(options: {
    stream: StreamId
    holders: readonly string[]
    shape: CodeShape
    codec: Codec
    put: PutColumn
  }) {
    this.#stream = options.stream
    this.#holders = options.holders
    this.#shape = gridShape({ ...options.shape, columns: options.holders.length })
    this.#codec = options.codec
    this.#put = options.put
    const storedBytes = this.#shape.columns * (this.#shape.k + this.#shape.m) * this.#shape.symbolBytes
    this.#credits = Math.max(1, Math.floor(UNDERWAY_BYTES / storedBytes))
    this.#buffer = new Uint8Array(gridDataBytes(this.#shape))
  }

  /** Bytes written so far: the offset of what is written next. */
  get dataBytes(): number {
    return this.#dataBytes
  }

  get durableColumns(): number {
    return this.#durableColumns
  }

  /** Copies `bytes` to the end of the stream. Throws what a put failed with. */
  write(bytes: Uint8Array): void {
    if (this.#failure !== undefined) throw this.#failure
    for (let at = 0; at < bytes.length; ) {
      const taken = Math.min(bytes.length - at, this.#buffer.length - this.#filled)
      this.#buffer.set(bytes.subarray(at, at + taken), this.#filled)
      this.#filled += taken
      at += taken
      if (this.#filled === this.#buffer.length) this.#emit(this.#shape)
    }
    this.#dataBytes += bytes.length
  }

  /** Undefined where more may be written at once; else settles when it may. Rejects with what a put failed with. */
  congestion(): Promise<void> | undefined {
    if (this.#failure !== undefined) return Promise.reject(this.#failure)
    return this.#underway.size < this.#credits ? undefined : this.#untilBelow(this.#credits)
  }

  /** Settles when nothing is on its way. Rejects with what a put failed with. */
  idle(): Promise<void> {
    return this.#untilBelow(1)
  }

  /** Ships the rest; resolves when every column is durable. */
  async finish(): Promise<{ manifest: StreamManifest; storedBytes: number }> {
    if (this.#filled > 0) this.#emit({ ...this.#shape, symbolBytes: lastSymbolBytes(this.#shape, this.#filled) })
    await this.#untilBelow(1)
    const { k, m, columns } = this.#shape
    const storedBytes = this.#grids.reduce((sum, grid) => sum + columns * (k + m) * grid.symbolBytes, 0)
    const { holders, grids, dataBytes } = { holders: this.#holders, grids: this.#grids, dataBytes: this.#dataBytes }
    return { manifest: { stream: this.#stream, k, m, holders, dataBytes, grids }, storedBytes }
  }

  async #untilBelow(count: number): Promise<void> {
    while (this.#underway.size >= count) await Promise.race(this.#underway)
    if (this.#failure !== undefined) throw this.#failure
  }

  #emit(shape: GridShape): void {
    const buffer = this.#buffer
    const filled = this.#filled
    const grid = this.#gridCount++
    this.#buffer = this.#spare.pop() ?? new Uint8Array(buffer.length)
    this.#filled = 0
    const task = this.#ship(grid, shape, buffer, filled)
      .catch(error => {
        this.#failure ??= error instanceof Error ? error : new Error(String(error))
      })
      .finally(() => this.#underway.delete(task))
    this.#underway.add(task)
  }

  async #ship(grid: number, shape: GridShape, buffer: Uint8Array, filled: number): Promise<void> {
    const { columns, hashes } = await encodeGrid(this.#codec, shape, buffer.subarray(0, filled))
    this.#spare.push(buffer)
    this.#grids[grid] = { symbolBytes: shape.symbolBytes, hashes }
    await Promise.all(
      columns.map(async (bytes, column) => {
        await this.#put(grid, column, bytes)
        this.#durableColumns++
      })
    )
  }
}
