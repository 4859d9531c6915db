/**
 * Reads a segment without an index: which whole records does it hold, and where does what is whole end?
 *
 * Power loss leaves a tail in which anything may be missing, in any order: bytes, whole records, only the middle. A sick
 * disk may spoil the middle of the file. So a record counts only if header, checksums and every block of its payload
 * are right; a whole header with a wrong payload is stepped over; and where there is no whole header, the next one is
 * searched for, because whole records may follow. Reading goes by pieces of at most 1 MiB.
 */
import type { FileHandle } from 'node:fs/promises'
import { readUpTo } from './blocks.ts'
import {
  CHECKSUM_BLOCK_BYTES,
  blocksOf,
  findRecordMagic,
  firstWrongBlock,
  parseRecordHeader,
  RECORD_HEADER_BYTES,
  recordHeadBytes,
  tableMatches
} from './record.ts'

export interface ScannedRecord {
  readonly grid: number
  readonly column: number
  readonly payloadOffset: number
  readonly payloadBytes: number
  readonly checksums: Buffer
}

export interface Scan {
  readonly records: readonly ScannedRecord[]
  /** Behind the last whole record; what follows is a torn tail. */
  readonly end: number
  /** Places before `end` where bytes are not part of a whole record. */
  readonly damaged: number
}

const PIECE_BYTES = 1 << 20

/** Scans [from, size) of a segment of the stream with this hash. `from` is a record's beginning. */
export async function scanSegment(file: FileHandle, from: number, size: number, stream: Uint8Array): Promise<Scan> {
  const records: ScannedRecord[] = []
  let end = from
  let damaged = 0
  let skipped = 0
  for (let at = from; at < size; ) {
    const found = await readRecord(file, at, size, stream)
    if (found === undefined) {
      skipped++
      at = await nextMagic(file, at + 1, size)
      continue
    }
    at = found.payloadOffset + found.payloadBytes
    if (!found.whole) {
      skipped++
      continue
    }
    records.push(found)
    end = at
    damaged += skipped
    skipped = 0
  }
  return { records, end, damaged }
}

/** The record at `at`, in a segment of which `size` bytes are to be believed in; undefined where none begins there. */
export async function readRecord(
  file: FileHandle,
  at: number,
  size: number,
  stream: Uint8Array
): Promise<(ScannedRecord & { whole: boolean }) | undefined> {
  const header = parseRecordHeader(await readUpTo(file, at, Math.min(RECORD_HEADER_BYTES, size - at)), stream)
  if (header === undefined) return undefined
  const { grid, column, payloadBytes } = header
  const payloadOffset = at + recordHeadBytes(payloadBytes)
  const checksums = await readUpTo(file, at + RECORD_HEADER_BYTES, 4 * blocksOf(payloadBytes))
  if (!tableMatches(header, checksums)) return undefined
  const whole =
    payloadOffset + payloadBytes <= size && (await payloadIsWhole(file, payloadOffset, payloadBytes, checksums))
  return { grid, column, payloadOffset, payloadBytes, checksums, whole }
}

async function payloadIsWhole(file: FileHandle, offset: number, length: number, checksums: Buffer): Promise<boolean> {
  for (let at = 0; at < length; at += PIECE_BYTES) {
    const wanted = Math.min(PIECE_BYTES, length - at)
    const piece = await readUpTo(file, offset + at, wanted)
    if (piece.length < wanted || firstWrongBlock(piece, checksums, at / CHECKSUM_BLOCK_BYTES) !== -1) return false
  }
  return true
}

/** Offset of the next place that looks like a record's beginning, or `size`. */
async function nextMagic(file: FileHandle, from: number, size: number): Promise<number> {
  for (let at = from; at < size; at += PIECE_BYTES - 3) {
    const found = findRecordMagic(await readUpTo(file, at, Math.min(PIECE_BYTES, size - at)), 0)
    if (found !== -1) return at + found
  }
  return size
}
