/**
 * The threads of image workers. To load one takes 150 to 250 ms on two busy cores, which a VM that is restored would wait for: so
 * one that has loaded everything, and rehearsed a restore (`rehearsal.ts`), and has no VM yet is kept, and the next is made when the host has had time to run the VM. It
 * takes 15 MB of memory.
 */
import { Worker } from 'node:worker_threads'
import { Spare } from '../spare.ts'
import { ThreadCalls } from './thread-calls.ts'
import { stoodStill } from './thread-end.ts'
import type { WorkerCalls } from './worker.ts'

/** A large young generation makes a thread that allocates buffers slower, not faster (LIBRARIES: 3 MB, +70 %). */
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 3 }

/** A thread that waits to be told of its VM (`WorkerCalls.begin`). `spare`: nobody needs it yet, it has time to rehearse. */
export const newThread = (workerData?: 'spare'): Worker =>
  new Worker(new URL('./worker.ts', import.meta.url), { resourceLimits: RESOURCE_LIMITS, name: 'image', workerData })

export class ImageThreads {
  readonly #spare = new Spare<Worker>({ make: async lost => waiting(lost), end })

  constructor() {
    this.#spare.prepare()
  }

  take(): Worker {
    const thread = this.#spare.take()
    if (thread === undefined) return newThread()
    thread.removeAllListeners()
    thread.ref()
    return thread
  }

  close(): Promise<void> {
    return this.#spare.close()
  }
}

function waiting(lost: () => boolean): Worker {
  const thread = newThread('spare')
  thread.on('error', lost).on('exit', lost)
  thread.unref()
  return thread
}

async function end(thread: Worker): Promise<void> {
  thread.removeAllListeners('error').on('error', () => {}) // it has no VM
  const calls = new ThreadCalls<WorkerCalls>(thread, {})
  await stoodStill(flag => calls.call('standStill', flag))
  await thread.terminate()
}
