/**
 * Where every page and block of an image lies, and a hash of its content: columns by page number, in segments of 1,024
 * pages. A segment without content has no memory. Tables are copy-on-write: `fork` shares all segments, and whichever table
 * first changes one makes a copy of it, so an epoch costs what it touches and not how large the VM is. How many places
 * lie in each stream is counted as pages move, in all and by segment. Pure.
 *
 * A page is zero, or lies in a stream at a locator (`extents.ts`). Beside that place it may have a second one: of a delta, by
 * which its content differs from what lies at the first.
 */
import type { ByteRange, StreamManifest } from '../ports.ts'

export const SEGMENT_PAGES = 1024

export const PAGES_PER_MIB = 256

/** Slot of a zero page, and of the delta of a page that has none. */
export const ZERO_SLOT = 0xff
const SLOTS = 256

/** A stream without what is needed to read its shards, which the main thread does. */
export type StreamFacts = Omit<StreamManifest, 'grids'>

/** A stream that pages lie in. */
export interface PageStream {
  readonly manifest: StreamFacts
  readonly salt: Uint8Array
  /** Sealed bytes of each extent. */
  readonly extentLengths: Uint32Array
  /** Pages and segments written to it, live or not; deltas as `inPages` has it. */
  readonly pages: number
  /** Where in it `extentLengths` are stored. Undefined: nowhere, as in images of an older format. */
  readonly lengths?: ByteRange | undefined
}

/** A sealed record of segments (`segment-records.ts`): bytes of the stream of a slot. */
export interface SegmentGroup extends ByteRange {
  readonly slot: number
  /** Under which it is sealed. */
  readonly counter: number
}

export interface Place {
  /** Index into `PageTable.streams`. */
  readonly slot: number
  readonly locator: number
}

/** Columns of 1,024 pages, from `SEGMENT_PAGES` × its number on: 21 bytes a page, all in one piece of memory. */
export class PageSegment {
  /** Of the table that may change it. */
  readonly owner: number
  readonly #bytes: Uint8Array
  /** First 16 bytes of SHA-256 as four words; all zero where the content is zero, or not known. */
  readonly hashes: Uint32Array
  readonly locators: Uint32Array
  /** Slot → places of this segment in its stream. */
  readonly references: Uint16Array
  readonly slots: Uint8Array
  /** As `slots` and `locators`; absent where no page of the segment ever had a delta. */
  deltas: { readonly slots: Uint8Array; readonly locators: Uint32Array } | undefined
  /** Pages that are not zero. */
  used = 0

  constructor(owner: number, original?: PageSegment) {
    this.owner = owner
    this.#bytes = new Uint8Array(SEGMENT_PAGES * 21 + 2 * SLOTS)
    const { buffer } = this.#bytes
    this.hashes = new Uint32Array(buffer, 0, 4 * SEGMENT_PAGES)
    this.locators = new Uint32Array(buffer, 16 * SEGMENT_PAGES, SEGMENT_PAGES)
    this.references = new Uint16Array(buffer, 20 * SEGMENT_PAGES, SLOTS)
    this.slots = new Uint8Array(buffer, 20 * SEGMENT_PAGES + 2 * SLOTS, SEGMENT_PAGES)
    if (original === undefined) {
      this.slots.fill(ZERO_SLOT)
      return
    }
    this.#bytes.set(original.#bytes)
    this.used = original.used
    const { deltas } = original
    this.deltas = deltas && { slots: deltas.slots.slice(), locators: deltas.locators.slice() }
  }

  refersTo(slots: readonly boolean[]): boolean {
    return slots.some((wanted, slot) => wanted && this.references[slot] !== 0)
  }
}

let tables = 0

export class PageTable {
  /** Of RAM, the first ones. */
  readonly ramPages: number
  /** Of RAM and disks. */
  readonly pages: number
  /** Undefined: a free slot. */
  streams: (PageStream | undefined)[] = []
  readonly #id = ++tables
  readonly #segments: (PageSegment | undefined)[]
  readonly #live: Uint32Array
  /** Segment number → where it is stored as it is now. */
  readonly #records: (SegmentGroup | undefined)[]
  #nonZeroRam = 0

  constructor(ramPages: number, blocks = 0, original?: PageTable) {
    this.ramPages = ramPages
    this.pages = ramPages + blocks
    if (original === undefined) {
      this.#segments = new Array(Math.ceil(this.pages / SEGMENT_PAGES)).fill(undefined)
      this.#live = new Uint32Array(SLOTS)
      this.#records = []
      return
    }
    this.#segments = original.#segments.slice()
    this.#live = original.#live.slice()
    this.#records = original.#records.slice()
    this.streams = [...original.streams]
    this.#nonZeroRam = original.#nonZeroRam
  }

  /** The same, to be changed without a change to this one: which must not be changed any more itself. */
  fork(): PageTable {
    return new PageTable(this.ramPages, this.pages - this.ramPages, this)
  }

  /** Pages of RAM that are not zero. */
  get nonZeroRam(): number {
    return this.#nonZeroRam
  }

  /** How many places lie in the stream of a slot, deltas' too. */
  live(slot: number): number {
    return this.#live[slot] ?? 0
  }

