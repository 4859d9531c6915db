/**
 * What is known of every page of a VM's RAM and every block of its disks: a hash of its content, and where its bytes lie
 * (`page-table.ts`). There are two tables: the committed one belongs to the last committed epoch, the candidate to the epoch
 * being captured. A capture forks the committed table and changes its own as pages pass; `commit` makes it the committed
 * one, `abort` drops it. Pure.
 *
 * A page whose hash equals the one in the table stays
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
import { PageSet } from './page-set.ts'
import { type PageSegment, type PageStream, PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'

/** Streams of an image, the present one included. 8: a guess between bytes rewritten and peers asked at a restore. */
export const MAX_STREAMS = 8
const DEAD_BELOW = 0.25

export interface PageCounts {
  /** Pages of RAM. */
  readonly nonZero: number
  /** Pages of RAM that became another content, zero included, for a while at least. */
  readonly changed: number
  /** As `changed`, of disks. */
  readonly changedBlocks: number
  /** Times that a page or block was written to this epoch's stream: as it changed, or out of a stream that was retired. */
  readonly written: number
  /** Segments that are to be stored: changed, or stored in a stream that is retired. */
  readonly segments: readonly number[]
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

interface Candidate {
  readonly epoch: number
  readonly table: PageTable
  readonly slot: number
  readonly retired: boolean[]
  readonly seen: PageSet
  readonly changedPages: PageSet
  unseen: number
  changedRam: number
  changedBlocks: number
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
  #candidate: Candidate | undefined

  constructor(ramPages: number, blocks = 0) {
    this.ramPages = ramPages
    this.pages = ramPages + blocks
    this.#committed = new PageTable(ramPages, blocks)
  }

  get committed(): PageTable {
    return this.#committed
  }

  /** The epoch that waits for `commit` or `abort`. */
  get openEpoch(): number | undefined {
    return this.#candidate?.epoch
  }

  /**
   * Opens a candidate. Every page of RAM must pass, or, with `partial`, those that may have changed and those of
   * `toRewrite`; and of the blocks of disks those that may have changed. IMAGE_EPOCH_OPEN where one is still undecided.
   */
  begin(epoch: number, { holders, m, partial = false }: NewStream): void {
    if (this.#candidate) {
      const open = this.#candidate.epoch
      throw new DiapauseError('IMAGE_EPOCH_OPEN', `epoch ${open} must be committed or aborted before ${epoch} is taken`)
    }
    const table = this.#committed.fork()
    const retired: boolean[] = []
    const stored = table.storedSegments()
    const asked = table.streams.map((stream, slot) => {
      return { live: table.live(slot) + (stored[slot] ?? 0), pages: stream?.pages ?? 0 }
    })
    for (const slot of streamsToRetire(asked)) retired[slot] = true
    const tolerated = toleratedLosses(holders, m, holders)
    for (const [slot, stream] of table.streams.entries()) {
      if (stream === undefined) continue
      const { manifest, lengths } = stream
      if (lengths === undefined || toleratedLosses(manifest.holders, manifest.m, holders) < tolerated)
        retired[slot] = true
    }
    const free = table.streams.findIndex(stream => stream === undefined)
    const slot = free === -1 ? table.streams.length : free
    table.streams[slot] = undefined
    const [seen, changedPages] = [new PageSet(this.ramPages), new PageSet(this.pages)]
    const counts = { unseen: partial ? 0 : this.ramPages, changedRam: 0, changedBlocks: 0, written: 0 }
    this.#candidate = { epoch, table, slot, retired, seen, changedPages, ...counts, complete: false }
  }

  /** Pages of RAM in streams that the open epoch retires. */
  toRewrite(): PageSet {
    const pages = new PageSet(this.ramPages)
    for (const page of this.#retiredFrom(0, this.ramPages)) pages.add(page)
    return pages
  }

  /** The first `most` blocks of disks that lie in streams that the open epoch retires, and have not been written again. */
  retiredBlocks(most: number): number[] {
    const blocks: number[] = []
    for (const block of this.#retiredFrom(this.ramPages, this.pages)) {
      blocks.push(block)
      if (blocks.length === most) break
    }
    return blocks
  }

  *#retiredFrom(first: number, end: number): Generator<number> {
    const { table, retired } = this.#open()
    if (!retired.includes(true)) return
    for (let number = Math.floor(first / SEGMENT_PAGES); number * SEGMENT_PAGES < end; number++) {
      if (table.segments[number]?.refersTo(retired) !== true) continue
      const from = Math.max(first, number * SEGMENT_PAGES)
      const to = Math.min(end, (number + 1) * SEGMENT_PAGES)
      for (let page = from; page < to; page++) if (isRetired(table, page, retired)) yield page
    }
  }

