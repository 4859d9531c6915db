/** A set of page numbers, a bit each; and runs of them, as they are read from a file. Pure. */
import type { PageRanges } from '../ports.ts'

/** `count` pages from `first` on, of which `wanted` are in the set: ascending page numbers. */
export interface PageRun {
  readonly first: number
  readonly count: number
  readonly wanted: readonly number[]
}

export class PageSet {
  readonly pages: number
  readonly #bits: Uint8Array

  constructor(pages: number) {
    this.pages = pages
    this.#bits = new Uint8Array(Math.ceil(pages / 8))
  }

  /** How many are in it. */
  get count(): number {
    let count = 0
    for (let bits of this.#bits) for (; bits !== 0; bits &= bits - 1) count++
    return count
  }

  has(page: number): boolean {
    return ((this.#bits[page >> 3] ?? 0) & (1 << (page & 7))) !== 0
  }

  /** False where it was there. RangeError where there is no such page. */
  add(page: number): boolean {
    if (!(page >= 0 && page < this.pages)) throw new RangeError(`page ${page} of ${this.pages}`)
    if (this.has(page)) return false
    this.#bits[page >> 3] = (this.#bits[page >> 3] ?? 0) | (1 << (page & 7))
    return true
  }

  addRanges(ranges: PageRanges): void {
    for (let i = 0; i + 1 < ranges.length; i += 2) {
      const first = ranges[i] ?? 0
      const end = first + (ranges[i + 1] ?? 0)
      if (end > this.pages) throw new RangeError(`pages to ${end} of ${this.pages}`)
      for (let page = first; page < end; ) {
        if (page % 8 === 0 && end - page >= 8) {
          this.#bits[page >> 3] = 0xff
          page += 8
        } else this.add(page++)
      }
    }
  }

  addAll(other: PageSet): void {
    for (let i = 0; i < this.#bits.length; i++) this.#bits[i] = (this.#bits[i] ?? 0) | (other.#bits[i] ?? 0)
  }

  clear(): void {
    this.#bits.fill(0)
  }

  /**
   * All pages, in ascending runs of at most `maxPages`. Pages not wanted lie in a run where at most `gapPages` of them
   * stand between two that are.
   */
  *runs(maxPages: number, gapPages: number): Generator<PageRun> {
    let wanted: number[] = []
    for (let page = this.#next(0); page < this.pages; page = this.#next(page + 1)) {
      const first = wanted[0]
      const last = wanted.at(-1)
      if (first !== undefined && last !== undefined && (page - last - 1 > gapPages || page - first >= maxPages)) {
        yield { first, count: last - first + 1, wanted }
        wanted = []
      }
      wanted.push(page)
    }
    const first = wanted[0]
    if (first !== undefined) yield { first, count: (wanted.at(-1) ?? first) - first + 1, wanted }
  }

  /** The first page from `from` on that is in the set; `pages` or more where there is none. */
  #next(from: number): number {
    let page = from
    while (page < this.pages) {
      const rest = (this.#bits[page >> 3] ?? 0) >> (page & 7)
      if (rest !== 0) return page + 31 - Math.clz32(rest & -rest)
      page = (page | 7) + 1
    }
    return page
  }
}
