/**
 * The ports of a peer: what its agents need from the world, and no more. Adapters implement them, `peer.ts` joins them,
 * agents and tests know only these types. Byte arguments are the callee's to read until its promise settles; byte
 * results are the caller's to keep. Times are milliseconds. Every failure is a `DiapauseError` with a stable code.
 */
import type { PeerId } from '../protocols/core.ts'
import type { GroupRecord, VmSpec } from '../protocols/group.ts'

export interface Clock {
  /** Monotonic milliseconds; goes on while the process is stopped (SIGSTOP), as CLOCK_MONOTONIC does. */
  now(): number
  /** Calls `fn` once after `ms`; the result cancels it. */
  after(ms: number, fn: () => void): () => void
}

export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

// ---------------------------------------------------------------------------------------------- messages between peers

/** control: small and urgent. bulk: shards and manifests. frames: Ethernet frames of VMs. One libp2p stream each way each. */
export type Channel = 'control' | 'bulk' | 'frames'

/** A promise holds back the reader of that peer's channel: this is the back-pressure. Throwing closes the stream. */
export type MessageHandler = (from: PeerId, message: Uint8Array) => void | Promise<void>

/** One-way messages between members; in order and whole while a connection lasts, lost when it breaks. */
export interface Transport {
  readonly self: PeerId
  connected(peer: PeerId): boolean
  /** Queues a message now; false where there is no connection or the queue is full (the message is dropped then). */
  send(to: PeerId, channel: Channel, parts: readonly Uint8Array[]): boolean
  /** As `send`, and settles when the queue has room again. Rejects with TRANSPORT_DISCONNECTED. */
  write(to: PeerId, channel: Channel, parts: readonly Uint8Array[]): Promise<void>
  /** One handler a channel; set before `start`. `message` is the receiver's own. */
  handle(channel: Channel, handler: MessageHandler): void
  /** Every change of a member's connectedness (never for oneself). */
  onConnection(handler: (peer: PeerId, connected: boolean) => void): void
  start(): Promise<void>
  stop(): Promise<void>
}

// ---------------------------------------------------------------------------------------------- decisions

export interface Registers {
  /** Linearizable read. Rejects with REGISTER_UNAVAILABLE where no majority answers in time. */
  read(key: string): Promise<unknown>
  /**
   * Compare-and-set by a pure function of the present value (null before the first). `undefined` from `next` means
   * "leave it": the present value is then the result. `fence` names the holders whose leases on this key must have
   * run out before voters accept the change: rejects with REGISTER_LEASED (details.retryMs) while one has not.
   * Contention is retried inside, with jitter.
   */
  change(
    key: string,
    next: (current: unknown) => unknown,
    options?: { fence?: (current: unknown, next: unknown) => PeerId[]; generation?: (next: unknown) => number }
  ): Promise<unknown>
  /** Keys that this peer's own acceptor knows. A hint, for start-up. */
  localKeys(): Promise<string[]>
}

/** What the registers must not forget: a small map from names to bytes, held in memory by its user. */
export interface RegisterStore {
  /** Every entry. REGISTER_STORE_CORRUPT where a checksum fails: what was promised is unknown, so this peer must not vote. */
  load(): Promise<(readonly [string, Uint8Array])[]>
  /** All of them or none, fsynced when it resolves. REGISTER_STORE_WRITE: then nothing may be said that relies on them. */
  persist(entries: readonly (readonly [string, Uint8Array])[]): Promise<void>
  close(): Promise<void>
}

// ---------------------------------------------------------------------------------------------- shards at rest

/** One VM's data of one epoch: `GROUP/VM/GENERATION/EPOCH`. What a stream holds never changes once written. */
export type StreamId = string

/** Shards of this peer's disk. A resolved `put` survives power loss. */
export interface ShardStore {
  /** Stores column `column` of grid `grid`. Twice the same is fine; other bytes: SHARD_CONFLICT. Full disk: STORE_FULL. */
  putColumn(stream: StreamId, grid: number, column: number, bytes: Uint8Array): Promise<void>
  /** `length` bytes from `offset` of a column. SHARD_MISSING, or SHARD_CORRUPT where the checksum of the record fails. */
  readColumn(stream: StreamId, grid: number, column: number, offset: number, length: number): Promise<Uint8Array>
  /** Manifests are named by the hex SHA-256 of their bytes; MANIFEST_HASH where they are not. */
  putManifest(hash: string, bytes: Uint8Array): Promise<void>
  getManifest(hash: string): Promise<Uint8Array | undefined>
  /** What is here, with bytes on disk. */
  streams(): Promise<{ stream: StreamId; bytes: number }[]>
  manifests(): Promise<string[]>
  dropStream(stream: StreamId): Promise<void>
  dropManifest(hash: string): Promise<void>
  close(): Promise<void>
}

