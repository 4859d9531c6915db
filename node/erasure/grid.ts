/**
 * Where the symbols of the erasure code lie. Pure arithmetic.
 *
 * A stream is cut into grids. A grid has C columns and n = k + m rows; column c of every grid is stored by one peer.
 * A codeword is a *diagonal*: the symbol of diagonal d in row r stands in column (d + r) mod C. Rows 0..k-1 are data,
 * rows k..n-1 parity. For k = 3, m = 2, C = 5, with the diagonal's name in each place (a..e are d = 0..4):
 *
 *              column 0   1   2   3   4
 *     row 0 data      a   b   c   d   e        a: (0,0) (1,1) (2,2) | (3,3) (4,4)
 *     row 1 data      e   a   b   c   d        its k data symbols are contiguous in the stream:
 *     row 2 data      d   e   a   b   c        data symbol i is row i mod k of diagonal floor(i / k)
 *     row 3 parity    c   d   e   a   b
 *     row 4 parity    b   c   d   e   a        stream: a0 a1 a2 b0 b1 b2 c0 c1 c2 d0 d1 d2 e0 e1 e2
 *
 * What follows, for every C ≥ n: a column holds at most one symbol of a diagonal (d + r are n consecutive numbers mod
 * C), so any m columns may be lost; a column holds each row once, so every peer has the same mix of k data and m parity
 * symbols, and reads fall on all alike; a run of data goes to peers in turn; C may exceed n, and then the grid spreads
 * over more peers than a codeword needs.
 *
 * Source: D. Leong, A. Qureshi and T. Ho, "On Coding for Real-Time Streaming under Packet Erasures" (ISIT 2013), put
 * the symbols of a systematic block code on diagonals of successive packets of an endless stream and show such codes
 * asymptotically optimal under bursts of erasures with a decoding deadline. Taken from it: the layout (packet = column,
 * time step = peer), a rule that needs no table and parity as the stream goes. Not taken: the deadline and the codes
 * built for it. Ours is an MDS code (Reed-Solomon), our diagonals wrap around within a grid so that every grid stands
 * alone, and our erasures are lost peers. Against lost peers this is exactly as strong as plain k + m Reed-Solomon over
 * the same peers; the diagonals buy balance and streaming, not tolerance.
 *
 * A column is its n symbols end to end, row 0 first. All grids of a stream have the same C, k and m; the last grid has
 * smaller symbols so that a small stream is small on disk; what it holds behind the stream's end is zeros.
 */
import { DiapauseError } from '../errors.ts'
import type { CodeShape, StreamManifest } from '../ports.ts'

/** Bounds of the codec library (LIBRARIES: 1 ≤ k ≤ 24, 1 ≤ m ≤ 6, symbols a multiple of 8 bytes). */
export const MAX_K = 24
export const MAX_M = 6
/** A bound for hostile manifests; the schema allows 100 members, and a peer may stand in a grid twice. */
export const MAX_COLUMNS = 255
export const SYMBOL_ALIGN_BYTES = 8
/** Below this a symbol's hash and its record header would weigh more than the symbol: a guess. */
export const MIN_SYMBOL_BYTES = 64
export const MAX_SYMBOL_BYTES = 1 << 20
/** First bytes of SHA-256 kept of each symbol (GridManifest.hashes). */
export const SYMBOL_HASH_BYTES = 16

/** C columns of k + m symbols. */
export interface GridShape extends CodeShape {
  readonly columns: number
}

/** A place in a grid. */
export interface Place {
  readonly column: number
  readonly row: number
}

/** Data symbol i of a grid. */
export interface DataPlace extends Place {
  readonly diagonal: number
}

/** Bytes [from, to) of data symbol `symbol` of grid `grid`. */
export interface SymbolRange {
  readonly grid: number
  readonly symbol: number
  readonly from: number
  readonly to: number
}

