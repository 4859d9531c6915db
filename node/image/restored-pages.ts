/**
 * The contents of an image's pages, for a restore: read, opened, and noted in the page state as they are sent, so that a restored
 * VM's next epoch is again a difference. Pages may be sent before the page table is whole; what is to be noted of them
 * waits for that.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import { ContentIds } from './content-ids.ts'
import { LiveDeltas } from './delta-extents.ts'
import { openExtent } from './extents.ts'
import { sealOf, type VmFacts } from './facts.ts'
import type { PageState } from './page-state.ts'
import type { ReadStream } from './place-reader.ts'
import type { ExtentRun, RestorePlan } from './restore-plan.ts'
import type { StreamSeal } from './seal.ts'
import type { LazyTable } from './table-reader.ts'

/** Contents noted between two turns of the event loop: 1 ms. */
const NOTED_AT_ONCE = 2048

export interface RestoredPage {
  readonly page: number
  readonly bytes: Uint8Array
  /** What lies at its place: `bytes`, where it has no delta. */
  readonly anchor: Uint8Array
}

export class RestoredPages {
  readonly #facts: VmFacts
  readonly #pages: LazyTable
  readonly #state: PageState
  readonly #read: ReadStream
  readonly #ids: ContentIds
  readonly #seals: (StreamSeal | undefined)[] = []
  #all: Promise<LiveDeltas> | undefined
  /** Sent before the table was whole: page → content id. */
  #early: Map<number, string> | undefined = new Map()

  /** `state` must have the table of `pages` as its committed one. */
  constructor(options: { facts: VmFacts; pages: LazyTable; state: PageState; read: ReadStream }) {
    this.#facts = options.facts
    this.#pages = options.pages
    this.#state = options.state
    this.#read = options.read
    this.#ids = new ContentIds(options.facts.key)
  }

  /** The table is whole: all deltas are read from here on. `goOn` throws where the page state is no more to be told. */
  async tableIsWhole(goOn: () => void): Promise<void> {
    goOn()
    this.#all = this.#deltasOf(undefined)
    this.#all.catch(() => {}) // told by whoever sends a page
    let noted = 0
    for (const [page, digest] of this.#early ?? []) {
      this.#state.noteHash(page, digest)
      if (++noted % NOTED_AT_ONCE !== 0) continue
      await nextTurn()
      goOn()
    }
    this.#early = undefined
  }

  /** Deltas of these pages, or more. */
  deltas(pages: readonly number[]): Promise<LiveDeltas> {
    return this.#all ?? this.#deltasOf(pages)
  }

  /** The page state knows how large the deltas of the image are. As `tableIsWhole`. */
  async noteDeltas(goOn: () => void): Promise<void> {
    const all = await this.#all
    goOn()
    if (all !== undefined) this.#state.noteDeltas(all.bytes)
  }

  #deltasOf(pages: readonly number[] | undefined): Promise<LiveDeltas> {
    const options = { facts: this.#facts, table: this.#pages.table, read: this.#read }
    return LiveDeltas.read(pages === undefined ? options : { ...options, pages })
  }

  /** Sealed extents. SHARD_LOST. */
  read({ slot, offset, length }: ExtentRun): Promise<Uint8Array> {
    const stream = this.#pages.table.streams[slot]
    if (stream === undefined) throw new DiapauseError('IMAGE_INVALID', `the image has no stream ${slot}`)
    return this.#read(stream.manifest.stream, offset, length)
  }

  /** The pages of an extent, end to end. IMAGE_SEAL, IMAGE_INVALID. */
  open(slot: number, extent: number, sealed: Uint8Array): Uint8Array {
    const stream = this.#pages.table.streams[slot]
    if (stream === undefined) throw new DiapauseError('IMAGE_INVALID', `the image has no stream ${slot}`)
    const seal = (this.#seals[slot] ??= sealOf(this.#facts, stream))
    return openExtent(seal, extent, sealed)
  }

  /** Those pages of an open extent. `deltas` has theirs. IMAGE_INVALID. */
  contents(raw: Uint8Array, pages: readonly number[], plan: RestorePlan, deltas: LiveDeltas): RestoredPage[] {
    return pages.map(page => {
      const at = plan.placeOf(page) * PAGE_BYTES
      const anchor = raw.subarray(at, at + PAGE_BYTES)
      if (anchor.length !== PAGE_BYTES) throw new DiapauseError('IMAGE_INVALID', `an extent lacks page ${page}`)
      return { page, anchor, bytes: deltas.contentOf(page, anchor) }
    })
  }

  /** These were sent. */
  note(pages: readonly RestoredPage[]): void {
    for (const { page, anchor, bytes } of pages) {
      const digest = this.#ids.of(bytes)
      if (this.#early === undefined) this.#state.noteHash(page, digest)
      else this.#early.set(page, digest)
      this.#state.anchors.put(page, anchor, bytes !== anchor)
    }
  }
}
