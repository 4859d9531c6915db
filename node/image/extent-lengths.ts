/**
 * The sealed bytes of each extent of a stream, as its own record: written once, when the stream is, and read by whoever reads an
 * image that leans on it. Pure but for zstd.
 */
import { DiapauseError } from '../errors.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { pack, SALT_BYTES, TAG_BYTES, unpack } from './seal.ts'

/** Those whose pages a locator can name; 4 TiB of pages. */
export const MAX_STREAM_EXTENTS = 2 ** 28
/** An extent that does not pack, with room: 64 KiB and what zstd and the seal add. */
const MAX_EXTENT_BYTES = 1 << 18

export function encodeExtentLengths(lengths: Uint32Array): Uint8Array {
  const out = new ByteWriter(4 * lengths.length + 4)
  for (const length of lengths) out.u32(length)
  return pack(out.bytes())
}

/** Of `count` extents of a stream of `dataBytes`. IMAGE_INVALID. */
export function decodeExtentLengths(bytes: Uint8Array, count: number, dataBytes: number): Uint32Array {
  const reader = new ByteReader(unpack(bytes, 4 * count + 1), invalid)
  const lengths = Uint32Array.from({ length: count }, () => reader.u32())
  reader.end()
  const total = lengths.reduce((sum, length) => sum + length, SALT_BYTES)
  if (total > dataBytes || lengths.some(length => length < TAG_BYTES || length > MAX_EXTENT_BYTES)) {
    throw invalid('extents do not fit their stream')
  }
  return lengths
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the page index of the image is not valid: ${what}; restore another epoch`)
