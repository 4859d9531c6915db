/**
 * The main thread's side of an image worker: thin, because everything that takes time is in the thread (`worker.ts`).
 * Here columns leave for the cluster and reads come from it; bytes are moved between the threads, not copied.
 */
import { DiapauseError } from '../errors.ts'
import type {
  BaseWorker,
  Capture,
  DiskFile,
  FrameLog,
  ImageManifest,
  ImageWorker,
  Log,
  Restore,
  ShardCluster,
  StreamId
} from '../ports.ts'
import { PAGE_BYTES } from '../hypervisor/migration-stream.ts'
import type { Publication } from './content-board.ts'
import { DeviceReceiver } from './device-receiver.ts'
import { type StreamKey, streamIdOf, type VmFacts } from './facts.ts'
import { type ImageThreads, newThread } from './image-threads.ts'
import { factsOf, KnownImages } from './known-images.ts'
import { countPages, LastPages, MAX_LAST_PAGES } from './last-pages.ts'
import { GROUP_KEY_BYTES } from './seal.ts'
import type { SharedContents } from './shared-contents.ts'
import { ThreadCalls, wholeMemoryOf } from './thread-calls.ts'
import { stoodStill } from './thread-end.ts'
import type { WorkerCalls } from './worker.ts'

export interface ImageWorkerOptions extends VmFacts {
  /** `VmFacts.keys` as they are now, for each capture and each restore. IMAGE_KEY where this peer has not been given them. */
  readonly dataKeys?: (() => readonly StreamKey[]) | undefined
  readonly cluster: ShardCluster
  readonly log: Log
  /** Absent: a thread is loaded for it. */
  readonly threads?: ImageThreads | undefined
  /** The VMs of this host. Absent: it shares nothing with others. */
  readonly neighbours?: SharedContents | undefined
}

/**
 * What a restore reads before the VM runs waits for no single slow holder: one symbol more of each diagonal is asked for, a third
 * more of some MB at k = 3. A guess.
 */
const BOOT_HEDGE = 1

/** By their numbers. */
interface Restores {
  last: number
  served: number
}

interface PutRequest {
  readonly stream: string
  readonly holders: readonly string[]
  readonly spare: number
  readonly grid: number
  readonly column: number
  readonly bytes: Uint8Array
}

interface ReadRequest {
  readonly stream: StreamId
  readonly offset: number
  readonly length: number
}

/** What the worker thread may call. */
export interface MainCalls extends Record<string, (argument: never) => unknown> {
  putColumn(request: PutRequest): Promise<void>
  /** Of the image that is being restored. */
  readData(request: ReadRequest & { readonly restore: number }): Promise<Uint8Array>
  /** Of that restored image, or of the last committed one. */
  readForDisks(request: ReadRequest & { readonly restore: number }): Promise<Uint8Array>
  /** Of the last committed image, or the last restored one. */
  readCommitted(request: ReadRequest): Promise<Uint8Array>
  /** The next piece of the in-flight frames of the capture that is being finished; undefined: that was the last. */
  framePiece(request: { readonly epoch: number }): Promise<Uint8Array | undefined>
  /** What this VM has committed can be found by its neighbours. */
  published(publication: Publication): void
}

/**
 * The image worker of one VM. Errors of its methods: IMAGE_BUSY (a capture or restore is under way), IMAGE_EPOCH_OPEN (the
 * last captured epoch is neither committed nor aborted), IMAGE_CANCELLED, IMAGE_MISMATCH, IMAGE_MEMORY_SIZE, IMAGE_KEY,
 * IMAGE_SEAL, IMAGE_INVALID, IMAGE_SOCKET, IMAGE_WORKER (the thread has died), MIGRATION_STREAM_…, and what the cluster
 * rejects with.
 */
