/**
 * Batches of inputs on all processors, watched: a thread that stays in one input is ended, one that dies is replaced, and
 * both go on behind the input that did it.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Failure } from './run-input.ts'

export interface Batch {
  readonly target: string
  readonly seed: number
  readonly from: number
  readonly count: number
  /** To be run instead of the mutated one. */
  readonly input?: Uint8Array | undefined
}

export interface BatchResult {
  /** That went through; those behind a failure are not among them. */
  inputs: number
  /** Of them refused, by code. */
  readonly refused: Record<string, number>
  slowest: { index: number; ms: number }
  largest: { index: number; bytes: number }
  readonly failed?: Failed
}

export interface Failed extends Failure {
  readonly index: number
}

export interface ThreadData {
  /** URL of what exports `targets`. */
  readonly module: string
  readonly shared: SharedArrayBuffer
}

export interface PoolOptions {
  readonly module: string
  /** The next batch; undefined: there is none any more. */
  next(): Batch | undefined
  /** False: nothing more of this batch. */
  done(batch: Batch, result: BatchResult): boolean
  /** An input that takes longer hangs. */
  readonly hangMs: number
}

export const WATCH_MS = 100
/** More than any parser may hold. A thread that needs more dies of it. */
export const HEAP_MB = 512

/** Resolves when all batches are done. Rejects where a thread cannot even begin. */
export async function runPool(options: PoolOptions): Promise<void> {
  await Promise.all(Array.from({ length: availableParallelism() }, () => runThreads(options)))
}

/** One thread after the other, as often as one is lost. */
async function runThreads(options: PoolOptions): Promise<void> {
  let left: Batch | undefined
  do left = await new Thread(options, left).ended
  while (left !== undefined)
}

class Thread {
  /** Undefined: there are no batches any more. Else the thread was lost, and this is what was left of its batch. */
  readonly ended: Promise<Batch | undefined>
  readonly #options: PoolOptions
  readonly #shared = new SharedArrayBuffer(4)
  readonly #index = new Int32Array(this.#shared)
  readonly #worker: Worker
  #batch: Batch | undefined
  /** Of the batch of a thread that was lost. */
  #left: Batch | undefined
  #seen = { index: -1, atMs: 0 }

  /** `first`: the batch to begin with. */
  constructor(options: PoolOptions, first: Batch | undefined) {
    this.#options = options
    const workerData: ThreadData = { module: options.module, shared: this.#shared }
    const resourceLimits = { maxOldGenerationSizeMb: HEAP_MB }
    this.#worker = new Worker(new URL('./worker.ts', import.meta.url), { workerData, resourceLimits })
    const watch = setInterval(() => this.#watch(), WATCH_MS)
    this.ended = new Promise((resolve, reject) => {
      this.#worker.on('message', (message: 'ready' | BatchResult) => {
        if (message === 'ready') this.#give(first !== undefined && first.count > 0 ? first : options.next())
        else this.#took(message)
      })
      this.#worker.on('error', (error: Error) => {
        if (this.#batch === undefined) reject(error)
        else this.#lose('died', error.message)
      })
      this.#worker.on('exit', () => {
        clearInterval(watch)
        if (this.#batch !== undefined) this.#lose('died', 'its thread has ended')
        resolve(this.#left)
      })
    })
  }

  #give(batch: Batch | undefined): void {
    this.#batch = batch
    if (batch === undefined) return void this.#worker.terminate()
    this.#index[0] = batch.from
    this.#seen = { index: -1, atMs: performance.now() }
    this.#worker.postMessage(batch)
  }

  #took(result: BatchResult): void {
    const batch = this.#batch
    if (batch === undefined) return // it was given up just now
    const left = this.#options.done(batch, result) && result.failed && behind(batch, result.failed.index)
    this.#give(left && left.count > 0 ? left : this.#options.next())
  }

  #watch(): void {
    if (this.#batch === undefined) return
    const [index, atMs, { hangMs }] = [this.#index[0] ?? 0, performance.now(), this.#options]
    if (index !== this.#seen.index) this.#seen = { index, atMs }
    else if (atMs - this.#seen.atMs > hangMs) this.#lose('hang', `took more than ${hangMs} ms`)
  }

  #lose(kind: 'hang' | 'died', what: string): void {
    const [batch, index] = [this.#batch, this.#index[0] ?? 0]
    this.#batch = undefined
    if (batch === undefined) return
    const nothing = { refused: {}, slowest: { index, ms: 0 }, largest: { index, bytes: 0 } }
    const failed = { index, kind, what }
    const more = this.#options.done(batch, { inputs: index - batch.from, ...nothing, failed })
    this.#left = more ? behind(batch, index) : { ...batch, count: 0 }
    void this.#worker.terminate()
  }
}

/** What is left of a batch behind one of its inputs, perhaps nothing. */
function behind(batch: Batch, index: number): Batch {
  return { ...batch, from: index + 1, count: batch.from + batch.count - index - 1 }
}
