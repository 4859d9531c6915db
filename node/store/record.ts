/**
 * The bytes of a segment file. Pure: no I/O here, and nothing that is read is trusted.
 *
 *   segment  = header record*                        one stream; appended to by one run of the store only
 *   header   = "diapseg" version:u8 | length:u16 | stream id in UTF-8 | crc32 of all before
 *   record   = 40 bytes of header | checksum:u32 × blocks | payload
 *
 *   offset 0 magic "DREC"   4 version:u8   5 kind:u8   6 column:u16   8 grid:u32   12 payload bytes:u32
 *         16 first 16 bytes of SHA-256 of the stream id            32 crc32 of the checksums   36 crc32 of bytes 0..35
 *
 * Numbers are little-endian. The payload has one crc32 for each block of 16 KiB (the last may be shorter), so that a
 * read of one symbol checks what it reads and not the whole column. The checksums are in the index too: a read needs
 * one pread. crc32 finds accidents (a torn write, a rotten sector); forgery is found by the manifest's SHA-256.
 */
import { hash } from 'node:crypto'
import { crc32 } from 'node:zlib'

export const RECORD_HEADER_BYTES = 40
export const CHECKSUM_BLOCK_BYTES = 16_384
/** 30 symbols of 1 MiB: the largest column that the settings allow, and what a reader of hostile bytes may believe. */
export const MAX_PAYLOAD_BYTES = 30 << 20
export const MAX_STREAM_ID_BYTES = 255
export const MAX_GRID = 0xffff_ffff
export const MAX_COLUMN = 0xffff
export const STREAM_HASH_BYTES = 16

const SEGMENT_MAGIC = Buffer.from('diapseg')
const SEGMENT_VERSION = 1
const RECORD_MAGIC = Buffer.from('DREC')
const RECORD_VERSION = 1
const KIND_COLUMN = 1

export interface RecordHeader {
  readonly grid: number
  readonly column: number
  readonly payloadBytes: number
  /** crc32 of the checksum table that follows the header. */
  readonly tableCrc: number
}

export const blocksOf = (payloadBytes: number): number => Math.ceil(payloadBytes / CHECKSUM_BLOCK_BYTES)

/** Bytes before the payload. */
export const recordHeadBytes = (payloadBytes: number): number => RECORD_HEADER_BYTES + 4 * blocksOf(payloadBytes)

export const streamHash = (stream: string): Buffer => hash('sha256', stream, 'buffer').subarray(0, STREAM_HASH_BYTES)

/** The first bytes of a segment file. */
export function encodeSegmentHeader(stream: string): Buffer {
  const id = Buffer.from(stream)
  const bytes = Buffer.alloc(8 + 2 + id.length + 4)
  SEGMENT_MAGIC.copy(bytes)
  bytes[7] = SEGMENT_VERSION
  bytes.writeUInt16LE(id.length, 8)
  id.copy(bytes, 10)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4)
  return bytes
}

/** Enough bytes for any segment header. */
export const MAX_SEGMENT_HEADER_BYTES = 14 + MAX_STREAM_ID_BYTES

/**
 * The stream of a segment and where its records begin; 'version' for a newer format, undefined for anything else. Every
 * version has length and checksum in these places: a version that does not fit the checksum is a bit that has turned.
 */
export function parseSegmentHeader(bytes: Buffer): { stream: string; end: number } | 'version' | undefined {
  if (bytes.length < 14 || !bytes.subarray(0, 7).equals(SEGMENT_MAGIC)) return undefined
  const length = bytes.readUInt16LE(8)
  const end = 14 + length
  if (length === 0 || length > MAX_STREAM_ID_BYTES || bytes.length < end) return undefined
  if (bytes.readUInt32LE(end - 4) !== crc32(bytes.subarray(0, end - 4))) return undefined
  if (bytes[7] !== SEGMENT_VERSION) return 'version'
  return { stream: bytes.toString('utf8', 10, 10 + length), end }
}

/** What precedes the payload on disk, and the checksums for the index. */
export function encodeRecordHead(
  id: { streamHash: Uint8Array; grid: number; column: number },
  payload: Uint8Array
): { head: Buffer; checksums: Buffer } {
  const head = Buffer.alloc(recordHeadBytes(payload.length))
  const checksums = head.subarray(RECORD_HEADER_BYTES)
  for (let block = 0; block * 4 < checksums.length; block++) {
    const at = block * CHECKSUM_BLOCK_BYTES
    checksums.writeUInt32LE(crc32(payload.subarray(at, at + CHECKSUM_BLOCK_BYTES)), block * 4)
  }
  RECORD_MAGIC.copy(head)
  head[4] = RECORD_VERSION
  head[5] = KIND_COLUMN
  head.writeUInt16LE(id.column, 6)
  head.writeUInt32LE(id.grid, 8)
  head.writeUInt32LE(payload.length, 12)
  head.set(id.streamHash.subarray(0, STREAM_HASH_BYTES), 16)
  head.writeUInt32LE(crc32(checksums), 32)
  head.writeUInt32LE(crc32(head.subarray(0, 36)), 36)
  return { head, checksums }
}

/** The record header at the start of `bytes`; undefined where there is none of this stream, version and size. */
export function parseRecordHeader(bytes: Buffer, stream: Uint8Array): RecordHeader | undefined {
  if (bytes.length < RECORD_HEADER_BYTES || !bytes.subarray(0, 4).equals(RECORD_MAGIC)) return undefined
  if (bytes.readUInt32LE(36) !== crc32(bytes.subarray(0, 36))) return undefined
  if (bytes[4] !== RECORD_VERSION || bytes[5] !== KIND_COLUMN) return undefined
  if (!bytes.subarray(16, 32).equals(stream)) return undefined
  const payloadBytes = bytes.readUInt32LE(12)
  if (payloadBytes === 0 || payloadBytes > MAX_PAYLOAD_BYTES) return undefined
  return { grid: bytes.readUInt32LE(8), column: bytes.readUInt16LE(6), payloadBytes, tableCrc: bytes.readUInt32LE(32) }
}

/** Offset of the next possible record header at or behind `from`, or -1. */
export const findRecordMagic = (bytes: Buffer, from: number): number => bytes.indexOf(RECORD_MAGIC, from)

export const tableMatches = (header: RecordHeader, checksums: Uint8Array): boolean =>
  checksums.length === 4 * blocksOf(header.payloadBytes) && crc32(checksums) === header.tableCrc

/** The first block of `bytes` whose checksum is wrong, or -1. `bytes` begins at block `firstBlock` of the payload. */
export function firstWrongBlock(bytes: Uint8Array, checksums: Buffer, firstBlock: number): number {
  for (let at = 0, block = firstBlock; at < bytes.length; at += CHECKSUM_BLOCK_BYTES, block++) {
    if (block * 4 + 4 > checksums.length) return block
    if (crc32(bytes.subarray(at, at + CHECKSUM_BLOCK_BYTES)) !== checksums.readUInt32LE(block * 4)) return block
  }
  return -1
}
