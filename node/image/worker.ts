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
import { giveWay } from './priority.ts'
import { PostcopySource } from './postcopy-source.ts'
import { RamCopy } from './ram-copy.ts'
import { ThreadCalls, wholeMemoryOf } from './thread-calls.ts'

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

interface RestoreRequest {
  /** A number of its own, from 1. */
  readonly restore: number
  readonly manifest: ImageManifest
}

/** A capture with its socket. `streamed` settles when QEMU has sent all. */
class RunningCapture {
  readonly epoch: number
  readonly #pipeline: CapturePipeline
  readonly #ram: RamCopy | undefined
  readonly #server: Server
  readonly #streamed: Promise<void>
  #settle: { resolve(): void; reject(error: unknown): void } = { resolve() {}, reject() {} }
  #socket: Socket | undefined

  constructor(epoch: number, pipeline: CapturePipeline, ram: RamCopy | undefined) {
    this.epoch = epoch
    this.#pipeline = pipeline
    this.#ram = ram
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

  async finish(frames: readonly Uint8Array[]): Promise<ImageManifest> {
    await this.#streamed
    await this.#ram?.finish()
    return this.#pipeline.finish(frames)
  }

  async copy({ pages, last }: CopyRequest): Promise<void> {
    if (!this.#ram) throw new TypeError("a capture of QEMU's stream copies no RAM")
    if (last) this.#ram.readLast(pages)
    else await this.#ram.copy(pages)
  }

  shipped(): Promise<void> {
    return this.#pipeline.idle()
  }

  /** The last pages, which the main thread has read. */
  keep(pages: PageRanges, bytes: Uint8Array): void {
    if (!this.#ram) throw new TypeError("a capture of QEMU's stream copies no RAM")
    this.#ram.keepLast(pages, bytes)
  }

  /**
   * Ends it. What QEMU still sends is read and thrown away, because QEMU 7.2 whose snapshot's reader goes away leaves
   * RAM write-protected: the VM would hang at its next write (node/hypervisor/README.md).
   */
  stop(error: unknown): void {
    this.#settle.reject(error)
    this.#server.close()
    this.#pipeline.cancel()
    this.#ram?.close()
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
  /** Pages copied, or to be copied, since the last commit: an epoch that comes to nothing leaves them due. */
  readonly #uncommitted: PageSet
  /** Every page but those is as in the committed table. */
  #covered = false
  #capture: RunningCapture | undefined
  #restore: PostcopySource | undefined
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
    const capture = new RunningCapture(epoch, pipeline, this.#ramCopy(ramPath, pipeline, epoch))
    this.#capture = capture
    // Not where QEMU streams RAM, because there the VM's writes wait for this thread to read.
    if (ramPath !== undefined) giveWay()
    try {
      await capture.listen(socketPath)
    } catch (cause) {
      this.cancelCapture(epoch)
      throw new DiapauseError('IMAGE_SOCKET', `cannot listen on ${socketPath} for ${stream}`, { cause })
    }
  }

  #ramCopy(ramPath: string | undefined, pipeline: CapturePipeline, epoch: number): RamCopy | undefined {
    if (ramPath === undefined) return undefined
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
    const capture = this.#capture
    if (capture?.epoch !== request.epoch) throw cancelled(`capture of epoch ${request.epoch}`)
    try {
      await capture.copy(request)
    } catch (error) {
      if (this.#capture === capture) this.cancelCapture(request.epoch)
      throw error
    }
  }

  async shipped(epoch: number): Promise<void> {
    if (this.#capture?.epoch !== epoch) throw cancelled(`capture of epoch ${epoch}`)
    await this.#capture.shipped()
  }

  async keepRam({ epoch, pages, bytes }: KeepRequest): Promise<void> {
    this.#uncommitted.addRanges(pages)
    if (this.#capture?.epoch !== epoch) throw cancelled(`capture of epoch ${epoch}`)
    this.#capture.keep(pages, bytes)
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

  async finishCapture({ epoch, frames }: { epoch: number; frames: readonly Uint8Array[] }): Promise<ImageManifest> {
    const capture = this.#capture
    if (capture?.epoch !== epoch) throw cancelled(`capture of epoch ${epoch}`)
    try {
      return await capture.finish(frames)
    } catch (error) {
      if (this.#capture === capture) this.cancelCapture(epoch)
      throw error
    } finally {
      if (this.#capture === capture) this.#capture = undefined
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
  async restore({ restore, manifest }: RestoreRequest): Promise<readonly Uint8Array[]> {
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
    return image.frames
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
    this.#restoreNumber = 0
  }
}

const busy = () => new DiapauseError('IMAGE_BUSY', 'the VM is already being captured or restored: cancel that first')
const cancelled = (what: string) => new DiapauseError('IMAGE_CANCELLED', `the ${what} was cancelled`)

function handlers(thread: () => VmThread) {
  return {
    capture: (request: CaptureRequest) => thread().capture(request),
    copyRam: (request: CopyRequest) => thread().copyRam(request),
    shipped: (epoch: number) => thread().shipped(epoch),
    keepRam: (request: KeepRequest) => thread().keepRam(request),
    finishCapture: (request: { epoch: number; frames: readonly Uint8Array[] }) => thread().finishCapture(request),
    cancelCapture: (epoch: number) => thread().cancelCapture(epoch),
    commit: (epoch: number) => thread().commit(epoch),
    restore: (request: RestoreRequest) => thread().restore(request),
    serve: (request: { restore: number; socketPath: string }) => thread().serve(request),
    cancelRestore: (restore: number) => thread().cancelRestore(restore)
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
