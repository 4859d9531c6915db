/**
 * The thread of one VM's image worker: its page state, and at most one capture or restore at a time. It talks to QEMU's
 * sockets itself; columns and reads go through the main thread, which has the connections to other peers.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { createCodec } from '../erasure/codec.ts'
import { DiapauseError } from '../errors.ts'
import type { BaseStream, Codec, DiskFile, StreamId } from '../ports.ts'
import { useBases, type UsedFile, writeBase } from './base-stream.ts'
import { CapturePipeline } from './capture.ts'
import { type CopyRequest, type FinishRequest, type KeepRequest, RamCapture, StreamCapture } from './captures.ts'
import { ContentPublisher, type EpochName } from './content-board.ts'
import { blocksOf, type StreamKey, type VmFacts } from './facts.ts'
import type { DiskRange } from './disk-reader.ts'
import type { MainCalls } from './image-worker.ts'
import type { CapturedImage, ImageOutline } from './known-images.ts'
import { type LeanOn, Neighbours, type NeighbourNews } from './neighbours.ts'
import { PageSet } from './page-set.ts'
import { PageState } from './page-state.ts'
import { PAGES_PER_MIB } from './page-table.ts'
import type { ReadStream } from './place-reader.ts'
import { ThreadPriority } from './priority.ts'
import { RamCopy } from './ram-copy.ts'
import { rehearse } from './rehearsal.ts'
import { type RestoredDisks, ThreadRestore, torn } from './restores.ts'
import type { NewStream } from './retiring.ts'
import { Standby } from './standby-source.ts'
import type { PutColumn } from './stream-writer.ts'
import { ThreadCalls, wholeMemoryOf } from './thread-calls.ts'
import { standStill } from './thread-end.ts'
import { WorkingSet } from './working-set.ts'

interface CaptureRequest extends Pick<NewStream, 'holders' | 'peers' | 'stored'> {
  readonly generation: number
  readonly epoch: number
  readonly socketPath: string
  readonly ramPath?: string
  /** The data keys as they are now; undefined: as before. */
  readonly keys: readonly StreamKey[] | undefined
  readonly leanOn: LeanOn | undefined
  /** There are VMs to publish for, when the epoch is committed. */
  readonly publishes: boolean
}

interface RestoreRequest {
  /** A number of its own, from 1. */
  readonly restore: number
  readonly manifest: ImageOutline
  readonly keys: readonly StreamKey[] | undefined
  /** As in `CaptureRequest`, when all of it has come. */
  readonly publishes: boolean
  /** The VM's RAM is that file. */
  readonly ramPath: string | undefined
}

interface StoreBaseRequest {
  readonly file: DiskFile
  readonly stream: StreamId
  readonly holders: readonly string[]
  readonly keys: readonly StreamKey[] | undefined
}

interface UseBasesRequest {
  readonly bases: readonly UsedFile[]
  readonly keys: readonly StreamKey[] | undefined
}

interface DiskRequest extends DiskRange {
  readonly restore: number
}

class VmThread {
  readonly #facts: VmFacts
  /** Those in `#facts`: what is being read or written has newer ones as soon as they are known. */
  readonly #keys: StreamKey[]
  readonly #state: PageState
  readonly #codec: Codec
  readonly #main: ThreadCalls<MainCalls>
  readonly #priority = ThreadPriority.own()
  /** Pages copied, or to be copied, since the last commit: an epoch that comes to nothing leaves them due. */
  readonly #uncommitted: PageSet
  /** Every page but those is as in the committed table. */
  #covered = false
  #capture: RamCapture | StreamCapture | undefined
  /** Not served to its end yet. */
  #restore: ThreadRestore | undefined
  readonly #standby: Standby
  /** The last one, until its disks are closed. */
  #disks: RestoredDisks | undefined
  /** Of the last one that the page state is of, until that is captured. */
  #restored: RestoredDisks | undefined
  /** What the VM touches first. */
  #working = new WorkingSet()
  readonly #neighbours: Neighbours
  readonly #publisher = new ContentPublisher()
  /** The epoch that was captured last, or is being, where it is to be published. */
  #publishes: EpochName | undefined
  /** Of the restore that is being read or served; 0: none. */
  #restoreNumber = 0

