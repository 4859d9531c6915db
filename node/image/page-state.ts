/**
 * What is known of every page of a VM's RAM and every block of its disks: a hash of its content, and where its bytes lie
 * (`page-table.ts`). There are two tables: the committed one belongs to the last committed epoch, the candidate to the epoch
 * being captured. A capture forks the committed table and changes its own as pages pass; `commit` makes it the committed
 * one, `abort` drops it. Pure.
 *
 * A page whose content id equals the one in the table stays where it is, however old that stream: which streams are
 * given up is said in `stream-choice.ts`. One whose content another page has that stays where it is, is placed there, too, so a
 * file that is in the guest's page cache and on its disk is stored once; and so is what other VMs of the group have committed
 * on this host (`neighbours.ts`).
 */
import { DiapauseError } from '../errors.ts'
import { Anchors } from './anchors.ts'
import { ContentIndex } from './content-index.ts'
import { deltaBytesOf } from './delta.ts'
import { DeltaBounds } from './delta-bounds.ts'
import { ForeignStreams } from './foreign-streams.ts'
import { keyOf, knows, noteHash, word } from './page-hashes.ts'
import { PageSet } from './page-set.ts'
import { type PageStream, PageTable, type Place, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'
import { dropRecords, isRetired, type NewStream, retiring } from './retiring.ts'
import { blocksToRewrite, inPages } from './stream-choice.ts'

/** Of the memory for contents, the index's: 1/6 of 96 MiB knows 8 GiB of pages. A guess. */
const INDEX_SHARE = 1 / 6
/** Unless told otherwise: see `images.memoryMiB` of a peer's settings. */
const MEMORY_BYTES = 96 << 20

export interface PageCounts {
  /** Pages of RAM. */
  readonly nonZero: number
  /** Pages of RAM that became another content, zero included, for a while at least. */
  readonly changed: number
  /** As `changed`, of disks. */
  readonly changedBlocks: number
  /** Times that a page or block was written to this epoch's stream: as it changed, or out of a stream that was retired. */
  readonly written: number
  /** Of `written`, those of which only what changed was. */
  readonly deltas: number
  /** Times that a page or block was placed where the same content lay already. */
  readonly found: number
  /** Segments that are to be stored: changed, or stored in a stream that is retired. */
  readonly segments: readonly number[]
}

/** What is to be done with a page that has passed: nothing, twice; to be written, whole or as a delta; only whole. */
export type Passing = 'kept' | 'found' | 'changed' | 'new'

interface Candidate {
  readonly epoch: number
  readonly table: PageTable
  readonly slot: number
  readonly retired: boolean[]
  readonly rewrite: number
  /** `retired`, and those of which deltas are written again, and no more. */
  readonly retiredDeltas: readonly boolean[]
  readonly foreign: ForeignStreams | undefined
  readonly seen: PageSet
  readonly changedPages: PageSet
  /** Changed pages whose content has no place yet. */
  readonly waiting: Set<number>
  unseen: number
  changedRam: number
  changedBlocks: number
  written: number
  deltas: number
  found: number
  complete: boolean
}

export class PageState {
  /** Of RAM, the first ones. */
  readonly ramPages: number
  /** Of RAM and disks. */
  readonly pages: number
  /** Of the committed table's pages, or the candidate's while there is one. */
  readonly anchors: Anchors
  readonly #contents: ContentIndex
  readonly #bounds = new DeltaBounds()
  #committed: PageTable
  #candidate: Candidate | undefined
  /** What the last committed epoch changed and had to write, in pages. */
  #lately = 0

  /** `memoryBytes`: for contents, beside the tables. */
  constructor(ramPages: number, blocks = 0, memoryBytes = MEMORY_BYTES) {
    this.anchors = new Anchors(memoryBytes * (1 - INDEX_SHARE))
    this.#contents = new ContentIndex(memoryBytes * INDEX_SHARE)
    this.ramPages = ramPages
    this.pages = ramPages + blocks
    this.#committed = new PageTable(ramPages, blocks)
  }

  /** Where pages are looked for by their content: a hint (`ContentIndex.memory`). */
  get contents(): SharedArrayBuffer {
    return this.#contents.memory
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
  begin(epoch: number, to: NewStream): void {
    if (this.#candidate) {
      const open = this.#candidate.epoch
      throw new DiapauseError('IMAGE_EPOCH_OPEN', `epoch ${open} must be committed or aborted before ${epoch} is taken`)
    }
    const table = this.#committed.fork()
    const { partial = false, neighbours } = to
    const { retired, uses, bears } = retiring(table, to, this.#lately)
    const free = table.streams.findIndex(stream => stream === undefined)
    const slot = free === -1 ? table.streams.length : free
    table.streams[slot] = undefined
    this.anchors.begin()
    const retiredDeltas = this.#bounds.begin(table, slot, retired)
    const [seen, changedPages] = [new PageSet(this.ramPages), new PageSet(this.pages)]
    const counts = {
      unseen: partial ? 0 : this.ramPages,
      changedRam: 0,
      changedBlocks: 0,
      written: 0,
      deltas: 0,
      found: 0
    }
    const foreign = neighbours && new ForeignStreams({ table, slot, retired, neighbours, bears })
    const rewrite = blocksToRewrite(uses, retired) + this.#bounds.blocks
    this.#candidate = {
      epoch,
      table,
      slot,
      retired,
      retiredDeltas,
      rewrite,
      foreign,
      seen,
      changedPages,
      waiting: new Set(),
      ...counts,
      complete: false
    }
  }

  /** Pages of RAM in streams that the open epoch retires. */
  toRewrite(): PageSet {
    const pages = new PageSet(this.ramPages)
    for (const page of this.#retiredFrom(0, this.ramPages)) pages.add(page)
    return pages
  }

  /** How many of `retiredBlocks` are written again in the open epoch. */
  get blocksToRewrite(): number {
    return this.#open().rewrite
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
    const candidate = this.#open()
    const { table, retiredDeltas } = candidate
    if (!retiredDeltas.includes(true)) return
    for (let number = Math.floor(first / SEGMENT_PAGES); number * SEGMENT_PAGES < end; number++) {
      if (table.segments[number]?.refersTo(retiredDeltas) !== true) continue
      const from = Math.max(first, number * SEGMENT_PAGES)
      const to = Math.min(end, (number + 1) * SEGMENT_PAGES)
      for (let page = from; page < to; page++) if (isRetired(candidate, page)) yield page
    }
  }

  /** A zero page has passed. */
  zero(page: number): void {
    const candidate = this.#see(page)
    candidate.waiting.delete(page)
    if (candidate.table.slotOf(page) === ZERO_SLOT) return
    this.#changed(candidate, page)
    this.#forget(candidate.table, page)
    candidate.table.clear(page)
  }

  /**
   * A page has passed; `digest` is its content id as a latin1 string. Where it is 'new' it must be `place`d, where it is 'changed'
   * that or `placeDelta`d: what it was last written whole with stays where it is. `moves`: it shall lie elsewhere.
   */
  data(page: number, digest: string, moves = false): Passing {
    const candidate = this.#see(page)
    const { table, retired } = candidate
    const same = knows(table, page, digest)
    const waited = candidate.waiting.has(page)
    if (same && !waited && !moves && !isRetired(candidate, page)) return 'kept'
    const found = moves ? undefined : this.#find(candidate, digest) // before the id is noted, while the page lies elsewhere, and waits
    candidate.waiting.delete(page)
    const slot = table.slotOf(page)
    if (!same) {
      this.#changed(candidate, page)
      this.#forget(table, page)
      noteHash(table.writable(page), page, digest)
    }
    if (found === undefined) return moves || slot === ZERO_SLOT || retired[slot] === true ? 'new' : 'changed'
    table.place(page, found.slot, found.locator)
    this.#contents.offer(word(digest, 0), page)
    candidate.found++
    return 'found'
  }

  /** Whether what a 'changed' page was last written whole with lies in a stream that can be read: not in the open epoch's own. */
  canWait(page: number): boolean {
    const { table, slot } = this.#open()
    return table.slotOf(page) !== slot
  }

  /** A 'changed' page is placed later; until then nobody else's content is found where it lies. */
  wait(page: number): void {
    this.#open().waiting.add(page)
  }

  /** Where a page of the open epoch was written. */
  place(page: number, locator: number): void {
    const candidate = this.#open()
    candidate.waiting.delete(page)
    candidate.table.place(page, candidate.slot, locator)
    candidate.written++
    this.#remember(candidate.table, page)
  }

  /**
   * Of a 'changed' page so many blocks are written; where, `deltasWritten` will tell. False where deltas would be too many: it
   * is to be written whole.
   */
  placeDelta(page: number, blocks: number): boolean {
    const candidate = this.#open()
    if (!this.#bounds.take(deltaBytesOf(blocks))) return false
    candidate.waiting.delete(page)
    candidate.table.setDelta(page, candidate.slot, 0)
    candidate.written++
    candidate.deltas++
    return true
  }

  /** A 'changed' page is again what it was last written whole with. */
  placeAsBefore(page: number): void {
    const { table, waiting } = this.#open()
    waiting.delete(page)
    table.clearDelta(page)
    this.#remember(table, page)
  }

  /** Where deltas of the open epoch were written; pages that have been placed otherwise since stay there. */
  deltasWritten(pages: Iterable<number>, locator: number): void {
    const { table, slot } = this.#open()
    for (const page of pages) if (table.deltaOf(page)?.slot === slot) table.setDelta(page, slot, locator)
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
    const { table, retired, waiting, unseen, changedRam, changedBlocks, written, deltas, found } = this.#open()
    if (waiting.size > 0) throw new TypeError(`${waiting.size} pages have no place`)
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
    return { nonZero: table.nonZeroRam, changed: changedRam, changedBlocks, written, deltas, found, segments }
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
    const { table, changedRam, changedBlocks, found, deltas } = this.#candidate
    this.#committed = table
    this.#lately = inPages(changedRam + changedBlocks - found, deltas)
    this.#candidate = undefined
    return true
  }

  /** False where `epoch` is not the candidate: nothing happens then. */
  abort(epoch: number): boolean {
    if (this.#candidate?.epoch !== epoch) return false
    this.#candidate = undefined
    this.anchors.abort()
    return true
  }

  /** The base is now `table` (a restored image), or nothing: the next epoch is written whole. Any candidate is void. */
  reset(table?: PageTable): void {
    this.#candidate = undefined
    this.anchors.clear()
    this.#contents.clear()
    this.#bounds.clear()
    this.#committed = table ?? new PageTable(this.ramPages, this.pages - this.ramPages)
  }

  /** Notes the hash of a restored page of the committed table. */
  noteHash(page: number, digest: string): void {
    const segment = this.#committed.segmentOf(page)
    if (segment === undefined) return
    noteHash(segment, page, digest)
    if (this.#committed.deltaOf(page) === undefined) this.#remember(this.#committed, page)
  }

  /** The committed table came with the hashes of these pages of RAM: their contents can be found. `from`: of a segment the first. */
  rememberPages(from: number, end: number): void {
    const { segments } = this.#committed
    for (let page = from; page < Math.min(end, this.ramPages); page++) {
      if (segments[Math.floor(page / SEGMENT_PAGES)] === undefined) page += SEGMENT_PAGES - 1
      else if (this.#isWhole(page)) this.#remember(this.#committed, page)
    }
  }

  #isWhole(page: number): boolean {
    return this.#committed.slotOf(page) !== ZERO_SLOT && this.#committed.deltaOf(page) === undefined
  }

  /** Notes how large the delta extents of the committed table are, unpacked: by slot. */
  noteDeltas(bytes: ReadonlyMap<number, number>): void {
    this.#bounds.note(bytes)
  }

  /** Nothing of RAM is committed: every page is new. */
  get isFirst(): boolean {
    return this.#committed.nonZeroRam === 0
  }

  /** Where a page with that content lies, whole, and stays: in this VM, else in a neighbour. */
  #find({ table, retired, foreign, waiting }: Candidate, digest: string): Place | undefined {
    const page = this.#contents.find(word(digest, 0), other => {
      if (!knows(table, other, digest) || waiting.has(other)) return false
      return retired[table.slotOf(other)] !== true && table.deltaOf(other) === undefined
    })
    return page === -1 ? foreign?.find(digest) : table.placeOf(page)
  }

  #remember(table: PageTable, page: number): void {
    this.#contents.add(keyOf(table, page), page)
  }

  #forget(table: PageTable, page: number): void {
    if (table.slotOf(page) !== ZERO_SLOT) this.#contents.remove(keyOf(table, page), page)
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
