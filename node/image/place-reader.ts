/**
 * Reads pages and blocks of an image out of its streams, by the table that knows their places. Extents that lie near each
 * other are read at once, and the last ones stay open in memory, since whoever reads a block wants its neighbours next.
 */
import { DiapauseError } from '../errors.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import type { StreamId } from '../ports.ts'
import { LiveDeltas } from './delta-extents.ts'
import { EXTENT_PAGES, extentStarts, openExtent } from './extents.ts'
import { type VmFacts, sealOf } from './facts.ts'
import type { PageStream, PageTable } from './page-table.ts'
import { SALT_BYTES, type StreamSeal } from './seal.ts'

/** Bytes [offset, offset + length) of a stream of the image. */
export type ReadStream = (stream: StreamId, offset: number, length: number) => Promise<Uint8Array>

/** One read at most, and how many bytes are read in vain rather than read once more. Guesses. */
const READ_BYTES = 512 << 10
const GAP_BYTES = 32 << 10
/** Reads under way at most. A guess, as at a restore (`postcopy-source.ts`). */
const READS_AHEAD = 6
/** Open extents kept: 2 MiB. A guess. */
const CACHED_EXTENTS = 32

interface Wanted {
  readonly page: number
  readonly extent: number
  /** Within its extent. */
  readonly place: number
}

/** Wanted pages of one stream whose extents are read at once: bytes [offset, offset + length). */
interface Run {
  readonly source: Source
  readonly offset: number
  length: number
  readonly wanted: Wanted[]
}

/** A stream that is read from. */
interface Source {
  readonly stream: PageStream
  readonly seal: StreamSeal
  readonly starts: Float64Array
  readonly cache: Map<number, Uint8Array>
}

export class PlaceReader {
  readonly #facts: VmFacts
  readonly #table: PageTable
  readonly #read: ReadStream
  readonly #sources = new Map<number, Source>()
  #cached = 0
  /** All of the table, read when a page with one is asked for. */
  #deltas: Promise<LiveDeltas> | undefined

  constructor(options: { facts: VmFacts; table: PageTable; read: ReadStream }) {
    this.#facts = options.facts
    this.#table = options.table
    this.#read = options.read
  }