/** Checks every bound. ERASURE_SHAPE. */
export function gridShape(shape: { columns: number; k: number; m: number; symbolBytes: number }): GridShape {
  const { columns, k, m, symbolBytes } = shape
  within('k', k, 1, MAX_K)
  within('m', m, 1, MAX_M)
  within('columns', columns, k + m, MAX_COLUMNS)
  within('symbolBytes', symbolBytes, MIN_SYMBOL_BYTES, MAX_SYMBOL_BYTES)
  if (symbolBytes % SYMBOL_ALIGN_BYTES !== 0) {
    throw new DiapauseError('ERASURE_SHAPE', `symbolBytes must be a multiple of 8, and is ${symbolBytes}`)
  }
  return Object.freeze({ columns, k, m, symbolBytes })
}

function within(name: string, value: number, low: number, high: number): void {
  if (Number.isInteger(value) && value >= low && value <= high) return
  throw new DiapauseError('ERASURE_SHAPE', `${name} must be a whole number from ${low} to ${high}, and is ${value}`)
}

/** Rows of a grid = symbols of a codeword = n. */
export const rowsOf = (shape: Pick<CodeShape, 'k' | 'm'>): number => shape.k + shape.m

/** Data symbols of a grid. */
export const dataSymbols = (shape: Pick<GridShape, 'columns' | 'k'>): number => shape.columns * shape.k

/** Bytes of data that a grid carries. */
export const gridDataBytes = (shape: Pick<GridShape, 'columns' | 'k' | 'symbolBytes'>): number =>
  shape.columns * shape.k * shape.symbolBytes

/** Bytes of one column, as stored by one peer. */
export const columnBytes = (shape: CodeShape): number => rowsOf(shape) * shape.symbolBytes

/** Bytes of GridManifest.hashes. */
export const gridHashBytes = (shape: Pick<GridShape, 'columns' | 'k' | 'm'>): number =>
  shape.columns * rowsOf(shape) * SYMBOL_HASH_BYTES

/** Where data symbol i (0 ≤ i < C·k) stands. */
export function dataSymbolAt(shape: Pick<GridShape, 'columns' | 'k'>, i: number): DataPlace {
  const diagonal = Math.floor(i / shape.k)
  const row = i % shape.k
  return { column: (diagonal + row) % shape.columns, row, diagonal }
}

/** The diagonal that passes through a place. */
export function diagonalAt(shape: Pick<GridShape, 'columns'>, place: Place): number {
  const d = (place.column - place.row) % shape.columns
  return d < 0 ? d + shape.columns : d
}

/** The n places of diagonal d, row 0 first: rows 0..k-1 are its data in stream order. */
export function diagonalMembers(shape: Pick<GridShape, 'columns' | 'k' | 'm'>, diagonal: number): Place[] {
  const members: Place[] = []
  for (let row = 0; row < rowsOf(shape); row++) members.push({ column: (diagonal + row) % shape.columns, row })
  return members
}

/**
 * The diagonal with which a column is complete, where diagonals are coded in stream order: its own last one, and for the first
 * n - 1 columns, which diagonals from the grid's end wrap around to, the grid's last.
 */
export const completesWith = (shape: Pick<GridShape, 'columns' | 'k' | 'm'>, column: number): number =>
  column >= rowsOf(shape) - 1 ? column : shape.columns - 1

/**
 * The deadline of data symbol i: who reads columns 0, 1, 2 … of its grid in this order, any m of which may be missing, has
 * symbol i at the latest after this column. That is the last column of its diagonal, n - 1 - row columns behind its own place,
 * or the grid's last where the diagonal wraps around. In the stream it never needs data that comes later than its own
 * diagonal: at most k - 1 - row symbols ahead, and no other grid.
 */
export function decodableAfter(shape: Pick<GridShape, 'columns' | 'k' | 'm'>, i: number): number {
  return Math.min(Math.floor(i / shape.k) + rowsOf(shape) - 1, shape.columns - 1)
}

/** Byte offset of a row's symbol in its column. */
export const symbolOffsetInColumn = (shape: Pick<CodeShape, 'symbolBytes'>, row: number): number =>
  row * shape.symbolBytes

