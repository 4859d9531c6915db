/**
 * Frames that wait, in order, as many as there are: packets (u32 big-endian length, the frame) end to end in chunks. Only
 * whole chunks are ever moved, shared between queues or put on disk, so that a cut costs by the chunk and not by the
 * frame. Pure: where chunks are is the keeper's business; it may take the bytes of any chunk but a queue's last one and
 * those that are wanted, and gives them back when asked. So the first frame of a queue may not be at hand: `ready` is
 * called when it is.
 */

/** A queue that holds a few frames for some milliseconds should not cost a whole chunk. */
const FIRST_BYTES = 4096
/** Chunks that are brought back before they are needed. */
const READ_AHEAD = 4
const PREFIX_BYTES = 4

export interface Chunk {
  /** Undefined while it is on disk only. */
  bytes: Uint8Array | undefined
  /** Of `bytes`. */
  readonly length: number
  /** Queues that hold it. At 0 the keeper forgets it. */
  holders: number
  /** Queues that need its bytes now or soon: they must stay where they are. */
  wanted: number
  /** Its bytes are lost: a disk's error. */
  broken: boolean
}

/** Where chunks live. Counts their bytes, puts some on disk, brings them back. */
export interface ChunkKeeper {
  /** Chunks are filled up to this; the largest packet must fit. */
  readonly chunkBytes: number
  /** Room for `bytes` more in memory; false: they must be dropped. */
  reserve(bytes: number): boolean
  /** The chunk is full, its bytes were reserved: it may go to disk from now on. */
  sealed(chunk: Chunk): void
  /** Calls `ready`, in a later turn, when `chunk.bytes` is defined or `chunk.broken` true. */
  fetch(chunk: Chunk, ready: () => void): void
  /** No queue holds it any more. */
  forget(chunk: Chunk): void
  /** Reserved bytes that are not part of a sealed chunk were given up. */
  release(bytes: number): void
}

export interface QueueEvents {
  /** The first frame is at hand again, after a `shift` that found none. */
  ready(): void
  /** So many frames have gone with a chunk whose bytes are lost. */
  lost(frames: number): void
}

/** A queue's own view of a chunk that others may hold too. */
interface Entry {
  readonly chunk: Chunk
  at: number
  frames: number
  wanted: boolean
}

export class FrameQueue {
  readonly #keeper: ChunkKeeper
  readonly #events: QueueEvents
  #entries: Entry[] = []
  #first = 0
  #frames = 0
  #bytes = 0
  /** The chunk that is being filled; its frames come after all entries. */
  #tail: Uint8Array = new Uint8Array(0)
  #tailBytes = 0
  #tailFrames = 0
  #tailAt = 0

  constructor(keeper: ChunkKeeper, events: QueueEvents) {
    this.#keeper = keeper
    this.#events = events
  }

  /** The packets in `packets`, which lie end to end. */
  static *split(packets: Uint8Array): Generator<Uint8Array> {
    for (let at = 0; at < packets.length; at += packetBytes(packets, at)) yield packetAt(packets, at)
  }

  /** Frames. */
  get length(): number {
    return this.#frames
  }

  /** Of all packets. */
  get bytes(): number {
    return this.#bytes
  }

