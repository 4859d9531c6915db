/**
 * The pipeline from QEMU's snapshot stream, or from RAM itself (`ram-copy.ts`), to shards, in the worker thread: parse, hash each page, keep what differs
 * from the last committed epoch, gather it in extents, pack and seal, write to the stream; at the end the machine part,
 * the page index and the in-flight frames. `push` is synchronous, so that no page is copied before it is known to have
 * changed; whoever pushes stops while `congestion()` is pending, and QEMU waits behind its socket.
 */
import { DiapauseError } from '../errors.ts'
import { MAIN_BLOCK, PAGE_BYTES, type RamBlock, SnapshotParser } from '../hypervisor/migration-stream.ts'
import { contextPages, type ReadRam } from '../hypervisor/running-context.ts'
import type { ByteRange, Codec, DiskFile, PageRanges } from '../ports.ts'
import { copyDisks } from './disk-copy.ts'
import { encodeExtentLengths } from './extent-lengths.ts'
import { ExtentWriter } from './extents.ts'
import { ContentIds } from './content-ids.ts'
import { spareColumns } from './durability.ts'
import { newestKey, placesOf, type StreamKey, streamIdOf, type VmFacts } from './facts.ts'
import { sealPiece } from './frame-pieces.ts'
import { type CapturedImage, factsOf } from './known-images.ts'
import { encodeBootPart } from './boot-part.ts'
import { type BootPage, encodeMachine, MAX_BOOT_BYTES } from './machine.ts'
import { encodeDirectory } from './page-directory.ts'
import { PageCoder } from './page-coder.ts'
import type { PageState } from './page-state.ts'
import { PlaceReader, type ReadStream } from './place-reader.ts'
import type { NewStream } from './retiring.ts'
import { encodeSegments, GROUP_SEGMENTS } from './segment-records.ts'
import { newSalt, type RecordKind, StreamSeal } from './seal.ts'
import { inPages } from './stream-choice.ts'
import { type PutColumn, StreamWriter } from './stream-writer.ts'
import { countPages } from './last-pages.ts'
import type { PageSet } from './page-set.ts'
import { bootPartOf, WarmPages } from './warm-pages.ts'
import { MAX_WORKING_PAGES, WorkingSet } from './working-set.ts'
import { WriteOrder } from './write-order.ts'

/** `partial`: pages that do not pass are as in the last committed epoch; else each must. */
export interface CaptureOptions extends Pick<NewStream, 'holders' | 'peers' | 'partial' | 'neighbours' | 'stored'> {
  readonly facts: VmFacts
  readonly state: PageState
  readonly codec: Codec
  readonly generation: number
  readonly epoch: number
  readonly put: PutColumn
  /** What the VM touches first. Absent: not known. It learns from what is captured, and is kept with the image. */
  readonly working?: WorkingSet | undefined
  /** Reads the streams of the last committed image. */
  readonly read: ReadStream
}

/** Blocks of disks read back at once. A guess. */
const READ_BLOCKS = 1024
/** Of an extent's 16 pages, so many must be asked for, for what they were to be read back. A guess: what is read is paid once, what is written k + m times in k. */
const NEAR_PAGES = 4

/** One epoch of one VM being captured. Opens the candidate of `state` (IMAGE_EPOCH_OPEN). */
export class CapturePipeline {
  readonly #options: CaptureOptions
  readonly #state: PageState
  readonly #salt = newSalt()
  readonly #key: StreamKey
  readonly #seal: StreamSeal
  readonly #writer: StreamWriter
  readonly #extents: ExtentWriter
  readonly #coder: PageCoder
  readonly #working: WorkingSet
  readonly #warm: WarmPages
  readonly #order: WriteOrder
  readonly #parser: SnapshotParser
  #anchors: PlaceReader | undefined
  #main = -1
  #cancelled = false
  #passed = 0
  /** Of blocks other than pc.ram, by block and offset: the last to come of each. */
  readonly #bootPages = new Map<string, BootPage>()

