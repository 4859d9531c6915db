/** Writes page indexes of format 1, as builds before this one did. */
import { ByteWriter } from '../../../node/image/bytes.ts'
import { type PageStream, type PageTable, ZERO_SLOT } from '../../../node/image/page-table.ts'
import { pack } from '../../../node/image/seal.ts'

const FORMAT = 1
const SEGMENT_PAGES = 65_536

/** `order` lists the slots of `table` in the manifest's order; `streams` goes with it. */
export function encodePageIndex1(
  table: PageTable,
  order: readonly number[],
  streams: readonly Omit<PageStream, 'manifest'>[]
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
