/** What peers have seen of epochs, made up. */
import type { SeenCut, SeenEpoch } from '../../protocols/epoch/history.ts'

export const MIB = 1 << 20

/** `changed` bytes of pages, half of them stored. */
export function imageOf(changed: number): NonNullable<SeenCut['image']> {
  const pages = Math.round(changed / 4096)
  return {
    pages: 1 << 16,
    pagesNonZero: 1 << 15,
    pagesChanged: pages,
    bytesRaw: pages * 4096,
    bytesData: pages * 2048,
    bytesStored: pages * 2048,
    inFlightFrames: 0
  }
}

export const seenEpoch = (epoch: number, more: Partial<SeenEpoch> = {}): SeenEpoch => ({
  group: 'g',
  generation: 1,
  epoch,
  outcome: 'committed',
  openedAtMs: 1_000_000 + 10_000 * epoch,
  tookMs: 100,
  vms: {},
  ...more
})