  /** A zero page has passed. */
  zero(page: number): void {
    const candidate = this.#see(page)
    if (candidate.table.slotOf(page) === ZERO_SLOT) return
    this.#changed(candidate, page)
    candidate.table.clear(page)
  }

  /** A page has passed; `digest` is its SHA-256 as a latin1 string. True where it must be written and `place`d. */
  data(page: number, digest: string): boolean {
    const candidate = this.#see(page)
    const { table, retired } = candidate
    const same = knows(table, page, digest)
    if (same && !isRetired(table, page, retired)) return false
    if (!same) {
      this.#changed(candidate, page)
      noteHash(table.writable(page), page, digest)
    }
    return true
  }

  /** Where a page of the open epoch was written. */
  place(page: number, locator: number): void {
    const candidate = this.#open()
    candidate.table.place(page, candidate.slot, locator)
    candidate.written++
  }

  /** As `place`, of one that was read back out of a stream that is retired: its content is what it was. */
  placeAgain(page: number, digest: string, locator: number): void {
    noteHash(this.#open().table.writable(page), page, digest)
    this.place(page, locator)
  }

  /**
   * Every page that must has passed; streams without live pages and segments leave the table.
   * MIGRATION_STREAM_INCOMPLETE where one has not.
   */
  endPages(): PageCounts {
    const { table, retired, unseen, changedRam, changedBlocks, written } = this.#open()
    if (unseen > 0) {
      throw new DiapauseError(
        'MIGRATION_STREAM_INCOMPLETE',
        `${unseen} of ${this.ramPages} pages are not in QEMU's stream, nor were they copied`
      )
    }
    const segments = dropRecords(table, retired)
    const stored = table.storedSegments()
    table.streams = table.streams.map((stream, slot) => {
      return table.live(slot) + (stored[slot] ?? 0) > 0 ? stream : undefined
    })
    return { nonZero: table.nonZeroRam, changed: changedRam, changedBlocks, written, segments }
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
    this.#committed = table ?? new PageTable(this.ramPages, this.pages - this.ramPages)
  }

  /** Notes the hash of a restored page of the committed table. */
  noteHash(page: number, digest: string): void {
    const segment = this.#committed.segmentOf(page)
    if (segment !== undefined) noteHash(segment, page, digest)
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
    if (!candidate.changedPages.add(page)) return
    if (page < this.ramPages) candidate.changedRam++
    else candidate.changedBlocks++
  }
}

/** Records that are not what their segments are now, or lie in retired streams, leave the table: those segments. */
function dropRecords(table: PageTable, retired: readonly boolean[]): number[] {
  const segments: number[] = []
  for (const [number, segment] of table.segments.entries()) {
    const record = table.recordOf(number)
    const kept = segment !== undefined && !table.owns(segment) && record !== undefined && !retired[record.slot]
    if (kept) continue
    table.setRecord(number, undefined)
    if (segment !== undefined) segments.push(number)
  }
  return segments
}

function isRetired(table: PageTable, page: number, retired: readonly boolean[]): boolean {
  const segment = table.segmentOf(page)
  if (segment === undefined) return false
  const at = page % SEGMENT_PAGES
  if (retired[segment.slots[at] ?? ZERO_SLOT] === true) return true
  return segment.deltas !== undefined && retired[segment.deltas.slots[at] ?? ZERO_SLOT] === true
}

/** Whether the page is known to have this content. */
function knows(table: PageTable, page: number, digest: string): boolean {
  const segment = table.segmentOf(page)
  const at = page % SEGMENT_PAGES
  if (segment === undefined || segment.slots[at] === ZERO_SLOT) return false
  const { hashes } = segment
  return (
    hashes[4 * at] === word(digest, 0) &&
    hashes[4 * at + 1] === word(digest, 4) &&
    hashes[4 * at + 2] === word(digest, 8) &&
    hashes[4 * at + 3] === word(digest, 12)
  )
}

function noteHash({ hashes }: PageSegment, page: number, digest: string): void {
  const at = 4 * (page % SEGMENT_PAGES)
  for (let i = 0; i < 4; i++) hashes[at + i] = word(digest, 4 * i)
}

const word = (digest: string, at: number): number =>
  (digest.charCodeAt(at) |
    (digest.charCodeAt(at + 1) << 8) |
    (digest.charCodeAt(at + 2) << 16) |
    (digest.charCodeAt(at + 3) << 24)) >>>
  0
