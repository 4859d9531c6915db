/**
 * What is still to be sent of an image's RAM, and in which order. Pure. Extents are numbered through all streams ("global"
 * numbers); `pagesOf` inverts the page table, so that a whole extent is sent for one fault. Every page is taken once.
 */
import { EXTENT_PAGES, extentStarts } from './extents.ts'
import { type PageTable, type Place, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'
import { SALT_BYTES } from './seal.ts'

/** Extents [first, end) of one stream, which lie end to end in bytes [offset, offset + length). */
export interface ExtentRun {
  readonly slot: number
  /** Number within the stream. */
  readonly first: number
  readonly end: number
  readonly offset: number
  readonly length: number
}

export class RestorePlan {
  readonly #table: PageTable
  readonly #taken: Uint8Array
  /** Non-zero pages by stream and locator. */
  readonly #order: Uint32Array
  /** Global extent → its first page in #order. */
  readonly #first: Uint32Array
  /** Slot → global number of its extent 0. */
  readonly #base: number[] = []
  readonly #starts: Float64Array[] = []
  #zeroAt = 0

  constructor(table: PageTable) {
    const pages = table.ramPages
    this.#table = table
    this.#taken = new Uint8Array(pages)
    let extents = 0
    for (const stream of table.streams) {
      this.#base.push(extents)
      const lengths = stream?.extentLengths ?? new Uint32Array(0)
      this.#starts.push(extentStarts(lengths, SALT_BYTES))
      extents += lengths.length
    }
    // A counting sort by global extent; within an extent pages are sorted when they are asked for.
    this.#first = new Uint32Array(extents + 1)
    this.#eachPage((_, extent) => this.#add(extent + 1, 1))
    for (let i = 1; i <= extents; i++) this.#add(i, this.#first[i - 1] ?? 0)
    const next = this.#first.slice()
    this.#order = new Uint32Array(this.#first[extents] ?? 0)
    this.#eachPage((page, extent) => {
      this.#order[next[extent] ?? 0] = page
      next[extent] = (next[extent] ?? 0) + 1
    })
  }

  /** Pages of RAM that are not zero, with the global numbers of their extents. */
  #eachPage(visit: (page: number, extent: number) => void): void {
    const { segments, ramPages } = this.#table
    for (const [number, segment] of segments.entries()) {
      if (segment === undefined) continue
      const first = number * SEGMENT_PAGES
      const { slots, locators } = segment
      for (let at = 0; at < Math.min(SEGMENT_PAGES, ramPages - first); at++) {
        const slot = slots[at] ?? ZERO_SLOT
        if (slot === ZERO_SLOT) continue
        visit(first + at, (this.#base[slot] ?? 0) + Math.floor((locators[at] ?? 0) / EXTENT_PAGES))
      }
    }
  }

  isTaken(page: number): boolean {
    return this.#taken[page] !== 0
  }

  isZero(page: number): boolean {
    return this.#table.slotOf(page) === ZERO_SLOT
  }

  /** The extent of a non-zero page. */
  extentOf(page: number): ExtentRun {
    const { slot, locator } = this.#placeOf(page)
    const extent = Math.floor(locator / EXTENT_PAGES)
    return this.#run(slot, extent, extent + 1)
  }

  /** Takes what has not been taken of the pages of an extent: page numbers with their places in it. */
  takeExtent(slot: number, extent: number): { page: number; place: number }[] {
    const global = (this.#base[slot] ?? 0) + extent
    const taken: { page: number; place: number }[] = []
    for (const page of this.#order.subarray(this.#first[global], this.#first[global + 1])) {
      if (this.#taken[page] !== 0) continue
      this.#taken[page] = 1
      taken.push({ page, place: this.#placeOf(page).locator % EXTENT_PAGES })
    }
    return taken
  }

  hasUntaken(slot: number, extent: number): boolean {
    const global = (this.#base[slot] ?? 0) + extent
    return this.#order.subarray(this.#first[global], this.#first[global + 1]).some(page => this.#taken[page] === 0)
  }

  /** Runs of extents with pages left, in stream order, each of at most `maxBytes` (one extent at least). */
  *runs(maxBytes: number): Generator<ExtentRun> {
    for (const [slot, starts] of this.#starts.entries()) {
      const extents = starts.length - 1
      for (let first = 0; first < extents; ) {
        if (!this.hasUntaken(slot, first)) {
          first++
          continue
        }
        let end = first + 1
        const limit = (starts[first] ?? 0) + maxBytes
        while (end < extents && (starts[end + 1] ?? 0) <= limit && this.hasUntaken(slot, end)) end++
        yield this.#run(slot, first, end)
        first = end
      }
    }
  }

  /** Takes up to `count` zero pages, lowest first; none are left where it is empty. */
  takeZeros(count: number): number[] {
    const pages: number[] = []
    for (; this.#zeroAt < this.#taken.length && pages.length < count; this.#zeroAt++) {
      if (this.isZero(this.#zeroAt) && !this.isTaken(this.#zeroAt)) pages.push(this.#zeroAt)
    }
    for (const page of pages) this.#taken[page] = 1
    return pages
  }

  /** Takes the zero pages among the `count` aligned ones around `page`. */
  takeZerosAround(page: number, count: number): number[] {
    const first = page - (page % count)
    const pages: number[] = []
    for (let p = first; p < Math.min(first + count, this.#taken.length); p++) {
      if (!this.isZero(p) || this.isTaken(p)) continue
      this.#taken[p] = 1
      pages.push(p)
    }
    return pages
  }

  #run(slot: number, first: number, end: number): ExtentRun {
    const starts = this.#starts[slot]
    const offset = starts?.[first] ?? 0
    return { slot, first, end, offset, length: (starts?.[end] ?? 0) - offset }
  }

  #placeOf(page: number): Place {
    const place = this.#table.placeOf(page)
    if (place === undefined) throw new TypeError(`page ${page} is zero`)
    return place
  }

  #add(extent: number, count: number): void {
    this.#first[extent] = (this.#first[extent] ?? 0) + count
  }
}
