/**
 * Segments of a page table as stored: up to 16 of them packed and sealed together, in the stream of the epoch that changed
 * them. Columnar, because columns pack well: of all segments first the slot of each page (one byte), then the difference of its
 * locator to that of the page before it in the same stream, mostly 1, in four planes of bytes; then the same of the
 * places of deltas, for segments that have any. Each segment can be read without the others. Slots are the table's own:
 * they stay while anything refers to them, and each image lists them (`page-index.ts`). Pure but for zstd.
 */
import { DiapauseError } from '../errors.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { type PageSegment, type PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'
import { pack, unpack } from './seal.ts'

/** Enough to pack well, and few to be read for the sake of one. A guess. */
export const GROUP_SEGMENTS = 16
/** Of one segment: slots and four planes. */
const COLUMNS_BYTES = 5 * SEGMENT_PAGES
const MAX_GROUP_BYTES = 1 + GROUP_SEGMENTS * (5 + 2 * COLUMNS_BYTES)

type Places = Pick<PageSegment, 'slots' | 'locators'>

/** `numbers`: of segments of `table` that have pages, at most GROUP_SEGMENTS. */
export function encodeSegments(table: PageTable, numbers: readonly number[]): Uint8Array {
  const segments = numbers.flatMap(number => table.segments[number] ?? [])
  if (segments.length !== numbers.length) throw new TypeError('a segment without pages is not stored')
  const deltas = segments.flatMap(segment => segment.deltas ?? [])
  const out = new ByteWriter(MAX_GROUP_BYTES).u8(numbers.length)
  for (const [i, number] of numbers.entries()) out.u32(number).u8(segments[i]?.deltas === undefined ? 0 : 1)
  return pack(out.raw(columnsOf(segments)).raw(columnsOf(deltas)).bytes())
}

function columnsOf(all: readonly Places[]): Uint8Array {
  const plane = all.length * SEGMENT_PAGES
  const columns = new Uint8Array(5 * plane)
  const previous = new Uint32Array(256)
  for (const [i, { slots, locators }] of all.entries()) {
    previous.fill(0)
    const base = i * SEGMENT_PAGES
    columns.set(slots, base)
    for (let at = 0; at < SEGMENT_PAGES; at++) {
      const slot = slots[at] ?? ZERO_SLOT
      if (slot === ZERO_SLOT) continue
      const locator = locators[at] ?? 0
      const step = (locator - (previous[slot] ?? 0)) | 0
      const code = ((step << 1) ^ (step >> 31)) >>> 0
      previous[slot] = locator
      for (let p = 0; p < 4; p++) columns[(p + 1) * plane + base + at] = code >>> (8 * p)
    }
  }
  return columns
}

/**
 * Puts the places of those segments of a group that are in `wanted` into `table`, which has none of them yet, and takes them out of
 * `wanted`. `ends`: for each slot that has a stream, how many locators it has. IMAGE_INVALID.
 */
export function decodeSegments(
  bytes: Uint8Array,
  table: PageTable,
  wanted: Set<number>,
  ends: readonly (number | undefined)[]
): void {
  const reader = new ByteReader(unpack(bytes, MAX_GROUP_BYTES), invalid)
  const count = reader.u8()
  if (count === 0 || count > GROUP_SEGMENTS) throw invalid(`${count} segments in a group`)
  const heads = Array.from({ length: count }, () => ({ number: reader.u32(), deltas: reader.u8() }))
  if (heads.some(({ deltas }) => deltas > 1)) throw invalid('a segment says neither that it has deltas nor that not')
  const withDeltas = heads.filter(({ deltas }) => deltas === 1)
  const places = reader.raw(count * COLUMNS_BYTES)
  const deltas = reader.raw(withDeltas.length * COLUMNS_BYTES)
  reader.end()
  const asked = heads.filter(({ number }) => wanted.delete(number))
  for (const head of asked) {
    const first = head.number * SEGMENT_PAGES
    const inside = (at: number, slot: number, locator: number): number => {
      const page = first + at
      if (page >= table.pages || !(locator < (ends[slot] ?? 0)))
        throw invalid(`page ${page} lies outside of its stream`)
      return page
    }
    decodeColumns(places, heads.indexOf(head), count, (at, slot, locator) => {
      table.place(inside(at, slot, locator), slot, locator)
    })
    if (head.deltas === 0) continue
    decodeColumns(deltas, withDeltas.indexOf(head), withDeltas.length, (at, slot, locator) => {
      const page = inside(at, slot, locator)
      if (table.slotOf(page) === ZERO_SLOT) throw invalid(`page ${page} is zero and has a delta`)
      table.setDelta(page, slot, locator)
    })
  }
}

/** The places of segment `i` of `count`. */
function decodeColumns(
  columns: Uint8Array,
  i: number,
  count: number,
  place: (at: number, slot: number, locator: number) => void
): void {
  const plane = count * SEGMENT_PAGES
  const base = i * SEGMENT_PAGES
  const previous = new Uint32Array(256)
  for (let at = 0; at < SEGMENT_PAGES; at++) {
    const slot = columns[base + at] ?? ZERO_SLOT
    if (slot === ZERO_SLOT) continue
    let code = 0
    for (let p = 0; p < 4; p++) code |= (columns[(p + 1) * plane + base + at] ?? 0) << (8 * p)
    const step = (code >>> 1) ^ -(code & 1)
    const locator = ((previous[slot] ?? 0) + step) >>> 0
    previous[slot] = locator
    place(at, slot, locator)
  }
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the page index of the image is not valid: ${what}; restore another epoch`)
