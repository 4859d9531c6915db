/**
 * The page index of an image, format 2: a directory of what lies in other records. It lists the streams of the image, each with its
 * slot in the page table, its salt and where the lengths of its extents are stored; the groups of segments
 * (`segment-records.ts`) that are in use, each in the stream of the epoch that made it; and for every segment of the page
 * table the group that has it. So an epoch writes the segments that it changed, and of all others only this. Pure but
 * for zstd.
 */
import { DiapauseError } from '../errors.ts'
import type { ByteRange, StreamManifest } from '../ports.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { MAX_STREAM_EXTENTS } from './extent-lengths.ts'
import { type PageStream, type PageTable, SEGMENT_PAGES, type SegmentGroup, ZERO_SLOT } from './page-table.ts'
import { pack, SALT_BYTES, TAG_BYTES, unpack } from './seal.ts'

export const DIRECTORY_FORMAT = 2
const STREAM_BYTES = 1 + SALT_BYTES + 4 + 4 + 8 + 4
const GROUP_BYTES = 1 + 4 + 8 + 4
/** Of a segment: the number of its group from 1 on, 0 where all of its pages are zero, in three planes of bytes. */
const SEGMENT_BYTES = 3

/** A stream as the directory has it: the lengths of its extents are read after it. */
export interface DirectoryStream {
  readonly slot: number
  readonly salt: Uint8Array
  readonly pages: number
  readonly extents: number
  /** Of the stream itself: the sealed record of its extents' lengths. */
  readonly lengths: ByteRange
}

export interface Directory {
  /** In the order of the manifest. */
  readonly streams: readonly DirectoryStream[]
  /** Segment number → where its record lies; undefined: all of its pages are zero. */
  readonly segments: readonly (SegmentGroup | undefined)[]
}

/** `order` lists the slots of `table` in the manifest's order; `streams` goes with it. Every segment has its record. */
export function encodeDirectory(
  table: PageTable,
  order: readonly number[],
  streams: readonly Pick<PageStream, 'salt' | 'pages' | 'extentLengths' | 'lengths'>[]
): Uint8Array {
  const count = table.segments.length
  const groups = new Map<SegmentGroup, number>()
  const columns = new Uint8Array(SEGMENT_BYTES * count)
  for (const [number, segment] of table.segments.entries()) {
    const group = table.recordOf(number)
    if (segment === undefined) continue
    if (group === undefined) throw new TypeError(`segment ${number} is stored nowhere`)
    const id = groups.get(group) ?? groups.size + 1
    groups.set(group, id)
    for (let plane = 0; plane < SEGMENT_BYTES; plane++) columns[plane * count + number] = id >>> (8 * plane)
  }
  const ordinals = new Map(order.map((slot, ordinal) => [slot, ordinal]))
  const out = new ByteWriter(1 << 12)
    .u32(table.ramPages)
    .u32(table.pages - table.ramPages)
    .u32(streams.length)
  for (const [ordinal, { salt, pages, extentLengths, lengths }] of streams.entries()) {
    if (lengths === undefined) throw new TypeError('the extents of a stream are described nowhere')
    out
      .u8(order[ordinal] ?? ZERO_SLOT)
      .raw(salt)
      .u32(pages)
      .u32(extentLengths.length)
    out.u53(lengths.offset).u32(lengths.length)
  }
  out.u32(groups.size)
  for (const { slot, counter, offset, length } of groups.keys()) {
    out
      .u8(ordinals.get(slot) ?? ZERO_SLOT)
      .u32(counter)
      .u53(offset)
      .u32(length)
  }
  const packed = pack(out.raw(columns).bytes())
  return new ByteWriter(packed.length + 1).u8(DIRECTORY_FORMAT).raw(packed).bytes()
}

/** IMAGE_INVALID. `manifests`: the image's streams, as its manifest lists them. */
export function decodeDirectory(
  bytes: Uint8Array,
  ramPages: number,
  blocks: number,
  manifests: readonly Pick<StreamManifest, 'dataBytes'>[]
): Directory {
  const count = Math.ceil((ramPages + blocks) / SEGMENT_PAGES)
  if (bytes[0] !== DIRECTORY_FORMAT)
    throw invalid(`format ${bytes[0]}, and this version reads 1 and ${DIRECTORY_FORMAT}`)
  const most = 16 + manifests.length * STREAM_BYTES + count * (GROUP_BYTES + SEGMENT_BYTES)
  const reader = new ByteReader(unpack(bytes.subarray(1), most), invalid)
  if (reader.u32() !== ramPages || reader.u32() !== blocks) throw invalid('it is of a machine of another size')
  const given = reader.count(manifests.length, STREAM_BYTES)
  if (given !== manifests.length) throw invalid(`${given} streams, and the manifest names ${manifests.length}`)
  const streams = manifests.map(manifest => readStream(reader, manifest))
  const slots = new Set(streams.map(({ slot }) => slot))
  if (slots.size !== streams.length || slots.has(ZERO_SLOT)) throw invalid('two streams have one slot, or one has none')
  const groups: SegmentGroup[] = []
  for (let left = reader.count(count, GROUP_BYTES); left > 0; left--) {
    const ordinal = reader.u8()
    const [stream, manifest] = [streams[ordinal], manifests[ordinal]]
    if (stream === undefined || manifest === undefined) throw invalid('a group of segments lies in no stream')
    const counter = reader.u32()
    groups.push({ slot: stream.slot, counter, ...readRange(reader, manifest) })
  }
  const columns = reader.raw(SEGMENT_BYTES * count)
  reader.end()
  const segments = Array.from({ length: count }, (_, number) => {
    let id = 0
    for (let plane = 0; plane < SEGMENT_BYTES; plane++) id |= (columns[plane * count + number] ?? 0) << (8 * plane)
    if (id > groups.length) throw invalid(`segment ${number} lies in no group`)
    return groups[id - 1]
  })
  return { streams, segments }
}

function readStream(reader: ByteReader, manifest: Pick<StreamManifest, 'dataBytes'>): DirectoryStream {
  const slot = reader.u8()
  const salt = new Uint8Array(reader.raw(SALT_BYTES)) // a copy, also where it is a Buffer
  const [pages, extents] = [reader.u32(), reader.u32()]
  if (extents > MAX_STREAM_EXTENTS || extents * TAG_BYTES > manifest.dataBytes) {
    throw invalid('more extents than the stream has room for')
  }
  return { slot, salt, pages, extents, lengths: readRange(reader, manifest) }
}

/** A sealed record. */
function readRange(reader: ByteReader, { dataBytes }: Pick<StreamManifest, 'dataBytes'>): ByteRange {
  const [offset, length] = [reader.u53(), reader.u32()]
  if (length < TAG_BYTES || offset + length > dataBytes) throw invalid('a record lies outside of its stream')
  return { offset, length }
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the page index of the image is not valid: ${what}; restore another epoch`)