/** Reed-Solomon over equal symbols (a multiple of 8 bytes). Data is k symbols end to end, parity m. */
export interface Codec {
  encode(data: Uint8Array, parity: Uint8Array, shape: CodeShape): Promise<void>
  /** Rebuilds the missing symbols in place. `present` has k + m entries, data first. DECODE_IMPOSSIBLE below k. */
  decode(data: Uint8Array, parity: Uint8Array, shape: CodeShape, present: readonly boolean[]): Promise<void>
}

export interface CodeShape {
  readonly k: number
  readonly m: number
  readonly symbolBytes: number
}

// ---------------------------------------------------------------------------------------------- machines

/** Pages of RAM: pairs of first page and number of pages, of 4096 bytes. In any order; they may overlap. */
export type PageRanges = Uint32Array

/** RAM that others on this host may read, and which pages of it were written. */
export interface RamTracking {
  /** A file whose bytes are the VM's RAM; open it for a descriptor of your own. Gone when the machine is. */
  readonly ramPath: string
  /**
   * Pages written since the last call, or all in the first. A page is told of once, so whoever asks must not forget.
   * Rejects with HYPERVISOR_TRACKING where this is no longer known: `Machine.tracking` is undefined from then on.
   */
  changed(): Promise<PageRanges>
}

/** A hypervisor on this host. `contract/hypervisor.test.ts` is its contract in executable form. */
export interface Hypervisor {
  /** e.g. "QEMU 7.2.22, tcg": chosen by a trial boot; a VM's image resumes only where `accel` is the same. */
  readonly description: string
  readonly accel: 'kvm' | 'tcg'
  /** How VMs are cut: by copying the pages that were written, or by a stream of all RAM. A VM may still do the latter. */
  readonly capture: 'dirty' | 'portable'
  /** Kills every VM process that an earlier run of this peer left behind; the number killed. Before anything else. */
  killStale(): Promise<number>
  define(options: MachineOptions): Machine
}

export interface MachineOptions {
  readonly spec: VmSpec
  /** Unix socket on which the switch listens for the VM's NIC. */
  readonly nicPath: string
  /** The guest's serial console is appended here. */
  readonly consolePath: string
  /** The machine has ended without `destroy` having been called. */
  onExit(reason: string): void
}

/** One VM: define → start → (cut | stop | resume)* → destroy. Calls out of order reject with HYPERVISOR_STATE. */
export interface Machine {
  readonly pid: number | undefined
  /** Defined while cuts send no RAM and the caller copies it: from `start` or `incomingComplete` on, where it works. */
  readonly tracking: RamTracking | undefined
  /** Boots; or, with `incoming`, starts as the target of a migration that the image worker sources on that unix socket. */
  start(): Promise<void>
  /** As `start`, but waits for a post-copy stream: `connectable` is called when QEMU listens on `socketPath`; resolves when the VM runs. */
  startIncoming(socketPath: string, connectable: () => void): Promise<void>
  /** After `startIncoming`: resolves when every page has come and the VM can be cut again. */
  incomingComplete(): Promise<void>
  /** Pauses. When it resolves the VM executes nothing and every frame it sent is in the NIC socket. */
  stop(): Promise<void>
  /** Goes on after `stop`. */
  resume(): Promise<void>
  /**
   * One cut of RAM and devices: stop; `stopped()` is called and awaited while the VM stands still (the switch drains and
   * turns the colour there); a background snapshot to `socketPath`, during which the VM runs again by itself. Where
   * `tracking` is defined the stream has no RAM in it, begins before the VM stops, and has ended when it runs again:
   * `stopped` copies the pages that are still to be copied, and whoever listens must read at once (else the VM is ended).
   * Resolves when the VM runs again; `streamed` settles when QEMU has sent the whole stream.
   */
  cut(socketPath: string, stopped: () => Promise<void>): Promise<{ pauseMs: number; streamed: Promise<void> }>
  /** Sends text to the guest's serial console. */
  type(text: string): Promise<void>
  /** Kills it at once. Safe in any state, also twice. */
  destroy(): Promise<void>
}