  /** Appends a copy of `packet`; false where there is no room. */
  push(packet: Uint8Array): boolean {
    if (!this.#keeper.reserve(packet.length)) return false
    if (this.#tailBytes + packet.length > this.#tail.length) this.#makeRoom(packet.length)
    this.#tail.set(packet, this.#tailBytes)
    this.#tailBytes += packet.length
    this.#tailFrames++
    this.#frames++
    this.#bytes += packet.length
    return true
  }

  /** Appends whole packets, end to end, which become the queue's own; false where there is no room. */
  pushAll(packets: Uint8Array): boolean {
    if (!this.#keeper.reserve(packets.length)) return false
    this.#seal()
    const chunk: Chunk = { bytes: packets, length: packets.length, holders: 1, wanted: 0, broken: false }
    let frames = 0
    for (const _ of FrameQueue.split(packets)) frames++
    this.#add({ chunk, at: 0, frames, wanted: false })
    this.#keeper.sealed(chunk)
    return true
  }

  /** The next packet, a view; undefined where there is none, or none at hand (then `ready` is called). */
  shift(): Uint8Array | undefined {
    const entry = this.#head()
    if (entry === undefined) return this.#shiftTail()
    const { bytes } = entry.chunk
    if (bytes === undefined) return undefined
    const packet = packetAt(bytes, entry.at)
    entry.at += packet.length
    entry.frames--
    this.#taken(1, packet.length)
    if (entry.at === bytes.length) this.#dropHead(entry)
    return packet
  }

  /** As `shift`, but many packets end to end, the caller's own. */
  shiftMany(): Uint8Array | undefined {
    if (this.#entries.length === this.#first) this.#seal()
    const entry = this.#head()
    const bytes = entry?.chunk.bytes
    if (entry === undefined || bytes === undefined) return undefined
    const whole = entry.chunk.holders === 1 && entry.at === 0 && bytes.length === bytes.buffer.byteLength
    const packets = whole ? bytes : bytes.slice(entry.at)
    this.#taken(entry.frames, packets.length)
    this.#dropHead(entry)
    return packets
  }

  /** Appends all frames of `other`, which keeps them: chunks are shared. */
  share(other: FrameQueue): void {
    other.#seal()
    this.#seal()
    for (const { chunk, at, frames } of other.#entries.slice(other.#first)) {
      chunk.holders++
      this.#add({ chunk, at, frames, wanted: false })
    }
  }

  /** Appends all frames of `other`, which is empty then. */
  absorb(other: FrameQueue): void {
    this.share(other)
    other.clear()
  }

  clear(): void {
    for (const entry of this.#entries.slice(this.#first)) this.#letGo(entry)
    this.#keeper.release(this.#tailBytes - this.#tailAt)
    this.#entries = []
    this.#first = 0
    this.#frames = 0
    this.#bytes = 0
    this.#startTail()
  }

  /** The first entry, wanted with some that follow; undefined: the tail is all there is. */
  #head(): Entry | undefined {
    let entry = this.#entries[this.#first]
    while (entry?.chunk.broken) {
      this.#taken(entry.frames, entry.chunk.length - entry.at)
      this.#dropHead(entry)
      this.#events.lost(entry.frames)
      entry = this.#entries[this.#first]
    }
    for (let at = this.#first; at < Math.min(this.#first + READ_AHEAD, this.#entries.length); at++) {
      const next = this.#entries[at] as Entry
      if (next.wanted) continue
      next.wanted = true
      next.chunk.wanted++
      // Of a chunk that is read ahead nobody need be told.
      if (next.chunk.bytes === undefined) this.#keeper.fetch(next.chunk, () => this.#fetched(next))
    }
    return entry
  }

  #fetched(entry: Entry): void {
    if (this.#entries[this.#first] === entry) this.#events.ready()
  }

  #shiftTail(): Uint8Array | undefined {
    if (this.#tailAt === this.#tailBytes) return undefined
    const packet = packetAt(this.#tail, this.#tailAt)
    this.#tailAt += packet.length
    this.#tailFrames--
    this.#taken(1, packet.length)
    this.#keeper.release(packet.length)
    if (this.#tailAt === this.#tailBytes) this.#startTail() // and not again from its beginning: views of it are out
    return packet
  }

  #taken(frames: number, bytes: number): void {
    this.#frames -= frames
    this.#bytes -= bytes
  }

  #add(entry: Entry): void {
    this.#entries.push(entry)
    this.#frames += entry.frames
    this.#bytes += entry.chunk.length - entry.at
  }

  #dropHead(entry: Entry): void {
    this.#letGo(entry)
    this.#first++
    if (this.#first < 1024 && this.#first < this.#entries.length) return
    this.#entries = this.#entries.slice(this.#first)
    this.#first = 0
  }

  #letGo({ chunk, wanted }: Entry): void {
    if (wanted) chunk.wanted--
    if (--chunk.holders === 0) this.#keeper.forget(chunk)
  }

  #makeRoom(packetBytes: number): void {
    const left = this.#tailBytes - this.#tailAt
    if (left + packetBytes > this.#keeper.chunkBytes) this.#seal()
    const used = this.#tailBytes - this.#tailAt
    const grown = new Uint8Array(Math.min(this.#keeper.chunkBytes, Math.max(FIRST_BYTES, 2 * (used + packetBytes))))
    grown.set(this.#tail.subarray(this.#tailAt, this.#tailBytes))
    this.#tail = grown
    this.#tailBytes = used
    this.#tailAt = 0
  }

  /** The tail becomes the last entry. */
  #seal(): void {
    if (this.#tailAt === this.#tailBytes) return
    const bytes = this.#tail.subarray(this.#tailAt, this.#tailBytes)
    const chunk: Chunk = { bytes, length: bytes.length, holders: 1, wanted: 0, broken: false }
    this.#entries.push({ chunk, at: 0, frames: this.#tailFrames, wanted: false })
    this.#startTail()
    this.#keeper.sealed(chunk)
  }

  #startTail(): void {
    this.#tail = new Uint8Array(0)
    this.#tailBytes = 0
    this.#tailFrames = 0
    this.#tailAt = 0
  }
}

function packetAt(bytes: Uint8Array, at: number): Uint8Array {
  return bytes.subarray(at, at + packetBytes(bytes, at))
}

/** The lowest 24 bits are the length: frames are far shorter, and what stands above them is the switch's. */
const packetBytes = (bytes: Uint8Array, at: number): number =>
  PREFIX_BYTES + (((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number))
