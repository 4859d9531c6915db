/**
 * The working set on its way to QEMU: what the VM touches at once before it runs, when QEMU puts pages where they belong as they come,
 * which is cheap; the rest as it is read, in learned order, while the VM runs, and before its turn what the VM waits for.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { BootPage, BootPages } from './boot-pages.ts'
import type { FaultLog } from './fault-log.ts'
import type { RestorePlan } from './restore-plan.ts'
import type { RestoredPage, RestoredPages } from './restored-pages.ts'

export const BOOT_BATCH_PAGES = 64

interface Parts {
  readonly boot: BootPages | undefined
  readonly plan: RestorePlan
  readonly pages: RestoredPages
  readonly faults: FaultLog
  send(pages: readonly BootPage[]): void
  /** Resolves when more may be sent; rejects when the restore is over. */
  room(): Promise<void>
  /** Throws when the restore is over. */
  goOn(): void
}

export class BootSending {
  readonly #parts: Parts
  /** There before the VM ran, to be sent after; sent before, and not noted. */
  #unsent: readonly BootPage[] = []
  #unnoted: readonly BootPage[] = []
  /** Pages that the VM waits for, since when. */
  readonly #awaited = new Map<number, number>()
  /** Sent before the VM ran. */
  count = 0

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** What is there. Resolves with what was sent, ascending; the first page of RAM comes later, since it must be discarded. */
  async first(): Promise<number[]> {
    const { boot, plan, send, room } = this.#parts
    const ready = (boot?.take() ?? []).sort((a, b) => a.page - b.page)
    this.#unsent = ready.filter(({ page }) => page === 0)
    const early = ready.slice(this.#unsent.length)
    for (let at = 0; at < early.length; at += BOOT_BATCH_PAGES) {
      send(early.slice(at, at + BOOT_BATCH_PAGES))
      await room()
    }
    this.#unnoted = early
    this.count = early.length
    return plan.take(early.map(({ page }) => page))
  }

  /** The rest, as it comes. */
  async rest(): Promise<void> {
    const { boot, pages, goOn } = this.#parts
    await this.#sendAndNote(this.#unsent)
    while ((await boot?.more()) === true) await this.#sendAndNote(boot?.take() ?? [])
    for (let at = 0; at < this.#unnoted.length; at += BOOT_BATCH_PAGES) {
      goOn()
      pages.note(this.#unnoted.slice(at, at + BOOT_BATCH_PAGES).filter(isRestored))
      await nextTurn()
    }
  }

  /** The VM waits for that page. True: it is of the set, and comes before others of it. */
  hurry(page: number, askedMs: number): boolean {
    if (this.#parts.boot?.hurry(page) !== true) return false
    this.#awaited.set(page, askedMs)
    return true
  }

  async #sendAndNote(all: readonly BootPage[]): Promise<void> {
    const { plan, pages, send, room } = this.#parts
    for (const left = new Map(all.map(page => [page.page, page])); left.size > 0; ) {
      // What the VM waits for does not wait for room, and goes first, also if it was asked for only now.
      if (!this.#isAwaited(left)) await room()
      const batch = this.#next(left)
      const taken = new Set(plan.take(batch.map(({ page }) => page)))
      const sent = batch.filter(({ page }) => taken.has(page))
      send(sent)
      this.#answered(batch)
      pages.note(sent.filter(isRestored))
      await nextTurn() // faults are heard between two batches
    }
  }

  #isAwaited(left: ReadonlyMap<number, BootPage>): boolean {
    for (const page of this.#awaited.keys()) if (left.has(page)) return true
    return false
  }

  /** Takes a batch of them. */
  #next(left: Map<number, BootPage>): BootPage[] {
    const batch: BootPage[] = []
    for (const pages of [this.#awaited.keys(), left.keys()]) {
      for (const page of pages) {
        const next = left.get(page)
        if (next === undefined) continue
        left.delete(page)
        if (batch.push(next) === BOOT_BATCH_PAGES) return batch
      }
    }
    return batch
  }

  #answered(batch: readonly BootPage[]): void {
    for (const { page } of batch) {
      const askedMs = this.#awaited.get(page)
      if (askedMs === undefined) continue
      this.#awaited.delete(page)
      this.#parts.faults.answer(page, askedMs, [page])
    }
  }
}

const isRestored = (page: BootPage): page is RestoredPage => page.bytes !== undefined
