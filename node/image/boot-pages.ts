/**
 * The contents of an image's working set, read by its boot part in learned order, extents that lie end to end together, before
 * anything is known of the page table. A VM waits for the first of them. When the table has come the two are compared: a page that was sent cannot be taken back, so a VM
 * whose image contradicts itself must end.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import type { BootExtent, BootPart, BootPlace, DecodedBootPart } from './boot-part.ts'
import { applyDelta, type PageDelta, readDeltas } from './delta.ts'
import { openDeltas } from './delta-extents.ts'
import { EXTENT_PAGES, openExtent } from './extents.ts'
import { blocksOf, sealOf, type VmFacts } from './facts.ts'
import { PAGES_PER_MIB, type PageTable, type Place, type StreamFacts } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import type { RestoredPage } from './restored-pages.ts'
import type { StreamSeal } from './seal.ts'

/** Read in vain rather than read once more. A guess. */
const GAP_BYTES = 64 << 10
/** One read at most, of what begins so far into what is asked for: what is wanted first comes soon, and the rest in few reads. Guesses. */
const READS = [
  { from: 0, most: 64 << 10 },
  { from: 256 << 10, most: 256 << 10 },
  { from: 1 << 20, most: 512 << 10 }
] as const
/** Reads under way at most. A guess, as at the push. */
const READS_AHEAD = 6
/** Extents opened between two turns of the event loop: 2 ms, since the VM may run and wait for a page. */
const OPENED_AT_ONCE = 16
/**
 * What the VM waits for: sealed bytes of what it touches at once. The rest is read while the VM runs, mostly before it is touched; while
 * QEMU starts, it would take the processor from that. 128 KiB: measured (256 MiB, two cores, TCG), the VM runs 100 ms
 * sooner than with 2 MiB, and asks for as few pages then (19 and 18; 277 without a working set).
 */
const FIRST_BYTES = 128 << 10
/** Of which no more are looked at than this: some are zero. A guess. */
const FIRST_PAGES = 1024

/** `bytes` and `anchor` are undefined where the page is zero. */
export type BootPage = RestoredPage | { readonly page: number; readonly bytes: undefined }

interface Source {
  readonly facts: VmFacts
  readonly streams: readonly StreamFacts[]
  readonly part: BootPart & Partial<Pick<DecodedBootPart, 'first'>>
  readonly read: ReadStream
  /** Sealed bytes that the VM waits for; FIRST_BYTES unless a test wants less. */
  readonly firstBytes?: number | undefined
}

interface Run {
  readonly ordinal: number
  readonly offset: number
  end: number
  readonly indexes: number[]
}

export class BootPages {
  readonly part: BootPart
  /** Resolves when what the VM touches at once is there. IMAGE_SEAL, IMAGE_INVALID, and what `read` rejects with. */
  readonly first: Promise<void>
  /** Sealed, of all reads so far. */
  bytes = 0
  readonly #source: Source
  readonly #seals = new Map<number, StreamSeal>()
  readonly #raws: Uint8Array[] = []
  readonly #deltas: ReadonlyMap<number, PageDelta>[] = []
  /** Index of an extent that is read → pages that need it. */
  readonly #waiting = new Map<number, BootPlace[]>()
  /** Page → extents that it lacks, and which it needs. */
  readonly #lacks = new Map<number, number>()
  readonly #needs = new Map<number, readonly number[]>()
  /** Index of an extent whose read has not begun → that read. */
  readonly #unread = new Map<number, Run>()
  /** Those that the VM waits for, while they are not there. */
  readonly #early: Set<number>
  readonly #firstReady = Promise.withResolvers<void>()
  #ready: BootPage[] = []
  /** Asked for and not there. */
  #left = 0
  /** All has been asked for. */
  #restAsked = false
  #news = Promise.withResolvers<void>()
  /** Of the last read; one is opened after the other, so that turns are as short as one makes them. */
  #opened = Promise.resolve()
  #failure: Error | undefined

