/**
 * Seeds on all processors: each worker thread takes the next one when it has done its last. What a seed gives does not
 * depend on which thread runs it, or beside what.
 */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'

/** One seed of one world, and what is planted in it: nothing where `bug` is empty. */
export interface Task {
  readonly world: 'registers' | 'cluster'
  readonly seed: number
  readonly peers: number
  readonly bug: string
}

/** What both worlds say of a seed. */
export interface SeedOutcome {
  readonly seed: number
  /** How many there were. */
  readonly peers: number
  readonly violation: string | null
  readonly events: number
  readonly takeovers: number
  readonly convergedMs: number
  /** Only a whole cluster has them. */
  readonly epochs?: number
}

export interface Done extends SeedOutcome {
  readonly world: Task['world']
  readonly tookMs: number
}

/** Calls `each` with every outcome as it comes; true ends the run early. Rejects where a thread dies. */
export async function runTasks(tasks: readonly Task[], each: (done: Done) => boolean): Promise<void> {
  let next = 0
  let ended = false
  const threads = Math.min(availableParallelism(), tasks.length)
  const thread = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL('./pool-worker.ts', import.meta.url))
      const giveNext = (): void => {
        const task = ended ? undefined : tasks[next++]
        if (task === undefined) void worker.terminate()
        else worker.postMessage(task)
      }
      worker.on('message', (done: Done) => {
        ended ||= each(done)
        giveNext()
      })
      worker.on('error', reject)
      worker.on('exit', () => resolve())
      giveNext()
    })
  await Promise.all(Array.from({ length: threads }, thread))
}
