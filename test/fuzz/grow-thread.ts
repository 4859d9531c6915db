/**
 * A thread that grows inputs, watched: one that stays in an input is ended, and one that dies is replaced. Either way the input that did
 * it is told, with where to go on behind it.
 */
import { Worker } from 'node:worker_threads'
import { behindBatch, type Grown } from './grow.ts'
import type { GrowMessage, GrowWish } from './grow-worker.ts'
import { HEAP_MB, type ThreadData, WATCH_MS } from './pool.ts'
import type { Failure } from './run-input.ts'
import { Running } from './running.ts'

export interface GrowThreadOptions {
  /** URL of what exports `targets`. */
  readonly module: string
  /** An input that takes longer hangs. */
  readonly hangMs: number
}

/** Told as they come. */
export interface GrowListener {
  failed(input: Uint8Array, failure: Failure): void
  kept(input: Uint8Array): void
}

/** The thread was lost in `input`, or, where that is sound, by what another left to a timer; `next`: the number to go on with. */
export interface Lost {
  readonly input: Uint8Array
  readonly failure: Failure
  readonly next: number
}

export class GrowThread {
  readonly #options: GrowThreadOptions
  #thread: { readonly worker: Worker; readonly running: Running } | undefined

  constructor(options: GrowThreadOptions) {
    this.#options = options
  }

  /** Loads all targets, which is not to be taken from the time of one. */
  async ready(): Promise<void> {
    this.#thread ??= await this.#start()
  }

  /** One wish at a time. Rejects where the thread ends before it runs any input: that is a mistake of the fuzzer, or of the target's seeds. */
  async grow(wish: GrowWish, listener: GrowListener): Promise<Grown | Lost> {
    const { worker, running } = (this.#thread ??= await this.#start())
    running.reset()
    const { promise, resolve, reject } = Promise.withResolvers<Grown | Lost>()
    let failure: Failure | undefined
    const lose = (kind: 'hang' | 'died', what: string): void => {
      failure ??= { kind, what }
      void worker.terminate()
    }
    const watch = this.#watch(running, what => lose('hang', what))
    worker.on('message', (message: GrowMessage) => {
      if (message.kind === 'failed') listener.failed(message.input, message.failure)
      else if (message.kind === 'kept') listener.kept(message.input)
      else if (message.kind === 'grown') resolve(message.grown)
    })
    worker.on('error', (error: Error) => lose('died', error.message))
    // Behind all that it has told.
    worker.on('exit', () => {
      this.#thread = undefined
      failure ??= { kind: 'died', what: 'its thread has ended' }
      const last = running.last
      if (last === undefined) reject(new Error(`${wish.name}: its thread ended before any input: ${failure.what}`))
      else resolve({ input: last.input, failure, next: behindBatch(last.batch) })
    })
    worker.postMessage(wish)
    return await promise.finally(() => {
      clearInterval(watch)
      for (const event of ['message', 'error', 'exit']) worker.removeAllListeners(event)
    })
  }

  async close(): Promise<void> {
    await this.#thread?.worker.terminate()
    this.#thread = undefined
  }

  /** Resolves when it has loaded all targets. */
  async #start(): Promise<{ readonly worker: Worker; readonly running: Running }> {
    const running = new Running()
    const workerData: ThreadData = { module: this.#options.module, shared: running.shared }
    const resourceLimits = { maxOldGenerationSizeMb: HEAP_MB }
    const worker = new Worker(new URL('./grow-worker.ts', import.meta.url), { workerData, resourceLimits })
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    worker.once('message', () => resolve()).once('error', reject)
    await promise
    worker.removeAllListeners('error')
    return { worker, running }
  }

  #watch(running: Running, hangs: (what: string) => void): NodeJS.Timeout {
    const { hangMs } = this.#options
    let seen = { now: 0, atMs: performance.now() }
    return setInterval(() => {
      const [now, atMs] = [running.now, performance.now()]
      if (now === 0 || now !== seen.now) seen = { now, atMs }
      else if (atMs - seen.atMs > hangMs) hangs(`took more than ${hangMs} ms`)
    }, WATCH_MS)
  }
}
