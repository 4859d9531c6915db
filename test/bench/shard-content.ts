/** What a column of a test holds, from its place alone: whoever reads it can say whether it is right. Pure. */
import { createCipheriv, hash } from 'node:crypto'
import type { ColumnPlace } from '../../node/ports.ts'

/** Two of three are small as those of a delta, one is as large as those of a first epoch. */
const SMALL_BYTES = 12_000
const LARGE_BYTES = 300_000

export function contentOf({ stream, grid, column }: ColumnPlace): Buffer {
  const seed = hash('sha256', `${stream} ${grid} ${column}`, 'buffer')
  const most = seed.readUInt8(0) % 3 === 0 ? LARGE_BYTES : SMALL_BYTES
  const bytes = 1 + (seed.readUInt32LE(1) % most)
  return createCipheriv('aes-128-ctr', seed.subarray(0, 16), seed.subarray(16)).update(Buffer.alloc(bytes))
}

/** As short as a small column, and of one number. */
export const manifestOf = (number: number): Buffer => contentOf({ stream: 'manifest', grid: number, column: 0 })
