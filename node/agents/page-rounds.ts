/** Pages of a VM that are copied for a cut while it runs, and how little is left for the pause. */
import type { Capture, PageRanges, RamTracking } from '../ports.ts'

/**
 * Pages are copied in rounds while the VM runs, as Remus and live migrations do, until a round had less than this to copy:
 * then about as little is left for the pause. 512 pages are 2 MiB, read in 1 to 2 ms (measured), hashed in 3.
 */
const FEW_PAGES = 512
/** A VM that writes faster than it is copied is cut all the same, with a longer pause. Xen's pre-copy stops at 5, too. */
const MAX_ROUNDS = 5

const pagesIn = (ranges: PageRanges): number => ranges.reduce((sum, word, i) => (i % 2 === 1 ? sum + word : sum), 0)

export function joined(earlier: readonly PageRanges[], last: PageRanges): PageRanges {
  const all = [...earlier, last]
  const pages = new Uint32Array(all.reduce((sum, each) => sum + each.length, 0))
  let at = 0
  for (const each of all) {
    pages.set(each, at)
    at += each.length
  }
  return pages
}

export async function copyWhileRunning(tracking: RamTracking, capture: Capture): Promise<void> {
  for (let round = 1; round <= MAX_ROUNDS; round++) {
    const pages = await tracking.changed()
    await capture.copy(pages)
    if (pagesIn(pages) < FEW_PAGES) return
  }
}

/** What was written while it waited: copied now where it is much, else left for the pause, without waking a thread. */
export async function copyWhatIsMuch(tracking: RamTracking, capture: Capture): Promise<PageRanges> {
  const pages = await tracking.changed()
  if (pagesIn(pages) < FEW_PAGES) return pages
  await capture.copy(pages)
  await copyWhileRunning(tracking, capture)
  return new Uint32Array()
}
