/**
 * What is known of every page of a VM's RAM: a hash of its content, and where its bytes lie. There are two tables: the
 * committed one belongs to the last committed epoch, the candidate to the epoch being captured. A capture starts from a
 * copy of the committed table and changes it as pages pass; `commit` makes it the committed one, `abort` drops it. Pure.
 *
 * A page is zero, or lies in a stream at a locator (`extents.ts`). A page whose hash equals the one in the table stays
 * where it is, however old that stream; so an image leans on several streams, and two things bound that. At most
 * MAX_STREAMS streams: before a capture the streams with the fewest live pages beyond that are retired, that is, their
 * live pages are written again as they pass. And a stream that is mostly dead (below a quarter live) is retired as
 * well, so that an image never keeps more than about four times its own size alive. Retiring the one with the *fewest*
 * pages, rather than the oldest, leaves the large first stream alone for as long as it is worth it.
 *
 * And an image is as safe as its weakest stream: one that was written while peers were away, or whose holders have gone
 * since, is retired as soon as the holders of the new stream bear more losses than its own.
 */
import { DiapauseError } from '../errors.ts'
import type { StreamManifest } from '../ports.ts'
import { PageSet } from './page-set.ts'

/** Streams of an image, the present one included. 8: a guess between bytes rewritten and peers asked at a restore. */
export const MAX_STREAMS = 8
const DEAD_BELOW = 0.25

export const PAGES_PER_MIB = 256

/** Slot of a zero page. */
export const ZERO_SLOT = 0xff

/** A stream that pages lie in. */
export interface PageStream {
  readonly manifest: StreamManifest
  readonly salt: Uint8Array
  /** Sealed bytes of each extent. */
  readonly extentLengths: Uint32Array
  /** Pages written to it, live or not. */
  readonly pages: number
}

/** Columns by page number. */
export interface PageTable {
  /** First 16 bytes of SHA-256 as four words; all zero where the content is not known. */
  readonly hashes: Uint32Array
  /** Index into `streams`, or ZERO_SLOT. */
  readonly slots: Uint8Array
  readonly locators: Uint32Array
  /** Undefined: a free slot. */
  streams: (PageStream | undefined)[]
}

export interface PageCounts {
  readonly nonZero: number
  /** Became another content, zero included, for a while at least. */
  readonly changed: number
  /** Times that a page was written to this epoch's stream: as it changed, or out of a stream that was retired. */
  readonly written: number
}

export function emptyTable(pages: number): PageTable {
  const slots = new Uint8Array(pages).fill(ZERO_SLOT)
  return { hashes: new Uint32Array(4 * pages), slots, locators: new Uint32Array(pages), streams: [] }
}

/**
 * Which streams to retire so that, with one more, at most `max` remain: the mostly dead, then those with fewest live
 * pages (the older where equal). Streams without live pages are not asked about: they go by themselves.
 */
export function streamsToRetire(streams: readonly { live: number; pages: number }[], max = MAX_STREAMS): number[] {
  const live = streams.map((stream, index) => ({ ...stream, index })).filter(stream => stream.live > 0)
  const dead = live.filter(stream => stream.live < DEAD_BELOW * stream.pages)
  const rest = live.filter(stream => !dead.includes(stream)).sort((a, b) => a.live - b.live || a.index - b.index)
  const surplus = rest.slice(0, Math.max(0, rest.length - (max - 1)))
  return [...dead, ...surplus].map(stream => stream.index).sort((a, b) => a - b)
}

/**
 * How many more of the peers in `alive` may be lost, whichever, until fewer than k of a stream's columns are left; columns
 * at other peers count as lost already. Below 0: it cannot be read now.
 */
export function toleratedLosses(holders: readonly string[], m: number, alive: readonly string[]): number {
  const columns = new Map(alive.map(peer => [peer, 0]))
  let left = m
  for (const holder of holders) {
    const count = columns.get(holder)
    if (count === undefined) left--
    else columns.set(holder, count + 1)
  }
  let tolerated = left < 0 ? -1 : 0
  for (const count of [...columns.values()].filter(each => each > 0).sort((a, b) => b - a)) {
    left -= count
    if (left < 0) break
    tolerated++
  }
  return tolerated
}

