/** Pages of a VM that are copied for a cut while it runs, and how little is left for the pause. */
import { PROGRESS_MS } from '../../protocols/epoch/core.ts'
import { DiapauseError } from '../errors.ts'
import type { Capture, Clock, PageRanges, RamTracking } from '../ports.ts'

/**
 * Pages are copied in rounds while the VM runs, as Remus and live migrations do, until a round had less than this to copy:
 * then about as little is left for the pause. 512 pages are 2 MiB, read in 1 to 2 ms (measured), hashed in 3.
 */
const FEW_PAGES = 512
/** A VM that writes faster than it is copied is cut all the same, with a longer pause. Xen's pre-copy stops at 5, too. */
const MAX_ROUNDS = 5
/**
 * A VM that is cut in a hurry has at most so much left for its pause: 256 MiB, at the rate measured 130 to 260 ms. QEMU's
 * migration allows itself 300. With more the epoch fails: that lets the frames that wait for the VM through, too.
 */
const MAX_LEFT_PAGES = 65_536

const pagesIn = (ranges: PageRanges): number => ranges.reduce((sum, word, i) => (i % 2 === 1 ? sum + word : sum), 0)

/** The rounds of one cut. What the machine tells of a page it tells once: it goes to the capture, or is kept for it. */
export class PageRounds {
  readonly #tracking: RamTracking
  readonly #capture: Capture
  /** Told by the machine, and not yet to the capture. */
  #untold: PageRanges[] = []
  readonly #haste = Promise.withResolvers<void>()
  #hurried = false
  /** The capture may have pages to copy that it knows of: in a round, and before the first from epochs that came to nothing. */
  #owes = true
  /** How many of them it has kept for the pause. */
  #due: Promise<number> = Promise.resolve(0)

  constructor(tracking: RamTracking, capture: Capture) {
    this.#tracking = tracking
    this.#capture = capture
  }

  /** Frames wait for this VM: no more is copied before its pause. */
  hurry(): void {
    if (this.#hurried) return
    this.#hurried = true
    this.#haste.resolve()
    if (!this.#owes) return
    this.#due = this.#capture.hurry()
    this.#due.catch(() => {}) // `copyWhatIsMuch` tells
  }

  /** Copies what can be copied while others are, too. `onProgress`: every `PROGRESS_MS` in which it got on. */
  async prepare(clock: Clock, onProgress: () => void): Promise<void> {
    const end = watch(this.#capture, clock, onProgress)
    try {
      await this.#copyRounds()
      // Or the rest of it would leave while others are cut.
      await Promise.race([this.#capture.shipped(), this.#haste.promise])
    } finally {
      end()
    }
  }

  /**
   * What was written while it waited for the others: copied now where it is much, else left for the pause, without waking a
   * thread. CUT_UNPREPARED where too much is left.
   */
  async copyWhatIsMuch(): Promise<void> {
    const pages = await this.#tracking.changed()
    if (this.#hurried || pagesIn(pages) < FEW_PAGES) this.#untold.push(pages)
    else {
      await this.#copy(pages)
      await this.#copyRounds()
    }
    const left = (await this.#due) + this.#untold.reduce((sum, ranges) => sum + pagesIn(ranges), 0)
    if (left <= MAX_LEFT_PAGES) return
    throw new DiapauseError(
      'CUT_UNPREPARED',
      `${left} pages were not copied yet when others were cut, which would be too long a pause: the next epoch has less to copy`
    )
  }

  /** The VM stands still: what is to be read now. */
  async last(): Promise<PageRanges> {
    const pages = await this.#tracking.changed()
    return joined(this.#untold.splice(0), pages)
  }

  /** The cut has come to nothing: the capture must hear of what it was not told of. */
  async giveUp(): Promise<void> {
    for (const pages of this.#untold.splice(0)) await this.#capture.copy(pages).catch(() => {})
  }

  async #copyRounds(): Promise<void> {
    for (let round = 1; round <= MAX_ROUNDS && !this.#hurried; round++) {
      const pages = await this.#tracking.changed()
      if (this.#hurried) return void this.#untold.push(pages)
      await this.#copy(pages)
      if (pagesIn(pages) < FEW_PAGES) return
    }
  }

  async #copy(pages: PageRanges): Promise<void> {
    this.#owes = true
    await this.#capture.copy(pages)
    this.#owes = false
  }
}

/** The result ends it. */
function watch(capture: Capture, clock: Clock, onProgress: () => void): () => void {
  let cancel = (): void => {}
  let ended = false
  const later = (seen: number): void => {
    cancel = clock.after(PROGRESS_MS, () => {
      capture.progress().then(
        progress => {
          if (ended) return
          if (progress > seen) onProgress()
          later(progress)
        },
        () => {} // the capture has ended, and so will this
      )
    })
  }
  later(0)
  return () => {
    ended = true
    cancel()
  }
}

function joined(earlier: readonly PageRanges[], last: PageRanges): PageRanges {
  const all = [...earlier, last]
  const pages = new Uint32Array(all.reduce((sum, each) => sum + each.length, 0))
  let at = 0
  for (const each of all) {
    pages.set(each, at)
    at += each.length
  }
  return pages
}
