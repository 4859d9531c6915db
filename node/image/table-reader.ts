/**
 * Reads the page table of an image: its directory says where everything else of it lies, in several streams; what lies
 * near each other is read at once.
 */
import { DiapauseError } from '../errors.ts'
import type { ByteRange } from '../ports.ts'
import { decodeExtentLengths } from './extent-lengths.ts'
import { EXTENT_PAGES } from './extents.ts'
import { blocksOf, sealOf, type VmFacts } from './facts.ts'
import { decodeDirectory, type Directory } from './page-directory.ts'
import { decodePageIndex1, INDEX_FORMAT_1 } from './page-index-1.ts'
import { PAGES_PER_MIB, PageTable, type SegmentGroup, type StreamFacts } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import { decodeSegments } from './segment-records.ts'

/** Read in vain rather than read once more, and one read at most. Guesses. */
const GAP_BYTES = 64 << 10
const READ_BYTES = 1 << 20

/** `index`: the opened index record of an image with these streams. IMAGE_INVALID, IMAGE_SEAL, and what `read` rejects with. */
export async function readPageTable(
  facts: VmFacts,
  streams: readonly StreamFacts[],
  index: Uint8Array,
  read: ReadStream
): Promise<PageTable> {
  const [ramPages, blocks] = [facts.memoryMiB * PAGES_PER_MIB, blocksOf(facts)]
  if (index[0] === INDEX_FORMAT_1) return decodePageIndex1(index, ramPages, blocks, streams)
  const table = new PageTable(ramPages, blocks)
  const directory = decodeDirectory(index, ramPages, blocks, streams)
  const groups = groupsOf(directory)
  const reading = streams.map((manifest, ordinal) => {
    const stream = directory.streams[ordinal]
    if (stream === undefined) throw invalid(`stream ${ordinal} is not in it`)
    const own = [...groups.keys()].filter(({ slot }) => slot === stream.slot)
    return readRanges(manifest.stream, [stream.lengths, ...own], read)
  })
  const records = await Promise.all(reading)
  const seals = streams.map((manifest, ordinal) => {
    const stream = directory.streams[ordinal]
    const sealed = stream && records[ordinal]?.get(stream.lengths)
    if (stream === undefined || sealed === undefined) throw invalid(`stream ${ordinal} is not in it`)
    const { slot, salt, pages, extents, lengths } = stream
    const seal = sealOf(facts, { manifest, salt })
    const extentLengths = decodeExtentLengths(seal.open('lengths', 0, sealed), extents, manifest.dataBytes)
    table.streams[slot] = { manifest, salt, pages, lengths, extentLengths }
    return seal
  })
  const ends = table.streams.map(stream => stream && stream.extentLengths.length * EXTENT_PAGES)
  for (const [ordinal, seal] of seals.entries()) {
    for (const [group, numbers] of groups) {
      const sealed = records[ordinal]?.get(group)
      if (sealed === undefined) continue
      decodeSegments(seal.open('segments', group.counter, sealed), table, numbers, ends)
      if (numbers.size > 0) throw invalid(`segment ${[...numbers][0]} is not where it should be`)
    }
  }
  for (const [number, group] of directory.segments.entries()) table.setRecord(number, group)
  return table
}

/** Group → the segments that are wanted of it. */
function groupsOf({ segments }: Directory): Map<SegmentGroup, Set<number>> {
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
async function readRanges<R extends ByteRange>(
  stream: string,
  ranges: readonly R[],
  read: ReadStream
): Promise<Map<R, Uint8Array>> {
  const reads: { offset: number; end: number; ranges: R[] }[] = []
  for (const range of ranges.toSorted((a, b) => a.offset - b.offset)) {
    const last = reads.at(-1)
    const end = range.offset + range.length
    if (last !== undefined && range.offset - last.end <= GAP_BYTES && end - last.offset <= READ_BYTES) {
      last.end = Math.max(last.end, end)
      last.ranges.push(range)
    } else reads.push({ offset: range.offset, end, ranges: [range] })
  }
  const bytes = await Promise.all(reads.map(({ offset, end }) => read(stream, offset, end - offset)))
  return new Map(
    reads.flatMap(({ offset, ranges: inside }, i) =>
      inside.map(range => {
        const at = range.offset - offset
        return [range, bytes[i]?.subarray(at, at + range.length) ?? new Uint8Array()] as const
      })
    )
  )
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the page index of the image is not valid: ${what}; restore another epoch`)
