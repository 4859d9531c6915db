/**
 * Makes a group of records durable behind each other, in less time than checksums and writes take one after the other:
 * while pieces are on their way to the disk (threads of Node's), the checksums of the next are made here. A large first
 * record has nobody before it: its payload goes ahead, and its head is written last. Power may be lost with any of the
 * pieces on the disk; recovery believes whole records only (`scan.ts`), and nobody is told of a group before all of it is there.
 *
 * Against write and fdatasync of the payloads alone (8 x 256 KiB, 1 MiB, 256 KiB on two cores): 0.75, 0.78 and 0.88 where
 * checksums, one write and fdatasync follow each other; 0.77, 0.72, 0.86 in pieces with an fdatasync each; 0.91, 0.93, 0.97 so.
 */
import type { SegmentFile } from './files.ts'
import { encodeRecordHead, recordHeadBytes } from './record.ts'

/** A piece is written when it has so many bytes: small columns go many in a writev. Measured as above: 0.83 with a half of that. */
const PIECE_BYTES = 1 << 20
/** A first payload below this does not go ahead: a write of its own costs as much as 100 KB of checksums. */
const AHEAD_BYTES = 512 << 10
/** One is copied, one waits for the disk: more would take threads from others, of which Node has four. */
const WRITES = 2

export interface NewRecord {
  readonly grid: number
  readonly column: number
  readonly bytes: Uint8Array
}

export interface WrittenRecord {
  readonly grid: number
  readonly column: number
  readonly payloadOffset: number
  readonly payloadBytes: number
  readonly checksums: Buffer
}

/** Writes `lead` (a segment's header, or nothing) and the records from `from` on. Durable when it resolves; no write is under way when it ends. */
export async function writeRecords(
  file: SegmentFile,
  from: number,
  lead: Uint8Array,
  streamHash: Uint8Array,
  group: readonly NewRecord[]
): Promise<{ records: WrittenRecord[]; end: number }> {
  const records: WrittenRecord[] = []
  const writes = new Writes(file)
  const first = group[0]?.bytes ?? new Uint8Array()
  const ahead = first.length >= AHEAD_BYTES
  let at = from + lead.length
  try {
    if (ahead) await writes.start([first], at + recordHeadBytes(first.length))
    let late: Uint8Array[] | undefined
    for (const [i, piece] of piecesOf(group, ahead).entries()) {
      const parts = i === 0 ? [lead] : []
      const partsAt = i === 0 ? from : at
      for (const { grid, column, bytes } of piece) {
        const { head, checksums } = encodeRecordHead({ streamHash, grid, column }, bytes)
        parts.push(head, bytes)
        const payloadOffset = at + head.length
        records.push({ grid, column, payloadOffset, payloadBytes: bytes.length, checksums })
        at = payloadOffset + bytes.length
      }
      if (ahead && i === 0) late = parts.slice(0, -1)
      else await writes.start(parts, partsAt)
    }
    if (late !== undefined) await writes.start(late, from)
  } finally {
    await writes.end()
  }
  return { records, end: at }
}

function piecesOf(group: readonly NewRecord[], firstAlone: boolean): NewRecord[][] {
  const pieces: NewRecord[][] = []
  let bytes = PIECE_BYTES
  for (const record of group) {
    if (bytes >= PIECE_BYTES) {
      pieces.push([])
      bytes = 0
    }
    pieces.at(-1)?.push(record)
    bytes += firstAlone && pieces.length === 1 ? PIECE_BYTES : record.bytes.length
  }
  return pieces
}

/** Some writes at once. After one has failed no more is begun. */
class Writes {
  readonly #file: SegmentFile
  readonly #running = new Set<Promise<void>>()
  #failure: { readonly error: unknown } | undefined

  constructor(file: SegmentFile) {
    this.#file = file
  }

  /** Begins a write now or when there is room; rejects where an earlier one has failed. */
  async start(parts: readonly Uint8Array[], position: number): Promise<void> {
    while (this.#running.size >= WRITES) await Promise.race(this.#running)
    if (this.#failure !== undefined) throw this.#failure.error
    const write = this.#file
      .writeAll(parts, position)
      .catch((error: unknown) => {
        this.#failure ??= { error }
      })
      .finally(() => this.#running.delete(write))
    this.#running.add(write)
  }

  /** Rejects where a write has failed; none is under way then. */
  async end(): Promise<void> {
    await Promise.all(this.#running)
    if (this.#failure !== undefined) throw this.#failure.error
  }
}
