/**
 * Which page has a content: from a content id's first word to page numbers. Where the page's bytes lie says the page table,
 * and whether it still has the content, too: whoever asks compares whole ids there (`holds`), so an entry that is out of
 * date costs a look and never a wrong page. Bounded; where there is no more room an old entry goes. Pure.
 *
 * Buckets of eight entries of 8 bytes, a line of the processor's cache each. It doubles when a bucket overflows and it is
 * half full, up to its bound; then entries of a full bucket are overwritten in turn. 1 GiB of distinct pages takes 4 MiB.
 * Measured among 2^20 pages, in 16 MiB, of which 1.5 % found no room: an addition takes 130 ns, doublings included, a find 80
 * to 100, to remove and add again 150.
 *
 * Other threads may read its memory while it changes (`content-board.ts`): what they find there is a hint as well.
 */

const BUCKET = 8
const ENTRY_BYTES = 8
/** Entries to begin with: 64 KiB. */
const FIRST_ENTRIES = 8192

export class ContentIndex {
  readonly #maxEntries: number
  /** Key and page + 1 of each entry; 0 instead of the page: free. */
  #entries: Uint32Array<SharedArrayBuffer>
  #mask: number
  #count = 0
  #victim = 0

  constructor(maxBytes: number) {
    this.#maxEntries = 2 ** Math.floor(Math.log2(Math.max(maxBytes / ENTRY_BYTES, BUCKET)))
    const entries = Math.min(FIRST_ENTRIES, this.#maxEntries)
    this.#entries = newEntries(entries)
    this.#mask = entries / BUCKET - 1
  }

  /** Its entries, for `findHint`; others as soon as it has grown. */
  get memory(): SharedArrayBuffer {
    return this.#entries.buffer
  }

  get bytes(): number {
    return this.#entries.byteLength
  }

  get pages(): number {
    return this.#count
  }

  /** `key`: 32 bits of the id. A page may be in it under several keys, until it is removed. */
  add(key: number, page: number): void {
    if (this.#insert(key, page, false)) return
    const entries = this.#entries.length / 2
    if (2 * this.#count >= entries && entries < this.#maxEntries) this.#double()
    this.#insert(key, page, true)
  }

  /** As `add`, where that takes nobody's room: of a content that is found already. */
  offer(key: number, page: number): void {
    this.#insert(key, page, false)
  }

  remove(key: number, page: number): void {
    const from = this.#bucketOf(key)
    for (let at = from; at < from + 2 * BUCKET; at += 2) {
      if (this.#entries[at] !== key || this.#entries[at + 1] !== page + 1) continue
      this.#entries[at + 1] = 0
      this.#count--
      return
    }
  }

  /** The first page with that key of which `holds` is true; -1: none. */
  find(key: number, holds: (page: number) => boolean): number {
    return findHint(this.#entries, key, holds)
  }

  clear(): void {
    this.#entries.fill(0)
    this.#count = 0
  }

  #bucketOf(key: number): number {
    return bucketOf(key, this.#mask)
  }

  /** False where its bucket is full and nothing may be overwritten. */
  #insert(key: number, page: number, overwrite: boolean): boolean {
    const from = this.#bucketOf(key)
    let free = -1
    for (let at = from; at < from + 2 * BUCKET; at += 2) {
      const other = this.#entries[at + 1] ?? 0
      if (other === 0) {
        if (free === -1) free = at
      } else if (other === page + 1 && this.#entries[at] === key) return true
    }
    if (free === -1) {
      if (!overwrite) return false
      this.#victim = (this.#victim + 1) % BUCKET
      free = from + 2 * this.#victim
      this.#count--
    }
    this.#entries[free] = key
    this.#entries[free + 1] = page + 1
    this.#count++
    return true
  }

  #double(): void {
    const old = this.#entries
    this.#entries = newEntries(old.length)
    this.#mask = 2 * this.#mask + 1
    this.#count = 0
    for (let at = 0; at < old.length; at += 2) {
      const page = (old[at + 1] ?? 0) - 1
      if (page !== -1) this.#insert(old[at] ?? 0, page, true)
    }
  }
}

/** As `ContentIndex.find`, in the memory of any: a page that it names may be none, or not have had the content for long. */
export function findHint(entries: Uint32Array, key: number, holds: (page: number) => boolean): number {
  const from = bucketOf(key, entries.length / (2 * BUCKET) - 1)
  for (let at = from; at < from + 2 * BUCKET; at += 2) {
    const page = (entries[at + 1] ?? 0) - 1
    if (page !== -1 && entries[at] === key && holds(page)) return page
  }
  return -1
}

const newEntries = (entries: number) => new Uint32Array(new SharedArrayBuffer(entries * ENTRY_BYTES))

/** The upper bits: the lower ones tell entries of a bucket apart. */
const bucketOf = (key: number, mask: number): number => ((key ^ (key >>> 15)) & mask) * 2 * BUCKET
