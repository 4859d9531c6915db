/**
 * The in-flight frames of an image: pieces of whatever the switch makes of them, one after the other, each packed, sealed
 * and with its sealed length (u32 big-endian) before it. They may be more than fits in memory, so both ways go piece by
 * piece: the switch's buffers, one piece here, the columns under way.
 */
import { DiapauseError } from '../errors.ts'
import type { ByteRange } from '../ports.ts'
import { pack, type StreamSeal, TAG_BYTES, unpack } from './seal.ts'

/** The switch's pieces have 256 KiB. */
export const MAX_PIECE_BYTES = 1 << 20
const LENGTH_BYTES = 4
/** zstd adds a header to what it cannot compress (its bound: a 256th and a little). */
const MAX_SEALED_BYTES = MAX_PIECE_BYTES + (MAX_PIECE_BYTES >> 8) + 64 + TAG_BYTES
/** Read at once: a piece and more. */
const READ_BYTES = 2 << 20

/** What is written to the stream for piece number `index`. IMAGE_FRAMES where it is too large. */
export function* sealPiece(seal: StreamSeal, index: number, piece: Uint8Array): Generator<Uint8Array> {
  if (piece.length > MAX_PIECE_BYTES) {
    const message = `a piece of in-flight frames has ${piece.length} bytes; at most ${MAX_PIECE_BYTES} are possible`
    throw new DiapauseError('IMAGE_FRAMES', message)
  }
  const sealed = seal.seal('frames', index, pack(piece))
  const length = Buffer.alloc(LENGTH_BYTES)
  length.writeUInt32BE(sealed.length)
  yield length
  yield sealed
}

/** Reads bytes of the image's last stream. */
export type ReadBytes = (offset: number, length: number) => Promise<Uint8Array>

/** The pieces in `range`; the first bytes are asked for at once. IMAGE_INVALID, IMAGE_SEAL, and what `read` rejects with. */
export function openPieces(seal: Promise<StreamSeal>, range: ByteRange, read: ReadBytes): AsyncGenerator<Uint8Array> {
  const readFrom = (at: number): Promise<Uint8Array> =>
    at < range.length
      ? read(range.offset + at, Math.min(READ_BYTES, range.length - at))
      : Promise.resolve(new Uint8Array(0))
  const first = readFrom(0)
  first.catch(() => {}) // told when the pieces are read
  return pieces(seal, range.length, first, readFrom)
}

async function* pieces(
  seal: Promise<StreamSeal>,
  length: number,
  first: Promise<Uint8Array>,
  readFrom: (at: number) => Promise<Uint8Array>
): AsyncGenerator<Uint8Array> {
  const opener = await seal
  let bytes = Buffer.from(await first)
  let read = bytes.length
  for (let index = 0; read < length || bytes.length > 0; index++) {
    // Whole, whatever its length: READ_BYTES is more than the largest piece has.
    if (bytes.length < LENGTH_BYTES + MAX_SEALED_BYTES && read < length) {
      const more = await readFrom(read)
      read += more.length
      bytes = Buffer.concat([bytes, more])
    }
    const sealedBytes = bytes.length < LENGTH_BYTES ? 0 : bytes.readUInt32BE()
    if (sealedBytes < TAG_BYTES || sealedBytes > MAX_SEALED_BYTES || LENGTH_BYTES + sealedBytes > bytes.length) {
      throw invalid(`piece ${index} of its in-flight frames has ${sealedBytes} bytes`)
    }
    const end = LENGTH_BYTES + sealedBytes
    yield unpack(opener.open('frames', index, bytes.subarray(LENGTH_BYTES, end)), MAX_PIECE_BYTES)
    bytes = bytes.subarray(end)
  }
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the image is not valid: ${what}; restore another epoch`)
