/**
 * The source side of a post-copy migration out of an image: header, small blocks, discard, device state and run; then
 * pages. Three things write to QEMU's socket: answers to faults, at once and with the faulted page's whole extent; the
 * push of all other extents, read ahead in large ranges; and zero pages, a few after each extent and the rest at the
 * end, because QEMU places pages in the order they come and a long queue would delay the next fault. Only faults skip
 * the wait for room in the socket. While pages pass, their hashes go to the page state: a restored VM's next epoch is
 * again a difference. Any error destroys the socket and rejects `serve`; nothing waits for what cannot come.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import {
  MAIN_BLOCK,
  PAGE_BYTES,
  type PageToSend,
  postcopyDiscard,
  postcopyFinish,
  postcopyHeader,
  postcopyPages,
  postcopyRun,
  ReturnPath
} from '../hypervisor/migration-stream.ts'
import { type BootPage, compareWithTable } from './boot-pages.ts'
import { BOOT_BATCH_PAGES, BootSending } from './boot-sending.ts'
import type { BootSet } from './boot-set.ts'
import type { LiveDeltas } from './delta-extents.ts'
import type { VmFacts } from './facts.ts'
import { FaultLog } from './fault-log.ts'
import type { PageState } from './page-state.ts'
import { SEGMENT_PAGES } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import type { RestoreCounts } from '../ports.ts'
import { type ExtentRun, RestorePlan } from './restore-plan.ts'
import { RestoredPages } from './restored-pages.ts'
import type { Request } from './working-set.ts'

/** One read of the push: several symbols of 64 KiB at once. A guess. */
const RUN_BYTES = 512 << 10
/** Bytes and reads that the push has under way at most. */
const AHEAD_BYTES = 3 << 20
const AHEAD_READS = 12
const ZERO_BATCH_PAGES = 512
const ZEROS_PER_EXTENT = 64
const EXTENT_BATCH_PAGES = 256 // of an extent sent at once: 16, where no two have the same content; a guess
/** Zero pages around a faulted one that are sent with it, half a MiB: kernels clear and use memory in runs. A guess. */
const ZEROS_PER_FAULT = 128
/** A request is for one host page, 2 MiB at most. */
const MAX_REQUEST_BYTES = 2 << 20

export class PostcopySource {
  readonly #image: BootSet
  readonly #pages: RestoredPages
  readonly #plan: RestorePlan
  readonly #ramPages: number
  /** Answers under way, and the extents that are read for them, by name. */
  readonly #answers = new Set<Promise<void>>()
  readonly #faulting = new Set<string>()
  #socket: Socket | undefined
  #failure: Error | undefined
  #room: Promise<void> | undefined
  readonly #readMs: number
  #sendMs = 0
  #pagesSent = 0
  readonly #boot: BootSending
  readonly #faults: FaultLog

