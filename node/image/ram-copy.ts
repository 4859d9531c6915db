/**
 * Copies RAM out of the file that a VM shares, for one capture. While the VM runs, in rounds: pages are read in large
 * pieces, hashed, and written where they changed. A page may be torn (the guest writes while it is read), but then it
 * was written after it had been protected, and so is told of again. The last pages are read while the VM stands still
 * and everything else is done with them when it runs again.
 */
import { closeSync, openSync, readSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import type { PageRanges } from '../ports.ts'
import { type PageRun, PageSet } from './page-set.ts'

/** Read and hashed between two turns of the event loop: 1 MiB, which takes about 2 ms. */
const RUN_PAGES = 256
/** Pages read in vain rather than make another system call: 16 KiB are copied in about the time that one takes. */
const GAP_PAGES = 4

/** Where pages go. */
export interface PageSink {
  /** 4096 bytes, read during the call only; undefined for zeros. */
  page(page: number, bytes: Uint8Array | undefined): void
  /** Pending while no more should come. */
  congestion(): Promise<void> | undefined
  /** Nobody wrote them: they pass in the first round, where there is time for all of it. */
  readonly moving?: PageSet
}

export class RamCopy {
  readonly #fd: number
  readonly #sink: PageSink
  /** To be copied yet. */
  #due: PageSet
  /** Besides, until the first round has begun. */
  #moving: PageSet | undefined
  readonly #buffer = Buffer.allocUnsafeSlow(RUN_PAGES * PAGE_BYTES)
  /** Read and not yet hashed, at most all RAM: what the guest wrote during the last round. */
  #last: { run: PageRun; bytes: Buffer }[] = []
  #closed = false
  /** Resolved when there are to be no more rounds. */
  readonly #haste = Promise.withResolvers<void>()
  #hurried = false
  /** Settles when no round is under way. */
  #rounds: Promise<unknown> = Promise.resolve()

  /** Opens `ramPath`. `due`: pages to copy beside those that are asked for; its owner does not use it any more. */
  constructor(ramPath: string, due: PageSet, sink: PageSink) {
    this.#fd = openSync(ramPath, 'r')
    this.#due = due
    this.#sink = sink
    this.#moving = sink.moving
  }

  /** As it is now; short at its end. */
  peek(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    return bytes.subarray(0, readSync(this.#fd, bytes, 0, length, offset))
  }

  copy(pages: PageRanges): Promise<void> {
    const moving = this.#hurried ? undefined : this.#moving
    this.#moving = undefined
    const round = this.#copy(this.#take(pages), moving)
    this.#rounds = Promise.allSettled([this.#rounds, round])
    return round
  }

  /** What is left of `moving` when the VM is to be cut is not read in the pause, but moved another time. */
  async #copy(pages: PageSet, moving: PageSet | undefined): Promise<void> {
    const all = new PageSet(pages.pages)
    for (const each of [pages, moving]) if (each !== undefined) all.addAll(each)
    for (const run of all.runs(RUN_PAGES, GAP_PAGES)) {
      if (this.#hurried) {
        for (const page of run.wanted) if (pages.has(page)) this.#due.add(page)
        continue
      }
      this.#read(run, this.#buffer)
      this.#pass(run, this.#buffer)
      const congestion = this.#sink.congestion()
      if (congestion !== undefined) await Promise.race([congestion, this.#haste.promise])
      await nextTurn()
    }
  }

  /** Rounds end at once, those to come, too. Resolves with how many pages that leaves for `readLast`. */
  async hurry(): Promise<number> {
    this.#hurried = true
    this.#haste.resolve()
    await this.#rounds
    return this.#due.count
  }

  /** Reads what is due, and no more. */
  readLast(pages: PageRanges): void {
    for (const run of this.#take(pages).runs(RUN_PAGES, GAP_PAGES)) {
      const bytes = Buffer.allocUnsafeSlow(run.count * PAGE_BYTES)
      this.#read(run, bytes)
      this.#last.push({ run, bytes })
    }
  }

  /** Takes the last pages as the main thread has read them, `bytes` end to end. */
  keepLast(pages: PageRanges, bytes: Uint8Array): void {
    if (this.#closed) throw new DiapauseError('IMAGE_CANCELLED', 'the copy of RAM was cancelled')
    const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    let at = 0
    for (let i = 0; i + 1 < pages.length; i += 2) {
      const first = pages[i] ?? 0
      const count = pages[i + 1] ?? 0
      const wanted = Array.from({ length: count }, (_, page) => first + page)
      this.#last.push({ run: { first, count, wanted }, bytes: all.subarray(at, at + count * PAGE_BYTES) })
      at += count * PAGE_BYTES
    }
  }

  /** Hashes and writes the last pages. */
  async finish(): Promise<void> {
    this.#end()
    for (const { run, bytes } of this.#last.splice(0)) {
      this.#pass(run, bytes)
      await this.#sink.congestion()
      await nextTurn()
    }
  }

  /** Calls under way reject with IMAGE_CANCELLED. Safe at any time. */
  close(): void {
    this.#end()
    this.#last = []
  }

  #end(): void {
    if (this.#closed) return
    this.#closed = true
    closeSync(this.#fd)
  }

  #take(pages: PageRanges): PageSet {
    const taken = this.#due
    taken.addRanges(pages)
    this.#due = new PageSet(taken.pages)
    return taken
  }

  #read(run: PageRun, into: Buffer): void {
    if (this.#closed) throw new DiapauseError('IMAGE_CANCELLED', 'the copy of RAM was cancelled')
    const length = run.count * PAGE_BYTES
    const read = readSync(this.#fd, into, 0, length, run.first * PAGE_BYTES)
    if (read !== length) throw new DiapauseError('IMAGE_MEMORY_SIZE', `RAM ends within page ${run.first + run.count}`)
  }

  #pass({ first, wanted }: PageRun, bytes: Buffer): void {
    for (const page of wanted) {
      const at = (page - first) * PAGE_BYTES
      const zero = bytes.compare(ZEROS, 0, PAGE_BYTES, at, at + PAGE_BYTES) === 0
      this.#sink.page(page, zero ? undefined : bytes.subarray(at, at + PAGE_BYTES))
    }
  }
}

const ZEROS = Buffer.alloc(PAGE_BYTES)