/** Live pages of each slot. */
export function livePages(table: PageTable): number[] {
  const counts = new Array<number>(256).fill(0)
  for (const slot of table.slots) counts[slot] = (counts[slot] ?? 0) + 1
  return counts.slice(0, table.streams.length)
}

interface Candidate {
  readonly epoch: number
  readonly table: PageTable
  readonly slot: number
  readonly retired: boolean[]
  readonly seen: PageSet
  readonly changedPages: PageSet
  unseen: number
  changed: number
  written: number
  complete: boolean
}

/** Where the stream of an epoch goes, with `m` columns to spare; `partial`: only written pages will pass. */
export interface NewStream {
  readonly holders: readonly string[]
  readonly m: number
  readonly partial?: boolean | undefined
}

export class PageState {
  /** Of RAM, the first ones. */
  readonly ramPages: number
  /** Of RAM and disks. */
  readonly pages: number
  #committed: PageTable
  #spare: PageTable
  #candidate: Candidate | undefined

  constructor(ramPages: number, blocks = 0) {
    this.ramPages = ramPages
    this.pages = ramPages + blocks
    this.#committed = emptyTable(this.pages)
    this.#spare = emptyTable(this.pages)
  }

  get committed(): PageTable {
    return this.#committed
  }

  /** The epoch that waits for `commit` or `abort`. */
  get openEpoch(): number | undefined {
    return this.#candidate?.epoch
  }

