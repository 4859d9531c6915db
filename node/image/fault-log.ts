/**
 * The page requests of one restore: when they came, how long they waited, and what was sent with each. Says when what nobody has
 * asked for may be sent, and what there is to learn (`working-set.ts`).
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { MAX_WORKING_PAGES, type Request } from './working-set.ts'

/**
 * The push waits until no page was asked for during this time: what the VM misses now comes before what it may miss
 * later, and on a host without idle cores the VM needs them more. At most as many waits as faults. A guess.
 */
const QUIET_MS = 4
/**
 * What is pushed is not asked for, and so not learned: the push begins when nothing was asked for during that time (a guess), and at the
 * latest so long after the VM runs, where nothing was known of it and where something was. A VM that nobody has restored asks until its
 * application has answered. Measured (256 MiB, two cores, TCG): of 320 requests all come within 3 s, and the first answer no later than
 * with a push after 1 s, by when there were 190; restores that learned from it miss 15 to 21 pages, and 19 to 38 after 1 s; the price is
 * 1.5 s more until that VM has all its pages, once. `again` is a guess.
 */
const LEARN_QUIET_MS = 150
const LEARN_MS = { first: 3000, again: 300 }
/** Pages this near to the one that was asked for are learned with it: others in its extent have its content by chance. */
const NEAR_PAGES = 16

export interface FaultCounts {
  readonly pagesFaulted: number
  /** From a request to its answer being on its way, at the source. Absent: there were none. */
  readonly faultP50Ms?: number
  readonly faultP99Ms?: number
}

export class FaultLog {
  /** In the order of their answers. */
  readonly requests: Request[] = []
  /** Pages that were asked for before they were sent. */
  readonly #asked: Uint8Array
  readonly #waitsMs: number[] = []
  #count = 0
  #ranMs = 0
  #lastAskedMs = Number.NEGATIVE_INFINITY
  #ended = false

  constructor(ramPages: number) {
    this.#asked = new Uint8Array(ramPages)
  }

  /** The VM runs. */
  runs(): void {
    this.#ranMs = performance.now()
  }

  /** Nobody waits any more. */
  end(): void {
    this.#ended = true
  }

  /** A page that was not sent is asked for. */
  ask(page: number): void {
    if (this.#asked[page] === 0) this.#count++
    this.#lastAskedMs = performance.now()
    this.#asked[page] = 1
  }

  wasAsked(page: number): boolean {
    return this.#asked[page] === 1
  }

  /** `page` was asked for at `askedMs`, and these were sent. */
  answer(page: number, askedMs: number, sent: readonly number[]): void {
    this.#waitsMs.push(performance.now() - askedMs)
    if (this.requests.length >= MAX_WORKING_PAGES) return
    const pages = sent.filter(each => Math.abs(each - page) < NEAR_PAGES)
    this.requests.push({ atMs: Math.max(0, askedMs - this.#ranMs), pages })
  }

  get counts(): FaultCounts {
    const waits = this.#waitsMs.toSorted((a, b) => a - b)
    const [faultP50Ms, faultP99Ms] = [0.5, 0.99].map(part => waits[Math.floor(part * waits.length)])
    return {
      pagesFaulted: this.#count,
      ...(faultP50Ms !== undefined && { faultP50Ms }),
      ...(faultP99Ms !== undefined && { faultP99Ms })
    }
  }

  /** Resolves when what was not asked for may be sent for once. */
  async untilQuiet(): Promise<void> {
    for (;;) {
      const restMs = this.#lastAskedMs + QUIET_MS - performance.now()
      if (restMs <= 0 || this.#ended) return
      await sleep(restMs)
    }
  }

  /** Resolves when the push may begin. `isFirst`: nothing was known of what the VM would ask for. */
  async untilLearned(isFirst: boolean): Promise<void> {
    const endMs = this.#ranMs + LEARN_MS[isFirst ? 'first' : 'again']
    for (;;) {
      const restMs = Math.min(endMs, Math.max(this.#ranMs, this.#lastAskedMs) + LEARN_QUIET_MS) - performance.now()
      if (restMs <= 0 || this.#ended) return
      await sleep(restMs)
    }
  }
}
