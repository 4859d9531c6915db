/**
 * Pages of the working set as they are captured: those that are to be written whole are held until the end, and then written one
 * after the other in learned order, so that few reads fetch them. Those that are new in the set lie where they ever were,
 * among others; they are moved, written again though nothing changed, some in each epoch. Pure.
 */
import type { BootExtent, BootPart, BootPlace } from './boot-part.ts'
import { EXTENT_PAGES, extentStarts } from './extents.ts'
import { PageSet } from './page-set.ts'
import type { PageStream, PageTable, Place } from './page-table.ts'
import { SALT_BYTES } from './seal.ts'
import type { WorkingPage } from './working-set.ts'

/** Of an extent's 16 pages, where fewer are in the set, they are read for the sake of few. A guess. */
const NEAR_PAGES = 8
/** Extents that are read although there are few pages of the set in them: 4 MiB at most. A guess. */
const FAR_EXTENTS = 64
/** Moved in one epoch: 8 MiB. A guess. */
const MAX_MOVED = 2048
/**
 * Read first of all (`boot-pages.ts`): in no more runs of extents than this, where gaps of a few extents are none. They are moved
 * together when there are more, some 0.5 MB sealed: each epoch in which the guest changes some of them adds a run or two. Only what
 * was asked for: what was only written is due anyway, as deltas where little of it has changed. Guesses.
 */
const FIRST_PAGES = 256
const FIRST_RUNS = 6
const GAP_EXTENTS = 2

export class WarmPages {
  readonly #order: readonly number[]
  readonly #known: ReadonlySet<number>
  /** Pages that must pass in this capture. */
  readonly moving: PageSet
  /** Copies. */
  readonly #held = new Map<number, Uint8Array>()

  /** `table`: as it is when the capture begins. `set`: in learned order. */
  constructor(table: PageTable, set: readonly WorkingPage[]) {
    this.#order = set.map(({ page }) => page)
    this.#known = new Set(this.#order)
    this.moving = new PageSet(table.ramPages)
    for (const page of scattered(table, set)) this.moving.add(page)
  }

  has(page: number): boolean {
    return this.#known.has(page)
  }

  /** Until `take`, or until it passes again. */
  hold(page: number, bytes: Uint8Array): void {
    this.#held.set(page, new Uint8Array(bytes))
  }

  drop(page: number): void {
    this.#held.delete(page)
  }

  /** What is held, in learned order. */
  *take(): Generator<{ page: number; bytes: Uint8Array }> {
    for (const page of this.#order) {
      const bytes = this.#held.get(page)
      if (bytes !== undefined) yield { page, bytes }
    }
    this.#held.clear()
  }
}

/**
 * Pages of the set whose extents are mostly of others, as many as fill extents: fewer would be moved again and again. All of the first,
 * where they lie in too many places to be read soon.
 */
export function scattered(table: PageTable, set: readonly WorkingPage[]): number[] {
  const asked = set.filter(({ how }) => how === 'asked').map(({ page }) => page)
  const order = set.map(({ page }) => page)
  const far = farPages(table, order).map(({ page }) => page)
  const pages = new Set([...apart(table, asked.slice(0, FIRST_PAGES)), ...far])
  return [...pages].slice(0, Math.min(MAX_MOVED, pages.size - (pages.size % EXTENT_PAGES)))
}

function apart(table: PageTable, first: readonly number[]): number[] {
  const inSlots = new Map<number, Set<number>>()
  for (const place of first.flatMap(page => [table.placeOf(page), table.deltaOf(page)])) {
    if (place === undefined) continue
    const extents = inSlots.get(place.slot) ?? new Set()
    inSlots.set(place.slot, extents.add(Math.floor(place.locator / EXTENT_PAGES)))
  }
  const runs = [...inSlots.values()].map(extents => {
    const order = [...extents].sort((a, b) => a - b)
    return order.filter((extent, i) => extent - (order[i - 1] ?? Number.NEGATIVE_INFINITY) > GAP_EXTENTS).length
  })
  const inAll = runs.reduce((sum, count) => sum + count, 0)
  return inAll > FIRST_RUNS ? first.filter(page => table.placeOf(page) !== undefined) : []
}

const extentName = ({ slot, locator }: Place): string => `${slot} ${Math.floor(locator / EXTENT_PAGES)}`

function farPages(table: PageTable, order: readonly number[]): { page: number; extent: string }[] {
  const counts = new Map<string, number>()
  const places = order.flatMap(page => {
    const place = table.placeOf(page)
    return place === undefined ? [] : [{ page, extent: extentName(place) }]
  })
  for (const { extent } of places) counts.set(extent, (counts.get(extent) ?? 0) + 1)
  return places.filter(({ extent }) => (counts.get(extent) ?? 0) < NEAR_PAGES)
}

/** Pages of the set that are not worth to be read before the VM runs: those of the first far extents are. */
function coldPages(table: PageTable, order: readonly number[]): Set<number> {
  const near = new Set<string>()
  const cold = new Set<number>()
  for (const { page, extent } of farPages(table, order)) {
    if (near.size < FAR_EXTENTS) near.add(extent)
    if (!near.has(extent)) cold.add(page)
  }
  return cold
}

/** Where the pages of a set lie. `streams`: with their slots in `table`, in the order of the manifest. */
export function bootPartOf(
  table: PageTable,
  streams: readonly { readonly slot: number; readonly stream: Pick<PageStream, 'salt' | 'extentLengths'> }[],
  set: readonly WorkingPage[]
): BootPart {
  const ordinals = new Map(streams.map(({ slot }, ordinal) => [slot, ordinal]))
  const starts = new Map<number, Float64Array>()
  const extents: BootExtent[] = []
  const indexes = new Map<string, number>()
  const indexOf = (kind: BootExtent['kind'], { slot, locator }: Place): number => {
    const extent = Math.floor(locator / EXTENT_PAGES)
    const name = extentName({ slot, locator })
    const known = indexes.get(name)
    if (known !== undefined) return known
    const ordinal = ordinals.get(slot) ?? -1
    const { extentLengths = new Uint32Array(0) } = streams[ordinal]?.stream ?? {}
    const begins = starts.get(slot) ?? extentStarts(extentLengths, SALT_BYTES)
    starts.set(slot, begins)
    indexes.set(name, extents.length)
    extents.push({ ordinal, kind, extent, offset: begins[extent] ?? 0, length: extentLengths[extent] ?? 0 })
    return extents.length - 1
  }
  const far = coldPages(
    table,
    set.map(({ page }) => page)
  )
  const pages = set.map((known): BootPlace => {
    const cold = far.has(known.page)
    if (cold) return { ...known, extent: undefined, place: 0, delta: undefined, cold }
    const [place, delta] = [table.placeOf(known.page), table.deltaOf(known.page)]
    return {
      ...known,
      extent: place && indexOf('extent', place),
      place: (place?.locator ?? 0) % EXTENT_PAGES,
      delta: delta && indexOf('delta', delta),
      cold
    }
  })
  return { salts: streams.map(({ stream }) => stream.salt), extents, pages }
}
