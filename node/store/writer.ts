/**
 * Appends records of one stream. Puts that arrive while a write is under way wait and go together: pieces of a megabyte,
 * each durable with its write, and one index batch (group commit), so that the cost of durability is shared by all that wait for it.
 *
 * After any error the segment is closed for good and the next batch begins a new one: what a failed write has left in the
 * page cache is unknown (a later sync may succeed without having written anything), and nothing may be appended behind it. What can be cut off is cut off, since the disk may be full.
 */
import type { Log } from '../ports.ts'
import { type NewRecord, writeRecords } from './append.ts'
import type { Catalog } from './catalog.ts'
import { type Files, type SegmentFile, storeError } from './files.ts'
import { encodeSegmentHeader } from './record.ts'

/** Segments are rolled when they have this many bytes: a file is small enough to copy, and an index rarely lags by more. */
export const SEGMENT_BYTES = 256 << 20
/** Bytes that one group commit writes at most, so that the first of a long queue does not wait for the last: a guess. */
const GROUP_BYTES = 16 << 20

export interface WriterContext {
  readonly files: Files
  readonly catalog: Pick<Catalog, 'add' | 'writable'>
  readonly log: Log
  readonly segmentsDir: string
  readonly segmentBytes: number
  pathOf(segment: number): string
  nextSegment(): number
  /** The segment file exists and has so many bytes. */
  grown(segment: number, bytes: number): void
}

interface Append extends NewRecord {
  resolve(): void
  reject(error: unknown): void
}

interface Open {
  readonly segment: number
  readonly file: SegmentFile
  bytes: number
  records: number
}

export class StreamWriter {
  readonly #context: WriterContext
  readonly #stream: string
  readonly #streamHash: Buffer
  #queue: Append[] = []
  #running: Promise<void> | undefined
  #open: Open | undefined
  /** Where to go on after the file was closed for being idle. */
  #rest: Omit<Open, 'file'> | undefined
  #left: number | undefined

  constructor(context: WriterContext, stream: string, streamHash: Buffer) {
    this.#context = context
    this.#stream = stream
    this.#streamHash = streamHash
  }

  /** The one that the next append goes to, as far as it is known. */
  get segment(): number | undefined {
    return this.#open?.segment ?? this.#rest?.segment
  }

  /** The file of this segment is gone: nothing more may be put there. */
  leave(segment: number): void {
    if (segment === this.segment) this.#left = segment
  }

  get idle(): boolean {
    return this.#running === undefined
  }

  /** Durable and indexed when it resolves. `bytes` is read until then. STORE_FULL, STORE_IO. */
  append(grid: number, column: number, bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ grid, column, bytes, resolve, reject })
      this.#running ??= this.#drain()
    })
  }

  /** Waits for what is queued and closes the file; a later append opens it again. */
  async settle(): Promise<void> {
    while (this.#running !== undefined) await this.#running
    const open = this.#open
    this.#open = undefined
    if (open === undefined) return
    this.#rest = { segment: open.segment, bytes: open.bytes, records: open.records }
    await open.file.close()
  }

  async #drain(): Promise<void> {
    // Puts made in this turn of the event loop go with the first one.
    await Promise.resolve()
    while (this.#queue.length > 0) {
      const group = this.#takeGroup()
      try {
        await this.#write(group)
        for (const append of group) append.resolve()
      } catch (error) {
        await this.#abandon()
        const failure = storeError(`storing shards of ${this.#stream} failed`, error)
        for (const append of group) append.reject(failure)
      }
    }
    this.#running = undefined
  }

  #takeGroup(): Append[] {
    let bytes = 0
    let count = 0
    for (const append of this.#queue) {
      if (count > 0 && bytes + append.bytes.length > GROUP_BYTES) break
      bytes += append.bytes.length
      count++
    }
    return this.#queue.splice(0, count)
  }

  async #write(group: readonly Append[]): Promise<void> {
    await this.#context.catalog.writable()
    const open = await this.#current()
    const lead = open.bytes === 0 ? encodeSegmentHeader(this.#stream) : new Uint8Array()
    const { records, end } = await writeRecords(open.file, open.bytes, lead, this.#streamHash, group)
    if (open.bytes === 0) await this.#context.files.syncDirectory(this.#context.segmentsDir)
    open.bytes = end
    open.records += group.length
    this.#context.grown(open.segment, end)
    const upTo = { segment: open.segment, stream: this.#stream, bytes: end, records: open.records }
    const entries = records.map(record => ({ ...record, segment: open.segment }))
    this.#context.catalog.add(this.#streamHash.toString('hex'), entries, upTo)
  }

  async #current(): Promise<Open> {
    if (this.#open !== undefined && this.#takesMore(this.#open)) return this.#open
    await this.#closeFile()
    const rest = this.#rest
    const again = rest !== undefined && this.#takesMore(rest)
    const segment = again ? rest.segment : this.#context.nextSegment()
    const file = await this.#context.files.openSegment(this.#context.pathOf(segment), !again)
    this.#open = { segment, file, bytes: again ? rest.bytes : 0, records: again ? rest.records : 0 }
    // Not before: `segment` must name it all the time, or it could be emptied meanwhile and removed.
    this.#rest = undefined
    this.#context.grown(segment, this.#open.bytes)
    return this.#open
  }

  #takesMore({ segment, bytes }: Omit<Open, 'file'>): boolean {
    return bytes < this.#context.segmentBytes && segment !== this.#left
  }

  async #closeFile(): Promise<void> {
    const open = this.#open
    this.#open = undefined
    if (open !== undefined) await open.file.close()
  }

  async #abandon(): Promise<void> {
    const open = this.#open
    this.#open = undefined
    this.#rest = undefined
    if (open === undefined) return
    try {
      await open.file.truncate(open.bytes)
      await open.file.close()
    } catch (error) {
      this.#context.log.warn({ segment: open.segment, error: String(error) }, 'a failed segment could not be cut')
    }
  }
}
