/**
 * Pages that changed and whose anchors are in no memory (of a first epoch, before a restore, of a thread that is new): they
 * wait here, a batch at a time, until the anchors have been read back out of their streams, so that only what changed
 * is written. It pays where pages change in little and lie near each other, since an extent of 16 pages is read as a whole.
 * How near they lie is known, and pages that lie alone are not asked for. How much they change is not: so each capture has
 * a credit, earns more with each page that became a delta, and reads no more when it is used up. Whoever waits for a peer that does not answer
 * is given up after a while: what waits is written whole then, as without all this.
 */
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'

/** Pages that wait at most, and with how many a batch is full: the next pages may come until the last batch is through. */
const MAX_PAGES = 1024
const FULL_PAGES = 512
/** Of a first batch: what it is worth is soon known. A guess. */
const FIRST_PAGES = 256
/** Bytes to be read before anything is earned, and credit at most. Guesses: 17 ms of a link of 1 Gb/s, and 130. */
const FIRST_CREDIT_BYTES = 2 << 20
const MAX_CREDIT_BYTES = 16 << 20
/** What a page that became a delta earns: itself, parity, and the work to pack and seal it. A guess. */
const EARNED_BYTES = 2 * PAGE_BYTES
/** A batch that is not read by then is given up, and with it all others. A guess. */
const PATIENCE_MS = 250

/** What those pages were last written whole with that are worth it; `spent` is told of the bytes that were read for it. */
export type ReadAnchors = (
  pages: readonly number[],
  spent: (bytes: number) => void
) => AsyncIterable<{ readonly page: number; readonly bytes: Uint8Array }>

/** A page that waited: its content, and its anchor where that could be read. True: it became a delta. */
export type Settle = (page: number, bytes: Uint8Array, anchor: Uint8Array | undefined) => boolean

class Batch {
  readonly pages = new Map<number, number>()
  #bytes = new Uint8Array(FIRST_PAGES * PAGE_BYTES)
  #used = 0

  get isFull(): boolean {
    return this.#used >= MAX_PAGES
  }

  add(page: number, bytes: Uint8Array): void {
    if ((this.#used + 1) * PAGE_BYTES > this.#bytes.length) {
      const larger = new Uint8Array(MAX_PAGES * PAGE_BYTES)
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    this.#bytes.set(bytes, this.#used * PAGE_BYTES)
    this.pages.set(page, this.#used++)
  }

  /** The content of a page that waits, which then waits no more. */
  take(page: number): Uint8Array | undefined {
    const at = this.pages.get(page)
    if (at === undefined) return undefined
    this.pages.delete(page)
    return this.#bytes.subarray(at * PAGE_BYTES, (at + 1) * PAGE_BYTES)
  }
}

export class Recall {
  readonly #read: ReadAnchors
  readonly #settle: Settle
  #batch = new Batch()
  #reading: { readonly batch: Batch; readonly done: Promise<void> } | undefined
  #credit = FIRST_CREDIT_BYTES
  #limit = FIRST_PAGES
  /** Nothing more is read in this capture. */
  #closed = false

  constructor(read: ReadAnchors, settle: Settle) {
    this.#read = read
    this.#settle = settle
  }

  /** Takes a copy of the page's content, and will settle it; false: the page is not to wait. */
  offer(page: number, bytes: Uint8Array): boolean {
    if (this.#closed || this.#batch.isFull) return false
    this.#batch.add(page, bytes)
    if (this.#batch.pages.size >= this.#limit && this.#reading === undefined) this.#begin()
    return true
  }

  /** The page waits no more: it has passed again. */
  withdraw(page: number): void {
    this.#batch.pages.delete(page)
    this.#reading?.batch.pages.delete(page)
  }

  /** Pending while no more pages should come. */
  congestion(): Promise<void> | undefined {
    return this.#batch.pages.size >= this.#limit ? this.#reading?.done : undefined
  }

  /** Settles all that wait. */
  async drain(): Promise<void> {
    while (this.#reading !== undefined || this.#batch.pages.size > 0) {
      if (this.#reading === undefined) this.#begin()
      await this.#reading?.done
    }
  }

  /** Nothing is settled any more. */
  cancel(): void {
    this.#closed = true
    this.#batch.pages.clear()
    this.#reading?.batch.pages.clear()
  }

  #begin(): void {
    const batch = this.#batch
    this.#batch = new Batch()
    const done = this.#run(batch).finally(() => {
      this.#reading = undefined
      if (this.#batch.pages.size >= this.#limit) this.#begin()
    })
    done.catch(() => {}) // whoever waits for it is told
    this.#reading = { batch, done }
  }

  async #run(batch: Batch): Promise<void> {
    if (!this.#closed) {
      const late = Promise.withResolvers<void>()
      const timer = setTimeout(late.resolve, PATIENCE_MS)
      try {
        await Promise.race([this.#recall(batch), late.promise.then(() => Promise.reject(new Error('late')))])
      } catch {
        this.#closed = true // the pages are written whole: nothing is lost but room
      } finally {
        clearTimeout(timer)
      }
    }
    for (const page of batch.pages.keys()) this.#settleOne(batch, page, undefined)
  }

  async #recall(batch: Batch): Promise<void> {
    const before = this.#credit
    const pages = [...batch.pages.keys()]
    for await (const { page, bytes } of this.#read(pages, this.#spend)) this.#settleOne(batch, page, bytes)
    if (this.#credit <= 0) this.#closed = true
    if (this.#credit > before) this.#limit = Math.min(FULL_PAGES, 2 * this.#limit)
  }

  readonly #spend = (bytes: number): void => {
    this.#credit -= bytes
  }

  #settleOne(batch: Batch, page: number, anchor: Uint8Array | undefined): void {
    const bytes = batch.take(page)
    if (bytes === undefined || !this.#settle(page, bytes, anchor)) return
    this.#credit = Math.min(MAX_CREDIT_BYTES, this.#credit + EARNED_BYTES)
  }
}
