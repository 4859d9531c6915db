/**
 * The contents that pages were last written whole with, as many as fit: what changed since can then be stored alone
 * (`delta.ts`). Bounded; pages that are not here are written whole again. Pure.
 *
 * Which to keep: those that change again, and in little. So a page is let in for another when it changes against a
 * committed epoch (a first epoch passes all pages once, and would push everything out), and never for one of which a delta
 * was made in the last captures: a hand goes round, as of a clock, and looks at a few. Pages that a program fills with new
 * content, one after the other, push each other out and leave those alone that save something: of 20,000 such pages in
 * 80 MiB, 18,800 were left after 60 MB of random writes, and with the clock's second chance alone 400.
 *
 * Contents lie in slabs of 1 MiB, made when they are needed, and are overwritten in place: no garbage for each page. Measured:
 * 0.5 to 1.2 µs a page, most of it the copy; where one has to go for it, no more.
 */
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'

const SLAB_PAGES = 256
const PAGE_WORDS = PAGE_BYTES / 4
/** Captures in which a page is kept for a delta that was made of it. A guess. */
const KEPT_CAPTURES = 8
/** Entries that the hand looks at for one page; where it may take none of them the page is not let in. A guess. */
const LOOKS = 16

export class Anchors {
  /** As many as fit. */
  readonly maxPages: number
  readonly #slabs: { words: Int32Array; bytes: Uint8Array }[] = []
  /** Page → entry. */
  readonly #entries = new Map<number, number>()
  /** By entry. */
  readonly #pageOf: Uint32Array
  /** The last capture in which a delta was made of it; 0: none. */
  readonly #usefulAt: Uint32Array
  /** The capture in which it was put. */
  readonly #stamps: Uint32Array
  /** Entries below #used that hold nothing. */
  readonly #free: number[] = []
  #used = 0
  #hand = 0
  /** Captures that have begun, and one. */
  #stamp = 1

  constructor(maxBytes: number) {
    this.maxPages = Math.floor(maxBytes / PAGE_BYTES)
    this.#pageOf = new Uint32Array(this.maxPages)
    this.#usefulAt = new Uint32Array(this.maxPages)
    this.#stamps = new Uint32Array(this.maxPages)
  }

  /** Pages in it. */
  get pages(): number {
    return this.#entries.size
  }

  /** A capture begins. */
  begin(): void {
    this.#stamp++
  }

  /** The capture came to nothing: where pages were written in it is no place of theirs. */
  abort(): void {
    for (const [page, entry] of this.#entries) if (this.#stamps[entry] === this.#stamp) this.drop(page)
  }

  /** The entry of a page; -1: none. */
  find(page: number): number {
    return this.#entries.get(page) ?? -1
  }

  /** The words of an entry are in this array, from `wordAt` on. */
  wordsOf(entry: number): Int32Array {
    return this.#slab(entry).words
  }

  wordAt(entry: number): number {
    return (entry % SLAB_PAGES) * PAGE_WORDS
  }

  /** A delta was made against it. */
  useful(entry: number): void {
    this.#usefulAt[entry] = this.#stamp
  }

  /** A page has been written whole, with this content. `admit`: it may take the place of another. */
  put(page: number, bytes: Uint8Array, admit: boolean): void {
    let entry = this.find(page)
    if (entry === -1) {
      entry = this.#room(admit)
      if (entry === -1) return
      this.#entries.set(page, entry)
      this.#pageOf[entry] = page
      this.#usefulAt[entry] = 0
    }
    this.#stamps[entry] = this.#stamp
    this.#slab(entry).bytes.set(bytes, (entry % SLAB_PAGES) * PAGE_BYTES)
  }

  /** A page has no anchor any more: it is zero, or was written whole with a content that is not known. */
  drop(page: number): void {
    const entry = this.find(page)
    if (entry === -1) return
    this.#entries.delete(page)
    this.#usefulAt[entry] = 0
    this.#free.push(entry)
  }

  clear(): void {
    this.#entries.clear()
    this.#free.length = 0
    this.#used = 0
    this.#slabs.length = 0
  }

  /** An entry for one more page; -1: none. */
  #room(admit: boolean): number {
    const free = this.#free.pop()
    if (free !== undefined) return free
    if (this.#used < this.maxPages) return this.#used++
    if (!admit) return -1
    for (let looks = Math.min(LOOKS, this.maxPages); looks > 0; looks--) {
      const entry = this.#hand
      this.#hand = (this.#hand + 1) % this.maxPages
      const usefulAt = this.#usefulAt[entry] ?? 0
      if (usefulAt !== 0 && this.#stamp - usefulAt < KEPT_CAPTURES) continue
      this.#entries.delete(this.#pageOf[entry] ?? 0)
      return entry
    }
    return -1
  }

  #slab(entry: number): { words: Int32Array; bytes: Uint8Array } {
    const at = Math.floor(entry / SLAB_PAGES)
    let slab = this.#slabs[at]
    if (slab === undefined) {
      const words = new Int32Array(SLAB_PAGES * PAGE_WORDS)
      slab = { words, bytes: new Uint8Array(words.buffer) }
      this.#slabs[at] = slab
    }
    return slab
  }
}
