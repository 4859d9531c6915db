/** Images: one VM at one epoch. */
import type { PeerId } from '../../protocols/core.ts'
import type { HeldColumn } from '../../protocols/shards/messages.ts'
import type { Talk } from '../../protocols/talks.ts'
import type { BlockSource } from './blocks.ts'
import type { DiskFile, PageRanges } from './machines.ts'
import type { FrameLog } from './network.ts'
import type { ColumnState, StreamId } from './store.ts'

/** The shards of one stream: what a reader needs to find, check and decode it. */
export interface StreamManifest {
  readonly stream: StreamId
  readonly k: number
  readonly m: number
  /** Column c of every grid is held by holders[c]; the number of columns C ≥ k + m. A peer may stand here twice. */
  readonly holders: readonly PeerId[]
  /** Bytes of data in the stream, all grids together; grid g starts at the sum of C × k × symbolBytes of those before. */
  readonly dataBytes: number
  /** Number of the data key under which it is sealed. Absent: 0, which comes of the cluster's secret. */
  readonly key?: number | undefined
  readonly grids: readonly GridManifest[]
}

export interface GridManifest {
  readonly symbolBytes: number
  /** First 16 bytes of SHA-256 of each symbol, column by column, row by row: C × (k + m) × 16 bytes. */
  readonly hashes: Uint8Array
}

/** One VM at one epoch, named by the SHA-256 of its encoding. `streams`: all it refers to, this epoch's last. */
export interface ImageManifest {
  readonly group: string
  readonly vm: string
  readonly generation: number
  readonly epoch: number
  readonly memoryMiB: number
  readonly accel: 'kvm' | 'tcg'
  /** Blocks of 4096 bytes of each disk, in the order of the VM's specification. Absent: it has none. */
  readonly disks?: readonly { readonly blocks: number }[] | undefined
  readonly streams: readonly StreamManifest[]
  /** Byte ranges of the last stream: device state and stream skeleton; page index, which leads to further parts, in older streams, too; in-flight frames. */
  readonly machine: ByteRange
  readonly index: ByteRange
  readonly frames: ByteRange
  /** Of the last stream: which pages to send before the VM runs, and where they lie. Absent: none are known, as in images of older formats. */
  readonly boot?: ByteRange | undefined
  readonly stats: ImageStats
  /** With whom the VM had spoken lately. Absent: nobody, or it is not known. */
  readonly talks?: readonly Talk[] | undefined
}

export interface ByteRange {
  readonly offset: number
  readonly length: number
}

export interface ImageStats {
  /** Pages of RAM in QEMU's stream, of them not zero, of them changed since the last committed epoch. */
  readonly pages: number
  readonly pagesNonZero: number
  readonly pagesChanged: number
  /** bytesRaw: changed pages and device state; bytesData: after compression and sealing; bytesStored: with parity. */
  readonly bytesRaw: number
  readonly bytesData: number
  readonly bytesStored: number
  readonly inFlightFrames: number
  /**
   * Pages and blocks whose content lay somewhere already, and those of which only what changed was written. Absent in images
   * of older versions.
   */
  readonly pagesSeen?: number | undefined
  readonly pagesDelta?: number | undefined
  /** Columns that the grid of the image's own stream lacked that lacked most, when it counted as durable. Absent: none. */
  readonly columnsMissing?: number | undefined
}

/** The content of a base, stored once for all images: its blocks that are not zero, each whole, in their order. */
export interface BaseStream {
  readonly manifest: StreamManifest
  readonly extents: number
  readonly blocks: number
  /** Bytes of the stream that hold its extents' lengths. */
  readonly lengths: ByteRange
}

/**
 * Who has each column of streams now that are not, or not wholly, stored as their manifests say; '': nobody, and not only late.
 * Others are as planned as far as is known.
 */
export type StoredElsewhere = ReadonlyMap<StreamId, readonly PeerId[]>

/** The data plane of one VM, in a worker thread: turns QEMU's stream into shards and shards into QEMU's stream. */
export interface ImageWorker {
  /**
   * Listens on `socketPath` for QEMU's snapshot stream and ships columns as they fill. Resolves when listening. With
   * `ramPath` (`RamTracking`) the stream has no RAM: it is copied from that file, page ranges by page ranges.
   */
  capture(options: {
    generation: number
    epoch: number
    socketPath: string
    holders: readonly PeerId[]
    /** Peers that live: what others of them have stored before is not lost. Absent: the holders. */
    peers?: readonly PeerId[]
    /** What `StoredElsewhere` has of a stream. Absent: all are as planned. */
    storedAt?: ((stream: StreamId) => readonly PeerId[] | undefined) | undefined
    ramPath?: string
  }): Promise<Capture>
  /** The captured epoch is committed: the next capture is a difference to it. */
  commit(epoch: number): void
  /**
   * The captured epoch is void: the next capture is a difference to the last committed one. Pages that were to be
   * copied for this one are due again in the next.
   */
  abort(epoch: number): void
  /**
   * Reads the boot set of an image. The restore then sources the migration. With `ramPath`, of a machine that waits (`wait`), that
   * file is made the RAM of the image first, from that of the image before, or zeros; `serve` then sends the devices alone. While
   * that is under way, and where it rejects, the file is no image.
   */
  restore(manifest: ImageManifest, ramPath?: string): Promise<Restore>
  /** Absent: bases are captured as what was written is. */
  readonly bases?: BaseWorker | undefined
  close(): Promise<void>
}