export async function createImageWorker(options: ImageWorkerOptions): Promise<ImageWorker> {
  const { cluster, log, threads, dataKeys, neighbours, ...rest } = options
  const { group, vm, memoryMiB, accel, key, keys, shape, disks, contentsMiB } = rest
  if (key.length !== GROUP_KEY_BYTES) throw new TypeError(`the group key must have ${GROUP_KEY_BYTES} bytes`)
  const facts: VmFacts = { group, vm, memoryMiB, accel, key, keys, shape, disks, contentsMiB }
  const worker = threads?.take() ?? newThread()
  const images = new KnownImages()
  const restores: Restores = { last: 0, served: 0 }
  const inFlight = new InFlight()
  const published = (publication: Publication) => member?.published(publication)
  const calls = new ThreadCalls<WorkerCalls>(worker, {
    ...mainCalls(cluster, images, inFlight, restores),
    published
  })
  const member = neighbours?.join({
    group,
    vm,
    committed: () => images.last,
    tell: news => void calls.call('hear', news).catch(() => {}) // its end is told otherwise
  })
  worker.on('error', cause => {
    log.error({ vm, err: cause }, 'image worker died')
    calls.fail(new DiapauseError('IMAGE_WORKER', `the image worker of ${vm} has died`, { cause }))
  })
  worker.on('exit', () => {
    member?.leave()
    calls.fail(new DiapauseError('IMAGE_WORKER', `the image worker of ${vm} has ended`))
  })

  calls.call('begin', facts).catch(() => {}) // its end is told otherwise

  const decide = (epoch: number, decision: Promise<unknown>): void => tellOf(decision, log, { vm, epoch })
  return {
    async capture({ storedAt, ...request }) {
      const { ramPath, epoch, socketPath } = request
      const { leanOn, streams = [] } = member?.leaning() ?? {}
      const stored = images.stored(streams, storedAt)
      const publishes = member?.hasNeighbours === true
      await calls.call('capture', { ...request, stored, keys: dataKeys?.(), leanOn, publishes })
      images.begun({ epoch, stream: streamIdOf(facts, request.generation, epoch) }, streams)
      const finish = finishing(calls, images, inFlight, epoch)
      if (ramPath === undefined) return streamCapture(calls, epoch, finish)
      return await openRamCapture(calls, { epoch, ramPath, socketPath, finish })
    },
    commit: epoch => {
      images.committed(epoch)
      decide(epoch, calls.call('commit', epoch))
    },
    abort: epoch => {
      for (const stream of images.voided(epoch)) cluster.forgetStream?.(stream)
      decide(epoch, calls.call('cancelCapture', epoch))
    },
    async restore(manifest, ramPath) {
      const restore = ++restores.last
      if (ramPath !== undefined) restores.served = restore // no VM waits for what is read
      const [outline, publishes] = [images.restoring(restore, manifest), member?.hasNeighbours === true]
      await calls.call('restore', { restore, manifest: outline, keys: dataKeys?.(), publishes, ramPath })
      images.restored(restore)
      return restoreOf(calls, restore, facts, restores)
    },
    bases: basesOf(calls, images, dataKeys),
    async close() {
      member?.leave()
      // Also one that has only begun to load, and answers late: an addon that is ended while it is loaded aborts the process.
      await stoodStill(flag => calls.call('standStill', flag))
      await worker.terminate()
    }
  }
}

function basesOf(
  calls: ThreadCalls<WorkerCalls>,
  images: KnownImages,
  dataKeys: ImageWorkerOptions['dataKeys']
): BaseWorker {
  return {
    store(request) {
      return calls.call('storeBase', { ...request, keys: dataKeys?.() })
    },
    async use(bases) {
      images.useBases(bases.map(({ base }) => base.manifest))
      const outlines = bases.map(({ file, base }) => ({ file, base: { ...base, manifest: factsOf(base.manifest) } }))
      await calls.call('useBases', { bases: outlines, keys: dataKeys?.() })
    }
  }
}

function mainCalls(
  cluster: ShardCluster,
  images: KnownImages,
  inFlight: InFlight,
  restores: Restores
): Omit<MainCalls, 'published'> {
  return {
    framePiece: ({ epoch }) => inFlight.next(epoch),
    putColumn: ({ stream, holders, spare, grid, column, bytes }) =>
      cluster.putColumn({ stream, holders, spare }, grid, column, bytes),
    readData: ({ restore, stream, offset, length }) =>
      cluster.readData(images.streamOfRestore(restore, stream), offset, length, {
        hedge: restore > restores.served ? BOOT_HEDGE : 0
      }),
    readForDisks: ({ restore, stream, offset, length }) =>
      cluster.readData(images.streamForDisks(restore, stream), offset, length),
    readCommitted: ({ stream, offset, length }) => cluster.readData(images.streamOfCommitted(stream), offset, length)
  }
}

type Finish = (frames: FrameLog, disks: readonly DiskFile[], machine?: Uint8Array) => Promise<ImageManifest>

function finishing(calls: ThreadCalls<WorkerCalls>, images: KnownImages, inFlight: InFlight, epoch: number): Finish {
  return async (frames, disks, machine) => {
    inFlight.begin(epoch, frames)
    const argument = { epoch, frames: frames.frames, disks, ...(machine && { machine }) }
    return images.captured(await calls.call('finishCapture', argument, wholeMemoryOf(machine)))
  }
}

/** The frame log of the capture that is being finished, which the thread reads as fast as it can ship it. */
class InFlight {
  #epoch = -1
  #pieces: AsyncIterator<Uint8Array> | undefined