  /**
   * The contents of `pages`, but of those that are zero, in the order of their places. Bytes are a view, to be used before
   * the next is asked for. IMAGE_SEAL, IMAGE_INVALID, and what `read` rejects with.
   */
  async *contents(pages: Iterable<number>): AsyncGenerator<{ page: number; bytes: Uint8Array }> {
    for await (const { page, bytes } of this.wholes(pages)) yield { page, bytes: await this.#contentOf(page, bytes) }
  }

  /** As `contents`, of what the pages were last written whole with. */
  async *wholes(pages: Iterable<number>): AsyncGenerator<{ page: number; bytes: Uint8Array }> {
    const runs = this.#runsOf(pages)
    const ahead: { run: Run; extents: Promise<Map<number, Uint8Array>> }[] = []
    for (let next = 0; next < runs.length || ahead.length > 0; ) {
      for (; ahead.length < READS_AHEAD && next < runs.length; next++) {
        const run = runs[next]
        if (run === undefined) break
        const extents = this.#open(run)
        extents.catch(() => {}) // told when it is its turn
        ahead.push({ run, extents })
      }
      const first = ahead.shift()
      if (first === undefined) return
      const extents = await first.extents
      for (const { page, extent, place } of first.run.wanted) {
        const bytes = extents.get(extent)?.subarray(place * PAGE_BYTES, (place + 1) * PAGE_BYTES)
        if (bytes?.length !== PAGE_BYTES)
          throw new DiapauseError('IMAGE_INVALID', `extent ${extent} lacks page ${page}`)
        yield { page, bytes }
      }
    }
  }

  /** Those of `pages` that lie with at least `least` of them in one extent. */
  near(pages: readonly number[], least: number): number[] {
    const extentOf = (page: number): string => {
      const at = this.#table.placeOf(page)
      return at === undefined ? '' : `${at.slot} ${Math.floor(at.locator / EXTENT_PAGES)}`
    }
    const extents = pages.map(extentOf)
    const counts = new Map<string, number>()
    for (const extent of extents) counts.set(extent, (counts.get(extent) ?? 0) + 1)
    return pages.filter((_, i) => (counts.get(extents[i] ?? '') ?? 0) >= least)
  }

  #contentOf(page: number, bytes: Uint8Array): Uint8Array | Promise<Uint8Array> {
    if (this.#table.deltaOf(page) === undefined) return bytes
    this.#deltas ??= LiveDeltas.read({ facts: this.#facts, table: this.#table, read: this.#read }).catch(error => {
      this.#deltas = undefined // what cannot be read now may be later
      throw error
    })
    return this.#deltas.then(deltas => deltas.contentOf(page, bytes))
  }

  /** By stream and place, so that each extent is read once. */
  #runsOf(pages: Iterable<number>): Run[] {
    const bySlot = new Map<number, Wanted[]>()
    for (const page of pages) {
      const at = this.#table.placeOf(page)
      if (at === undefined) continue
      const wanted = { page, extent: Math.floor(at.locator / EXTENT_PAGES), place: at.locator % EXTENT_PAGES }
      const list = bySlot.get(at.slot)
      if (list === undefined) bySlot.set(at.slot, [wanted])
      else list.push(wanted)
    }
    const runs: Run[] = []
    for (const [slot, list] of bySlot) {
      const source = this.#sourceOf(slot)
      let run: Run | undefined
      for (const wanted of list.sort((a, b) => a.extent - b.extent || a.place - b.place)) {
        const start = source.starts[wanted.extent] ?? 0
        const end = source.starts[wanted.extent + 1] ?? start
        const near = run !== undefined && start - run.offset - run.length <= GAP_BYTES
        if (run === undefined || !near || end - run.offset > READ_BYTES) {
          run = { source, offset: start, length: 0, wanted: [] }
          runs.push(run)
        }
        run.length = end - run.offset
        run.wanted.push(wanted)
      }
    }
    return runs
  }

  /** Extents by number, those that are wanted. */
  async #open({ source, offset, length, wanted }: Run): Promise<Map<number, Uint8Array>> {
    const { stream, seal, starts, cache } = source
    const open = new Map<number, Uint8Array>()
    const numbers = new Set(wanted.map(({ extent }) => extent))
    for (const extent of numbers) {
      const known = cache.get(extent)
      if (known !== undefined) open.set(extent, known)
    }
    if (open.size === numbers.size) return open
    const bytes = await this.#read(stream.manifest.stream, offset, length)
    for (const extent of numbers) {
      if (open.has(extent)) continue
      const at = (starts[extent] ?? 0) - offset
      const raw = openExtent(seal, extent, bytes.subarray(at, at + (stream.extentLengths[extent] ?? 0)))
      open.set(extent, raw)
      this.#keep(cache, extent, raw)
    }
    return open
  }

  #keep(cache: Map<number, Uint8Array>, extent: number, raw: Uint8Array): void {
    if (this.#cached >= CACHED_EXTENTS) {
      for (const source of this.#sources.values()) source.cache.clear()
      this.#cached = 0
    }
    cache.set(extent, raw)
    this.#cached++
  }

  #sourceOf(slot: number): Source {
    const known = this.#sources.get(slot)
    if (known !== undefined) return known
    const stream = this.#table.streams[slot]
    if (stream === undefined) throw new DiapauseError('IMAGE_INVALID', `the image has no stream ${slot}`)
    const starts = extentStarts(stream.extentLengths, SALT_BYTES)
    const source = { stream, seal: sealOf(this.#facts, stream), starts, cache: new Map<number, Uint8Array>() }
    this.#sources.set(slot, source)
    return source
  }
}
