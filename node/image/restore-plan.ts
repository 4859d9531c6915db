/**
 * What is still to be sent of an image's RAM, and in which order. Pure. Every page is taken once, whatever asks for it. The page table may
 * be on its way yet: of an extent those pages are known then that lie in the segment of the page that was asked for. When all of
 * it is there, `sort` inverts it, in steps, because that takes as long as RAM is large; extents are numbered through all
 * streams then ("global" numbers), so that a whole extent is sent for one fault.
 */
import { EXTENT_PAGES, extentStarts } from './extents.ts'
import { type PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'
import { SALT_BYTES } from './seal.ts'

/** Segments in one step of `sort`: 32,768 pages, 2 ms. */
const STEP_SEGMENTS = 32

/** Extents [first, end) of one stream, which lie end to end in bytes [offset, offset + length). */
export interface ExtentRun {
  readonly slot: number
  /** Number within the stream. */
  readonly first: number
  readonly end: number
  readonly offset: number
  readonly length: number
}

/** Non-zero pages by stream and locator. */
interface Order {
  readonly pages: Uint32Array
  /** Global extent → its first page in `pages`. */
  readonly first: Uint32Array
  /** Slot → global number of its extent 0. */
  readonly base: readonly number[]
}

export class RestorePlan {
  readonly #table: PageTable
  readonly #taken: Uint8Array
  #order: Order | undefined
  /** By slot. */
  readonly #starts: (Float64Array | undefined)[] = []
  #zeroAt = 0

  /** `table`: what is asked of a page is right when its segment is there. */
  constructor(table: PageTable) {
    this.#table = table
    this.#taken = new Uint8Array(table.ramPages)
  }

  /** The table is whole. To be run to its end; between two steps others may go on. */
  *sort(): Generator<void> {
    const base: number[] = []
    let extents = 0
    for (const stream of this.#table.streams) {
      base.push(extents)
      extents += stream?.extentLengths.length ?? 0
    }
    // A counting sort by global extent; within an extent pages are sorted when they are asked for.
    const first = new Uint32Array(extents + 1)
    const add = (extent: number, count: number) => (first[extent] = (first[extent] ?? 0) + count)
    yield* this.#eachPage(base, (_, extent) => add(extent + 1, 1))
    for (let i = 1; i <= extents; i++) add(i, first[i - 1] ?? 0)
    const next = first.slice()
    const pages = new Uint32Array(first[extents] ?? 0)
    yield* this.#eachPage(base, (page, extent) => {
      pages[next[extent] ?? 0] = page
      next[extent] = (next[extent] ?? 0) + 1
    })
    this.#order = { pages, first, base }
  }

  /** Pages of RAM that are not zero, with the global numbers of their extents. */
  *#eachPage(base: readonly number[], visit: (page: number, extent: number) => void): Generator<void> {
    const { segments, ramPages } = this.#table
    for (const [number, segment] of segments.entries()) {
      if (number % STEP_SEGMENTS === 0) yield
      if (segment === undefined) continue
      const first = number * SEGMENT_PAGES
      const { slots, locators } = segment
      for (let at = 0; at < Math.min(SEGMENT_PAGES, ramPages - first); at++) {
        const slot = slots[at] ?? ZERO_SLOT
        if (slot === ZERO_SLOT) continue
        visit(first + at, (base[slot] ?? 0) + Math.floor((locators[at] ?? 0) / EXTENT_PAGES))
      }
    }
  }

  isTaken(page: number): boolean {
    return this.#taken[page] !== 0
  }

  isZero(page: number): boolean {
    return this.#table.slotOf(page) === ZERO_SLOT
  }

  /** The extent of a page; undefined: the page is zero. */
  extentOf(page: number): ExtentRun | undefined {
    const place = this.#table.placeOf(page)
    if (place === undefined) return undefined
    const extent = Math.floor(place.locator / EXTENT_PAGES)
    return this.#run(place.slot, extent, extent + 1)
  }

  /** Where a page lies in its extent. */
  placeOf(page: number): number {
    return (this.#table.placeOf(page)?.locator ?? 0) % EXTENT_PAGES
  }

  /** What has not been taken of the extent of a page that is not zero, as far as it is known: that page among them. */
  untakenWith(page: number): number[] {
    const place = this.#table.placeOf(page)
    if (place === undefined) return []
    const extent = Math.floor(place.locator / EXTENT_PAGES)
    if (this.#order !== undefined) return this.untaken(place.slot, extent)
    const segment = this.#table.segmentOf(page)
    const first = page - (page % SEGMENT_PAGES)
    const found: number[] = []
    for (let at = 0; at < Math.min(SEGMENT_PAGES, this.#taken.length - first); at++) {
      if (segment?.slots[at] !== place.slot || this.#taken[first + at] !== 0) continue
      if (Math.floor((segment.locators[at] ?? 0) / EXTENT_PAGES) === extent) found.push(first + at)
    }
    return found
  }

  /** Pages of an extent that have not been taken. Only when all is sorted. */
  untaken(slot: number, extent: number): number[] {
    return [...this.#pagesOf(slot, extent)].filter(page => this.#taken[page] === 0)
  }

  #pagesOf(slot: number, extent: number): Uint32Array {
    if (this.#order === undefined) throw new TypeError('the pages are not sorted yet')
    const { pages, first, base } = this.#order
    const global = (base[slot] ?? 0) + extent
    return pages.subarray(first[global], first[global + 1])
  }

  /** Takes those of `pages` that nobody has taken, and returns them. */
  take(pages: readonly number[]): number[] {
    return pages.filter(page => {
      const free = this.#taken[page] === 0
      this.#taken[page] = 1
      return free
    })
  }

  #hasUntaken(slot: number, extent: number): boolean {
    return this.#pagesOf(slot, extent).some(page => this.#taken[page] === 0)
  }

  /** Runs of extents with pages left, in stream order, each of at most `maxBytes` (one extent at least). Only when all is sorted. */
  *runs(maxBytes: number): Generator<ExtentRun> {
    for (const [slot, stream] of this.#table.streams.entries()) {
      if (stream === undefined) continue
      const starts = this.#startsOf(slot)
      const extents = starts.length - 1
      for (let first = 0; first < extents; ) {
        if (!this.#hasUntaken(slot, first)) {
          first++
          continue
        }
        let end = first + 1
        const limit = (starts[first] ?? 0) + maxBytes
        while (end < extents && (starts[end + 1] ?? 0) <= limit && this.#hasUntaken(slot, end)) end++
        yield this.#run(slot, first, end)
        first = end
      }
    }
  }

  /** The extents of those pages that are not taken when their turn comes, each once, in the order of the pages. */
  *runsOf(pages: Iterable<number>): Generator<ExtentRun> {
    const told = new Set<string>()
    for (const page of pages) {
      const run = this.isTaken(page) ? undefined : this.extentOf(page)
      if (run === undefined || told.has(`${run.slot}:${run.first}`)) continue
      told.add(`${run.slot}:${run.first}`)
      yield run
    }
  }

  /** Takes up to `count` zero pages, lowest first; none are left where it is empty. Only when the table is whole. */
  takeZeros(count: number): number[] {
    const pages: number[] = []
    for (; this.#zeroAt < this.#taken.length && pages.length < count; this.#zeroAt++) {
      if (this.isZero(this.#zeroAt) && !this.isTaken(this.#zeroAt)) pages.push(this.#zeroAt)
    }
    return this.take(pages)
  }

  /** Takes the zero pages among the `count` aligned ones around `page`, a divisor of SEGMENT_PAGES. */
  takeZerosAround(page: number, count: number): number[] {
    const first = page - (page % count)
    const all = Array.from({ length: Math.min(count, this.#taken.length - first) }, (_, i) => first + i)
    return this.take(all.filter(each => this.isZero(each)))
  }

  #run(slot: number, first: number, end: number): ExtentRun {
    const starts = this.#startsOf(slot)
    const offset = starts[first] ?? 0
    return { slot, first, end, offset, length: (starts[end] ?? 0) - offset }
  }

  #startsOf(slot: number): Float64Array {
    return (this.#starts[slot] ??= extentStarts(
      this.#table.streams[slot]?.extentLengths ?? new Uint32Array(0),
      SALT_BYTES
    ))
  }
}
