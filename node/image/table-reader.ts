/**
 * Reads the page table of an image while its VM runs already: the directory says where everything else of it lies, in several
 * streams. All of it is read at once, what lies near each other together; groups of segments are opened one after the other, and
 * first those that somebody waits for. So a page's place is known when two reads have come, however large RAM is.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import type { ByteRange } from '../ports.ts'
import { decodeExtentLengths } from './extent-lengths.ts'
import { EXTENT_PAGES } from './extents.ts'
import { blocksOf, sealOf, type VmFacts } from './facts.ts'
import { decodeDirectory, type Directory } from './page-directory.ts'
import { decodePageIndex1, INDEX_FORMAT_1 } from './page-index-1.ts'
import { PAGES_PER_MIB, PageTable, SEGMENT_PAGES, type SegmentGroup, type StreamFacts } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import type { StreamSeal } from './seal.ts'
import { decodeSegments } from './segment-records.ts'

/** Read in vain rather than read once more, and one read at most. Guesses. */
const GAP_BYTES = 64 << 10
const READ_BYTES = 1 << 20

interface TableSource {
  readonly facts: VmFacts
  readonly streams: readonly StreamFacts[]
  /** The opened index record of an image with these streams. */
  readonly index: Uint8Array
  readonly read: ReadStream
}

/** Sealed records of one stream, on their way. */
interface StreamRecords {
  readonly lengths: Promise<Uint8Array>
  /** Those that are not open. */
  readonly groups: Map<SegmentGroup, Promise<Uint8Array>>
}

export class LazyTable {
  /** Fills as segments are opened; right for those pages that `has` knows. */
  readonly table: PageTable
  readonly #source: TableSource
  readonly #directory: Directory | undefined
  /** Until all is open. */
  #records: readonly StreamRecords[]
  /** Groups that are not open, with the segments that are wanted of them. */
  readonly #closed: Map<SegmentGroup, Set<number>>
  readonly #opening = new Map<SegmentGroup, Promise<void>>()
  /** Settles when the streams are in the table. */
  readonly #streams: Promise<readonly StreamSeal[]>
  #whole: Promise<void> | undefined
  #isWhole = false

  /** Begins to read. IMAGE_INVALID. */
  constructor(source: TableSource) {
    const { facts, streams, index } = source
    const [ramPages, blocks] = [facts.memoryMiB * PAGES_PER_MIB, blocksOf(facts)]
    this.#source = source
    const isOld = index[0] === INDEX_FORMAT_1
    this.table = isOld ? decodePageIndex1(index, ramPages, blocks, streams) : new PageTable(ramPages, blocks)
    this.#directory = isOld ? undefined : decodeDirectory(index, ramPages, blocks, streams)
    this.#closed = groupsOf(this.#directory?.segments ?? [])
    this.#records = this.#directory === undefined ? [] : this.#readAll(this.#directory)
    this.#streams = this.#openStreams()
    this.#streams.catch(() => {}) // told to whoever asks for a page
  }

  /**
   * Opens every segment; resolves when all are there. Until it is called only those are that somebody needs. IMAGE_INVALID,
   * IMAGE_SEAL, and what `read` rejects with.
   */
  whole(): Promise<void> {
    this.#whole ??= this.#openAll()
    return this.#whole
  }

  get isWhole(): boolean {
    return this.#isWhole
  }

  /** Whether the place of a page is known. */
  has(page: number): boolean {
    const group = this.#directory?.segments[Math.floor(page / SEGMENT_PAGES)]
    return group === undefined || !this.#closed.has(group)
  }

  /** Resolves when `has(page)`. As `whole`. */
  async need(page: number): Promise<void> {
    const group = this.#directory?.segments[Math.floor(page / SEGMENT_PAGES)]
    if (group !== undefined) await this.#open(group)
  }

