/** Bytes of a stream from the shards of the cluster: byte range → grids → diagonals → symbols, and back. */
import { decodeDiagonal } from '../erasure/decode.ts'
import {
  dataSymbolAt,
  diagonalMembers,
  type GridShape,
  gridHashBytes,
  gridShapeOf,
  gridStarts,
  locate,
  rowsOf,
  type SymbolRange
} from '../erasure/grid.ts'
import { DiapauseError } from '../errors.ts'
import type { Codec, StreamManifest } from '../ports.ts'
import { DiagonalRead } from './diagonal-read.ts'
import type { Fetcher } from './fetcher.ts'
import type { Holders } from './holders.ts'

/** Grids of one read that are under way at once: at the defaults 4 MB of symbols from five holders. A guess. */
const GRIDS_IN_FLIGHT = 4

export class Reader {
  readonly #codec: Codec
  readonly #holders: Holders
  readonly #fetcher: Fetcher
  readonly #starts = new WeakMap<StreamManifest, readonly number[]>()
  directReads = 0
  degradedReads = 0

  constructor(codec: Codec, holders: Holders, fetcher: Fetcher) {
    this.#codec = codec
    this.#holders = holders
    this.#fetcher = fetcher
  }

  /** As `ShardCluster.readData`. RangeError outside of the stream; ERASURE_SHAPE for a manifest that cannot be. */
  async read(manifest: StreamManifest, offset: number, length: number): Promise<Uint8Array> {
    const ranges = locate(manifest, offset, length, this.#startsOf(manifest))
    const result = Buffer.allocUnsafeSlow(length)
    const jobs = byGrid(ranges)
    let next = 0
    const work = async (): Promise<void> => {
      for (let job = jobs[next++]; job !== undefined; job = jobs[next++]) await this.#readGrid(manifest, job, result)
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

  async #readGrid(manifest: StreamManifest, pieces: readonly Piece[], result: Uint8Array): Promise<void> {
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
        const symbols = await this.#readDiagonal(
          manifest,
          shape,
          grid,
          diagonal,
          members.map(({ symbol }) => symbol % shape.k)
        )
        for (const { symbol, from, to, at } of members) {
          const bytes = symbols[symbol % shape.k]
          if (bytes !== undefined) result.set(bytes.subarray(from, to), at)
        }
      })
    )
  }

  /** The wanted data symbols of a diagonal, by row. SHARD_LOST. */
  async #readDiagonal(
    manifest: StreamManifest,
    shape: GridShape,
    grid: number,
    diagonal: number,
    wanted: readonly number[]
  ): Promise<readonly (Uint8Array | undefined)[]> {
    const members = diagonalMembers(shape, diagonal)
    const holderOf = (row: number): string => manifest.holders[members[row]?.column ?? -1] ?? ''
    const { symbols, degraded } = await new Promise<{
      symbols: readonly (Uint8Array | undefined)[]
      degraded: boolean
    }>((resolve, reject) => {
      const read = new DiagonalRead({
        k: shape.k,
        rows: rowsOf(shape),
        wanted,
        standing: row => this.#holders.standing(holderOf(row)),
        ask: row =>
          this.#fetcher.fetch(manifest, shape, grid, members[row]?.column ?? -1, row, {
            settled: symbol => read.arrived(row, symbol),
            late: () => read.late(row)
          }),
        done: (symbols, degraded) => resolve({ symbols, degraded }),
        lost: have => reject(shardLost(manifest, grid, diagonal, have))
      })
      read.start()
    })
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
}

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