  /**
   * Opens a candidate. With `partial` only pages that may have changed need pass, and those of `toRewrite`.
   * IMAGE_EPOCH_OPEN where one is still undecided.
   */
  begin(epoch: number, { holders, m, partial = false }: NewStream): void {
    if (this.#candidate) {
      const open = this.#candidate.epoch
      throw new DiapauseError('IMAGE_EPOCH_OPEN', `epoch ${open} must be committed or aborted before ${epoch} is taken`)
    }
    const table = this.#spare
    table.hashes.set(this.#committed.hashes)
    table.slots.set(this.#committed.slots)
    table.locators.set(this.#committed.locators)
    table.streams = [...this.#committed.streams]
    const live = livePages(table)
    const retired: boolean[] = []
    const asked = table.streams.map((stream, i) => ({ live: live[i] ?? 0, pages: stream?.pages ?? 0 }))
    for (const slot of streamsToRetire(asked)) retired[slot] = true
    const tolerated = toleratedLosses(holders, m, holders)
    for (const [slot, stream] of table.streams.entries()) {
      if (stream === undefined) continue
      const { manifest } = stream
      if (toleratedLosses(manifest.holders, manifest.m, holders) < tolerated) retired[slot] = true
    }
    const free = table.streams.findIndex(stream => stream === undefined)
    const slot = free === -1 ? table.streams.length : free
    table.streams[slot] = undefined
    const [seen, changedPages] = [new PageSet(this.ramPages), new PageSet(this.pages)]
    const counts = { unseen: partial ? 0 : this.ramPages, changed: 0, written: 0 }
    this.#candidate = { epoch, table, slot, retired, seen, changedPages, ...counts, complete: false }
  }

  /** Pages of RAM in streams that the open epoch retires. */
  toRewrite(): PageSet {
    const { table, retired } = this.#open()
    const pages = new PageSet(this.ramPages)
    for (let page = 0; page < this.ramPages; page++) if (retired[table.slots[page] ?? ZERO_SLOT]) pages.add(page)
    return pages
  }

  /** A zero page has passed. */
  zero(page: number): void {
    const candidate = this.#see(page)
    const { table } = candidate
    if (table.slots[page] !== ZERO_SLOT) this.#changed(candidate, page)
    table.slots[page] = ZERO_SLOT
    table.hashes.fill(0, 4 * page, 4 * page + 4)
  }

  /** A page has passed; `digest` is its SHA-256 as a latin1 string. True where it must be written and `place`d. */
  data(page: number, digest: string): boolean {
    const candidate = this.#see(page)
    const { hashes, slots } = candidate.table
    const at = 4 * page
    const [a, b, c, d] = [word(digest, 0), word(digest, 4), word(digest, 8), word(digest, 12)]
    const slot = slots[page] ?? ZERO_SLOT
    const same =
      slot !== ZERO_SLOT && hashes[at] === a && hashes[at + 1] === b && hashes[at + 2] === c && hashes[at + 3] === d
    if (same && candidate.retired[slot] !== true) return false
    if (!same) this.#changed(candidate, page)
    hashes[at] = a
    hashes[at + 1] = b
    hashes[at + 2] = c
    hashes[at + 3] = d
    return true
  }

  /** Where a page of the open epoch was written. */
  place(page: number, locator: number): void {
    const candidate = this.#open()
    candidate.table.slots[page] = candidate.slot
    candidate.table.locators[page] = locator
    candidate.written++
  }

  /** Every page that must has passed; streams without live pages leave the table. MIGRATION_STREAM_INCOMPLETE where one has not. */
  endPages(): PageCounts {
    const { table, unseen, changed, written } = this.#open()
    if (unseen > 0) {
      throw new DiapauseError(
        'MIGRATION_STREAM_INCOMPLETE',
        `${unseen} of ${this.ramPages} pages are not in QEMU's stream, nor were they copied`
      )
    }
    const live = livePages(table)
    table.streams = table.streams.map((stream, i) => ((live[i] ?? 0) > 0 ? stream : undefined))
    return { nonZero: live.reduce((sum, count) => sum + count, 0), changed, written }
  }

  /** The epoch's stream is durable: the candidate may be committed. */
  complete(stream: PageStream): void {
    const candidate = this.#open()
    candidate.table.streams[candidate.slot] = stream
    candidate.complete = true
  }

  /** The candidate's table with its own stream's slot, for the page index. */
  candidate(): { table: PageTable; slot: number } {
    const { table, slot } = this.#open()
    return { table, slot }
  }

  /** False where `epoch` is not the complete candidate: nothing happens then. */
  commit(epoch: number): boolean {
    if (this.#candidate?.epoch !== epoch || !this.#candidate.complete) return false
    this.#spare = this.#committed
    this.#committed = this.#candidate.table
    this.#candidate = undefined
    return true
  }

  /** False where `epoch` is not the candidate: nothing happens then. */
  abort(epoch: number): boolean {
    if (this.#candidate?.epoch !== epoch) return false
    this.#candidate = undefined
    return true
  }

  /** The base is now `table` (a restored image), or nothing: the next epoch is written whole. Any candidate is void. */
  reset(table?: PageTable): void {
    this.#candidate = undefined
    this.#committed = table ?? emptyTable(this.pages)
  }

  /** Notes the hash of a restored page of the committed table. */
  noteHash(page: number, digest: string): void {
    for (let i = 0; i < 4; i++) this.#committed.hashes[4 * page + i] = word(digest, 4 * i)
  }

  #open(): Candidate {
    if (!this.#candidate) throw new TypeError('no epoch is open')
    return this.#candidate
  }

  #see(page: number): Candidate {
    const candidate = this.#open()
    if (page < this.ramPages && candidate.seen.add(page)) candidate.unseen--
    return candidate
  }

  #changed(candidate: Candidate, page: number): void {
    if (candidate.changedPages.add(page)) candidate.changed++
  }
}

const word = (digest: string, at: number): number =>
  (digest.charCodeAt(at) |
    (digest.charCodeAt(at + 1) << 8) |
    (digest.charCodeAt(at + 2) << 16) |
    (digest.charCodeAt(at + 3) << 24)) >>>
  0
