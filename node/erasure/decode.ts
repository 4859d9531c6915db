/**
 * Columns back to data: one diagonal, any one symbol, a grid in stream order, a whole stream. What is decoded with must have
 * been checked against its hash before (`decodeStream` does it itself): one wrong symbol spoils its codeword unseen.
 */
import { DiapauseError } from '../errors.ts'
import type { Codec, StreamManifest } from '../ports.ts'
import { symbolHash } from './encode.ts'
import {
  diagonalAt,
  type GridShape,
  gridHashBytes,
  gridShapeOf,
  type Place,
  rowsOf,
  SYMBOL_HASH_BYTES,
  symbolHashOffset,
  symbolOffsetInColumn
} from './grid.ts'
import { GridMemory } from './grid-memory.ts'

/** The n symbols of a diagonal, row 0 first, undefined where missing. */
export type DiagonalSymbols = readonly (Uint8Array | undefined)[]

/** The k data symbols of a diagonal, end to end, from any k of its n symbols. Fresh memory. DECODE_IMPOSSIBLE, ERASURE_LENGTH. */
export async function decodeDiagonal(codec: Codec, shape: GridShape, symbols: DiagonalSymbols): Promise<Uint8Array> {
  const { data, parity, present } = gathered(shape, symbols)
  if (present.lastIndexOf(false, shape.k - 1) !== -1) await codec.decode(data, parity, shape, present, true)
  return data
}

/** Any one symbol of a diagonal, data or parity, from any k others. DECODE_IMPOSSIBLE, ERASURE_LENGTH. */
export async function decodeSymbol(
  codec: Codec,
  shape: GridShape,
  symbols: DiagonalSymbols,
  row: number
): Promise<Uint8Array> {
  const own = symbols[row]
  if (own !== undefined) return own
  const { data, parity, present } = gathered(shape, symbols)
  const { k, symbolBytes } = shape
  await codec.decode(data, parity, shape, present, row < k)
  const [from, index] = row < k ? [data, row] : [parity, row - k]
  return from.subarray(index * symbolBytes, (index + 1) * symbolBytes)
}

function gathered(shape: GridShape, symbols: DiagonalSymbols) {
  const { k, m, symbolBytes } = shape
  const data = Buffer.allocUnsafeSlow(k * symbolBytes)
  const parity = Buffer.allocUnsafeSlow(m * symbolBytes)
  const present: boolean[] = []
  for (let row = 0; row < rowsOf(shape); row++) {
    const symbol = symbols[row]
    present.push(symbol !== undefined)
    if (symbol === undefined) continue
    if (symbol.length !== symbolBytes) {
      throw new DiapauseError('ERASURE_LENGTH', `symbol ${row} has ${symbol.length} bytes instead of ${symbolBytes}`)
    }
    if (row < k) data.set(symbol, row * symbolBytes)
    else parity.set(symbol, (row - k) * symbolBytes)
  }
  return { data, parity, present }
}

/**
 * One grid in stream order, whichever order its symbols come in. Each is received straight into the grid's memory (or copied
 * there by `addColumn`), where it is decoded in place and where the data then stands as in the stream. A diagonal is decoded as
 * soon as those of its data symbols that are missing are known to be lost and any k symbols are there: `decodableAfter` in
 * `grid.ts` is the latest that can be.
 */
export class GridDecoder {
  readonly #codec: Codec
  readonly memory: GridMemory
  /** By diagonal, by row: undefined is still to come. */
  readonly #states: (boolean | undefined)[][]
  readonly #whole: Promise<void>[] = []

