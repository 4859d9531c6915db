/**
 * The page index as stored: where every page of RAM lies. Pure but for zstd. Columnar, because columns pack well: of
 * 65,536 pages at a time first the stream of each (one byte), then the difference of its locator to that of the page
 * before it in the same stream, mostly 1, in four planes of bytes. Streams are numbered as in the manifest.
 */
import { DiapauseError } from '../errors.ts'
import type { StreamManifest } from '../ports.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { EXTENT_PAGES } from './extents.ts'
import { type PageStream, PageTable, ZERO_SLOT } from './page-table.ts'
import { pack, SALT_BYTES, TAG_BYTES, unpack } from './seal.ts'

const FORMAT = 1
const SEGMENT_PAGES = 65_536
/** A bound against nonsense; images have at most MAX_STREAMS, and a few more where that number is lowered one day. */
export const MAX_INDEX_STREAMS = 64

/** What the index says of a stream; the rest is in the manifest. */
export type IndexedStream = Omit<PageStream, 'manifest'>

/** `order` lists the slots of `table` in the manifest's order; `streams` goes with it. */
export function encodePageIndex(
  table: PageTable,
  order: readonly number[],
  streams: readonly IndexedStream[]
): Uint8Array {
  const { pages } = table
  const out = new ByteWriter(1 << 16).u8(FORMAT).u32(pages).u32(streams.length)
  for (const stream of streams) {
    const lengths = new ByteWriter(4 * stream.extentLengths.length + 4)
    for (const length of stream.extentLengths) lengths.u32(length)
    out.raw(stream.salt).u32(stream.pages).u32(stream.extentLengths.length).blob(pack(lengths.bytes()))
  }
  const ordinals = new Uint8Array(256).fill(ZERO_SLOT)
  for (const [ordinal, slot] of order.entries()) ordinals[slot] = ordinal
  const previous = new Uint32Array(256)
  for (let first = 0; first < pages; first += SEGMENT_PAGES) {
    const count = Math.min(SEGMENT_PAGES, pages - first)
    const columns = new Uint8Array(5 * count)
    for (let i = 0; i < count; i++) {
      const place = table.placeOf(first + i)
      const ordinal = ordinals[place?.slot ?? ZERO_SLOT] ?? ZERO_SLOT
      columns[i] = ordinal
      if (place === undefined || ordinal === ZERO_SLOT) continue
      const { locator } = place
      const step = (locator - (previous[ordinal] ?? 0)) | 0
      const code = ((step << 1) ^ (step >> 31)) >>> 0
      previous[ordinal] = locator
      for (let plane = 0; plane < 4; plane++) columns[(plane + 1) * count + i] = code >>> (8 * plane)
    }
    out.blob(pack(columns))
  }
  return out.bytes()
}

/** The table of an image of so many pages of RAM and blocks of disks; contents are unknown. IMAGE_INVALID. */
export function decodePageIndex(
  bytes: Uint8Array,
  ramPages: number,
  blocks: number,
  manifests: readonly StreamManifest[]
): PageTable {
  const pages = ramPages + blocks
  const reader = new ByteReader(bytes, invalid)
  const format = reader.u8()
  if (format !== FORMAT) throw invalid(`format ${format}, and this version reads ${FORMAT}`)
  if (reader.u32() !== pages) throw invalid('it is of a machine of another size')
  const table = new PageTable(ramPages, blocks)
  const count = reader.count(MAX_INDEX_STREAMS, SALT_BYTES)
  if (count !== manifests.length) throw invalid(`${count} streams, and the manifest names ${manifests.length}`)
  for (const manifest of manifests) table.streams.push(readStream(reader, manifest))
  const locatorEnd = table.streams.map(stream => (stream?.extentLengths.length ?? 0) * EXTENT_PAGES)
  const previous = new Uint32Array(256)
  for (let first = 0; first < pages; first += SEGMENT_PAGES) {
    const length = Math.min(SEGMENT_PAGES, pages - first)
    const columns = unpack(reader.blob(10 * length + 1024), 5 * length)
    if (columns.length !== 5 * length) throw invalid('a segment is too short')
    for (let i = 0; i < length; i++) {
      const ordinal = columns[i] ?? ZERO_SLOT
      if (ordinal === ZERO_SLOT) continue
      let code = 0
      for (let plane = 0; plane < 4; plane++) code |= (columns[(plane + 1) * length + i] ?? 0) << (8 * plane)
      const step = (code >>> 1) ^ -(code & 1)
      const locator = ((previous[ordinal] ?? 0) + step) >>> 0
      if (!(locator < (locatorEnd[ordinal] ?? 0))) throw invalid(`page ${first + i} lies outside of its stream`)
      previous[ordinal] = locator
      table.place(first + i, ordinal, locator)
    }
  }
  reader.end()
  return table
}

function readStream(reader: ByteReader, manifest: StreamManifest): PageStream {
  const salt = reader.raw(SALT_BYTES).slice()
  const pages = reader.u32()
  const count = reader.u32()
  if (count * TAG_BYTES > manifest.dataBytes) throw invalid('more extents than the stream has room for')
  const packed = new ByteReader(unpack(reader.blob(8 * count + 1024), 4 * count + 1), invalid)
  const extentLengths = Uint32Array.from({ length: count }, () => packed.u32())
  packed.end()
  const total = extentLengths.reduce((sum, length) => sum + length, SALT_BYTES)
  if (total > manifest.dataBytes || extentLengths.some(length => length < TAG_BYTES || length > 1 << 18)) {
    throw invalid('extents do not fit their stream')
  }
  return { manifest, salt, extentLengths, pages }
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the page index of the image is not valid: ${what}; restore another epoch`)
