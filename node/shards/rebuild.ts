/**
 * One column of one grid anew, from any k others: on what is stored, which is sealed, so that no data key is needed. The
 * column's n symbols are of n different diagonals; of each the k data symbols are read (a degraded read where some are
 * lost), and parity is made of them again. n × k symbols are read for n that are written: what Reed-Solomon costs.
 *
 * Every symbol is checked against the manifest's hash before anyone has it.
 */
import { symbolHash } from '../erasure/encode.ts'
import {
  columnBytes,
  diagonalAt,
  gridHashBytes,
  gridShapeOf,
  gridStarts,
  rowsOf,
  SYMBOL_HASH_BYTES,
  symbolHashOffset,
  symbolOffsetInColumn
} from '../erasure/grid.ts'
import { DiapauseError } from '../errors.ts'
import type { Codec, ShardCluster, StreamManifest } from '../ports.ts'

/** A column of a grid as it was: fresh memory. SHARD_LOST below k symbols of some diagonal; ERASURE_SHAPE, REBUILD_WRONG. */
export type Rebuild = (grid: number, column: number) => Promise<Uint8Array>

/** `readData` finds k symbols of a diagonal wherever they are, and checks them. */
export function rebuilding(manifest: StreamManifest, codec: Codec, readData: ShardCluster['readData']): Rebuild {
  const starts = gridStarts(manifest)
  return (grid, column) => rebuildColumn({ manifest, grid, column, start: starts[grid] ?? 0 }, codec, readData)
}

async function rebuildColumn(
  { manifest, grid, column, start }: { manifest: StreamManifest; grid: number; column: number; start: number },
  codec: Codec,
  readData: ShardCluster['readData']
): Promise<Uint8Array> {
  const shape = gridShapeOf(manifest, grid)
  const hashes = manifest.grids[grid]?.hashes
  if (hashes?.length !== gridHashBytes(shape)) {
    throw new DiapauseError('ERASURE_SHAPE', `the manifest of ${manifest.stream} has not all hashes of grid ${grid}`)
  }
  const { k, m, symbolBytes } = shape
  const bytes = Buffer.allocUnsafeSlow(columnBytes(shape))
  await Promise.all(
    Array.from({ length: rowsOf(shape) }, async (_, row) => {
      const diagonal = diagonalAt(shape, { column, row })
      const offset = start + diagonal * k * symbolBytes
      const length = Math.max(0, Math.min(k * symbolBytes, manifest.dataBytes - offset))
      const data = Buffer.alloc(k * symbolBytes) // what lies behind the stream's end is zeros
      if (length > 0) data.set(await readData(manifest, offset, length))
      const symbol = row < k ? data.subarray(row * symbolBytes, (row + 1) * symbolBytes) : await parityOf(data, row - k)
      const at = symbolHashOffset(shape, { column, row })
      if (Buffer.compare(symbolHash(symbol), hashes.subarray(at, at + SYMBOL_HASH_BYTES)) !== 0) {
        const place = `row ${row} of column ${column} of grid ${grid} of ${manifest.stream}`
        throw new DiapauseError('REBUILD_WRONG', `${place} was rebuilt, and is not what the manifest says`)
      }
      bytes.set(symbol, symbolOffsetInColumn(shape, row))
    })
  )
  return bytes

  async function parityOf(data: Uint8Array, index: number): Promise<Uint8Array> {
    const parity = Buffer.allocUnsafeSlow(m * symbolBytes)
    await codec.encode(data, parity, shape)
    return parity.subarray(index * symbolBytes, (index + 1) * symbolBytes)
  }
}
