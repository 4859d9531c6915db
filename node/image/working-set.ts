/**
 * The working set: pages that a VM touches first when it is resumed, in learned order. What is sent before it runs is not missed
 * when it does. Two things teach it, and are believed in this order:
 *
 *   asked    page requests of restores, and what was sent with each. As in HotRestore (elastic working set) the window of time that
 *            counts grows until the rate of requests flattens.
 *   written  pages written right after a cut, or since the last: most that a VM touches it has touched before; and before those what
 *            its processors and devices stood on in the cut (`hypervisor/running-context.ts`)
 *
 * What was learned ages with each further lesson of its kind, and goes first when there is no room; what was only written goes
 * when it was not written again for long. What was asked for once is sent from then on, so nobody will ask for it again. The set is
 * bounded, because a VM waits for all of it. It is kept with the image (`boot-part.ts`), so whoever restores has it. Pure.
 */

/** 32 MiB: some 50 ms from five peers of 1 Gbit/s each, and 30 ms for QEMU to place. A guess. */
export const MAX_WORKING_PAGES = 8192
/** Of the pages in use at most this part: what a VM touches first is little of what it has. A guess. */
const USED_PART = 1 / 4
/** Of the set at most this part was only written: which of it will be touched again soon, nobody knows. A guess. */
const WRITTEN_PART = 1 / 4
/** Captures without a page being written again until it is forgotten. A guess. */
const WRITTEN_ROUNDS = 4
const MAX_AGE = 255
/** Of one capture: 1 MiB. A guess. */
const MAX_STATE_PAGES = 256
/** The window is this long at least, and doubles while requests come at no less than that part of their rate before. Guesses. */
const FIRST_WINDOW_MS = 250
const FLAT_PART = 1 / 16
export const MAX_AT_MS = 2 ** 32 - 1

const TOUCHED = ['asked', 'written'] as const
export type Touched = (typeof TOUCHED)[number]

export interface WorkingPage {
  readonly page: number
  readonly how: Touched
  /** Since the VM ran, or its place among those written; below 2^32. */
  readonly atMs: number
  /** Lessons of its kind since it was learned; below 256. */
  readonly age: number
}

/** A page request, and all pages that were sent in answer, that page among them. */
export interface Request {
  readonly atMs: number
  readonly pages: readonly number[]
}

export class WorkingSet {
  readonly #pages: Map<number, WorkingPage>

  constructor(known: Iterable<WorkingPage> = []) {
    this.#pages = new Map(Array.from(known, each => [each.page, each]))
  }

  /** The requests of one restore, in their order. */
  learnAsked(requests: readonly Request[]): void {
    this.#grow('asked', MAX_AGE)
    const windowMs = elasticWindowMs(requests.map(({ atMs }) => atMs))
    let room = 2 * MAX_WORKING_PAGES
    for (const { atMs, pages } of requests) {
      room -= pages.length
      if (atMs > windowMs || room < 0) continue
      for (const page of pages) this.#learn(page, 'asked', Math.min(Math.floor(atMs), MAX_AT_MS))
    }
  }

  /** In the order in which they were written, as far as that is known. */
  learnWritten(pages: readonly number[]): void {
    this.#grow('written', WRITTEN_ROUNDS)
    for (const [i, page] of pages.slice(0, MAX_WORKING_PAGES).entries()) this.#learn(page, 'written', i)
  }

  /** What its processors and devices stood on, in a capture whose written pages have been learned. */
  learnState(pages: readonly number[]): void {
    for (const page of pages.slice(0, MAX_STATE_PAGES)) {
      if (this.#pages.get(page)?.how !== 'asked') this.#pages.set(page, { page, how: 'written', atMs: 0, age: 0 })
    }
  }

  /** In learned order, for a VM with so many pages in use. */
  list(pagesInUse: number): WorkingPage[] {
    const room = Math.min(MAX_WORKING_PAGES, Math.floor(pagesInUse * USED_PART))
    const kept = [...this.#pages.values()].sort((a, b) => rankOf(a) - rankOf(b) || a.age - b.age || a.atMs - b.atMs)
    const written = kept.findIndex(({ how }) => how === 'written')
    const learned = written === -1 ? kept : kept.slice(0, written + Math.floor(room * WRITTEN_PART))
    return learned.slice(0, room).sort((a, b) => rankOf(a) - rankOf(b) || a.atMs - b.atMs || a.page - b.page)
  }

  #learn(page: number, how: Touched, atMs: number): void {
    const known = this.#pages.get(page)
    if (known !== undefined && rankOf(known) < rankOf({ how })) {
      this.#pages.set(page, { ...known, age: 0 })
      return
    }
    // Twice in one lesson: the first time counts.
    if (known?.how === how && known.age === 0) return
    this.#pages.set(page, { page, how, atMs, age: 0 })
  }

  #grow(how: Touched, most: number): void {
    for (const [page, known] of this.#pages) {
      if (known.how !== how) continue
      if (known.age >= most) this.#pages.delete(page)
      else this.#pages.set(page, { ...known, age: known.age + 1 })
    }
  }
}

const rankOf = ({ how }: Pick<WorkingPage, 'how'>): number => TOUCHED.indexOf(how)

/** How long after the start requests count, of those at these times, in their order. */
export function elasticWindowMs(times: readonly number[]): number {
  const count = (from: number, to: number) => times.filter(ms => ms > from && ms <= to).length
  let [windowMs, inside] = [FIRST_WINDOW_MS, count(Number.NEGATIVE_INFINITY, FIRST_WINDOW_MS)]
  for (;;) {
    const next = count(windowMs, 2 * windowMs)
    if (next === 0 || next < inside * FLAT_PART) return windowMs
    inside += next
    windowMs *= 2
  }
}
