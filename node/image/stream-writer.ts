/**
 * Cuts the bytes of a stream into grids, has each coded, and ships its columns. Memory is bounded by credits: a grid
 * takes one when it is full and gives it back when k + ceil(m / 2) of its columns are durable; the rest goes on behind it,
 * up to a bound. `write` itself never waits (a parser calls it in the middle of a chunk); the one who feeds it must stop
 * feeding while `congestion()` is pending.
 *
 * A stream fails where a grid misses more columns than its durability allows, and has ended when every column was
 * acknowledged or need not be waited for any more: that is for `put` to say, by rejecting.
 */
import { encodeGrid } from '../erasure/encode.ts'
import { type GridShape, gridDataBytes, gridShape, lastSymbolBytes } from '../erasure/grid.ts'
import type { Codec, GridManifest, StreamId, StreamManifest } from '../ports.ts'
import { spareColumns } from './durability.ts'
import type { StoredShape } from './facts.ts'

/** Bytes of columns under way at most, one grid at least: three grids of 5 × 5 symbols of 64 KiB. A guess. */
const UNDERWAY_BYTES = 5 << 20
/** Bytes of columns that slow holders of grids that have given back their credit still owe. A guess, see `shards/uploads.ts`. */
const BEHIND_BYTES = 64 << 20

/** `spare`: columns of the grid that may be missing. Rejects where this one is, or is not waited for any more. */
export type PutColumn = (grid: number, column: number, bytes: Uint8Array, spare: number) => Promise<void>

export class StreamWriter {
  readonly #stream: StreamId
  readonly #holders: readonly string[]
  readonly #shape: GridShape
  readonly #codec: Codec
  readonly #put: PutColumn
  readonly #credits: number
  readonly #spare: number
  /** Columns of a grid that may be owed when it gives back its credit. */
  readonly #owed: number
  readonly #grids: GridManifest[] = []
  /** Grids that have a credit, and grids of which columns are on their way. */
  readonly #underway = new Set<Promise<void>>()
  readonly #open = new Set<Promise<void>>()
  /** By the grid that misses most. */
  #columnsMissing = 0
  #behindBytes = 0
  #failure: Error | undefined
  #buffers: Uint8Array[] = []
  #buffer: Uint8Array
  #filled = 0
  #gridCount = 0
  #dataBytes = 0
  #durableColumns = 0

  constructor(options: {
    stream: StreamId
    holders: readonly string[]
    shape: StoredShape
    codec: Codec
    put: PutColumn
  }) {
    this.#stream = options.stream
    this.#holders = options.holders
    const { k, m, symbolBytes, durability = 'all' } = options.shape
    this.#shape = gridShape({ k, m, symbolBytes, columns: options.holders.length })
    this.#spare = spareColumns(options.holders, m, durability)
    this.#owed = Math.floor(m / 2)
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
    return this.#full() ? this.#untilRoom() : undefined
  }

  /** Settles when nothing is on its way that is waited for. Rejects with what a put failed with. */
  async idle(): Promise<void> {
    while (this.#open.size > 0) await Promise.race(this.#open)
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Ships the rest; resolves when each grid is durable, and every column is or is not waited for. */
  async finish(): Promise<{ manifest: StreamManifest; storedBytes: number; columnsMissing: number }> {
    if (this.#filled > 0) this.#emit({ ...this.#shape, symbolBytes: lastSymbolBytes(this.#shape, this.#filled) })
    await this.idle()
    const { k, m, columns } = this.#shape
    const storedBytes = this.#grids.reduce((sum, grid) => sum + columns * (k + m) * grid.symbolBytes, 0)
    const { holders, grids, dataBytes } = { holders: this.#holders, grids: this.#grids, dataBytes: this.#dataBytes }
    const manifest = { stream: this.#stream, k, m, holders, dataBytes, grids }
    return { manifest, storedBytes, columnsMissing: this.#columnsMissing }
  }

  #full(): boolean {
    return this.#underway.size >= this.#credits || this.#behindBytes >= BEHIND_BYTES
  }

  async #untilRoom(): Promise<void> {
    while (this.#failure === undefined && this.#full()) {
      await Promise.race(this.#underway.size >= this.#credits ? this.#underway : this.#open)
    }
    if (this.#failure !== undefined) throw this.#failure
  }

  #emit(shape: GridShape): void {
    const buffer = this.#buffer
    const filled = this.#filled
    const grid = this.#gridCount++
    this.#buffer = this.#buffers.pop() ?? new Uint8Array(buffer.length)
    this.#filled = 0
    const credit = Promise.withResolvers<void>()
    const settle = (): void => {
      this.#underway.delete(credit.promise)
      credit.resolve()
    }
    const task = this.#ship(grid, { shape, buffer, filled }, settle)
      .catch(error => {
        this.#failure ??= error instanceof Error ? error : new Error(String(error))
      })
      .finally(() => {
        settle()
        this.#open.delete(task)
      })
    this.#underway.add(credit.promise)
    this.#open.add(task)
  }

  async #ship(
    grid: number,
    { shape, buffer, filled }: { shape: GridShape; buffer: Uint8Array; filled: number },
    settle: () => void
  ): Promise<void> {
    const { columns, hashes } = await encodeGrid(this.#codec, shape, buffer.subarray(0, filled))
    this.#buffers.push(buffer)
    this.#grids[grid] = { symbolBytes: shape.symbolBytes, hashes }
    const { length = 0 } = columns[0] ?? {}
    let [due, durable, missing, behind] = [columns.length, 0, 0, false]
    const ended = (): void => {
      due--
      if (behind) this.#behindBytes -= length
      else if (durable >= columns.length - this.#owed) {
        behind = true
        this.#behindBytes += due * length
        settle()
      }
    }
    await Promise.all(
      columns.map(async (bytes, column) => {
        try {
          await this.#put(grid, column, bytes, this.#spare)
          this.#durableColumns++
          durable++
        } catch (error) {
          this.#columnsMissing = Math.max(this.#columnsMissing, ++missing)
          if (missing > this.#spare) throw error
        } finally {
          ended()
        }
      })
    )
  }
}
