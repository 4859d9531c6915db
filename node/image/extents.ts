/**
 * Extents: up to 16 pages packed and sealed together. Small enough that a page fault reads little, large enough that
 * zstd works at full speed and neighbours of a faulted page come with it. A stream begins with its salt, then come its
 * extents end to end, numbered from 0; a page's locator is `extent * 16 + place in it`. Deltas lie in extents between them.
 */
import { DiapauseError } from '../errors.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import { packBest, unpackBest } from './packing.ts'
import type { StreamSeal } from './seal.ts'

export const EXTENT_PAGES = 16
const EXTENT_BYTES = EXTENT_PAGES * PAGE_BYTES

/** Gathers pages into extents and writes each when it is full. */
export class ExtentWriter {
  readonly #seal: StreamSeal
  readonly #write: (bytes: Uint8Array) => void
  readonly #raw = new Uint8Array(EXTENT_BYTES)
  #pages = 0
  readonly lengths: number[] = []

  constructor(seal: StreamSeal, write: (bytes: Uint8Array) => void) {
    this.#seal = seal
    this.#write = write
  }

  /** Copies a page; returns its locator. */
  add(page: Uint8Array): number {
    const locator = this.lengths.length * EXTENT_PAGES + this.#pages
    this.#raw.set(page, this.#pages * PAGE_BYTES)
    if (++this.#pages === EXTENT_PAGES) this.flush()
    return locator
  }

  /** Writes the last extent, where it is not full. */
  flush(): void {
    if (this.#pages === 0) return
    this.#put('extent', this.#raw.subarray(0, this.#pages * PAGE_BYTES))
    this.#pages = 0
  }

  /** Writes an extent of deltas (`delta-extents.ts`); returns its number. */
  addDeltas(bytes: Uint8Array): number {
    this.flush()
    return this.#put('delta', bytes)
  }

  #put(kind: 'extent' | 'delta', bytes: Uint8Array): number {
    const extent = this.lengths.length
    const sealed = this.#seal.seal(kind, extent, packBest(bytes))
    this.lengths.push(sealed.length)
    this.#write(sealed)
    return extent
  }
}

/** The pages of an extent, end to end. IMAGE_SEAL, IMAGE_INVALID. */
export function openExtent(seal: StreamSeal, extent: number, sealed: Uint8Array): Uint8Array {
  const pages = unpackBest(seal.open('extent', extent, sealed), EXTENT_BYTES)
  if (pages.length === 0 || pages.length % PAGE_BYTES !== 0) {
    throw new DiapauseError(
      'IMAGE_INVALID',
      `extent ${extent} holds ${pages.length} bytes, which is no number of pages`
    )
  }
  return pages
}

/** Start of each extent in its stream, and at the end that of what follows them. `first` is where extent 0 begins. */
export function extentStarts(lengths: Uint32Array, first: number): Float64Array {
  const starts = new Float64Array(lengths.length + 1)
  let at = first
  starts[0] = at
  for (let i = 0; i < lengths.length; i++) {
    at += lengths[i] ?? 0
    starts[i + 1] = at
  }
  return starts
}
