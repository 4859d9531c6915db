/**
 * The thread of one VM's image worker: its page state, and at most one capture or restore at a time. It talks to QEMU's
 * sockets itself; columns and reads go through the main thread, which has the connections to other peers.
 */
import { rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { parentPort, workerData } from 'node:worker_threads'
import { createCodec } from '../erasure/codec.ts'
import { DiapauseError } from '../errors.ts'
import type { Codec, ImageManifest, PageRanges } from '../ports.ts'
import { readBootSet } from './boot-set.ts'
import { CapturePipeline, type VmFacts } from './capture.ts'
import type { MainCalls } from './image-worker.ts'
import { PageSet } from './page-set.ts'
import { PAGES_PER_MIB, PageState } from './page-state.ts'
import { ThreadPriority } from './priority.ts'
import { PostcopySource } from './postcopy-source.ts'
import { RamCopy } from './ram-copy.ts'
import { ThreadCalls, wholeMemoryOf } from './thread-calls.ts'
import { standStill } from './thread-end.ts'

interface CaptureRequest {
  readonly generation: number
  readonly epoch: number
  readonly socketPath: string
  readonly holders: readonly string[]
  readonly ramPath?: string
}

interface CopyRequest {
  readonly epoch: number
  readonly pages: PageRanges
  readonly last: boolean
}

interface KeepRequest {
  readonly epoch: number
  readonly pages: PageRanges
  /** Of all these pages, end to end. */
  readonly bytes: Uint8Array
}

interface FinishRequest {
  readonly epoch: number
  /** Their number; the pieces are asked for. */
  readonly frames: number
  /** What QEMU sent, where RAM was copied. */
  readonly machine?: Uint8Array
}

interface RestoreRequest {
  /** A number of its own, from 1. */
  readonly restore: number
  readonly manifest: ImageManifest
}

/** A capture of RAM that is copied. What QEMU sends besides comes when the VM runs again, from the main thread. */
class RamCapture {
  readonly epoch: number
  readonly #pipeline: CapturePipeline
  readonly #ram: RamCopy

  constructor(epoch: number, pipeline: CapturePipeline, ram: RamCopy) {
    this.epoch = epoch
    this.#pipeline = pipeline
    this.#ram = ram
  }

  async copy({ pages, last }: CopyRequest): Promise<void> {
    if (last) this.#ram.readLast(pages)
    else await this.#ram.copy(pages)
  }

  hurry(): Promise<number> {
    return this.#ram.hurry()
  }

  get progress(): number {
    return this.#pipeline.progress
  }

  /** The last pages, which the main thread has read. */
  keep(pages: PageRanges, bytes: Uint8Array): void {
    this.#ram.keepLast(pages, bytes)
  }

  shipped(): Promise<void> {
    return this.#pipeline.idle()
  }

  async finish({ frames, machine }: FinishRequest, pieces: AsyncIterable<Uint8Array>): Promise<ImageManifest> {
    if (machine === undefined) throw new TypeError("QEMU's stream is missing")
    this.#pipeline.push(machine)
    await this.#ram.finish()
    return this.#pipeline.finish({ count: frames, pieces })
  }

  stop(): void {
    this.#pipeline.cancel()
    this.#ram.close()
  }
}

/** A capture of QEMU's stream, with its socket. `streamed` settles when QEMU has sent all. */
class StreamCapture {
  readonly epoch: number
  readonly #pipeline: CapturePipeline
  readonly #server: Server
  readonly #streamed: Promise<void>
  #settle: { resolve(): void; reject(error: unknown): void } = { resolve() {}, reject() {} }
  #socket: Socket | undefined

  constructor(epoch: number, pipeline: CapturePipeline) {
    this.epoch = epoch
    this.#pipeline = pipeline
    this.#streamed = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject }
    })
    this.#streamed.catch(() => {}) // it is told by `finish`, which may not have been called yet
    this.#server = createServer(socket => this.#accept(socket))
    this.#server.on('error', error => this.stop(error))
  }

  async listen(socketPath: string): Promise<void> {
    await rm(socketPath, { force: true })
    await new Promise<void>((resolve, reject) => this.#server.once('error', reject).listen(socketPath, resolve))
  }

  shipped(): Promise<void> {
    return this.#pipeline.idle()
  }

  async finish({ frames }: FinishRequest, pieces: AsyncIterable<Uint8Array>): Promise<ImageManifest> {
    await this.#streamed
    return this.#pipeline.finish({ count: frames, pieces })
  }

  /**
   * Ends it. What QEMU still sends is read and thrown away, because QEMU 7.2 whose snapshot's reader goes away leaves
   * RAM write-protected: the VM would hang at its next write (node/hypervisor/README.md).
   */
  stop(error: unknown): void {
    this.#settle.reject(error)
    this.#server.close()
    this.#pipeline.cancel()
    this.#socket?.removeAllListeners('data').resume()
  }

  #accept(socket: Socket): void {
    this.#socket = socket
    this.#server.close() // QEMU connects once
    socket.on('error', error => this.stop(error))
    socket.on('end', () => this.#settle.resolve())
    socket.on('close', () =>
      this.#settle.reject(new DiapauseError('MIGRATION_STREAM_CLOSED', 'QEMU closed its stream'))
    )
    socket.on('data', chunk => {
      try {
        this.#pipeline.push(chunk)
        const congestion = this.#pipeline.congestion()
        if (congestion === undefined) return
        socket.pause()
        congestion.then(
          () => socket.resume(),
          error => this.stop(error)
        )
      } catch (error) {
        this.stop(error)
      }
    })
  }
}

