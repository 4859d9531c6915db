/** A capture under way in the thread: of RAM that is copied out of its file, or of QEMU's stream. */
import { rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { DiapauseError } from '../errors.ts'
import type { DiskFile, PageRanges } from '../ports.ts'
import type { CapturePipeline } from './capture.ts'
import type { CapturedImage } from './known-images.ts'
import type { RamCopy } from './ram-copy.ts'

export interface CopyRequest {
  readonly epoch: number
  readonly pages: PageRanges
  readonly last: boolean
}

export interface KeepRequest {
  readonly epoch: number
  readonly pages: PageRanges
  /** Of all these pages, end to end. */
  readonly bytes: Uint8Array
}

export interface FinishRequest {
  readonly epoch: number
  /** Their number; the pieces are asked for. */
  readonly frames: number
  /** What QEMU sent, where RAM was copied. */
  readonly machine?: Uint8Array
  /** Files that hold what was written to the disks since the last committed epoch; the oldest first. */
  readonly disks: readonly DiskFile[]
}

/** A capture of RAM that is copied. What QEMU sends besides comes when the VM runs again, from the main thread. */
export class RamCapture {
  readonly epoch: number
  readonly #pipeline: CapturePipeline
  readonly #ram: RamCopy
  /** The first pages were told of. */
  #begun = false

  constructor(epoch: number, pipeline: CapturePipeline, ram: RamCopy) {
    this.epoch = epoch
    this.#pipeline = pipeline
    this.#ram = ram
  }

  async copy({ pages, last }: CopyRequest): Promise<void> {
    if (!this.#begun) this.#pipeline.wereWritten(pages)
    this.#begun = true
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

  async finish({ frames, machine, disks }: FinishRequest, pieces: AsyncIterable<Uint8Array>): Promise<CapturedImage> {
    if (machine === undefined) throw new TypeError("QEMU's stream is missing")
    this.#pipeline.push(machine)
    this.#pipeline.standsOn(machine, (offset, length) => this.#ram.peek(offset, length))
    await this.#ram.finish()
    await this.#pipeline.copyDisks(disks)
    return this.#pipeline.finish({ count: frames, pieces })
  }

  stop(): void {
    this.#pipeline.cancel()
    this.#ram.close()
  }
}

/** A capture of QEMU's stream, with its socket. `streamed` settles when QEMU has sent all. */
export class StreamCapture {
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

  async finish({ frames, disks }: FinishRequest, pieces: AsyncIterable<Uint8Array>): Promise<CapturedImage> {
    await this.#streamed
    await this.#pipeline.copyDisks(disks)
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