export interface BaseWorker {
  /** Stores the content of a disk's base as `stream`. IMAGE_DISK, IMAGE_KEY, SHARD_UNREACHABLE. */
  store(options: { file: DiskFile; stream: StreamId; holders: readonly PeerId[] }): Promise<BaseStream>
  /**
   * Before the first capture: the disks are as these bases, whose content is stored, and that capture is a difference to
   * them. Where it rejects they are zeros, as ever. IMAGE_BUSY; IMAGE_DISK where a file is another base; and as `readData`.
   */
  use(bases: readonly UsedBase[]): Promise<void>
}

/** A base of a disk, and where its content is stored. */
export interface UsedBase {
  readonly file: DiskFile
  readonly base: BaseStream
}

export interface Capture {
  /**
   * The VM runs: copies these pages, and whatever else is due (see `worker.abort`). Resolves when they are hashed and on
   * their way; waits where columns cannot leave. Only with `ramPath`, as `copyLast`.
   */
  copy(pages: PageRanges): Promise<void>
  /** Grows as pages are copied and columns become durable: where it stays, nothing gets on. Only with `ramPath`. */
  progress(): Promise<number>
  /**
   * Copies under way end where they are, and those to come copy nothing: what is left is due at `copyLast`. Resolves, when
   * they have ended, with how many pages that is. Only with `ramPath`.
   */
  hurry(): Promise<number>
  /** Settles when all columns that were filled so far are durable: this capture then keeps nobody's processor or disk busy. */
  shipped(): Promise<void>
  /** The VM stands still: as `copy`, but resolves as soon as the pages have been read. No copy may follow. */
  copyLast(pages: PageRanges): Promise<void>
  /**
   * Call when QEMU's stream has ended and the in-flight frames are known; resolves when every column is durable. `disks`:
   * files of all that was written to the disks since the last committed epoch, or since they held zeros, the oldest first. A
   * raw one is a base of such a disk.
   */
  finish(frames: FrameLog, disks?: readonly DiskFile[]): Promise<ImageManifest>
  /** Stops and forgets; safe at any time. */
  cancel(): Promise<void>
}

export interface Restore {
  /** The pieces of the image's frame log, for the switch. To be read once, before `serve`. */
  readonly frames: AsyncIterable<Uint8Array>
  /** Connects to QEMU's incoming socket, sends the boot set, serves faults, pushes the rest. Resolves when all is sent. */
  serve(socketPath: string): Promise<RestoreCounts>
  cancel(): Promise<void>
  /**
   * The disks of the image, in their order, until `closeDisks`: also after `serve`, and when later epochs were committed. What
   * the VM has written since is not in them. SHARD_LOST, IMAGE_SEAL, IMAGE_INVALID, IMAGE_CANCELLED, IMAGE_WORKER.
   */
  readonly disks: readonly BlockSource[]
  closeDisks(): Promise<void>
}

/** What became of the pages of a restore. */
export interface RestoreCounts {
  readonly pagesFaulted: number
  readonly pagesPushed: number
  /** Sent before the VM ran, of those pushed; and the bytes of streams that were read for that. Absent: RAM was there. */
  readonly bootPages?: number | undefined
  readonly bootBytes?: number | undefined
  /** Of reading what the VM needs before it runs, and of sending it. Absent: as `bootPages`. */
  readonly bootReadMs?: number | undefined
  readonly bootSendMs?: number | undefined
  /** From a page request to its answer being on its way, at the source. Absent: there were none. */
  readonly faultP50Ms?: number | undefined
  readonly faultP99Ms?: number | undefined
}

export interface ReadOptions {
  /** So many symbols above k are asked for of each diagonal, and the first k taken: for reads that must not wait. 0: none. */
  readonly hedge?: number | undefined
}

/** Where the worker's columns go and its symbols come from: the shards of the whole cluster. */
export interface ShardCluster {
  /**
   * Durable at `holders[column]` when it resolves. SHARD_UNREACHABLE where that peer does not answer. `spare`: the grid is good
   * without so many of its columns, which are all put at once. When the others are durable, those are not waited for long:
   * they reject with SHARD_LATE, and go on in the background as far as memory for that allows.
   */
  putColumn(
    to: { stream: StreamId; holders: readonly PeerId[]; spare?: number | undefined },
    grid: number,
    column: number,
    bytes: Uint8Array
  ): Promise<void>
  /** Of a stream that nobody wants, such as of a void epoch: what is not under way to its holders yet is not put any more. */
  forgetStream?(stream: StreamId): void
  /**
   * Bytes [offset, offset + length) of the stream's data, every symbol checked against its hash. A holder that is gone,
   * wrong or slower than the forced timeout is replaced by a degraded read. SHARD_LOST where fewer than k are left.
   */
  readData(manifest: StreamManifest, offset: number, length: number, options?: ReadOptions): Promise<Uint8Array>
  /** Stores a manifest on all `peers`; resolves when as many have it durably as `shards.durability` says, m + 1 at least. */
  putManifest(hash: string, bytes: Uint8Array, peers: readonly PeerId[]): Promise<void>
  /** From this peer's store, else from any other. MANIFEST_MISSING. */
  getManifest(hash: string): Promise<Uint8Array>
}

/** What members may be asked of the columns that they have themselves. All: SHARD_UNREACHABLE. */
export interface ColumnHolders {
  /** The columns that `peer` has of a stream. */
  have(peer: PeerId, stream: StreamId): Promise<readonly HeldColumn[]>
  /** Lets `peer` read and check its column of grids [firstGrid, firstGrid + grids), at most MAX_CHECKED. */
  check(
    peer: PeerId,
    stream: StreamId,
    column: number,
    firstGrid: number,
    grids: number
  ): Promise<readonly ColumnState[]>
  /** Lets `peer` look at once for columns that it should rebuild. */
  askRepair(peer: PeerId): Promise<void>
}