  constructor(options: CaptureOptions) {
    const { facts, state, codec, generation, epoch, put, holders, peers, partial, neighbours, stored } = options
    const { m, durability = 'all' } = facts.shape
    const stream = streamIdOf(facts, generation, epoch)
    this.#options = options
    this.#state = state
    this.#key = newestKey(facts)
    this.#seal = new StreamSeal(this.#key.key, stream, this.#salt)
    this.#writer = new StreamWriter({ stream, holders, shape: facts.shape, codec, put })
    this.#extents = new ExtentWriter(this.#seal, bytes => this.#writer.write(bytes))
    this.#parser = new SnapshotParser({
      blocks: blocks => this.#blocks(blocks),
      page: (block, offset, bytes) => this.#page(block, offset, bytes)
    })
    const spare = spareColumns(holders, m, durability)
    state.begin(epoch, { holders, peers, m, spare, partial, neighbours, stored })
    this.#working = options.working ?? new WorkingSet()
    this.#warm = new WarmPages(state.committed, this.#workingPages())
    this.#order = new WriteOrder(state.ramPages)
    this.#coder = new PageCoder({
      state,
      warm: this.#warm,
      extents: this.#extents,
      ids: new ContentIds(facts.key),
      readAnchors: (pages, spent) => {
        this.#anchors ??= this.#readerOf(spent)
        return this.#anchors.wholes(this.#anchors.near(pages, NEAR_PAGES))
      }
    })
    this.#writer.write(this.#salt)
  }

  /** The next bytes of QEMU's stream; read during the call only. */
  push(chunk: Uint8Array): void {
    this.#parser.push(chunk)
  }

  /**
   * A page of RAM or a block of a disk, numbered in one space: RAM first, then the disks end to end. The last to come of
   * each counts. Its bytes (undefined: zeros) are read during the call only.
   */
  page(page: number, bytes: Uint8Array | undefined): void {
    this.#unlessCancelled()
    this.#passed++
    this.#coder.pass(page, bytes)
  }

  /** Blocks of disks, after all pages of RAM: `copyDisks` says of which files. */
  async copyDisks(files: readonly DiskFile[]): Promise<void> {
    await copyDisks(files, placesOf(this.#options.facts), this)
  }

  /** What QEMU sent besides RAM, and RAM as it is now. */
  standsOn(machine: Uint8Array, read: ReadRam): void {
    this.#working.learnState(contextPages(machine, this.#options.facts.memoryMiB, read))
  }

  /** These pages were written since the last cut. */
  wereWritten(pages: PageRanges): void {
    if (countPages(pages) > MAX_WORKING_PAGES) return // as in a first round: it says nothing
    const written: number[] = []
    for (let i = 0; i + 1 < pages.length; i += 2) {
      for (let page = 0; page < (pages[i + 1] ?? 0); page++) written.push((pages[i] ?? 0) + page)
    }
    this.#working.learnWritten(written)
  }

  /** Pages that are to pass although nobody wrote them: they will lie with others of the working set. */
  get moving(): PageSet {
    return this.#warm.moving
  }

  /** Voids the candidate; `finish` rejects with IMAGE_CANCELLED. */
  cancel(): void {
    this.#cancelled = true
    this.#coder.cancel()
    this.#state.abort(this.#options.epoch)
  }

  /** Pages that have come and columns that are durable. */
  get progress(): number {
    return this.#passed + this.#writer.durableColumns
  }

  congestion(): Promise<void> | undefined {
    const waits = [this.#writer.congestion(), this.#coder.congestion()].filter(wait => wait !== undefined)
    return waits.length > 1 ? Promise.all(waits).then(() => {}) : waits[0]
  }

  /** Settles when no column is on its way. */
  idle(): Promise<void> {
    return this.#writer.idle()
  }

  /** QEMU's stream has ended. Resolves when all is as durable as it shall be. Pieces are asked for as fast as they can be shipped. */
  async finish(frames: { readonly count: number; readonly pieces: AsyncIterable<Uint8Array> }): Promise<CapturedImage> {
    const { facts, generation, epoch } = this.#options
    this.#unlessCancelled()
    const machineState = this.#parser.end()
    await this.#coder.drain()
    this.#unlessCancelled()
    await this.#writeAgain()
    for (const _ of this.#coder.flush()) {
      await this.#writer.congestion()
      this.#unlessCancelled()
    }
    if (this.#order.written.length > 0) this.#working.learnWritten(this.#order.written)
    const counts = this.#state.endPages()
    const machine = this.#record(
      'machine',
      encodeMachine({ machine: machineState, bootPages: [...this.#bootPages.values()] })
    )
    const { table, slot } = this.#state.candidate()
    const extentLengths = Uint32Array.from(this.#extents.lengths)
    const boot = this.#bootPart(extentLengths)
    const lengths = this.#record('lengths', encodeExtentLengths(extentLengths))
    await this.#storeSegments(counts.segments)
    const own = {
      salt: this.#salt,
      extentLengths,
      lengths,
      pages: inPages(counts.written, counts.deltas) + counts.segments.length
    }
    const older = table.streams.flatMap((stream, at) => (stream ? [{ stream, at }] : []))
    const streams = [...older.map(({ stream }) => stream), own]
    const index = this.#record('index', encodeDirectory(table, [...older.map(({ at }) => at), slot], streams))
    const inFlight = await this.#frames(frames.pieces)
    const { manifest: shards, storedBytes, columnsMissing } = await this.#writer.finish()
    const manifest = this.#key.id === 0 ? shards : { ...shards, key: this.#key.id }
    this.#unlessCancelled()
    this.#state.complete({ manifest: factsOf(manifest), ...own })
    const bytesRaw = counts.written * PAGE_BYTES + machineState.devices.length
    return {
      group: facts.group,
      vm: facts.vm,
      generation,
      epoch,
      memoryMiB: facts.memoryMiB,
      accel: facts.accel,
      disks: facts.disks,
      older: older.map(({ stream }) => stream.manifest.stream),
      own: manifest,
      machine,
      index,
      frames: inFlight,
      ...(boot && { boot }),
      stats: {
        pages: this.#state.ramPages,
        pagesNonZero: counts.nonZero,
        pagesChanged: counts.changed,
        bytesRaw,
        bytesData: manifest.dataBytes,
        bytesStored: storedBytes,
        inFlightFrames: frames.count,
        pagesSeen: counts.found,
        pagesDelta: counts.deltas,
        ...(columnsMissing > 0 && { columnsMissing })
      }
    }
  }

  /**
   * Blocks in streams that are retired, but for those that have passed: nobody else still has what they were when the last
   * epoch was committed. At most so many: a stream with more of them stays for another epoch.
   */
  async #writeAgain(): Promise<void> {
    const { facts, read } = this.#options
    const reader = new PlaceReader({ facts, table: this.#state.committed, read })
    for (let left = this.#state.blocksToRewrite; left > 0; left -= READ_BLOCKS) {
      const batch = this.#state.retiredBlocks(READ_BLOCKS)
      if (batch.length === 0) return
      for await (const { page, bytes } of reader.contents(batch)) {
        this.#unlessCancelled()
        this.#coder.again(page, bytes)
        this.#passed++
        await this.#writer.congestion()
      }
    }
  }

  /** What pages were last written whole with; `spent` is told of bytes that are read. One for all, which keeps extents open. */
  #readerOf(spent: (bytes: number) => void): PlaceReader {
    const { facts, read } = this.#options
    const counted: ReadStream = (stream, offset, length) => {
      spent(length)
      return read(stream, offset, length)
    }
    return new PlaceReader({ facts, table: this.#state.candidate().table, read: counted })
  }

  /** Of the candidate: what was learned up to now, and where it lies. Undefined: nothing was. */
  #bootPart(extentLengths: Uint32Array): ByteRange | undefined {
    const set = this.#workingPages()
    if (set.length === 0) return undefined
    const { table, slot } = this.#state.candidate()
    const older = table.streams.flatMap((stream, at) => (stream ? [{ slot: at, stream }] : []))
    const streams = [...older, { slot, stream: { salt: this.#salt, extentLengths } }]
    return this.#record('boot', encodeBootPart(bootPartOf(table, streams, set)))
  }

  #workingPages() {
    return this.#working.list(this.#state.committed.nonZeroRam)
  }

  #unlessCancelled(): void {
    if (!this.#cancelled) return
    throw new DiapauseError('IMAGE_CANCELLED', `the capture of epoch ${this.#options.epoch} was cancelled`)
  }

  /** Of the candidate's table. */
  async #storeSegments(segments: readonly number[]): Promise<void> {
    const { table, slot } = this.#state.candidate()
    for (let counter = 0; counter * GROUP_SEGMENTS < segments.length; counter++) {
      const numbers = segments.slice(counter * GROUP_SEGMENTS, (counter + 1) * GROUP_SEGMENTS)
      const group = { slot, counter, ...this.#record('segments', encodeSegments(table, numbers), counter) }
      for (const number of numbers) table.setRecord(number, group)
      await this.#writer.congestion()
      this.#unlessCancelled()
    }
  }

  #record(kind: RecordKind, bytes: Uint8Array, counter = 0): ByteRange {
    const offset = this.#writer.dataBytes
    const sealed = this.#seal.seal(kind, counter, bytes)
    this.#writer.write(sealed)
    return { offset, length: sealed.length }
  }

  async #frames(pieces: AsyncIterable<Uint8Array>): Promise<ByteRange> {
    const offset = this.#writer.dataBytes
    let index = 0
    for await (const piece of pieces) {
      this.#unlessCancelled()
      for (const bytes of sealPiece(this.#seal, index++, piece)) this.#writer.write(bytes)
      await this.#writer.congestion()
    }
    return { offset, length: this.#writer.dataBytes - offset }
  }

  #blocks(blocks: readonly RamBlock[]): void {
    this.#main = blocks.findIndex(block => block.name === MAIN_BLOCK)
    const length = blocks[this.#main]?.length
    if (length === this.#state.ramPages * PAGE_BYTES) return
    throw new DiapauseError(
      'IMAGE_MEMORY_SIZE',
      `the VM has ${length ?? 0} bytes in ${MAIN_BLOCK}, and ${this.#options.facts.memoryMiB} MiB were announced`
    )
  }

  #page(block: number, offset: number, bytes: Uint8Array | undefined): void {
    if (block === this.#main) {
      this.#order.pass(offset / PAGE_BYTES)
      this.page(offset / PAGE_BYTES, bytes)
    } else this.#bootPage(block, offset, bytes)
  }

  #bootPage(block: number, offset: number, bytes: Uint8Array | undefined): void {
    const name = `${block}:${offset}`
    this.#bootPages.delete(name)
    if (bytes === undefined) return
    if (this.#bootPages.size * PAGE_BYTES >= MAX_BOOT_BYTES) {
      throw new DiapauseError('MIGRATION_STREAM_LIMIT', 'the blocks of RAM besides pc.ram hold more than 64 MiB')
    }
    this.#bootPages.set(name, { block, offset, bytes: bytes.slice() })
  }
}