  /** Begins to read what the VM touches at once. */
  constructor(source: Source) {
    const { part, firstBytes = FIRST_BYTES } = source
    this.#source = source
    this.part = part
    this.first = this.#firstReady.promise
    for (const promise of [this.first, this.#news.promise]) promise.catch(() => {}) // told to whoever waits
    const known = part.first?.(FIRST_PAGES) ?? part.pages
    const first = firstPages(part, known.filter(isWarm), firstBytes)
    this.#early = new Set(first.map(({ page }) => page))
    if (first.length === 0) this.#firstReady.resolve()
    this.#ask(first)
  }

  /** Reads no more: whoever waits is told. The first failure is the one that tells. */
  stop(error: Error): void {
    this.#failure ??= error
    this.#firstReady.reject(this.#failure)
    this.#news.reject(this.#failure)
  }

  /** Pages that are there and were not taken. */
  take(): BootPage[] {
    const ready = this.#ready
    this.#ready = []
    return ready
  }

  /** Resolves when there is something to take; false: all was taken. As `first`. The first call has the rest read. */
  async more(): Promise<boolean> {
    if (!this.#restAsked) {
      this.#restAsked = true
      this.#ask(this.part.pages.filter(place => isWarm(place) && !this.#lacks.has(place.page)))
    }
    while (this.#ready.length === 0) {
      if (this.#failure !== undefined) throw this.#failure
      if (this.#left === 0) return false
      await this.#news.promise
    }
    return true
  }

  /** These pages are wanted, in this order. */
  #ask(pages: readonly BootPlace[]): void {
    this.#left += pages.length
    const turns = new Map<number, number>()
    for (const place of pages) {
      const needs = [place.extent, place.delta]
        .filter(index => index !== undefined)
        .filter(index => !this.#isOpen(index))
      this.#needs.set(place.page, needs)
      for (const index of needs) {
        const waiting = this.#waiting.get(index)
        if (waiting === undefined) turns.set(index, turns.size)
        this.#waiting.set(index, waiting ?? [])
        this.#waiting.get(index)?.push(place)
      }
      this.#lacks.set(place.page, needs.length)
      if (needs.length === 0) this.#isThere(place)
    }
    const runs = portionsOf(this.part.extents, turns).flatMap(each => runsOf(this.part.extents, each.turns, each.most))
    for (const run of runs) for (const index of run.indexes) this.#unread.set(index, run)
    this.#readAll(runs).catch((error: Error) => this.stop(error))
  }

  /** The VM waits for that page: false where it is not of the set, or has been made already. It is read by itself, where it is not being read. */
  hurry(page: number): boolean {
    const place = this.#failure === undefined ? this.#lacks.get(page) : undefined
    if (place === undefined) return false
    for (const index of this.#needs.get(page) ?? []) {
      const run = this.#unread.get(index)
      const { ordinal = 0, offset = 0, length = 0 } = this.part.extents[index] ?? {}
      if (run === undefined) continue
      run.indexes.splice(run.indexes.indexOf(index), 1)
      this.#readAll([{ ordinal, offset, end: offset + length, indexes: [index] }]).catch((error: Error) =>
        this.stop(error)
      )
    }
    return true
  }

  #isOpen(index: number): boolean {
    return this.#raws[index] !== undefined || this.#deltas[index] !== undefined
  }

  async #readAll(runs: Run[]): Promise<void> {
    const left = runs.values()
    const next = async (): Promise<void> => {
      for (const { ordinal, offset, end, indexes } of left) {
        if (indexes.length === 0) continue // all were wanted sooner
        this.#goesOn()
        this.bytes += end - offset
        for (const index of indexes) this.#unread.delete(index)
        const bytes = await this.#source.read(this.#source.streams[ordinal]?.stream ?? '', offset, end - offset)
        this.#opened = this.#opened.then(() => this.#openAll(indexes, bytes, offset))
        await this.#opened
      }
    }
    await Promise.all(Array.from({ length: READS_AHEAD }, next))
    this.#tell()
  }

  async #openAll(indexes: readonly number[], bytes: Uint8Array, offset: number): Promise<void> {
    for (let at = 0; at < indexes.length; at += OPENED_AT_ONCE) {
      this.#goesOn()
      for (const index of indexes.slice(at, at + OPENED_AT_ONCE)) this.#open(index, bytes, offset)
      this.#tell()
      await nextTurn()
    }
  }

  #goesOn(): void {
    if (this.#failure !== undefined) throw this.#failure
  }