// ---------------------------------------------------------------------------------------------- the switch

/** The VM's side of the switch, as the snapshot and restore agents use it. */
export interface NicPort {
  /** Inbound frames wait from now on. */
  hold(): void
  /** Inbound frames flow, the waiting ones first. */
  release(): void
  /** Settles when the NIC's socket has been empty for two turns of the event loop (the VM must be stopped). */
  drained(): Promise<void>
  /** The cut: from now on frames sent are of colour `epoch`; returns frames sent per receiver before it. Starts recording in-flight frames. */
  turn(epoch: number): FrameCounts
  /** What sender `vm` says it sent before its cut to `epoch`. */
  expect(epoch: number, vm: string, sent: FrameCounts): void
  /** Settles with the in-flight frames when every channel's count is met. Rejects with EPOCH_ABORTED after `abandon`. */
  recorded(epoch: number): Promise<Uint8Array[]>
  /** The epoch is aborted: recordings are dropped; a VM that has not cut takes the colour without a cut. */
  abandon(epoch: number): void
  /** Frames that belong to the image: delivered first when the VM runs. */
  inject(frames: readonly Uint8Array[]): void
  /** Socket closed, frames dropped. */
  detach(): Promise<void>
}

/** Receiver VM id → number of frames. */
export type FrameCounts = Readonly<Record<string, number>>

export interface Switch {
  /** Who is where. Frames of an older generation are refused and counted; of a newer one held until this is called. */
  setGroup(record: GroupRecord): void
  removeGroup(id: string): void
  /** Listens on `nicPath`. Inbound frames are held until the first `release`. `epoch` is the VM's colour. */
  attach(options: { group: string; vm: string; generation: number; epoch: number; nicPath: string }): Promise<NicPort>
  /** A frame of colour `epoch` has come for `vm`, which is older: it must be cut before more is delivered. */
  onMarker(handler: (group: string, vm: string, epoch: number) => void): void
  stats(): SwitchStats
}

export interface SwitchStats {
  readonly delivered: number
  readonly heldEarly: number
  readonly recordedInFlight: number
  readonly refusedGeneration: number
  readonly droppedUnknown: number
}

// ---------------------------------------------------------------------------------------------- small messages, liveness, leases

/** Typed small messages over the control channel. `protocol` is e.g. "register"; one handler a protocol. */
export interface ControlBus {
  readonly self: PeerId
  /** To oneself too (delivered in a later turn). False where not connected: the message is lost, as any message may be. */
  send(to: PeerId, protocol: string, message: object): boolean
  /** `parse` checks shape and limits and throws on anything else; such messages are counted, logged and dropped. */
  on<T>(protocol: string, parse: (message: unknown) => T, handler: (from: PeerId, message: T) => void): void
}

export type Liveness = 'alive' | 'suspect' | 'dead'

export interface FailureDetector {
  /** Members not declared dead, oneself included, sorted. */
  alive(): PeerId[]
  livenessOf(peer: PeerId): Liveness
  onChange(handler: (peer: PeerId, liveness: Liveness, why: string) => void): void
  start(): void
  stop(): void
}

/**
 * The right to run VMs: per register key and generation, granted by a majority of voters for `durationMs`. A voter that
 * has accepted a newer generation of the key never grants an older one again, and accepts no change that names this
 * holder in its fence before its grant has run out (plus drift). So: while `remainingMs` is positive nobody else owns.
 */
export interface Leases {
  /** Claims and keeps renewing. Resolves with the first majority; LEASE_REFUSED where voters know a newer generation. */
  acquire(key: string, generation: number): Promise<void>
  /** Stops renewing; voters forget the grant, so that a successor need not wait. */
  release(key: string): Promise<void>
  /** Milliseconds for which this peer may still act under `generation`; 0 where it may not. */
  remainingMs(key: string, generation: number): number
  /** The lease ends unrenewed in a moment: pause now. Called before it ends. */
  onLapse(handler: (key: string, generation: number) => void): void
  /** A majority granted the same generation again: going on is safe. */
  onRegained(handler: (key: string, generation: number) => void): void
  /** Voters know a newer generation: this one is over for good. */
  onLost(handler: (key: string, generation: number, newer: number) => void): void
  start(): void
  stop(): void
}

