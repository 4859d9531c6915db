/**
 * How much the deltas of an image may be. A restore reads all live ones before it sends a page, so their extents are
 * bounded, dead deltas in them included. Where older epochs hold more than half of the bound, the deltas of those that
 * have most dead ones are written again, as deltas or whole; an epoch that has used up what is left writes pages whole.
 * Pure.
 */
import { type PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'

/**
 * Unpacked bytes of all delta extents of an image: 20,000 pages with 24 blocks each. A guess between pages written whole and
 * what a restore reads first and holds in memory.
 */
export const MAX_DELTA_BYTES = 32 << 20
/** What extents take beside their deltas: 4 bytes of 64 KiB each. */
const SLACK_BYTES = 4096

export class DeltaBounds {
  readonly #max: number
  /** Slot → bytes of its delta extents, for streams of the committed table. */
  readonly #bytes = new Map<number, number>()
  #slot = ZERO_SLOT
  #room = 0
  #blocks = 0

  constructor(max = MAX_DELTA_BYTES) {
    this.#max = max
  }

  /**
   * An epoch begins that writes to `slot`. The slots of which deltas are to be written again: those that are retired anyway,
   * and those without which the rest is small enough.
   */
  begin(table: PageTable, slot: number, retired: readonly boolean[]): boolean[] {
    this.#slot = slot
    this.#bytes.set(slot, 0)
    const leaving = [...retired]
    const all = [...liveDeltas(table)].map(([slot, live]) => {
      // Of a stream that was never told of, nobody knows.
      return { slot, ...live, bytes: this.#bytes.get(slot) ?? this.#max }
    })
    const kept = all.filter(({ slot }) => retired[slot] !== true).sort((a, b) => a.bytes / a.live - b.bytes / b.live)
    let used = kept.reduce((sum, { bytes }) => sum + bytes, 0)
    while (used > this.#max / 2) {
      const worst = kept.pop()
      if (worst === undefined) break
      leaving[worst.slot] = true
      used -= worst.bytes
    }
    // All RAM passes, or is copied again; of blocks only some may be (`blocksToRewrite`), and these come last: they count.
    const slow = all.filter(({ slot, blocks }) => leaving[slot] === true && blocks > 0)
    this.#blocks = slow.reduce((sum, { slot, blocks }) => sum + (retired[slot] === true ? 0 : blocks), 0)
    this.#room = this.#max - SLACK_BYTES - slow.reduce((sum, { bytes }) => sum + bytes, used)
    return leaving
  }

  /** Blocks of disks to be written again in this epoch for the sake of their deltas alone. */
  get blocks(): number {
    return this.#blocks
  }

  /** So many bytes of deltas are written in this epoch. False, and nothing happens, where they are too many. */
  take(bytes: number): boolean {
    if (bytes > this.#room) return false
    this.#room -= bytes
    this.#bytes.set(this.#slot, (this.#bytes.get(this.#slot) ?? 0) + bytes)
    return true
  }

  /** Of a restored image. */
  note(bytes: ReadonlyMap<number, number>): void {
    for (const [slot, each] of bytes) this.#bytes.set(slot, each)
  }

  clear(): void {
    this.#bytes.clear()
  }
}

/** Slot → pages whose deltas are there, and how many of them are blocks of disks. */
function liveDeltas(table: PageTable): Map<number, { live: number; blocks: number }> {
  const found = new Map<number, { live: number; blocks: number }>()
  for (const [number, segment] of table.segments.entries()) {
    if (segment?.deltas === undefined) continue
    for (let at = 0; at < SEGMENT_PAGES; at++) {
      const slot = segment.deltas.slots[at] ?? ZERO_SLOT
      if (slot === ZERO_SLOT) continue
      const counts = found.get(slot) ?? { live: 0, blocks: 0 }
      counts.live++
      if (number * SEGMENT_PAGES + at >= table.ramPages) counts.blocks++
      found.set(slot, counts)
    }
  }
  return found
}
