/**
 * The page index of format 1, which is read and not written any more: where every page of RAM lies, all in one
 * record. Of 65,536 pages at a time first the stream of each (one byte), then the difference of its locator to that of the
 * page before it in the same stream, in four planes of bytes. Streams are numbered as in the manifest. Pure but for
 * zstd.
 */
import { DiapauseError } from '../errors.ts'
import { ByteReader } from './bytes.ts'
import { EXTENT_PAGES } from './extents.ts'
import { MAX_INDEX_STREAMS } from './manifest-checks.ts'
import { type PageStream, PageTable, type StreamFacts, ZERO_SLOT } from './page-table.ts'
import { SALT_BYTES, TAG_BYTES, unpack } from './seal.ts'

export const INDEX_FORMAT_1 = 1
const SEGMENT_PAGES = 65_536

/** The table of an image of so many pages of RAM and blocks of disks; contents are unknown. IMAGE_INVALID. */
export function decodePageIndex1(
  bytes: Uint8Array,
  ramPages: number,
  blocks: number,
  manifests: readonly StreamFacts[]
): PageTable {
  const pages = ramPages + blocks
  const reader = new ByteReader(bytes, invalid)
  if (reader.u8() !== INDEX_FORMAT_1) throw invalid('it is of another format')
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

function readStream(reader: ByteReader, manifest: StreamFacts): PageStream {
  const salt = new Uint8Array(reader.raw(SALT_BYTES))
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