// ---------------------------------------------------------------------------------------------- images

/** The shards of one stream: what a reader needs to find, check and decode it. */
export interface StreamManifest {
  readonly stream: StreamId
  readonly k: number
  readonly m: number
  /** Column c of every grid is held by holders[c]; the number of columns C ≥ k + m. A peer may stand here twice. */
  readonly holders: readonly PeerId[]
  /** Bytes of data in the stream, all grids together; grid g starts at the sum of C × k × symbolBytes of those before. */
  readonly dataBytes: number
  readonly grids: readonly GridManifest[]
}

export interface GridManifest {
  readonly symbolBytes: number
  /** First 16 bytes of SHA-256 of each symbol, column by column, row by row: C × (k + m) × 16 bytes. */
  readonly hashes: Uint8Array
}

/** One VM at one epoch, named by the SHA-256 of its encoding. `streams`: all it refers to, this epoch's last. */
export interface ImageManifest {
  readonly format: 1
  readonly group: string
  readonly vm: string
  readonly generation: number
  readonly epoch: number
  readonly memoryMiB: number
  readonly accel: 'kvm' | 'tcg'
  readonly streams: readonly StreamManifest[]
  /** Byte ranges of the last stream: device state and stream skeleton; page index; in-flight frames. */
  readonly machine: ByteRange
  readonly index: ByteRange
  readonly frames: ByteRange
  readonly stats: ImageStats
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
}

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
    ramPath?: string
  }): Promise<Capture>
  /** The captured epoch is committed: the next capture is a difference to it. */
  commit(epoch: number): void
  /**
   * The captured epoch is void: the next capture is a difference to the last committed one. Pages that were to be
   * copied for this one are due again in the next.
   */
  abort(epoch: number): void
  /** Reads the boot set of an image. The restore then sources the migration. */
  restore(manifest: ImageManifest): Promise<Restore>
  close(): Promise<void>
}

export interface Capture {
  /**
   * The VM runs: copies these pages, and whatever else is due (see `worker.abort`). Resolves when they are hashed and on
   * their way; waits where columns cannot leave. Only with `ramPath`, as `copyLast`.
   */
  copy(pages: PageRanges): Promise<void>
  /** Settles when all columns that were filled so far are durable: this capture then keeps nobody's processor or disk busy. */
  shipped(): Promise<void>
  /** The VM stands still: as `copy`, but resolves as soon as the pages have been read. No copy may follow. */
  copyLast(pages: PageRanges): Promise<void>
  /** Call when QEMU's stream has ended and the in-flight frames are known; resolves when every column is durable. */
  finish(frames: readonly Uint8Array[]): Promise<ImageManifest>
  /** Stops and forgets; safe at any time. */
  cancel(): Promise<void>
}

export interface Restore {
  readonly frames: readonly Uint8Array[]
  /** Connects to QEMU's incoming socket, sends the boot set, serves faults, pushes the rest. Resolves when all is sent. */
  serve(socketPath: string): Promise<{ pagesFaulted: number; pagesPushed: number }>
  cancel(): Promise<void>
}

/** Where the worker's columns go and its symbols come from: the shards of the whole cluster. */
export interface ShardCluster {
  /** Durable at `holders[column]` when it resolves. SHARD_UNREACHABLE where that peer does not answer. */
  putColumn(
    manifest: { stream: StreamId; holders: readonly PeerId[] },
    grid: number,
    column: number,
    bytes: Uint8Array
  ): Promise<void>
  /**
   * Bytes [offset, offset + length) of the stream's data, every symbol checked against its hash. A holder that is gone,
   * wrong or slower than the forced timeout is replaced by a degraded read. SHARD_LOST where fewer than k are left.
   */
  readData(manifest: StreamManifest, offset: number, length: number): Promise<Uint8Array>
  /** Stores a manifest on all `peers`; resolves when every one has it durably. */
  putManifest(hash: string, bytes: Uint8Array, peers: readonly PeerId[]): Promise<void>
  /** From this peer's store, else from any other. MANIFEST_MISSING. */
  getManifest(hash: string): Promise<Uint8Array>
}