  #readAll({ streams }: Directory): StreamRecords[] {
    return this.#source.streams.map(({ stream: id }, ordinal) => {
      const stream = streams[ordinal]
      if (stream === undefined) throw invalid(`stream ${ordinal} is not in it`)
      const groups = [...this.#closed.keys()].filter(({ slot }) => slot === stream.slot)
      const reads = readRanges(id, [stream.lengths, ...groups], this.#source.read)
      return {
        lengths: recordOf(reads, stream.lengths),
        groups: new Map(groups.map(group => [group, recordOf(reads, group)]))
      }
    })
  }

  /** The seals, in the order of the manifest. */
  async #openStreams(): Promise<readonly StreamSeal[]> {
    const { facts, streams } = this.#source
    const sealed = await Promise.all(this.#records.map(({ lengths }) => lengths))
    return sealed.map((bytes, ordinal) => {
      const [manifest, stream] = [streams[ordinal], this.#directory?.streams[ordinal]]
      if (manifest === undefined || stream === undefined) throw invalid(`stream ${ordinal} is not in it`)
      const { slot, salt, pages, extents, lengths } = stream
      const seal = sealOf(facts, { manifest, salt })
      const extentLengths = decodeExtentLengths(seal.open('lengths', 0, bytes), extents, manifest.dataBytes)
      this.table.streams[slot] = { manifest, salt, pages, lengths, extentLengths }
      return seal
    })
  }

  async #openAll(): Promise<void> {
    await this.#streams
    for (const group of this.#closed.keys()) {
      await this.#open(group)
      await nextTurn() // somebody may wait for another
    }
    for (const [number, group] of (this.#directory?.segments ?? []).entries()) this.table.setRecord(number, group)
    this.#isWhole = true
    this.#records = [] // disks are read by the table for as long as the VM lives
  }

  #open(group: SegmentGroup): Promise<void> {
    let opening = this.#opening.get(group)
    if (opening === undefined) {
      opening = this.#decode(group)
      opening.catch(() => {}) // told to whoever waits for it
      this.#opening.set(group, opening)
    }
    return opening
  }

  async #decode(group: SegmentGroup): Promise<void> {
    const ordinal = this.#directory?.streams.findIndex(({ slot }) => slot === group.slot) ?? -1
    const [seals, sealed] = await Promise.all([this.#streams, this.#records[ordinal]?.groups.get(group)])
    const [seal, numbers] = [seals[ordinal], this.#closed.get(group)]
    if (seal === undefined || sealed === undefined || numbers === undefined) throw invalid('a group lies in no stream')
    const ends = this.table.streams.map(stream => stream && stream.extentLengths.length * EXTENT_PAGES)
    decodeSegments(seal.open('segments', group.counter, sealed), this.table, numbers, ends)
    if (numbers.size > 0) throw invalid(`segment ${[...numbers][0]} is not where it should be`)
    this.#closed.delete(group)
    this.#records[ordinal]?.groups.delete(group)
  }
}

/** Group → the segments that are wanted of it. */
function groupsOf(segments: Directory['segments']): Map<SegmentGroup, Set<number>> {
  const groups = new Map<SegmentGroup, Set<number>>()
  for (const [number, group] of segments.entries()) {
    if (group === undefined) continue
    const numbers = groups.get(group)
    if (numbers === undefined) groups.set(group, new Set([number]))
    else numbers.add(number)
  }
  return groups
}

/** Their bytes, views. */
function readRanges(
  stream: string,
  ranges: readonly ByteRange[],
  read: ReadStream
): ReadonlyMap<ByteRange, Promise<Uint8Array>> {
  const reads: { offset: number; end: number; ranges: ByteRange[] }[] = []
  for (const range of ranges.toSorted((a, b) => a.offset - b.offset)) {
    const last = reads.at(-1)
    const end = range.offset + range.length
    if (last !== undefined && range.offset - last.end <= GAP_BYTES && end - last.offset <= READ_BYTES) {
      last.end = Math.max(last.end, end)
      last.ranges.push(range)
    } else reads.push({ offset: range.offset, end, ranges: [range] })
  }
  return new Map(
    reads.flatMap(({ offset, end, ranges: inside }) => {
      const bytes = read(stream, offset, end - offset)
      return inside.map(range => {
        const record = bytes.then(all => all.subarray(range.offset - offset, range.offset - offset + range.length))
        record.catch(() => {}) // told to whoever opens it
        return [range, record] as const
      })
    })
  )
}

function recordOf(reads: ReadonlyMap<ByteRange, Promise<Uint8Array>>, range: ByteRange): Promise<Uint8Array> {
  const record = reads.get(range)
  if (record === undefined) throw new TypeError('a record is not being read')
  return record
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the page index of the image is not valid: ${what}; restore another epoch`)