class VmThread {
  readonly #facts: VmFacts
  readonly #state: PageState
  readonly #codec: Codec
  readonly #main: ThreadCalls<MainCalls>
  readonly #priority = ThreadPriority.own()
  /** Pages copied, or to be copied, since the last commit: an epoch that comes to nothing leaves them due. */
  readonly #uncommitted: PageSet
  /** Every page but those is as in the committed table. */
  #covered = false
  #capture: RamCapture | StreamCapture | undefined
  #restore: PostcopySource | undefined
  #restoredFrames: AsyncGenerator<Uint8Array> | undefined
  /** Of the restore that is being read or served; 0: none. */
  #restoreNumber = 0

  constructor(facts: VmFacts, main: ThreadCalls<MainCalls>, codec: Codec) {
    this.#facts = facts
    this.#main = main
    this.#codec = codec
    this.#state = new PageState(facts.memoryMiB * PAGES_PER_MIB)
    this.#uncommitted = new PageSet(this.#state.pages)
  }

  async capture({ generation, epoch, socketPath, holders, ramPath }: CaptureRequest): Promise<void> {
    if (this.#capture || this.#restore) throw busy()
    const partial = ramPath !== undefined && this.#covered
    const { stream, pipeline } = this.#pipeline(generation, epoch, holders, partial)
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

  #pipeline(generation: number, epoch: number, holders: readonly string[], partial: boolean) {
    const stream = `${this.#facts.group}/${this.#facts.vm}/${generation}/${epoch}`
    const put = async (grid: number, column: number, bytes: Uint8Array) => {
      await this.#main.call('putColumn', { stream, holders, grid, column, bytes }, wholeMemoryOf(bytes))
    }
    const options = {
      facts: this.#facts,
      state: this.#state,
      codec: this.#codec,
      generation,
      epoch,
      holders,
      put,
      partial
    }
    return { stream, pipeline: new CapturePipeline(options) }
  }

  async finishCapture(request: FinishRequest): Promise<ImageManifest> {
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
    return true
  }

  /** Takes the place of a restore that has not been served. */
  async restore({ restore, manifest }: RestoreRequest): Promise<void> {
    if (this.#capture) throw busy()
    this.cancelRestore(this.#restoreNumber)
    this.#restoreNumber = restore
    const read = (stream: number, offset: number, length: number) =>
      this.#main.call('readData', { restore, stream, offset, length })
    const image = await readBootSet(this.#facts, manifest, read)
    if (this.#restoreNumber !== restore) throw cancelled('restore')
    if (this.#capture) throw busy()
    this.#state.reset(image.table)
    this.#uncommitted.clear()
    this.#covered = false
    this.#restore = new PostcopySource({ image, state: this.#state, key: this.#facts.key, read })
    this.#restoredFrames = image.frames
  }

  /** The next piece of the image's frames; undefined: that was the last. */
  async restoredFrames(restore: number): Promise<Uint8Array | undefined> {
    if (this.#restoreNumber !== restore) throw cancelled('restore')
    const next = await this.#restoredFrames?.next()
    return next?.done === false ? next.value : undefined
  }

  async serve({ restore, socketPath }: { restore: number; socketPath: string }) {
    const source = this.#restore
    if (this.#restoreNumber !== restore || !source) throw cancelled('restore')
    try {
      return await source.serve(socketPath)
    } finally {
      if (this.#restore === source) this.#restore = undefined
    }
  }

  cancelRestore(restore: number): void {
    if (this.#restoreNumber !== restore) return
    this.#restore?.cancel()
    this.#restore = undefined
    this.#restoredFrames = undefined
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
    restore: (request: RestoreRequest) => thread().restore(request),
    restoredFrames: (restore: number) => thread().restoredFrames(restore),
    serve: (request: { restore: number; socketPath: string }) => thread().serve(request),
    cancelRestore: (restore: number) => thread().cancelRestore(restore),
    standStill
  }
}

/** What the main thread may call. */
export type WorkerCalls = ReturnType<typeof handlers>

if (parentPort) {
  const calls = new ThreadCalls<MainCalls>(
    parentPort,
    handlers(() => thread)
  )
  const thread = new VmThread(workerData as VmFacts, calls, createCodec())
}
