/**
 * Streams that other VMs of the group have written, in the table of an epoch that is being captured: a page whose content lies
 * there is placed there. Such a stream takes a slot of the table as an own one does, and is read at a restore as an own one
 * is; which of them there may be at all is said in `neighbours.ts`. Pure.
 */
import type { StreamId } from '../ports.ts'
import { type PageStream, type PageTable, type Place, type StreamFacts, ZERO_SLOT } from './page-table.ts'
import { MAX_STREAMS } from './stream-choice.ts'

/** In an image at once: each costs a restore two reads more. A guess, twice as many as own ones mostly. */
export const MAX_FOREIGN = 16

/** What the other VMs of the group have committed, as far as the open epoch may lean on it. */
export interface NeighbourContents {
  /** Where a page of that content lies whole, in a stream of which `usable` is true. */
  find(digest: string, usable: (stream: PageStream) => boolean): number | undefined
  /** Whether the VM that wrote it is another one, and has it in its own committed image: it stays anyhow. */
  keeps(stream: StreamId): boolean
  /** Whether this VM wrote it. */
  isOwn(stream: StreamId): boolean
}

export class ForeignStreams {
  readonly #table: PageTable
  readonly #slot: number
  readonly #retired: readonly boolean[]
  readonly #neighbours: NeighbourContents
  readonly #bears: (stream: StreamFacts) => boolean
  /** Stream → its slot; -1: it cannot be used. */
  readonly #slots = new Map<StreamId, number>()

  /** `slot`: of the epoch's own stream. `bears`: whether a stream bears as many losses as that one. */
  constructor(options: {
    readonly table: PageTable
    readonly slot: number
    readonly retired: readonly boolean[]
    readonly neighbours: NeighbourContents
    readonly bears: (stream: StreamFacts) => boolean
  }) {
    this.#table = options.table
    this.#slot = options.slot
    this.#retired = options.retired
    this.#neighbours = options.neighbours
    this.#bears = options.bears
  }

  /** Where a neighbour has a page of that content. Its stream is in the table from then on. */
  find(digest: string): Place | undefined {
    let slot = -1
    const locator = this.#neighbours.find(digest, stream => {
      slot = this.#slotOf(stream)
      return slot !== -1
    })
    return locator === undefined ? undefined : { slot, locator }
  }

  #slotOf(stream: PageStream): number {
    const id = stream.manifest.stream
    const known = this.#slots.get(id)
    if (known !== undefined) return known
    const slot = this.#adopt(stream)
    this.#slots.set(id, slot)
    return slot
  }

  #adopt(stream: PageStream): number {
    const { streams } = this.#table
    const there = streams.findIndex(each => each?.manifest.stream === stream.manifest.stream)
    if (there !== -1) return this.#retired[there] === true ? -1 : there
    if (stream.lengths === undefined || !this.#bears(stream.manifest)) return -1
    const used = streams.flatMap(each => each ?? [])
    const foreign = used.filter(({ manifest }) => !this.#neighbours.isOwn(manifest.stream))
    // Besides these the epoch's own.
    if (foreign.length >= MAX_FOREIGN || used.length + 1 >= MAX_STREAMS) return -1
    const free = streams.findIndex((each, slot) => each === undefined && slot !== this.#slot)
    const slot = free === -1 ? streams.length : free
    if (slot >= ZERO_SLOT) return -1
    streams[slot] = stream
    return slot
  }
}