  #tell(): void {
    this.#news.resolve()
    this.#news = Promise.withResolvers()
    this.#news.promise.catch(() => {}) // told to whoever waits
  }

  /** An extent of the bytes that were read from `offset` on. */
  #open(index: number, bytes: Uint8Array, offset: number): void {
    const { facts, streams, part } = this.#source
    const found = part.extents[index]
    const [manifest, salt] = [streams[found?.ordinal ?? -1], part.salts[found?.ordinal ?? -1]]
    if (found === undefined || manifest === undefined || salt === undefined)
      throw invalid('an extent lies in no stream')
    const seal = this.#seals.get(found.ordinal) ?? sealOf(facts, { manifest, salt })
    this.#seals.set(found.ordinal, seal)
    const sealed = bytes.subarray(found.offset - offset, found.offset - offset + found.length)
    if (found.kind === 'extent') this.#raws[index] = openExtent(seal, found.extent, sealed)
    else {
      const pagesOfAll = facts.memoryMiB * PAGES_PER_MIB + blocksOf(facts)
      const all = readDeltas(openDeltas(seal, found.extent, sealed), pagesOfAll)
      this.#deltas[index] = new Map(all.map(each => [each.page, each]))
    }
    for (const place of this.#waiting.get(index) ?? []) {
      const lacks = (this.#lacks.get(place.page) ?? 0) - 1
      this.#lacks.set(place.page, lacks)
      if (lacks === 0) this.#isThere(place)
    }
    this.#waiting.delete(index)
  }

  #isThere(place: BootPlace): void {
    this.#ready.push(this.#contentOf(place))
    this.#left--
    if (this.#left === 0 && this.#restAsked) this.#raws.length = this.#deltas.length = 0 // up to 68 MiB
    if (this.#early.delete(place.page) && this.#early.size === 0) this.#firstReady.resolve()
  }

  #contentOf({ page, extent, place, delta }: BootPlace): BootPage {
    if (extent === undefined) return { page, bytes: undefined }
    const anchor = this.#raws[extent]?.subarray(place * PAGE_BYTES, (place + 1) * PAGE_BYTES)
    if (anchor?.length !== PAGE_BYTES) throw invalid(`an extent lacks page ${page}`)
    if (delta === undefined) return { page, anchor, bytes: anchor }
    const found = this.#deltas[delta]?.get(page)
    if (found === undefined) throw invalid(`page ${page} has no delta where it should`)
    return { page, anchor, bytes: applyDelta(found, anchor) }
  }
}

const isWarm = ({ cold }: BootPlace): boolean => !cold

/** Those that a VM waits for, in learned order. */
function firstPages({ extents }: BootPart, pages: readonly BootPlace[], most: number): readonly BootPlace[] {
  const counted = new Set<number>()
  let bytes = 0
  for (const [i, { extent, delta }] of pages.entries()) {
    for (const index of [extent, delta]) {
      if (index === undefined || counted.has(index)) continue
      counted.add(index)
      bytes += extents[index]?.length ?? 0
    }
    if (bytes > most) return pages.slice(0, i)
  }
  return pages
}

/** As they are to be read. `turns`: index of an extent → its turn, ascending. */
function portionsOf(extents: readonly BootExtent[], turns: ReadonlyMap<number, number>) {
  const portions = READS.map(each => ({ ...each, turns: new Map<number, number>() }))
  let bytes = 0
  for (const [index, turn] of turns) {
    portions.findLast(({ from }) => bytes >= from)?.turns.set(index, turn)
    bytes += extents[index]?.length ?? 0
  }
  return portions
}

/** In the order of what is wanted first, none longer than `most`, but for one extent. */
function runsOf(extents: readonly BootExtent[], turns: ReadonlyMap<number, number>, most: number): Run[] {
  const runs: Run[] = []
  const order = [...extents.entries()]
    .filter(([index]) => turns.has(index))
    .sort(([, a], [, b]) => a.ordinal - b.ordinal || a.offset - b.offset)
  for (const [index, { ordinal, offset, length }] of order) {
    const last = runs.at(-1)
    const end = offset + length
    if (last?.ordinal === ordinal && offset - last.end <= GAP_BYTES && end - last.offset <= most) {
      last.end = Math.max(last.end, end)
      last.indexes.push(index)
    } else runs.push({ ordinal, offset, end, indexes: [index] })
  }
  const turnOf = ({ indexes }: Run): number => Math.min(...indexes.map(index => turns.get(index) ?? 0))
  return runs.sort((a, b) => turnOf(a) - turnOf(b))
}

/** IMAGE_INVALID where a page that was sent lies elsewhere by the page table, which is whole. */
export function compareWithTable(
  { extents, pages }: BootPart,
  table: PageTable,
  streams: readonly StreamFacts[]
): void {
  const same = (index: number | undefined, place: number | undefined, found: Place | undefined): boolean => {
    if (index === undefined || found === undefined) return index === undefined && found === undefined
    const extent = extents[index]
    return (
      extent !== undefined &&
      table.streams[found.slot]?.manifest.stream === streams[extent.ordinal]?.stream &&
      Math.floor(found.locator / EXTENT_PAGES) === extent.extent &&
      (place === undefined || found.locator % EXTENT_PAGES === place)
    )
  }
  for (const { page, extent, place, delta, cold } of pages) {
    if (cold) continue
    if (!same(extent, place, table.placeOf(page)) || !same(delta, undefined, table.deltaOf(page))) {
      throw invalid(`page ${page} lies elsewhere than its page table says`)
    }
  }
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the boot part of the image is not valid: ${what}; restore another epoch`)
