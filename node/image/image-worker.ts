/**
 * The main thread's side of an image worker: thin, because everything that takes time is in the thread (`worker.ts`).
 * Here columns leave for the cluster and reads come from it; bytes are moved between the threads, not copied.
 */
import { Worker } from 'node:worker_threads'
import { DiapauseError } from '../errors.ts'
import type { Capture, ImageManifest, ImageWorker, Log, Restore, ShardCluster } from '../ports.ts'
import type { VmFacts } from './capture.ts'
import { countPages, LastPages, MAX_LAST_PAGES } from './last-pages.ts'
import { GROUP_KEY_BYTES } from './seal.ts'
import { ThreadCalls, wholeMemoryOf } from './thread-calls.ts'
import type { WorkerCalls } from './worker.ts'

/** A large young generation makes a thread that allocates buffers slower, not faster (LIBRARIES: 3 MB, +70 %). */
const RESOURCE_LIMITS = { maxYoungGenerationSizeMb: 3 }

export interface ImageWorkerOptions extends VmFacts {
  readonly cluster: ShardCluster
  readonly log: Log
}

interface PutRequest {
  readonly stream: string
  readonly holders: readonly string[]
  readonly grid: number
  readonly column: number
  readonly bytes: Uint8Array
}

interface ReadRequest {
  readonly restore: number
  /** Index into the streams of the manifest being restored. */
  readonly stream: number
  readonly offset: number
  readonly length: number
}

/** What the worker thread may call. */
export interface MainCalls extends Record<string, (argument: never) => unknown> {
  putColumn(request: PutRequest): Promise<void>
  readData(request: ReadRequest): Promise<Uint8Array>
}

/**
 * The image worker of one VM. Errors of its methods: IMAGE_BUSY (a capture or restore is under way), IMAGE_EPOCH_OPEN (the
 * last captured epoch is neither committed nor aborted), IMAGE_CANCELLED, IMAGE_MISMATCH, IMAGE_MEMORY_SIZE, IMAGE_SEAL,
 * IMAGE_INVALID, IMAGE_SOCKET, IMAGE_WORKER (the thread has died), MIGRATION_STREAM_…, and what the cluster rejects with.
 */
export async function createImageWorker(options: ImageWorkerOptions): Promise<ImageWorker> {
  const { cluster, log, ...rest } = options
  const { group, vm, memoryMiB, accel, key, shape } = rest
  if (key.length !== GROUP_KEY_BYTES) throw new TypeError(`the group key must have ${GROUP_KEY_BYTES} bytes`)
  const facts: VmFacts = { group, vm, memoryMiB, accel, key, shape }
  const worker = new Worker(new URL('./worker.ts', import.meta.url), {
    workerData: facts,
    resourceLimits: RESOURCE_LIMITS,
    name: `image ${vm}`
  })
  let restoring: { number: number; manifest: ImageManifest } | undefined
  let restores = 0
  const main: MainCalls = {
    putColumn: ({ stream, holders, grid, column, bytes }) =>
      cluster.putColumn({ stream, holders }, grid, column, bytes),
    readData: ({ restore, stream, offset, length }) => {
      const manifest = restoring?.number === restore ? restoring.manifest.streams[stream] : undefined
      if (!manifest) throw new DiapauseError('IMAGE_CANCELLED', 'the restore was cancelled')
      return cluster.readData(manifest, offset, length)
    }
  }
  const calls = new ThreadCalls<WorkerCalls>(worker, main)
  worker.on('error', cause => {
    log.error({ vm, err: cause }, 'image worker died')
    calls.fail(new DiapauseError('IMAGE_WORKER', `the image worker of ${vm} has died`, { cause }))
  })
  worker.on('exit', () => calls.fail(new DiapauseError('IMAGE_WORKER', `the image worker of ${vm} has ended`)))

  const decide = (epoch: number, decision: Promise<unknown>): void => {
    decision.then(
      done => done === false && log.warn({ vm, epoch }, 'an epoch was committed that this worker has not captured'),
      error => log.warn({ vm, epoch, err: error }, 'the image worker could not settle an epoch')
    )
  }

  return {
    async capture(request) {
      await calls.call('capture', request)
      return captureOf(calls, request.epoch, request.ramPath)
    },
    commit: epoch => decide(epoch, calls.call('commit', epoch)),
    abort: epoch => decide(epoch, calls.call('cancelCapture', epoch)),
    async restore(manifest) {
      const restore = ++restores
      restoring = { number: restore, manifest }
      const frames = await calls.call('restore', { restore, manifest })
      return {
        frames,
        serve: socketPath => calls.call('serve', { restore, socketPath }),
        cancel: () => unlessEnded(calls.call('cancelRestore', restore))
      } satisfies Restore
    },
    async close() {
      await worker.terminate()
    }
  }
}

function captureOf(calls: ThreadCalls<WorkerCalls>, epoch: number, ramPath: string | undefined): Capture {
  const ram = ramPath === undefined ? undefined : new LastPages(ramPath)
  /** After a round the worker has no page left to copy but those it will be told of. */
  let rounds = 0
  /** The worker has the last pages; awaited when the VM runs again. */
  let kept: Promise<void> = Promise.resolve()
  return {
    copy: async pages => {
      await calls.call('copyRam', { epoch, pages, last: false })
      rounds++
    },
    shipped: () => calls.call('shipped', epoch),
    copyLast: async pages => {
      if (ram === undefined || rounds === 0 || countPages(pages) > MAX_LAST_PAGES) {
        return await calls.call('copyRam', { epoch, pages, last: true })
      }
      let bytes: Uint8Array
      try {
        bytes = ram.read(pages)
      } catch {
        // The worker must know of them all the same: nobody will tell of these pages again.
        return await calls.call('copyRam', { epoch, pages, last: true })
      }
      kept = calls.call('keepRam', { epoch, pages, bytes }, wholeMemoryOf(bytes))
      kept.catch(() => {}) // `finish` tells
    },
    finish: async frames => {
      ram?.close()
      await kept
      return await calls.call('finishCapture', { epoch, frames })
    },
    cancel: async () => {
      ram?.close()
      await unlessEnded(calls.call('cancelCapture', epoch))
    }
  }
}

/** Cancelling what ended with its thread is done. */
async function unlessEnded(cancelling: Promise<void>): Promise<void> {
  try {
    await cancelling
  } catch (error) {
    if (!(error instanceof DiapauseError && error.code === 'IMAGE_WORKER')) throw error
  }
}
