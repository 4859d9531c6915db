/**
 * Which pages a VM writes right after a cut, as the stream of a background snapshot shows it: QEMU goes through RAM from its
 * begin to its end, but sends a page at once that the VM wants to write. So a page that comes before its turn was written, and they
 * come in the order in which they were. Pure.
 */
import { PageSet } from './page-set.ts'
import { MAX_WORKING_PAGES } from './working-set.ts'

export class WriteOrder {
  readonly #pages: number
  readonly #seen: PageSet
  /** All before it have come. */
  #next = 0
  readonly #written: number[] = []

  constructor(pages: number) {
    this.#pages = pages
    this.#seen = new PageSet(pages)
  }

  /** A page of RAM has come. */
  pass(page: number): void {
    while (this.#next < this.#pages && this.#seen.has(this.#next)) this.#next++
    if (page > this.#next && !this.#seen.has(page) && this.#written.length < MAX_WORKING_PAGES) this.#written.push(page)
    this.#seen.add(page)
  }

  get written(): readonly number[] {
    return this.#written
  }
}
