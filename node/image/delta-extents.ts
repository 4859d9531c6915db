/**
 * Deltas in the streams of an image: extents of their own kind among those of pages, and numbered with them. The page table has,
 * for a page with a delta, the extent that holds it; within one the last delta of a page counts. A restore reads all that
 * are live before it pushes pages, and of a page that is asked for before, its own; how much they are unpacked is bounded.
 */
import { DiapauseError } from '../errors.ts'
import { MAX_DELTA_BYTES } from './delta-bounds.ts'
import { applyDelta, DELTA_EXTENT_BYTES, type PageDelta, readDeltas } from './delta.ts'
import { EXTENT_PAGES, extentStarts } from './extents.ts'
import { sealOf, type VmFacts } from './facts.ts'
import { unpackBest } from './packing.ts'
import { type PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import { SALT_BYTES, type StreamSeal } from './seal.ts'

/** Reads under way at most, and one read: as in `place-reader.ts`. Guesses. */
const READS_AHEAD = 6
const READ_BYTES = 512 << 10
const GAP_BYTES = 32 << 10

interface DeltaRun {
  readonly slot: number
  readonly extents: number[]
  readonly offset: number
  length: number
}

export class LiveDeltas {
  readonly #deltas: ReadonlyMap<number, PageDelta>
  /** Slot → unpacked bytes of its delta extents that are live. */
  readonly bytes: ReadonlyMap<number, number>

  private constructor(deltas: ReadonlyMap<number, PageDelta>, bytes: ReadonlyMap<number, number>) {
    this.#deltas = deltas
    this.bytes = bytes
  }

  /** All deltas of `table`, or those of some pages. IMAGE_SEAL, IMAGE_INVALID, and what `read` rejects with. */
  static async read(options: {
    facts: VmFacts
    table: PageTable
    read: ReadStream
    pages?: Iterable<number>
  }): Promise<LiveDeltas> {
    const { facts, table, read, pages: some } = options
    const wanted = wantedDeltas(some === undefined ? pagesWithDeltas(table) : some, table)
    const [deltas, bytes] = [new Map<number, PageDelta>(), new Map<number, number>()]
    let total = 0
    const take = (run: DeltaRun, sealed: Uint8Array): void => {
      const stream = table.streams[run.slot]
      if (stream === undefined) return
      const seal = sealOf(facts, stream)
      const starts = extentStarts(stream.extentLengths, SALT_BYTES)
      for (const extent of run.extents) {
        const at = (starts[extent] ?? 0) - run.offset
        const raw = openDeltas(seal, extent, sealed.subarray(at, at + (stream.extentLengths[extent] ?? 0)))
        total += raw.length
        if (total > MAX_DELTA_BYTES) throw invalid('its deltas are too large')
        bytes.set(run.slot, (bytes.get(run.slot) ?? 0) + raw.length)
        const pages = wanted.get(run.slot)?.get(extent)
        for (const delta of readDeltas(raw, table.pages)) if (pages?.has(delta.page)) deltas.set(delta.page, delta)
      }
    }
    const runs = runsOf(table, wanted)
    const next = async (): Promise<void> => {
      for (let run = runs.pop(); run !== undefined; run = runs.pop()) {
        const id = table.streams[run.slot]?.manifest.stream
        if (id === undefined) throw invalid(`it has no stream ${run.slot}`)
        take(run, await read(id, run.offset, run.length))
      }
    }
    await Promise.all(Array.from({ length: READS_AHEAD }, next))
    for (const extents of wanted.values()) {
      for (const pages of extents.values()) {
        for (const page of pages) if (!deltas.has(page)) throw invalid(`page ${page} has no delta where it should`)
      }
    }
    return new LiveDeltas(deltas, bytes)
  }

  /** The content of a page, where `anchor` lies at its place: itself, or in memory of its own. */
  contentOf(page: number, anchor: Uint8Array): Uint8Array {
    const delta = this.#deltas.get(page)
    return delta === undefined ? anchor : applyDelta(delta, anchor)
  }
}

/** The plain text of a delta extent, for `readDeltas`. IMAGE_SEAL, IMAGE_INVALID. */
export const openDeltas = (seal: StreamSeal, extent: number, sealed: Uint8Array): Uint8Array =>
  unpackBest(seal.open('delta', extent, sealed), DELTA_EXTENT_BYTES)

function* pagesWithDeltas(table: PageTable): Generator<number> {
  for (const [number, segment] of table.segments.entries()) {
    if (segment?.deltas === undefined) continue
    const { slots } = segment.deltas
    for (let at = 0; at < SEGMENT_PAGES; at++) if (slots[at] !== ZERO_SLOT) yield number * SEGMENT_PAGES + at
  }
}

/** Slot → extent → those of `pages` whose deltas are there. */
function wantedDeltas(pages: Iterable<number>, table: PageTable): Map<number, Map<number, Set<number>>> {
  const wanted = new Map<number, Map<number, Set<number>>>()
  for (const page of pages) {
    const place = table.deltaOf(page)
    if (place === undefined) continue
    const extent = Math.floor(place.locator / EXTENT_PAGES)
    const extents = wanted.get(place.slot) ?? new Map<number, Set<number>>()
    wanted.set(place.slot, extents)
    const inside = extents.get(extent) ?? new Set<number>()
    extents.set(extent, inside.add(page))
  }
  return wanted
}

function runsOf(table: PageTable, wanted: ReadonlyMap<number, ReadonlyMap<number, unknown>>): DeltaRun[] {
  const runs: DeltaRun[] = []
  for (const [slot, extents] of wanted) {
    const starts = extentStarts(table.streams[slot]?.extentLengths ?? new Uint32Array(0), SALT_BYTES)
    let run: DeltaRun | undefined
    for (const extent of [...extents.keys()].sort((a, b) => a - b)) {
      const [start, end] = [starts[extent] ?? 0, starts[extent + 1] ?? 0]
      if (run === undefined || start - run.offset - run.length > GAP_BYTES || end - run.offset > READ_BYTES) {
        run = { slot, extents: [], offset: start, length: 0 }
        runs.push(run)
      }
      run.extents.push(extent)
      run.length = end - run.offset
    }
  }
  return runs
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the image is not valid: ${what}; restore another epoch`)
