/**
 * What a VM's last committed epoch holds, for the threads of the other VMs of its group on this host: the content id and the
 * place of each page that lies somewhere whole, in memory that they share. So a page that one VM has written is placed there
 * by the others, too.
 *
 * The page table itself is not shared. Its segments are copied when they change and the old ones are left to the garbage
 * collector, which does not count memory that threads share: measured, 100 epochs that change all of a table of 1,024 segments took
 * 690 MB so, and 137 MB as it is. A board is one piece for as long as the VM's worker lives, of which only pages that were ever
 * written take memory: 21 bytes a page. Changed segments are copied into it at each commit, 20 µs each.
 *
 * A reader compares whole ids, and believes what it read only if the board's version is the same before and after. But no race
 * can come to anything even without that: a board is rewritten when an epoch has been committed, for which the images of all
 * VMs of the group must have been whole, and a capture that began after it finds another version than it was told of, until it is
 * told of the new one. Pure but for the shared memory.
 */
import { findHint } from './content-index.ts'
import { word } from './page-hashes.ts'
import { type PageSegment, type PageStream, type PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'

/** The version, and room to the next line of a processor's cache. */
const HEADER_BYTES = 64
const PAGE_BYTES = 16 + 4 + 1
/** Pages and blocks behind these are not on the board: 352 MB of addresses, of which only what is used takes memory. A guess. */
const MAX_PAGES = 2 ** 24

/** An epoch: those of one group have numbers of their own, whatever their generation. */
export interface EpochName {
  readonly generation: number
  readonly epoch: number
}

/** What is told of a board when it has been written. Maps of streams are differences but for those that are `whole`. */
export interface Publication extends EpochName {
  readonly version: number
  readonly board: SharedArrayBuffer
  /** `ContentIndex.memory` of the VM. */
  readonly index: SharedArrayBuffer
  readonly whole: boolean
  /** Slot → stream; undefined: none is there. */
  readonly streams: readonly (readonly [slot: number, stream: PageStream | undefined])[]
}

export interface BoardPlace {
  readonly slot: number
  readonly locator: number
}

export class ContentBoard {
  readonly memory: SharedArrayBuffer
  readonly #version: Int32Array
  readonly #ids: Uint32Array
  readonly #locators: Uint32Array
  /** Slot + 1; 0: zero, or not to be placed at. */
  readonly #slots: Uint8Array

  constructor(memory: SharedArrayBuffer) {
    const pages = (memory.byteLength - HEADER_BYTES) / PAGE_BYTES
    this.memory = memory
    this.#version = new Int32Array(memory, 0, 1)
    this.#ids = new Uint32Array(memory, HEADER_BYTES, 4 * pages)
    this.#locators = new Uint32Array(memory, HEADER_BYTES + 16 * pages, pages)
    this.#slots = new Uint8Array(memory, HEADER_BYTES + 20 * pages, pages)
  }

  /** For the first of `segments` segments, as many as it may have. */
  static of(segments: number): ContentBoard {
    const pages = Math.min(MAX_PAGES, segments * SEGMENT_PAGES)
    return new ContentBoard(new SharedArrayBuffer(HEADER_BYTES + pages * PAGE_BYTES))
  }

  get segments(): number {
    return this.#slots.length / SEGMENT_PAGES
  }

  /** 0: nobody may read it. */
  get version(): number {
    return Atomics.load(this.#version, 0)
  }

  set version(version: number) {
    Atomics.store(this.#version, 0, version)
  }

  /** While its version is 0. */
  write(number: number, segment: PageSegment | undefined): void {
    const first = number * SEGMENT_PAGES
    if (segment === undefined) {
      this.#slots.fill(0, first, first + SEGMENT_PAGES)
      return
    }
    this.#ids.set(segment.hashes, 4 * first)
    this.#locators.set(segment.locators, first)
    const { slots, deltas } = segment
    for (let at = 0; at < SEGMENT_PAGES; at++) {
      const whole = deltas === undefined || deltas.slots[at] === ZERO_SLOT
      this.#slots[first + at] = whole ? (slots[at] ?? ZERO_SLOT) + 1 : 0 // ZERO_SLOT becomes 0
    }
  }

  /** Where a page with that content lies, whole, in the epoch of that version; undefined also where it is another by now. */
  find(digest: string, index: Uint32Array, version: number): BoardPlace | undefined {
    if (this.version !== version) return undefined
    const page = findHint(index, word(digest, 0), other => this.#holds(other, digest))
    if (page === -1) return undefined
    const place = { slot: (this.#slots[page] ?? 0) - 1, locator: this.#locators[page] ?? 0 }
    return this.version === version && place.slot >= 0 ? place : undefined
  }

  #holds(page: number, digest: string): boolean {
    if ((this.#slots[page] ?? 0) === 0) return false
    for (let i = 0; i < 4; i++) if (this.#ids[4 * page + i] !== word(digest, 4 * i)) return false
    return true
  }
}

/** Writes the board of one VM, and says what is new about it. */
export class ContentPublisher {
  #board: ContentBoard | undefined
  #segments: readonly (PageSegment | undefined)[] = []
  #streams: readonly (PageStream | undefined)[] = []
  #version = 0
  #withdrawn = true

  /** `table` is that of the committed epoch `name`, and does not change any more; `index` its `ContentIndex.memory`. */
  publish(table: PageTable, index: SharedArrayBuffer, { generation, epoch }: EpochName): Publication {
    const board = (this.#board ??= ContentBoard.of(table.segments.length))
    const whole = this.#withdrawn
    board.version = 0
    for (let number = 0; number < Math.min(board.segments, table.segments.length); number++) {
      const [before, segment] = [this.#segments[number], table.segments[number]]
      if (before !== segment || (whole && segment !== undefined)) board.write(number, segment)
    }
    const streams: [number, PageStream | undefined][] = []
    for (let slot = 0; slot < Math.max(this.#streams.length, table.streams.length); slot++) {
      const [before, stream] = [this.#streams[slot], table.streams[slot]]
      if (whole ? stream !== undefined : before !== stream) streams.push([slot, stream])
    }
    this.#segments = [...table.segments]
    this.#streams = [...table.streams]
    this.#withdrawn = false
    board.version = ++this.#version
    return { generation, epoch, version: this.#version, board: board.memory, index, whole, streams }
  }

  /** What was published holds no more, because another image takes its place. */
  withdraw(): void {
    if (this.#board !== undefined) this.#board.version = 0
    this.#withdrawn = true
  }
}