  constructor(codec: Codec, memory: GridMemory) {
    this.#codec = codec
    this.memory = memory
    const rows = rowsOf(memory.shape)
    this.#states = Array.from({ length: memory.shape.columns }, () =>
      new Array<boolean | undefined>(rows).fill(undefined)
    )
  }

  /** The symbol at this place stands in `memory.symbol(place)`, and is right (`here`), or it will not come. */
  set(place: Place, here: boolean): void {
    const row = this.#states[diagonalAt(this.memory.shape, place)]
    if (row !== undefined) row[place.row] = here
  }

  /** A column as its holder stores it; undefined: it is lost. ERASURE_LENGTH. */
  addColumn(column: number, bytes: Uint8Array | undefined): void {
    const { shape } = this.memory
    if (bytes !== undefined && bytes.length !== rowsOf(shape) * shape.symbolBytes) {
      throw new DiapauseError('ERASURE_LENGTH', `column ${column} has ${bytes.length} bytes`)
    }
    for (let row = 0; row < rowsOf(shape); row++) {
      const from = symbolOffsetInColumn(shape, row)
      if (bytes !== undefined) this.memory.symbol({ column, row }).set(bytes.subarray(from, from + shape.symbolBytes))
      this.set({ column, row }, bytes !== undefined)
    }
  }

  /**
   * Decodes what can be. Resolves with how many diagonals, from the first on, have all their data now: `memory.data` is the
   * stream up to there. DECODE_IMPOSSIBLE where too many symbols are lost.
   */
  async advance(): Promise<number> {
    const { shape } = this.memory
    for (const [diagonal, states] of this.#states.entries()) {
      if (diagonal in this.#whole || !this.#decodable(states)) continue
      const codeword = this.memory.codeword(diagonal)
      const present = states.map(here => here === true)
      const whole = present.lastIndexOf(false, shape.k - 1) === -1
      const decoding = whole
        ? Promise.resolve()
        : this.#codec.decode(codeword.data, codeword.parity, shape, present, true)
      decoding.catch(() => {}) // awaited below
      this.#whole[diagonal] = decoding
    }
    let ready = 0
    while (ready in this.#whole) await this.#whole[ready++]
    return ready
  }

  /** Its data is here, or what is missing of it will not come and there is enough (or can never be) without. */
  #decodable(states: readonly (boolean | undefined)[]): boolean {
    const { k, m } = this.memory.shape
    const data = states.slice(0, k)
    if (data.includes(undefined)) return false
    const lost = states.filter(here => here === false).length
    return !data.includes(false) || lost > m || states.filter(here => here === true).length >= k
  }
}

/**
 * A whole stream, grid after grid: pieces of its data, each valid until the next is asked for. `read` gives a column of a grid as
 * its holder stores it, undefined where it is lost; every symbol is checked, and one that is wrong counts as lost.
 * DECODE_IMPOSSIBLE, ERASURE_SHAPE, ERASURE_LENGTH; and as `read`.
 */
export async function* decodeStream(
  codec: Codec,
  manifest: StreamManifest,
  read: (grid: number, column: number) => Promise<Uint8Array | undefined>
): AsyncGenerator<Uint8Array> {
  let left = manifest.dataBytes
  for (const [grid, { hashes }] of manifest.grids.entries()) {
    const shape = gridShapeOf(manifest, grid)
    if (hashes.length !== gridHashBytes(shape)) {
      throw new DiapauseError('ERASURE_SHAPE', `the manifest of ${manifest.stream} has not all hashes of grid ${grid}`)
    }
    const decoder = new GridDecoder(codec, new GridMemory(shape))
    await Promise.all(
      manifest.holders.map(async (_, column) => {
        const bytes = await read(grid, column)
        decoder.addColumn(column, bytes)
        for (let row = 0; row < rowsOf(shape) && bytes !== undefined; row++) {
          const at = symbolHashOffset(shape, { column, row })
          const right = hashes.subarray(at, at + SYMBOL_HASH_BYTES)
          const symbol = decoder.memory.symbol({ column, row })
          if (Buffer.compare(symbolHash(symbol), right) !== 0) decoder.set({ column, row }, false)
        }
      })
    )
    await decoder.advance()
    yield decoder.memory.data.subarray(0, Math.min(left, decoder.memory.data.length))
    left -= decoder.memory.data.length
  }
}
