/**
 * A restore in the thread: QEMU's source, the frames of the image, and its disks, which are read when both are done with, too: those are
 * kept alone then, because what was read to send RAM is as large as the working set.
 */
import { DiapauseError } from '../errors.ts'
import type { StreamId } from '../ports.ts'
import { type BootSet, readBootSet } from './boot-set.ts'
import { type DiskRange, DiskReader } from './disk-reader.ts'
import type { VmFacts } from './facts.ts'
import type { MainCalls } from './image-worker.ts'
import type { ImageOutline } from './known-images.ts'
import type { PageState } from './page-state.ts'
import type { ReadStream } from './place-reader.ts'
import { PostcopySource } from './postcopy-source.ts'
import type { StandbySource } from './standby-source.ts'
import type { LazyTable } from './table-reader.ts'
import type { ThreadCalls } from './thread-calls.ts'
import type { WorkingPage } from './working-set.ts'

export class ThreadRestore {
  /** A number of its own, from 1. */
  readonly number: number
  readonly source: PostcopySource | StandbySource
  /** As in `BootSet`. */
  readonly learned: () => readonly WorkingPage[]
  readonly disks: RestoredDisks
  readonly #frames: AsyncGenerator<Uint8Array>

  private constructor(number: number, parts: Parts) {
    this.number = number
    this.source = parts.source
    this.learned = parts.learned
    this.disks = parts.disks
    this.#frames = parts.frames
  }

  /** Reads what the VM needs before it runs; then `mayBegin` throws where it is too late. The page state is the image's from then on. */
  static async open(options: {
    readonly number: number
    readonly facts: VmFacts
    readonly state: PageState
    readonly manifest: ImageOutline
    readonly main: ThreadCalls<MainCalls>
    readonly mayBegin: () => void
    /** Brings a file that is the VM's RAM to that image. Undefined: its RAM is sent. */
    readonly follow: ((image: BootSet, read: ReadStream) => Promise<StandbySource>) | undefined
  }): Promise<ThreadRestore> {
    const { number, facts, state, manifest, main, mayBegin } = options
    const read = (stream: StreamId, offset: number, length: number) =>
      main.call('readData', { restore: number, stream, offset, length })
    const readForDisks = (stream: StreamId, offset: number, length: number) =>
      main.call('readForDisks', { restore: number, stream, offset, length })
    const fromMs = performance.now()
    const image = await readBootSet(facts, manifest, read, { workingSet: options.follow === undefined })
    const readMs = performance.now() - fromMs
    const followed = await options.follow?.(image, read)
    mayBegin()
    const { pages, frames } = image
    state.reset(pages.table)
    const newest = () => state.committed
    return new ThreadRestore(number, {
      source: followed ?? new PostcopySource({ facts, image, readMs, state, read }),
      learned: image.learned,
      frames,
      disks: new RestoredDisks(number, pages, new DiskReader({ facts, table: pages.table, read: readForDisks, newest }))
    })
  }

  /** The next piece of the image's frames; undefined: that was the last. */
  async nextFrames(): Promise<Uint8Array | undefined> {
    const next = await this.#frames.next()
    return next.done === false ? next.value : undefined
  }
}

export class RestoredDisks {
  /** Of the restore. */
  readonly number: number
  readonly #pages: LazyTable
  readonly #disks: DiskReader

  constructor(number: number, pages: LazyTable, disks: DiskReader) {
    this.number = number
    this.#pages = pages
    this.#disks = disks
  }

  /** Whether the page state knows all of the image. */
  get isWhole(): boolean {
    return this.#pages.isWhole
  }

  /** Also when it has been served, and after later commits. */
  async readDisk(range: DiskRange): Promise<Uint8Array> {
    await this.#pages.whole()
    return await this.#disks.read(range)
  }

  async diskExtents(range: DiskRange, most: number) {
    await this.#pages.whole()
    return this.#disks.extents(range, most)
  }
}

interface Parts {
  readonly source: PostcopySource | StandbySource
  readonly learned: () => readonly WorkingPage[]
  readonly frames: AsyncGenerator<Uint8Array>
  readonly disks: RestoredDisks
}

/** The image that the thread had begun to restore has not come as a whole. */
export const torn = (): DiapauseError =>
  new DiapauseError(
    'IMAGE_CANCELLED',
    'the last restore has ended before the page table had come: restore again, or with a worker of its own'
  )