  constructor(facts: VmFacts, main: ThreadCalls<MainCalls>, codec: Codec) {
    this.#keys = [...(facts.keys ?? [{ id: 0, key: facts.key }])]
    this.#facts = { ...facts, keys: this.#keys }
    this.#main = main
    this.#codec = codec
    const contentsBytes = facts.contentsMiB === undefined ? undefined : facts.contentsMiB * 2 ** 20
    this.#state = new PageState(facts.memoryMiB * PAGES_PER_MIB, blocksOf(facts), contentsBytes)
    this.#uncommitted = new PageSet(this.#state.ramPages)
    this.#standby = new Standby(this.#facts, this.#state, () => void (this.#covered = true))
    this.#neighbours = new Neighbours(facts)
  }

  #use(keys: readonly StreamKey[] | undefined): void {
    if (keys !== undefined) this.#keys.splice(0, this.#keys.length, ...keys)
  }

  async capture(request: CaptureRequest): Promise<void> {
    const { epoch, socketPath, ramPath } = request
    if (this.#capture || this.#restore) throw busy()
    if (this.#restored?.isWhole === false) throw torn()
    this.#restored = undefined
    this.#use(request.keys)
    const { stream, pipeline } = this.#pipeline(request)
    if (ramPath !== undefined) {
      this.#capture = new RamCapture(epoch, pipeline, this.#ramCopy(ramPath, pipeline, epoch))
      // Not where QEMU streams RAM, because there the VM's writes wait for this thread to read.
      return this.#priority.giveWay()
    }
    const capture = new StreamCapture(epoch, pipeline)
    this.#capture = capture
    try {
      await capture.listen(socketPath)
    } catch (cause) {
      this.cancelCapture(epoch)
      throw new DiapauseError('IMAGE_SOCKET', `cannot listen on ${socketPath} for ${stream}`, { cause })
    }
  }

  #ramCopy(ramPath: string, pipeline: CapturePipeline, epoch: number): RamCopy {
    const due = this.#state.toRewrite()
    due.addAll(this.#uncommitted)
    // The machine tells of a page once: that may have been to the thread before this one, which has died.
    if (!this.#covered) due.addRanges(Uint32Array.of(0, this.#state.ramPages))
    try {
      return new RamCopy(ramPath, due, pipeline)
    } catch (cause) {
      this.#state.abort(epoch)
      throw new DiapauseError('IMAGE_RAM', `cannot read the VM's RAM at ${ramPath}: has the machine ended?`, { cause })
    }
  }

  async copyRam(request: CopyRequest): Promise<void> {
    // First of all, and also where the capture is over: nobody will tell of these pages again.
    this.#uncommitted.addRanges(request.pages)
    const capture = this.#copying(request.epoch)
    try {
      await capture.copy(request)
    } catch (error) {
      if (this.#capture === capture) this.cancelCapture(request.epoch)
      throw error
    }
  }

  async hurry(epoch: number): Promise<number> {
    return await this.#copying(epoch).hurry()
  }

  progress(epoch: number): number {
    return this.#copying(epoch).progress
  }

  async shipped(epoch: number): Promise<void> {
    if (this.#capture?.epoch !== epoch) throw cancelled(`capture of epoch ${epoch}`)
    await this.#capture.shipped()
    this.#priority.goOn()
  }

  async keepRam({ epoch, pages, bytes }: KeepRequest): Promise<void> {
    this.#uncommitted.addRanges(pages)
    this.#copying(epoch).keep(pages, bytes)
  }

  #copying(epoch: number): RamCapture {
    const capture = this.#capture
    if (capture?.epoch !== epoch || !(capture instanceof RamCapture)) throw cancelled(`capture of epoch ${epoch}`)
    return capture
  }

  #pipeline({ generation, epoch, holders, peers, stored, ramPath, leanOn, publishes }: CaptureRequest) {
    const stream = `${this.#facts.group}/${this.#facts.vm}/${generation}/${epoch}`
    const options = {
      facts: this.#facts,
      state: this.#state,
      codec: this.#codec,
      generation,
      epoch,
      holders,
      peers,
      stored,
      put: this.#putTo(stream, holders),
      partial: ramPath !== undefined && this.#covered,
      neighbours: leanOn && this.#neighbours.contents(leanOn),
      working: this.#working,
      read: this.#readCommitted
    }
    const pipeline = new CapturePipeline(options)
    this.#publishes = publishes ? { generation, epoch } : undefined
    return { stream, pipeline }
  }

  #putTo(stream: StreamId, holders: readonly string[]): PutColumn {
    return async (grid, column, bytes, spare) => {
      await this.#main.call('putColumn', { stream, holders, spare, grid, column, bytes }, wholeMemoryOf(bytes))
    }
  }

  readonly #readCommitted: ReadStream = (stream, offset, length) =>
    this.#main.call('readCommitted', { stream, offset, length })

  async storeBase({ file, stream, holders, keys }: StoreBaseRequest): Promise<BaseStream> {
    this.#use(keys)
    const [facts, codec, put] = [this.#facts, this.#codec, this.#putTo(stream, holders)]
    this.#priority.giveWay()
    try {
      return await writeBase({ facts, file, stream, holders, codec, put })
    } finally {
      this.#priority.goOn()
    }
  }

  async useBases({ bases, keys }: UseBasesRequest): Promise<void> {
    if (this.#capture || this.#restore || this.#covered) throw busy()
    this.#use(keys)
    await useBases(bases, { facts: this.#facts, state: this.#state, read: this.#readCommitted })
  }

  async finishCapture(request: FinishRequest): Promise<CapturedImage> {
    const { epoch } = request
    const capture = this.#capture
    if (capture instanceof RamCapture) this.#priority.giveWay()
    if (capture?.epoch !== epoch) throw cancelled(`capture of epoch ${epoch}`)
    try {
      return await capture.finish(request, this.#inFlight(epoch))
    } catch (error) {
      if (this.#capture === capture) this.cancelCapture(epoch)
      throw error
    } finally {
      if (this.#capture === capture) this.#capture = undefined
    }
  }

  async *#inFlight(epoch: number): AsyncGenerator<Uint8Array> {
    for (;;) {
      const piece = await this.#main.call('framePiece', { epoch })
      if (piece === undefined) return
      yield piece
    }
  }

  /** Also after `finishCapture`: an epoch that was not committed is void then. */
  cancelCapture(epoch: number): void {
    if (this.#capture?.epoch === epoch) {
      this.#capture.stop(cancelled(`capture of epoch ${epoch}`))
      this.#capture = undefined
    }
    this.#state.abort(epoch)
  }

  commit(epoch: number): boolean {
    if (!this.#state.commit(epoch)) return false
    this.#uncommitted.clear()
    this.#covered = true
    this.#publish()
    return true
  }

  hear(news: NeighbourNews): void {
    this.#neighbours.hear(news)
  }

  /** What is committed now. */
  #publish(): void {
    if (this.#publishes === undefined) return
    const { committed, contents } = this.#state
    try {
      const publication = this.#publisher.publish(committed, contents, this.#publishes)
      this.#main.call('published', publication).catch(() => {}) // this thread ends
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      this.#publisher.withdraw() // no memory for a board: the others write for themselves
    }
  }

  /** Takes the place of a restore that has not been served. */
  async restore({ restore, manifest, keys, publishes, ramPath }: RestoreRequest): Promise<void> {
    if (this.#capture) throw busy()
    this.#use(keys)
    this.cancelRestore(this.#restoreNumber)
    this.#restoreNumber = restore
    const mayBegin = () => {
      if (this.#restoreNumber !== restore) throw cancelled('restore')
      if (this.#capture) throw busy()
    }
    const [facts, state, main] = [this.#facts, this.#state, this.#main]
    const follow = this.#standby.to(ramPath)
    if (follow !== undefined) this.#priority.giveWay() // no VM waits for it
    const opening = ThreadRestore.open({ number: restore, facts, state, manifest, main, mayBegin, follow })
    const opened = await opening.finally(() => this.#priority.goOn())
    this.#publisher.withdraw()
    this.#publishes = publishes ? { generation: manifest.generation, epoch: manifest.epoch } : undefined
    this.#uncommitted.clear()
    this.#covered = false
    this.#restore = opened
    this.#restored = this.#disks = opened.disks
  }

  /** Also after `serve` and later commits. */
  readDisk({ restore, ...range }: DiskRequest): Promise<Uint8Array> {
    return this.#disksOf(restore).readDisk(range)
  }

  diskExtents({ restore, most, ...range }: DiskRequest & { readonly most: number }) {
    return this.#disksOf(restore).diskExtents(range, most)
  }

  closeDisks(restore: number): void {
    if (this.#disks?.number === restore) this.#disks = undefined
  }

  #disksOf(restore: number): RestoredDisks {
    if (this.#disks?.number !== restore) throw cancelled('restore')
    return this.#disks
  }

  /** The next piece of the image's frames; undefined: that was the last. */
  async restoredFrames(restore: number): Promise<Uint8Array | undefined> {
    if (this.#restore?.number !== restore) throw cancelled('restore')
    return await this.#restore.nextFrames()
  }

  async serve({ restore, socketPath }: { restore: number; socketPath: string }) {
    const serving = this.#restore
    if (serving?.number !== restore) throw cancelled('restore')
    try {
      const counts = await serving.source.serve(socketPath)
      this.#working = new WorkingSet(serving.learned())
      this.#working.learnAsked(serving.source.requests)
      this.#publish()
      return counts
    } finally {
      if (this.#restore === serving) this.#restore = undefined
    }
  }

  cancelRestore(restore: number): void {
    if (this.#restoreNumber !== restore) return
    this.#restore?.source.cancel()
    this.#restore = undefined
    this.#restoreNumber = 0
  }
}

const busy = () => new DiapauseError('IMAGE_BUSY', 'the VM is already being captured or restored: cancel that first')
const cancelled = (what: string) => new DiapauseError('IMAGE_CANCELLED', `the ${what} was cancelled`)

function handlers(thread: () => VmThread) {
  return {
    capture: (request: CaptureRequest) => thread().capture(request),
    copyRam: (request: CopyRequest) => thread().copyRam(request),
    hurry: (epoch: number) => thread().hurry(epoch),
    progress: (epoch: number) => thread().progress(epoch),
    shipped: (epoch: number) => thread().shipped(epoch),
    keepRam: (request: KeepRequest) => thread().keepRam(request),
    finishCapture: (request: FinishRequest) => thread().finishCapture(request),
    cancelCapture: (epoch: number) => thread().cancelCapture(epoch),
    commit: (epoch: number) => thread().commit(epoch),
    hear: (news: NeighbourNews) => thread().hear(news),
    storeBase: (request: StoreBaseRequest) => thread().storeBase(request),
    useBases: (request: UseBasesRequest) => thread().useBases(request),
    restore: (request: RestoreRequest) => thread().restore(request),
    restoredFrames: (restore: number) => thread().restoredFrames(restore),
    serve: (request: { restore: number; socketPath: string }) => thread().serve(request),
    cancelRestore: (restore: number) => thread().cancelRestore(restore),
    readDisk: (request: DiskRequest) => thread().readDisk(request),
    diskExtents: (request: DiskRequest & { readonly most: number }) => thread().diskExtents(request),
    closeDisks: (restore: number) => thread().closeDisks(restore),
    standStill
  }
}

/** What the main thread may call. */
export type WorkerCalls = ReturnType<typeof handlers> & { begin(facts: VmFacts): void }

if (parentPort) {
  const codec = createCodec()
  let thread: VmThread | undefined
  const begin = (facts: VmFacts): void => void (thread = new VmThread(facts, calls, codec))
  const calls = new ThreadCalls<MainCalls>(parentPort, { ...handlers(() => thread as VmThread), begin })
  if (workerData === 'spare') void rehearse(() => thread === undefined)
}
