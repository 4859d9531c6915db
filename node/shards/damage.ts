/**
 * What becomes of a column that was read and is not what was put: its holder checks it, finds the damage itself and repairs
 * it (`node/agents/repair.ts`). Nothing is deleted on a reader's word.
 */
import type { PeerId } from '../../protocols/core.ts'
import { symbolHash } from '../erasure/encode.ts'
import {
  columnBytes,
  gridHashBytes,
  gridShapeOf,
  rowsOf,
  SYMBOL_HASH_BYTES,
  symbolHashOffset,
  symbolOffsetInColumn
} from '../erasure/grid.ts'
import { hasCode, messageOf } from '../errors.ts'
import type { Log, StreamId, StreamManifest } from '../ports.ts'

export interface DamageOptions {
  readonly log: Log
  /** Lets a holder, which may be this peer, check one grid of its column. */
  check(peer: PeerId, stream: StreamId, column: number, grid: number): Promise<unknown>
}

export class DamageReports {
  readonly #options: DamageOptions
  /** Checks that were asked for and not answered. */
  readonly #open = new Set<string>()
  /** Columns of a grid that came wrong. */
  count = 0

  constructor(options: DamageOptions) {
    this.#options = options
  }

  report(stream: StreamId, grid: number, column: number, peer: PeerId): void {
    const { check, log } = this.#options
    const key = `${peer} ${stream} ${grid} ${column}`
    if (this.#open.has(key)) return
    this.#open.add(key)
    this.count++
    log.warn({ holder: peer, stream, grid, column }, 'a column came damaged; its holder is to check and repair it')
    check(peer, stream, column, grid)
      .catch(error => log.debug({ holder: peer, stream, error: messageOf(error) }, 'a holder does not check a column'))
      .finally(() => this.#open.delete(key))
  }
}

/** False: a stored column of a grid is not what the manifest says, symbol by symbol. ERASURE_SHAPE, or what `read` gives. */
export async function columnMatches(
  manifest: StreamManifest,
  grid: number,
  column: number,
  read: (offset: number, length: number) => Promise<Uint8Array>
): Promise<boolean> {
  const hashes = manifest.grids[grid]?.hashes
  if (hashes === undefined || column >= manifest.holders.length) return true
  const shape = gridShapeOf(manifest, grid)
  if (hashes.length !== gridHashBytes(shape)) return true
  const bytes = await read(0, columnBytes(shape)).catch((error: unknown) => {
    // Shorter than it should be, or damaged since it was looked at.
    if (hasCode(error, 'SHARD_INVALID') || hasCode(error, 'SHARD_CORRUPT')) return undefined
    throw error
  })
  if (bytes === undefined) return false
  return Array.from({ length: rowsOf(shape) }, (_, row) => row).every(row => {
    const from = symbolOffsetInColumn(shape, row)
    const at = symbolHashOffset(shape, { column, row })
    const wanted = hashes.subarray(at, at + SYMBOL_HASH_BYTES)
    return Buffer.compare(symbolHash(bytes.subarray(from, from + shape.symbolBytes)), wanted) === 0
  })
}