  /** `state` must have the table of `image` as its committed one. */
  constructor(options: {
    facts: VmFacts
    image: BootSet
    /** How long it was read. */
    readMs: number
    state: PageState
    read: ReadStream
  }) {
    const { facts, image, readMs, state, read } = options
    this.#readMs = readMs
    this.#image = image
    this.#pages = new RestoredPages({ facts, pages: image.pages, state, read })
    this.#plan = new RestorePlan(image.pages.table)
    this.#ramPages = state.ramPages
    this.#faults = new FaultLog(state.ramPages)
    this.#boot = new BootSending({
      boot: image.boot,
      plan: this.#plan,
      pages: this.#pages,
      faults: this.#faults,
      send: pages => this.#send(pages.map(toSend)),
      room: () => this.#untilRoom(),
      goOn: () => this.#goOn()
    })
  }

  /** What there is to learn of the restore. */
  get requests(): readonly Request[] {
    return this.#faults.requests
  }

  /** Resolves when QEMU has every page and says so. MIGRATION_STREAM_CLOSED, _RETURN_PATH, SHARD_LOST, IMAGE_CANCELLED. */
  async serve(socketPath: string): Promise<RestoreCounts> {
    if (this.#failure) throw this.#failure
    const socket = connect(socketPath)
    this.#socket = socket
    const ended = new Promise<never>((_, reject) => {
      socket.on('error', cause => this.#fail(closed(cause)))
      socket.on('close', () => {
        this.#failure ??= closed()
        reject(this.#failure)
      })
    })
    const shut = new Promise<void>(resolve => this.#listen(socket, resolve))
    const work = async () => {
      await once(socket, 'connect')
      const fromMs = performance.now()
      await this.#begin()
      this.#sendMs = performance.now() - fromMs
      await Promise.all([this.#boot.rest(), this.#readTable()])
      await this.#pages.tableIsWhole(() => this.#goOn())
      await this.#faults.untilLearned(!this.#image.learned().some(({ how }) => how === 'asked'))
      await this.#pushAll()
      await Promise.all(this.#answers)
      await this.#pages.noteDeltas(() => this.#goOn())
      await this.#write(postcopyFinish(this.#image.part.machine.ramId))
      await shut
    }
    try {
      await Promise.race([work(), ended])
    } catch (error) {
      throw this.#fail(error as Error)
    }
    this.#failure = closed()
    socket.destroy()
    const { counts } = this.#faults
    const pagesPushed = this.#pagesSent - counts.pagesFaulted
    const [bootReadMs, bootSendMs, bootBytes] = [this.#readMs, this.#sendMs, this.#image.boot?.bytes ?? 0]
    return { ...counts, pagesPushed, bootPages: this.#boot.count, bootBytes, bootReadMs, bootSendMs }
  }

  /** Ends `serve`, now or when it is called. */
  cancel(): void {
    this.#fail(new DiapauseError('IMAGE_CANCELLED', 'the restore was cancelled'))
  }

  /** The first failure is the one that tells; it comes back. */
  #fail(error: Error): Error {
    this.#failure ??= error
    this.#faults.end()
    this.#image.boot?.stop(this.#failure)
    this.#socket?.destroy()
    return this.#failure
  }

  /** After each wait, before the page state is told anything: when the restore has ended it may be another image's. */
  #goOn(): void {
    if (this.#failure) throw this.#failure
  }

  #listen(socket: Socket, done: () => void): void {
    const returnPath = new ReturnPath({
      pages: (block, offset, length) => this.#requested(block, offset, length),
      shut: status => (status === 0 ? done() : this.#fail(refused(status))),
      pong: () => {}
    })
    socket.on('data', chunk => {
      try {
        returnPath.push(chunk)
      } catch (error) {
        this.#fail(error as Error)
      }
    })
  }

  async #begin(): Promise<void> {
    const { machine, bootPages } = this.#image.part
    await this.#write(postcopyHeader(machine))
    const contents = new Map(bootPages.map(page => [`${page.block}:${page.offset}`, page.bytes]))
    for (const [number, block] of machine.blocks.entries()) {
      if (block.name === MAIN_BLOCK) continue
      for (let offset = 0; offset < block.length; offset += BOOT_BATCH_PAGES * PAGE_BYTES) {
        const count = Math.min(BOOT_BATCH_PAGES, (block.length - offset) / PAGE_BYTES)
        const pages = Array.from({ length: count }, (_, i) => {
          const at = offset + i * PAGE_BYTES
          return { offset: at, bytes: contents.get(`${number}:${at}`) }
        })
        await this.#write(postcopyPages(machine.ramId, block.name, pages))
      }
    }
    const sent = await this.#boot.first()
    await this.#write(sent.length === 0 ? postcopyDiscard() : postcopyDiscard(sent, this.#ramPages))
    await this.#write(postcopyRun(machine))
    this.#faults.runs()
  }

  /** The VM runs, and asks for pages meanwhile. */
  async #readTable(): Promise<void> {
    const { streams, pages, boot } = this.#image
    await pages.whole()
    if (boot !== undefined) compareWithTable(boot.part, pages.table, streams)
    for (const _ of this.#plan.sort()) await nextTurn()
  }

  /** A page request. Pages of other blocks were sent before the VM ran, and pages once sent are on their way. */
  #requested(block: string, offset: number, length: number): void {
    if (block !== MAIN_BLOCK) return
    if (length > MAX_REQUEST_BYTES || offset % PAGE_BYTES !== 0 || offset + length > this.#ramPages * PAGE_BYTES) {
      throw new DiapauseError('MIGRATION_STREAM_RETURN_PATH', `QEMU asks for ${length} bytes at ${offset} of its RAM`)
    }
    for (let page = offset / PAGE_BYTES; page * PAGE_BYTES < offset + length; page++) {
      if (this.#plan.isTaken(page)) continue
      this.#faults.ask(page)
      if (this.#boot.hurry(page, performance.now())) continue
      const answer = this.#answer(page)
        .catch((error: Error) => void this.#fail(error))
        .finally(() => this.#answers.delete(answer))
      this.#answers.add(answer)
    }
  }

  /** A page that was asked for, and what lies with it. */
  async #answer(page: number): Promise<void> {
    const askedMs = performance.now()
    if (!this.#image.pages.has(page)) await this.#image.pages.need(page)
    if (this.#failure) return
    if (this.#plan.isTaken(page)) return this.#faults.answer(page, askedMs, [page]) // it was on its way
    const run = this.#plan.extentOf(page)
    if (run === undefined) {
      const zeros = this.#plan.takeZerosAround(page, ZEROS_PER_FAULT)
      this.#sendZeros(zeros)
      return this.#faults.answer(page, askedMs, zeros)
    }
    // Until the table is whole an answer has pages of one segment.
    const name = `${run.slot}:${run.first}:${Math.floor(page / SEGMENT_PAGES)}`
    if (this.#faulting.has(name)) return
    this.#faulting.add(name)
    try {
      const pages = this.#plan.untakenWith(page)
      const [bytes, deltas] = await Promise.all([this.#pages.read(run), this.#pages.deltas(pages)])
      await this.#sendExtent({ ...run, extent: run.first }, bytes, pages, deltas)
      this.#faults.answer(page, askedMs, pages)
    } finally {
      this.#faulting.delete(name)
    }
  }

  /** What is known to be touched and lies apart, in learned order; then all that is left. */
  *#runs(): Generator<ExtentRun> {
    yield* this.#plan.runsOf(this.#image.learned().map(({ page }) => page))
    yield* this.#plan.runs(RUN_BYTES)
  }

  async #pushAll(): Promise<void> {
    const underway = new Map<Promise<void>, number>()
    let bytesAhead = 0
    for (const run of this.#runs()) {
      while (underway.size >= AHEAD_READS || (underway.size > 0 && bytesAhead + run.length > AHEAD_BYTES)) {
        await Promise.race(underway.keys())
      }
      if (this.#failure) throw this.#failure
      bytesAhead += run.length
      const task = this.#pushRun(run)
        .catch((error: Error) => void this.#fail(error))
        .finally(() => {
          bytesAhead -= run.length
          underway.delete(task)
        })
      underway.set(task, run.length)
    }
    await Promise.all(underway.keys())
    if (this.#failure) throw this.#failure
    for (;;) {
      const zeros = this.#plan.takeZeros(ZERO_BATCH_PAGES)
      if (zeros.length === 0) return
      this.#sendZeros(zeros)
      await this.#faults.untilQuiet()
      await this.#untilRoom()
      await nextTurn() // faults are heard between two batches
    }
  }

  async #pushRun(run: ExtentRun): Promise<void> {
    const [bytes, deltas] = await Promise.all([this.#pages.read(run), this.#pages.deltas([])])
    const lengths = this.#image.pages.table.streams[run.slot]?.extentLengths
    let at = 0
    for (let extent = run.first; extent < run.end; extent++) {
      const length = lengths?.[extent] ?? 0
      await this.#faults.untilQuiet()
      await this.#untilRoom()
      const pages = this.#plan.untaken(run.slot, extent)
      await this.#sendExtent({ slot: run.slot, extent }, bytes.subarray(at, at + length), pages, deltas)
      const zeros = this.#plan.takeZeros(ZEROS_PER_EXTENT)
      if (zeros.length > 0) this.#sendZeros(zeros)
      at += length
      await nextTurn() // faults are heard between two extents
    }
  }

  /** As many pages may lie in an extent as have the same content: after the first batch, others are let in between. */
  async #sendExtent(
    { slot, extent }: { readonly slot: number; readonly extent: number },
    sealed: Uint8Array,
    pages: readonly number[],
    deltas: LiveDeltas
  ): Promise<void> {
    const taken = this.#failure ? [] : this.#plan.take(pages)
    if (taken.length === 0) return
    const raw = this.#pages.open(slot, extent, sealed)
    if (taken.length > EXTENT_BATCH_PAGES)
      taken.sort((a, b) => Number(this.#faults.wasAsked(b)) - Number(this.#faults.wasAsked(a)))
    for (let from = 0; from < taken.length; from += EXTENT_BATCH_PAGES) {
      if (from > 0) {
        await this.#untilRoom()
        await nextTurn()
        if (this.#failure) return // the page state may be another image's by now
      }
      const batch = this.#pages.contents(raw, taken.slice(from, from + EXTENT_BATCH_PAGES), this.#plan, deltas)
      this.#send(batch.map(({ page, bytes }) => ({ offset: page * PAGE_BYTES, bytes })))
      this.#pages.note(batch)
    }
  }

  #sendZeros(pages: readonly number[]): void {
    this.#send(pages.map(page => ({ offset: page * PAGE_BYTES, bytes: undefined })))
  }

  #send(pages: readonly PageToSend[]): void {
    if (pages.length === 0 || this.#failure) return
    this.#pagesSent += pages.length
    this.#socket?.write(postcopyPages(this.#image.part.machine.ramId, MAIN_BLOCK, pages))
  }

  async #write(bytes: Uint8Array): Promise<void> {
    if (this.#failure) throw this.#failure
    this.#socket?.write(bytes)
    await this.#untilRoom()
  }

  /** Settles when the socket takes more; throws when it is gone. */
  async #untilRoom(): Promise<void> {
    const socket = this.#socket
    while (!this.#failure && socket?.writableNeedDrain) {
      this.#room ??= new Promise<void>(resolve => {
        const settle = () => {
          socket.off('drain', settle).off('close', settle)
          this.#room = undefined
          resolve()
        }
        socket.on('drain', settle).on('close', settle)
      })
      await this.#room
    }
    if (this.#failure) throw this.#failure
  }
}

const toSend = ({ page, bytes }: BootPage): PageToSend => ({ offset: page * PAGE_BYTES, bytes })

const closed = (cause?: unknown) =>
  new DiapauseError('MIGRATION_STREAM_CLOSED', 'QEMU has closed its incoming socket: see its log for the reason', {
    cause
  })
const refused = (status: number) =>
  new DiapauseError('MIGRATION_STREAM_CLOSED', `QEMU says that the migration failed (status ${status}): see its log`)
