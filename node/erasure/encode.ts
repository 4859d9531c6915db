/**
 * One grid of a stream to its columns, and one diagonal back to its data: where the layout of `grid.ts` and a codec meet.
 */
import { hash } from 'node:crypto'
import { DiapauseError } from '../errors.ts'
import type { Codec } from '../ports.ts'
import {
  columnBytes,
  diagonalMembers,
  type GridShape,
  gridDataBytes,
  gridHashBytes,
  rowsOf,
  SYMBOL_HASH_BYTES,
  symbolHashOffset,
  symbolOffsetInColumn
} from './grid.ts'

/** What the peers store of one grid (`columns[c]` goes to holder c) and what the manifest keeps (GridManifest.hashes). */
export interface EncodedGrid {
  readonly columns: readonly Uint8Array[]
  readonly hashes: Uint8Array
}

/**
 * Codes up to a grid of data; what is missing to a full grid counts as zeros. `data` is read until the promise settles;
 * the columns are fresh memory. The C codewords run side by side on libuv's threads; the SHA-256 of the symbols, about
 * 1.1 ms for the 1.6 MB of a 5 × 5 grid at 64 KiB, runs on the calling thread. ERASURE_LENGTH.
 */
export async function encodeGrid(codec: Codec, shape: GridShape, data: Uint8Array): Promise<EncodedGrid> {
  const { columns: width, k, m, symbolBytes } = shape
  const full = padded(data, gridDataBytes(shape))
  const columns = Array.from({ length: width }, () => Buffer.allocUnsafeSlow(columnBytes(shape)))
  const hashes = Buffer.allocUnsafeSlow(gridHashBytes(shape))
  await Promise.all(
    Array.from({ length: width }, async (_, diagonal) => {
      const codeword = full.subarray(diagonal * k * symbolBytes, (diagonal + 1) * k * symbolBytes)
      const parity = Buffer.allocUnsafeSlow(m * symbolBytes)
      await codec.encode(codeword, parity, shape)
      for (const { column, row } of diagonalMembers(shape, diagonal)) {
        const [from, index] = row < k ? [codeword, row] : [parity, row - k]
        const symbol = from.subarray(index * symbolBytes, (index + 1) * symbolBytes)
        columns[column]?.set(symbol, symbolOffsetInColumn(shape, row))
        hashes.set(symbolHash(symbol), symbolHashOffset(shape, { column, row }))
      }
    })
  )
  return { columns, hashes }
}

function padded(data: Uint8Array, bytes: number): Uint8Array {
  if (data.length === bytes) return data
  if (data.length > bytes) {
    throw new DiapauseError('ERASURE_LENGTH', `a grid takes ${bytes} bytes of data and was given ${data.length}`)
  }
  const full = Buffer.alloc(bytes)
  full.set(data)
  return full
}

/**
 * The k data symbols of a diagonal, end to end, from any k of its n symbols (row 0 first, undefined where missing).
 * Every symbol must have been checked against its hash before: a wrong one spoils all. DECODE_IMPOSSIBLE below k.
 */
export async function decodeDiagonal(
  codec: Codec,
  shape: GridShape,
  symbols: readonly (Uint8Array | undefined)[]
): Promise<Uint8Array> {
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
  if (present.lastIndexOf(false, k - 1) !== -1) await codec.decode(data, parity, shape, present)
  return data
}

/** First 16 bytes of SHA-256: enough against accident and, at 2^64 work for a collision, against a member's forgery. */
export function symbolHash(symbol: Uint8Array): Uint8Array {
  return hash('sha256', symbol, 'buffer').subarray(0, SYMBOL_HASH_BYTES)
}