  begin(epoch: number, frames: FrameLog): void {
    this.#epoch = epoch
    this.#pieces = frames.pieces()[Symbol.asyncIterator]()
  }

  async next(epoch: number): Promise<Uint8Array | undefined> {
    if (epoch !== this.#epoch) throw new DiapauseError('IMAGE_CANCELLED', `epoch ${epoch} is not being finished`)
    const next = await this.#pieces?.next()
    return next?.done === false ? next.value : undefined
  }
}

function restoreOf(calls: ThreadCalls<WorkerCalls>, restore: number, { disks }: VmFacts, restores: Restores): Restore {
  return {
    frames: restoredFrames(calls, restore),
    serve: socketPath => {
      restores.served = restore
      return calls.call('serve', { restore, socketPath })
    },
    cancel: () => unlessEnded(calls.call('cancelRestore', restore)),
    disks: disks.map(({ blocks }, disk) => ({
      bytes: blocks * PAGE_BYTES,
      read: (offset, length) => calls.call('readDisk', { restore, disk, offset, length }),
      extents: (offset, length, most) => calls.call('diskExtents', { restore, disk, offset, length, most })
    })),
    closeDisks: () => unlessEnded(calls.call('closeDisks', restore))
  }
}

async function* restoredFrames(calls: ThreadCalls<WorkerCalls>, restore: number): AsyncGenerator<Uint8Array> {
  for (;;) {
    const piece = await calls.call('restoredFrames', restore)
    if (piece === undefined) return
    yield piece
  }
}

/** Of RAM and devices in one stream of QEMU's, which the thread reads. */
function streamCapture(calls: ThreadCalls<WorkerCalls>, epoch: number, finish: Finish): Capture {
  const noRam = () => Promise.reject(new TypeError("a capture of QEMU's stream copies no RAM"))
  return {
    copy: noRam,
    copyLast: noRam,
    hurry: noRam,
    progress: noRam,
    shipped: () => calls.call('shipped', epoch),
    finish: (frames, disks = []) => finish(frames, disks),
    cancel: () => unlessEnded(calls.call('cancelCapture', epoch))
  }
}

async function openRamCapture(
  calls: ThreadCalls<WorkerCalls>,
  { epoch, ramPath, socketPath, finish }: { epoch: number; ramPath: string; socketPath: string; finish: Finish }
): Promise<Capture> {
  let ram: LastPages | undefined
  try {
    ram = new LastPages(ramPath)
    return ramCapture(calls, { epoch, ram, finish, devices: await DeviceReceiver.listen(socketPath) })
  } catch (error) {
    ram?.close()
    await unlessEnded(calls.call('cancelCapture', epoch))
    throw error
  }
}

/** Of RAM that is copied while the VM runs. What is read while it stands still, the main thread reads. */
function ramCapture(
  calls: ThreadCalls<WorkerCalls>,
  { epoch, ram, devices, finish }: { epoch: number; ram: LastPages; devices: DeviceReceiver; finish: Finish }
): Capture {
  /** Whether the worker has pages left to copy besides those it will be told of: not after a round that came to its end. */
  let owes = true
  let hurried = false
  /** The worker has the last pages; awaited when the VM runs again. */
  let kept: Promise<void> = Promise.resolve()
  return {
    copy: async pages => {
      await calls.call('copyRam', { epoch, pages, last: false })
      owes = hurried
    },
    hurry: async () => {
      hurried = true
      const due = await calls.call('hurry', epoch)
      owes = due > 0
      return due
    },
    progress: () => calls.call('progress', epoch),
    shipped: () => calls.call('shipped', epoch),
    copyLast: async pages => {
      if (owes || countPages(pages) > MAX_LAST_PAGES) {
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
    finish: async (frames, disks = []) => {
      ram.close()
      await kept
      return await finish(frames, disks, await devices.received)
    },
    cancel: async () => {
      ram.close()
      devices.stop(new DiapauseError('IMAGE_CANCELLED', `the capture of epoch ${epoch} was cancelled`))
      await unlessEnded(calls.call('cancelCapture', epoch))
    }
  }
}

function tellOf(decision: Promise<unknown>, log: Log, about: { vm: string; epoch: number }): void {
  decision.then(
    done => done === false && log.warn(about, 'an epoch was committed that this worker has not captured'),
    error => log.warn({ ...about, err: error }, 'the image worker could not settle an epoch')
  )
}

/** Cancelling what ended with its thread is done. */
async function unlessEnded(cancelling: Promise<void>): Promise<void> {
  try {
    await cancelling
  } catch (error) {
    if (!(error instanceof DiapauseError && error.code === 'IMAGE_WORKER')) throw error
  }
}
