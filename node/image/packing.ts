/**
 * How an extent is packed: as zstd of level 1, or as it is where that gains nothing. Its first byte says how: 0 before what
 * is stored raw, and 0x28, with which every zstd frame begins, of a frame: so what was packed before there was a choice
 * reads as ever.
 *
 * Measured on extents of 64 KiB, one core: RAM of a Linux guest 472 MB/s and a ratio of 2.86, program text 353 MB/s and
 * 2.23; level 3 gives 2.98 and 2.36 at 336 and 246 MB/s, level -5 2.13 and 1.61 at 596 and 496 MB/s. A cluster that ships
 * over 1 Gbit/s gains from neither. Random bytes take zstd 34 µs an extent for nothing, and the restore another 23; the
 * sample takes 3 to 7.
 */
import { DiapauseError } from '../errors.ts'
import { pack, unpack } from './seal.ts'

const RAW = 0
const ZSTD_MAGIC = 0x28
const SAMPLES = 512
/**
 * Pairs of equal bytes in the sample, against what chance gives of bytes that all occur alike. Measured: random extents
 * 0.90 to 1.14; guest RAM and program text that packs, however badly (1.5), 2.6 and more.
 */
const RANDOM_BELOW = 1.5

const counts = new Uint16Array(256)

/** Whether bytes look random, by a sample. Then no method packs them. */
export function looksRandom(bytes: Uint8Array): boolean {
  if (bytes.length < SAMPLES) return false
  counts.fill(0)
  const step = Math.floor(bytes.length / SAMPLES)
  // Not always the same byte of each record: those of a regular layout would all be, say, high bytes of counters.
  for (let i = 0, at = 0; i < SAMPLES; i++, at += step) {
    const value = bytes[at + ((i * 7) % step)] ?? 0
    counts[value] = (counts[value] ?? 0) + 1
  }
  let pairs = 0
  for (const count of counts) pairs += count * (count - 1)
  return pairs * counts.length < RANDOM_BELOW * SAMPLES * (SAMPLES - 1)
}

export function packBest(bytes: Uint8Array): Uint8Array {
  if (!looksRandom(bytes)) {
    const packed = pack(bytes)
    if (packed.length <= bytes.length) return packed
  }
  const raw = new Uint8Array(1 + bytes.length)
  raw[0] = RAW
  raw.set(bytes, 1)
  return raw
}

/** What `packBest` was given, or `pack`. May be a view. IMAGE_INVALID, also where it is larger than `maxBytes`. */
export function unpackBest(packed: Uint8Array, maxBytes: number): Uint8Array {
  if (packed[0] === ZSTD_MAGIC) return unpack(packed, maxBytes)
  if (packed[0] === RAW && packed.length - 1 <= maxBytes) return packed.subarray(1)
  throw new DiapauseError(
    'IMAGE_INVALID',
    `a record of ${packed.length} bytes begins with ${packed[0] ?? 'nothing'}, which names no way of packing: ` +
      'restore another epoch, or with a newer version'
  )
}
