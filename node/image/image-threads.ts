/**
 * The threads of image workers. To load one takes 150 to 250 ms on two busy cores, which a VM that is restored would wait for: so
 * one that has loaded everything, and rehearsed a restore (`rehearsal.ts`), and has no VM yet is kept, and the next is made when the host has had time to run the VM. It
 * takes 15 MB of memory.
 */
import { Worker } from 'node:worker_threads'
import { ThreadCalls } from './thread-calls.ts'
import { stoodStill } from './thread-end.ts'
import type { WorkerCalls } from './worker.ts'

/** A large young generation makes a thread that allocates buffers slower, not faster (LIBRARIES: 3 MB, +70 %). */
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 3 }
/** After one was taken. A guess: when its VM runs and has most of its pages. */
const REST_MS = 5_000

/** A thread that waits to be told of its VM (`WorkerCalls.begin`). `spare`: nobody needs it yet, it has time to rehearse. */
export const newThread = (workerData?: 'spare'): Worker =>
  new Worker(new URL('./worker.ts', import.meta.url), { resourceLimits: RESOURCE_LIMITS, name: 'image', workerData })

export class ImageThreads {
  #spare: Worker | undefined
  #resting: NodeJS.Timeout | undefined
  #closed = false

  constructor() {
    this.#prepare()
  }

  take(): Worker {
    const thread = this.#spare
    this.#spare = undefined
    clearTimeout(this.#resting)
    if (!this.#closed) this.#resting = setTimeout(() => this.#prepare(), REST_MS).unref()
    if (thread === undefined) return newThread()
    thread.removeAllListeners()
    thread.ref()
    return thread
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#resting)
    const thread = this.#spare
    this.#spare = undefined
    if (thread === undefined) return
    thread.removeAllListeners('error').on('error', () => {}) // it has no VM
    const calls = new ThreadCalls<WorkerCalls>(thread, {})
    await stoodStill(flag => calls.call('standStill', flag))
    await thread.terminate()
  }

  #prepare(): void {
    if (this.#closed || this.#spare !== undefined) return
    const thread = newThread('spare')
    this.#spare = thread
    const lost = () => {
      if (this.#spare === thread) this.#spare = undefined // the next VM has one made for it
    }
    thread.on('error', lost).on('exit', lost)
    thread.unref()
  }
}
