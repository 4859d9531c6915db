/** Reads of a segment's bytes, and of payloads with the checksums of their blocks. */
import type { FileHandle } from 'node:fs/promises'
import { CHECKSUM_BLOCK_BYTES, firstWrongBlock } from './record.ts'

/** Whole blocks: so many bytes are checked while the next are read. A guess: 0.1 ms of each. */
const PIECE_BYTES = 256 << 10
/** Pieces of one read on their way: one is read, one is checked. */
const LANES = 2

/** Bytes [from, to) of a payload; `from` is a block's beginning, `to` one or the payload's end. */
export interface BlockRange {
  readonly payloadOffset: number
  readonly checksums: Buffer
  readonly from: number
  readonly to: number
}

/** The bytes, or undefined where a block is damaged or missing. */
export async function readBlocks(file: FileHandle, range: BlockRange): Promise<Buffer | undefined> {
  const bytes = Buffer.allocUnsafeSlow(range.to - range.from)
  let next = 0
  let whole = true
  const lane = async (): Promise<void> => {
    while (whole && next < bytes.length) {
      const at = next
      next += PIECE_BYTES
      const piece = bytes.subarray(at, at + PIECE_BYTES)
      const have = await readInto(file, piece, range.payloadOffset + range.from + at)
      if (have < piece.length) whole = false
      else if (firstWrongBlock(piece, range.checksums, (range.from + at) / CHECKSUM_BLOCK_BYTES) !== -1) whole = false
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))
  return whole ? bytes : undefined
}

/** Bytes of a file; fewer than asked for only at its end. */
export async function readUpTo(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length)
  return bytes.subarray(0, await readInto(file, bytes, offset))
}

async function readInto(file: FileHandle, bytes: Buffer, offset: number): Promise<number> {
  let have = 0
  while (have < bytes.length) {
    const { bytesRead } = await file.read(bytes, have, bytes.length - have, offset + have)
    if (bytesRead === 0) break
    have += bytesRead
  }
  return have
}
