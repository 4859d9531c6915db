/**
 * The disks of a restored image, read block by block while its VM runs already. A block stays where it was until the
 * guest writes it, and then nobody asks here for it any more: so the table of the restored image serves for long, and a newer
 * one serves as well. That is used where the old one fails: its streams may have been given up since, because all that was
 * alive in them was written again.
 */
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import type { BlockExtent } from '../ports.ts'
import type { VmFacts } from './facts.ts'
import { type PageTable, SEGMENT_PAGES } from './page-table.ts'
import { PlaceReader, type ReadStream } from './place-reader.ts'

export interface DiskRange {
  /** In the order of the VM's specification. */
  readonly disk: number
  /** Bytes. */
  readonly offset: number
  readonly length: number
}

export class DiskReader {
  readonly #facts: VmFacts
  readonly #read: ReadStream
  readonly #newest: () => PageTable
  #table: PageTable
  #places: PlaceReader

  /** `newest`: the table of the last committed image. `read` is asked for streams of that one and of `table`. */
  constructor(options: { facts: VmFacts; table: PageTable; read: ReadStream; newest: () => PageTable }) {
    this.#facts = options.facts
    this.#read = options.read
    this.#newest = options.newest
    this.#table = options.table
    this.#places = this.#placesOf(options.table)
  }

  /** RangeError beyond the disk; else as `PlaceReader.contents`. */
  async read(range: DiskRange): Promise<Uint8Array> {
    try {
      return await this.#readIn(this.#places, range)
    } catch (error) {
      const newest = this.#newest()
      if (newest === this.#table) throw error
      this.#table = newest
      this.#places = this.#placesOf(newest)
      return await this.#readIn(this.#places, range)
    }
  }

  /** As `BlockSource.extents`. */
  extents(range: DiskRange, most: number): BlockExtent[] {
    const { first, offset, length } = this.#placed(range)
    const end = offset + length
    const found: { length: number; zero: boolean }[] = []
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / PAGE_BYTES)
      const { zero, count } = this.#runAt(first + block)
      const next = Math.min((block + count) * PAGE_BYTES, end)
      const last = found.at(-1)
      if (last?.zero === zero) last.length += next - at
      else if (found.length === most) break
      else found.push({ length: next - at, zero })
      at = next
    }
    return found
  }

  /** Pages from `page` on that are alike; segments without content are passed at once. */
  #runAt(page: number): { zero: boolean; count: number } {
    if (this.#table.segmentOf(page) === undefined) return { zero: true, count: SEGMENT_PAGES - (page % SEGMENT_PAGES) }
    return { zero: this.#table.placeOf(page) === undefined, count: 1 }
  }

  async #readIn(places: PlaceReader, range: DiskRange): Promise<Uint8Array> {
    const { first, offset, length } = this.#placed(range)
    const block = Math.floor(offset / PAGE_BYTES)
    const count = Math.ceil((offset + length) / PAGE_BYTES) - block
    const blocks = new Uint8Array(count * PAGE_BYTES)
    const pages = Array.from({ length: count }, (_, i) => first + block + i)
    for await (const { page, bytes } of places.contents(pages)) blocks.set(bytes, (page - first - block) * PAGE_BYTES)
    const from = offset - block * PAGE_BYTES
    // Whole memory, where it may be: it is moved to another thread then.
    return length === blocks.length ? blocks : blocks.slice(from, from + length)
  }

  /** With the number of the disk's first block among all pages. */
  #placed({ disk, offset, length }: DiskRange): { first: number; offset: number; length: number } {
    const { disks } = this.#facts
    const blocks = disks[disk]?.blocks ?? 0
    if (!(offset >= 0 && length > 0 && offset + length <= blocks * PAGE_BYTES)) {
      throw new RangeError(`${length} bytes at ${offset} of disk ${disk}, which has ${blocks} blocks`)
    }
    const before = disks.slice(0, disk).reduce((sum, each) => sum + each.blocks, 0)
    return { first: this.#table.ramPages + before, offset, length }
  }

  #placesOf(table: PageTable): PlaceReader {
    return new PlaceReader({ facts: this.#facts, table, read: this.#read })
  }
}
