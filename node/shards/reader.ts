/** Bytes of a stream from the shards of the cluster: byte range → grids → diagonals → symbols, and back. */
import { decodeDiagonal } from '../erasure/decode.ts'
import {
  dataSymbolAt,
  diagonalMembers,
  gridHashBytes,
  gridShapeOf,
  gridStarts,
  locate,
  rowsOf,
  type SymbolRange
} from '../erasure/grid.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, Codec, ReadOptions, StreamManifest } from '../ports.ts'
import { DiagonalRead } from './diagonal-read.ts'
import type { Fetcher, StreamGrid } from './fetcher.ts'
import type { Sources } from './sources.ts'

/** Grids of one read that are under way at once: at the defaults 4 MB of symbols from five holders. A guess. */
const GRIDS_IN_FLIGHT = 4
/**
 * Symbols that are out of reach are tried again for so long while enough holders live: who gives up ends a VM, and its whole group
 * goes back once more. A link that was reset is there again within a second; who does not return is declared dead within two.
 */
const PATIENCE_MS = 4_000
/** A guess: a new link takes 50 to 300 ms. */
const RETRY_MS = 100

export class Reader {
  readonly #codec: Codec
  readonly #sources: Sources
  readonly #fetcher: Fetcher
  readonly #clock: Clock
  readonly #starts = new WeakMap<StreamManifest, readonly number[]>()
  directReads = 0
  degradedReads = 0

  constructor(codec: Codec, sources: Sources, fetcher: Fetcher, clock: Clock) {
    this.#clock = clock
    this.#codec = codec
    this.#sources = sources
    this.#fetcher = fetcher
  }

  /** As `ShardCluster.readData`. RangeError outside of the stream; ERASURE_SHAPE for a manifest that cannot be. */
  async read(
    manifest: StreamManifest,
    offset: number,
    length: number,
    { hedge = 0 }: ReadOptions = {}
  ): Promise<Uint8Array> {
    const ranges = locate(manifest, offset, length, this.#startsOf(manifest))
    const result = Buffer.allocUnsafeSlow(length)
    const jobs = byGrid(ranges)
    let next = 0
    const work = async (): Promise<void> => {
      for (let job = jobs[next++]; job !== undefined; job = jobs[next++]) {
        await this.#readGrid(manifest, job, result, hedge)
      }
    }
    await Promise.all(Array.from({ length: Math.min(GRIDS_IN_FLIGHT, jobs.length) }, work))
    return result
  }

  #startsOf(manifest: StreamManifest): readonly number[] {
    let starts = this.#starts.get(manifest)
    if (starts === undefined) {
      starts = gridStarts(manifest)
      this.#starts.set(manifest, starts)
    }
    return starts
  }