  /** Slot → places of the segments from that of `page` on. */
  livePlaces(page: number): Uint32Array {
    const counts = new Uint32Array(SLOTS)
    for (let number = Math.floor(page / SEGMENT_PAGES); number < this.#segments.length; number++) {
      const references = this.#segments[number]?.references
      if (references === undefined) continue
      for (let slot = 0; slot < this.streams.length; slot++) {
        counts[slot] = (counts[slot] ?? 0) + (references[slot] ?? 0)
      }
    }
    return counts
  }

  /** Number → segment; undefined: all of its pages are zero. To be read only. */
  get segments(): readonly (PageSegment | undefined)[] {
    return this.#segments
  }

  segmentOf(page: number): PageSegment | undefined {
    return this.#segments[Math.floor(page / SEGMENT_PAGES)]
  }

  /** This table has changed the segment since it was forked. */
  owns(segment: PageSegment): boolean {
    return segment.owner === this.#id
  }

  recordOf(segment: number): SegmentGroup | undefined {
    return this.#records[segment]
  }

  setRecord(segment: number, group: SegmentGroup | undefined): void {
    this.#records[segment] = group
  }

  /** Slot → segments that are stored in its stream. */
  storedSegments(): Uint32Array {
    const counts = new Uint32Array(SLOTS)
    for (const group of this.#records) if (group !== undefined) counts[group.slot] = (counts[group.slot] ?? 0) + 1
    return counts
  }

  slotOf(page: number): number {
    return this.segmentOf(page)?.slots[page % SEGMENT_PAGES] ?? ZERO_SLOT
  }

  /** Undefined: a page of zeros. */
  placeOf(page: number): Place | undefined {
    const segment = this.segmentOf(page)
    const slot = segment?.slots[page % SEGMENT_PAGES] ?? ZERO_SLOT
    return slot === ZERO_SLOT ? undefined : { slot, locator: segment?.locators[page % SEGMENT_PAGES] ?? 0 }
  }

  deltaOf(page: number): Place | undefined {
    const deltas = this.segmentOf(page)?.deltas
    const slot = deltas?.slots[page % SEGMENT_PAGES] ?? ZERO_SLOT
    return slot === ZERO_SLOT ? undefined : { slot, locator: deltas?.locators[page % SEGMENT_PAGES] ?? 0 }
  }

  /** The page lies there now, whole. */
  place(page: number, slot: number, locator: number): void {
    const segment = this.writable(page)
    const at = page % SEGMENT_PAGES
    const before = segment.slots[at] ?? ZERO_SLOT
    if (before === ZERO_SLOT) {
      segment.used++
      if (page < this.ramPages) this.#nonZeroRam++
    } else this.#count(segment, before, -1)
    this.#count(segment, slot, 1)
    segment.slots[at] = slot
    segment.locators[at] = locator
    this.#clearDelta(segment, at)
  }

  /** The page is zero now. */
  clear(page: number): void {
    if (this.slotOf(page) === ZERO_SLOT) return
    const segment = this.writable(page)
    const at = page % SEGMENT_PAGES
    this.#count(segment, segment.slots[at] ?? ZERO_SLOT, -1)
    segment.slots[at] = ZERO_SLOT
    segment.locators[at] = 0
    segment.hashes.fill(0, 4 * at, 4 * at + 4)
    this.#clearDelta(segment, at)
    if (page < this.ramPages) this.#nonZeroRam--
    if (--segment.used === 0) this.#segments[Math.floor(page / SEGMENT_PAGES)] = undefined
  }

  /** The page differs by this delta from what lies at its place: it is not zero. */
  setDelta(page: number, slot: number, locator: number): void {
    const segment = this.writable(page)
    const at = page % SEGMENT_PAGES
    if (segment.slots[at] === ZERO_SLOT) throw new TypeError(`page ${page} is zero and cannot have a delta`)
    segment.deltas ??= {
      slots: new Uint8Array(SEGMENT_PAGES).fill(ZERO_SLOT),
      locators: new Uint32Array(SEGMENT_PAGES)
    }
    this.#clearDelta(segment, at)
    this.#count(segment, slot, 1)
    segment.deltas.slots[at] = slot
    segment.deltas.locators[at] = locator
  }

  clearDelta(page: number): void {
    if (this.deltaOf(page) !== undefined) this.#clearDelta(this.writable(page), page % SEGMENT_PAGES)
  }

  /** The page's segment, this table's own. RangeError where there is no such page. */
  writable(page: number): PageSegment {
    if (!(page >= 0 && page < this.pages)) throw new RangeError(`page ${page} of ${this.pages}`)
    const number = Math.floor(page / SEGMENT_PAGES)
    const segment = this.#segments[number]
    if (segment?.owner === this.#id) return segment
    return (this.#segments[number] = new PageSegment(this.#id, segment))
  }

  #clearDelta(segment: PageSegment, at: number): void {
    const { deltas } = segment
    const slot = deltas?.slots[at] ?? ZERO_SLOT
    if (deltas === undefined || slot === ZERO_SLOT) return
    this.#count(segment, slot, -1)
    deltas.slots[at] = ZERO_SLOT
    deltas.locators[at] = 0
  }

  #count(segment: PageSegment, slot: number, change: 1 | -1): void {
    segment.references[slot] = (segment.references[slot] ?? 0) + change
    this.#live[slot] = (this.#live[slot] ?? 0) + change
  }
}