/** Byte offset of a symbol's hash in GridManifest.hashes. */
export const symbolHashOffset = (shape: Pick<CodeShape, 'k' | 'm'>, place: Place): number =>
  (place.column * rowsOf(shape) + place.row) * SYMBOL_HASH_BYTES

/**
 * The symbol size of each grid of a stream of `dataBytes`: `symbolBytes` for all but the last, and for the last the
 * smallest that holds the rest. No grids for no data.
 */
export function gridSymbolSizes(
  shape: Pick<GridShape, 'columns' | 'k' | 'symbolBytes'>,
  dataBytes: number
): readonly number[] {
  const full = gridDataBytes(shape)
  const sizes: number[] = new Array(Math.floor(dataBytes / full)).fill(shape.symbolBytes)
  const rest = dataBytes % full
  if (rest > 0) sizes.push(lastSymbolBytes(shape, rest))
  return sizes
}

/** The smallest symbol with which one grid holds `restBytes` (at most `shape.symbolBytes` where a full grid holds them). */
export function lastSymbolBytes(shape: Pick<GridShape, 'columns' | 'k' | 'symbolBytes'>, restBytes: number): number {
  const even = Math.ceil(restBytes / dataSymbols(shape) / SYMBOL_ALIGN_BYTES) * SYMBOL_ALIGN_BYTES
  return Math.min(shape.symbolBytes, Math.max(MIN_SYMBOL_BYTES, even))
}

/** The shape of grid g of a stream. ERASURE_SHAPE where the manifest breaks a bound. */
export function gridShapeOf(manifest: StreamManifest, grid: number): GridShape {
  const { k, m, holders } = manifest
  const symbolBytes = manifest.grids[grid]?.symbolBytes ?? Number.NaN
  return gridShape({ columns: holders.length, k, m, symbolBytes })
}

/** Offset in the stream of each grid's first byte, and at the end that behind the last grid. */
export function gridStarts(manifest: Pick<StreamManifest, 'k' | 'holders' | 'grids'>): readonly number[] {
  const starts = [0]
  let at = 0
  for (const grid of manifest.grids) {
    at += manifest.holders.length * manifest.k * grid.symbolBytes
    starts.push(at)
  }
  return starts
}

/**
 * The pieces of data symbols that make up bytes [offset, offset + length) of the stream, in stream order.
 * RangeError outside of the stream. `starts` is `gridStarts(manifest)`, for callers that keep it.
 */
export function locate(
  manifest: Pick<StreamManifest, 'k' | 'holders' | 'grids' | 'dataBytes'>,
  offset: number,
  length: number,
  starts: readonly number[] = gridStarts(manifest)
): SymbolRange[] {
  const end = offset + length
  if (!(Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0)) {
    throw new RangeError(`offset ${offset} and length ${length} must be whole numbers`)
  }
  if (end > manifest.dataBytes) throw new RangeError(`bytes ${offset}..${end} of a stream of ${manifest.dataBytes}`)
  const ranges: SymbolRange[] = []
  let grid = gridAt(starts, offset)
  for (let at = offset; at < end; ) {
    while (at >= (starts[grid + 1] ?? Number.POSITIVE_INFINITY)) grid++
    const symbolBytes = manifest.grids[grid]?.symbolBytes
    if (symbolBytes === undefined) throw new RangeError(`the grids end at ${starts.at(-1)}, before byte ${at}`)
    const within = at - (starts[grid] ?? 0)
    const symbol = Math.floor(within / symbolBytes)
    const from = within - symbol * symbolBytes
    const to = Math.min(symbolBytes, from + end - at)
    ranges.push({ grid, symbol, from, to })
    at += to - from
  }
  return ranges
}

/** The grid that holds byte `offset`: binary search in the starts. */
function gridAt(starts: readonly number[], offset: number): number {
  let low = 0
  let high = starts.length - 1
  while (low + 1 < high) {
    const middle = (low + high) >> 1
    if ((starts[middle] ?? 0) <= offset) low = middle
    else high = middle
  }
  return low
}