  async #readGrid(
    manifest: StreamManifest,
    pieces: readonly Piece[],
    result: Uint8Array,
    hedge: number
  ): Promise<void> {
    const grid = pieces[0]?.grid ?? 0
    const shape = gridShapeOf(manifest, grid)
    if (manifest.grids[grid]?.hashes.length !== gridHashBytes(shape)) {
      throw new DiapauseError('ERASURE_SHAPE', `the manifest of ${manifest.stream} has not all hashes of grid ${grid}`)
    }
    const diagonals = new Map<number, Piece[]>()
    for (const piece of pieces) {
      const { diagonal } = dataSymbolAt(shape, piece.symbol)
      diagonals.set(diagonal, [...(diagonals.get(diagonal) ?? []), piece])
    }
    await Promise.all(
      [...diagonals].map(async ([diagonal, members]) => {
        const wanted = members.map(({ symbol }) => symbol % shape.k)
        const symbols = await this.#readDiagonal({ manifest, shape, grid }, diagonal, wanted, hedge)
        for (const { symbol, from, to, at } of members) {
          const bytes = symbols[symbol % shape.k]
          if (bytes !== undefined) result.set(bytes.subarray(from, to), at)
        }
      })
    )
  }

  /** The wanted data symbols of a diagonal, by row. SHARD_LOST. */
  async #readDiagonal(
    of: StreamGrid,
    diagonal: number,
    wanted: readonly number[],
    hedge: number
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const { manifest, shape, grid } = of
    const columns = diagonalMembers(shape, diagonal).map(({ column }) => column)
    const first = await this.#symbolsOf(of, columns, wanted, hedge)
    const found = first.symbols === undefined ? await this.#again(of, columns, wanted, hedge, first) : first
    if (found.symbols === undefined) throw shardLost(manifest, grid, diagonal, found.coming)
    const { symbols, degraded } = found
    if (!degraded) {
      this.directReads++
      return symbols
    }
    this.degradedReads++
    const data = await decodeDiagonal(this.#codec, shape, symbols)
    return Array.from({ length: shape.k }, (_, row) =>
      data.subarray(row * shape.symbolBytes, (row + 1) * shape.symbolBytes)
    )
  }

  /** Before giving up: a repair may have put columns elsewhere, and who is cut off for a moment comes back. */
  async #again(
    of: StreamGrid,
    columns: readonly number[],
    wanted: readonly number[],
    hedge: number,
    first: Outcome
  ): Promise<Outcome> {
    const { manifest, shape, grid } = of
    const untilMs = this.#clock.now() + PATIENCE_MS
    await this.#sources.search(manifest.stream)
    let found = first
    if (this.#sources.elsewhere(manifest, grid, columns)) found = await this.#symbolsOf(of, columns, wanted, hedge)
    while (found.symbols === undefined && this.#clock.now() < untilMs) {
      if (this.#sources.within(manifest, grid, columns) < shape.k) return found
      await new Promise<void>(resolve => this.#clock.after(RETRY_MS, resolve))
      found = await this.#symbolsOf(of, columns, wanted, hedge)
    }
    return found
  }

  /** What comes first: the wanted rows, or any k; what is under way then is given up. */
  #symbolsOf(of: StreamGrid, columns: readonly number[], wanted: readonly number[], hedge: number): Promise<Outcome> {
    const { manifest, shape, grid } = of
    const columnOf = (row: number): number => columns[row] ?? -1
    const giveUp: (() => void)[] = []
    return new Promise<Outcome>(resolve => {
      const read = new DiagonalRead({
        k: shape.k,
        rows: rowsOf(shape),
        wanted,
        hedge,
        standing: row => this.#sources.standing(manifest, grid, columnOf(row)),
        ask: row => {
          const settled = (symbol: Uint8Array | 'lost'): void => read.arrived(row, symbol)
          giveUp.push(this.#fetcher.fetch(of, columnOf(row), row, { settled, late: () => read.late(row) }))
        },
        done: (symbols, degraded) => resolve({ symbols, degraded }),
        lost: coming => resolve({ symbols: undefined, coming })
      })
      const gone = wanted.some(row => this.#sources.standing(manifest, grid, columnOf(row)) === 'gone')
      if (gone) void this.#sources.search(manifest.stream)
      read.start()
    }).finally(() => {
      for (const cancel of giveUp) cancel()
    })
  }
}

/** Symbols by row; none: too few can come. */
type Outcome =
  | { readonly symbols: readonly (Uint8Array | undefined)[]; readonly degraded: boolean }
  | { readonly symbols: undefined; readonly coming: number }

/** A piece of a symbol and where it goes in the result. */
interface Piece extends SymbolRange {
  readonly at: number
}

function byGrid(ranges: readonly SymbolRange[]): Piece[][] {
  const jobs: Piece[][] = []
  let at = 0
  for (const range of ranges) {
    const piece = { ...range, at }
    at += range.to - range.from
    const last = jobs.at(-1)
    if (last?.[0]?.grid === range.grid) last.push(piece)
    else jobs.push([piece])
  }
  return jobs
}

function shardLost(manifest: StreamManifest, grid: number, diagonal: number, have: number): DiapauseError {
  const { stream, k, m, holders } = manifest
  const message = `diagonal ${diagonal} of grid ${grid} of ${stream} has ${have} whole symbols within reach and needs ${k}`
  return new DiapauseError('SHARD_LOST', `${message}; bring back peers that hold it`, {
    details: { stream, grid, diagonal, have, k, m, holders: [...new Set(holders)] }
  })
}
