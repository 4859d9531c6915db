/**
 * Looks for damage in a write-ahead log of LevelDB before LevelDB opens it. Opening mends: at the first record that fails its
 * checksum LevelDB drops the rest of the block, fsynced or not, says so in a file that nobody reads, and writes what is left
 * into a table; the next open finds nothing wrong. Where a length is damaged it does not even say so.
 *
 * A power loss may leave the end of the log torn: that was never acknowledged, and is no damage. It shows as a file that
 * ends within a record, or in zeros. Anything else is taken for damage: when in doubt a voter must not vote.
 *
 * Format (doc/log_format.md of LevelDB): blocks of 32 KiB, each of records and up to 6 bytes of padding. A record: masked
 * CRC-32C of type and data (4 bytes), length of the data (2), type (1), data; all little endian.
 */

const BLOCK_BYTES = 32_768
const HEADER_BYTES = 7
const TYPES = { full: 1, first: 2, middle: 3, last: 4 } as const

/** Where the log is damaged, as an offset; undefined where it is whole but for a torn end. */
export function logDamage(log: Uint8Array): number | undefined {
  let inRecord = false
  for (let from = 0; from < log.length; from += BLOCK_BYTES) {
    const block = log.subarray(from, from + BLOCK_BYTES)
    for (let at = 0; at + HEADER_BYTES <= block.length; ) {
      const found = recordAt(block, at)
      if (found === undefined) return endsHere(log, from, at) ? undefined : from + at
      const { type, endAt } = found
      if ((type === TYPES.full || type === TYPES.first) === inRecord) return from + at
      inRecord = type === TYPES.first || type === TYPES.middle
      at = endAt
    }
  }
  return undefined
}

/** What was written, record by record, up to where the log is damaged or torn. */
export function* recordsIn(log: Uint8Array): Generator<Uint8Array> {
  let parts: Uint8Array[] = []
  for (let from = 0; from < log.length; from += BLOCK_BYTES) {
    const block = log.subarray(from, from + BLOCK_BYTES)
    for (let at = 0; at + HEADER_BYTES <= block.length; ) {
      const found = recordAt(block, at)
      if (found === undefined) return
      parts.push(block.subarray(at + HEADER_BYTES, found.endAt))
      if (found.type === TYPES.full || found.type === TYPES.last) {
        yield Buffer.concat(parts)
        parts = []
      }
      at = found.endAt
    }
  }
}

function recordAt(block: Uint8Array, at: number): { type: number; endAt: number } | undefined {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength)
  const type = view.getUint8(at + 6)
  const endAt = at + HEADER_BYTES + view.getUint16(at + 4, true)
  if (type < TYPES.full || type > TYPES.last || endAt > block.length) return undefined
  return view.getUint32(at, true) === maskedCrc(block.subarray(at + 6, endAt)) ? { type, endAt } : undefined
}

/** Whether nothing but a torn end begins here. */
function endsHere(log: Uint8Array, from: number, at: number): boolean {
  if (log.subarray(from + at).every(byte => byte === 0)) return true
  if (from + BLOCK_BYTES <= log.length) return false
  const block = log.subarray(from)
  const length = (block[at + 4] ?? 0) + 256 * (block[at + 5] ?? 0)
  if (at + HEADER_BYTES + length <= block.length) return false
  // The file ends within this record, or its length is damaged: then the next one is there as it was written.
  for (let next = at + 1; next + HEADER_BYTES <= block.length; next++) {
    if (recordAt(block, next) !== undefined) return false
  }
  return true
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})

/** As LevelDB stores it. */
export function maskedCrc(bytes: Uint8Array): number {
  const sum = crc32c(bytes)
  return (((sum >>> 15) | (sum << 17)) + 0xa282ead8) >>> 0
}

/** Castagnoli's; zlib has the other one. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (TABLE[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}
