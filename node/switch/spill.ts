/**
 * Room for the frames that wait at a peer's ports, and for those that are recorded: memory up to a limit, then disk.
 *
 * Each port writes to files of its own, which have no name any more when the first byte is in them: what a peer leaves
 * behind when it is killed is gone. Frames are traffic of guests, so they are sealed (AES-256-GCM) with a key that is
 * random and in memory only. What came last goes to disk first, since it is needed last. A chunk on disk stays there for
 * as long as anybody holds it, so that its bytes in memory can be dropped at any time without another write.
 */
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Chunk, ChunkKeeper } from '../../protocols/epoch/channel-queue.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../ports.ts'

/** Large enough for disks and ciphers, small enough to be sealed and opened beside other work (0.1 ms each). */
const CHUNK_BYTES = 256 * 1024
/** Sealed and written at once: a millisecond of the event loop. */
const BATCH_CHUNKS = 8
/** A file is given back to the disk when nothing in it is needed any more. */
const SEGMENT_BYTES = 64 << 20
/** After an error of the disk it is left alone for this long. A guess. */
const DISK_REST_MS = 5_000
/** How often its memory a peer may use while the disk does not keep up. A guess. */
const SLOW_DISK = 4
const TAG_BYTES = 16
const CIPHER = 'aes-256-gcm'

export interface FrameSpaceOptions {
  /** For the files, and for nothing else: emptied when the first is needed. Undefined: memory only. */
  readonly directory: string | undefined
  /** Above this, chunks go to disk; at four times this, because the disk is full or too slow, frames are dropped. */
  readonly memoryBytes: number
  readonly diskBytes: number
  readonly log: Log
}

interface Segment {
  readonly file: FileHandle
  bytes: number
  /** Chunks that somebody holds, and writes under way. */
  live: number
}

/** What some keepers may hold together. */
interface Share {
  bytes: number
  readonly limitBytes: number
}

interface Place {
  readonly segment: Segment
  readonly offset: number
  readonly nonce: Buffer
}

/** What all ports of a switch share. */
export class FrameSpace {
  readonly #options: FrameSpaceOptions
  readonly #key = randomBytes(32)
  readonly #output: Share
  #nonces = 0n
  #files = 0
  #prepared: Promise<string> | undefined
  #restUntilMs = 0
  memoryBytes = 0
  diskBytes = 0

  constructor(options: FrameSpaceOptions) {
    this.#options = options
    const { directory, memoryBytes, diskBytes } = options
    this.#output = { bytes: 0, limitBytes: (memoryBytes + (directory === undefined ? 0 : diskBytes)) / 2 }
  }

  keeper(): SpillKeeper {
    return new SpillKeeper(this)
  }

  /** For frames that wait for an epoch. Half the room is not theirs: without room for recordings no epoch would come. */
  outputKeeper(): SpillKeeper {
    return new SpillKeeper(this, this.#output)
  }

  /** Of frames that wait for an epoch. */
  get outputBytes(): number {
    return this.#output.bytes
  }

  get crowded(): boolean {
    return this.memoryBytes > this.#options.memoryBytes
  }

  hasRoom(bytes: number): boolean {
    return this.memoryBytes + bytes <= SLOW_DISK * this.#options.memoryBytes
  }

  diskHasRoom(bytes: number): boolean {
    const { directory, diskBytes } = this.#options
    return directory !== undefined && this.diskBytes + bytes <= diskBytes && performance.now() >= this.#restUntilMs
  }

  seal(bytes: Uint8Array): { readonly nonce: Buffer; readonly sealed: Buffer[] } {
    const nonce = Buffer.alloc(12)
    nonce.writeBigUInt64BE(this.#nonces++, 4)
    const cipher = createCipheriv(CIPHER, this.#key, nonce, { authTagLength: TAG_BYTES })
    const body = cipher.update(bytes)
    cipher.final()
    return { nonce, sealed: [body, cipher.getAuthTag()] }
  }

  /** Throws where the bytes are not what was sealed. */
  unseal(nonce: Buffer, sealed: Buffer): Uint8Array {
    const end = sealed.length - TAG_BYTES
    const decipher = createDecipheriv(CIPHER, this.#key, nonce, { authTagLength: TAG_BYTES })
    decipher.setAuthTag(sealed.subarray(end))
    const bytes = decipher.update(sealed.subarray(0, end))
    decipher.final()
    return bytes
  }

  async newFile(): Promise<FileHandle> {
    this.#prepared ??= this.#prepare()
    const path = join(await this.#prepared, `${this.#files++}.frames`)
    const file = await open(path, 'wx+', 0o600)
    await rm(path)
    return file
  }

  async #prepare(): Promise<string> {
    const directory = this.#options.directory ?? ''
    try {
      // What a run left that was killed between making a file and taking its name away.
      await rm(directory, { recursive: true, force: true })
      await mkdir(directory, { recursive: true, mode: 0o700 })
      return directory
    } catch (error) {
      this.#prepared = undefined
      throw error
    }
  }

  diskFailed(what: string, error: unknown): void {
    this.#restUntilMs = performance.now() + DISK_REST_MS
    const { log, directory } = this.#options
    log.error({ directory, error: messageOf(error) }, `${what}: is the disk full?`)
  }
}

/** One port's chunks. */
export class SpillKeeper implements ChunkKeeper {
  readonly chunkBytes = CHUNK_BYTES
  readonly #space: FrameSpace
  readonly #share: Share
  /** Full chunks with their bytes in memory, the oldest first. */
  readonly #resident = new Set<Chunk>()
  readonly #places = new Map<Chunk, Place>()
  readonly #fetching = new Map<Chunk, (() => void)[]>()
  #segment: Segment | undefined
  #writing = false

  constructor(space: FrameSpace, share: Share = { bytes: 0, limitBytes: Number.POSITIVE_INFINITY }) {
    this.#space = space
    this.#share = share
  }

  reserve(bytes: number): boolean {
    if (!this.#space.hasRoom(bytes) || this.#share.bytes + bytes > this.#share.limitBytes) return false
    this.#space.memoryBytes += bytes
    this.#share.bytes += bytes
    return true
  }

  release(bytes: number): void {
    this.#space.memoryBytes -= bytes
    this.#share.bytes -= bytes
  }

  sealed(chunk: Chunk): void {
    this.#resident.add(chunk)
    this.#relieve()
  }

  forget(chunk: Chunk): void {
    this.#share.bytes -= chunk.length
    if (chunk.bytes !== undefined) this.#space.memoryBytes -= chunk.length
    this.#resident.delete(chunk)
    const place = this.#places.get(chunk)
    if (place === undefined) return
    this.#places.delete(chunk)
    this.#space.diskBytes -= chunk.length
    this.#leave(place.segment)
  }

  fetch(chunk: Chunk, ready: () => void): void {
    const waiting = this.#fetching.get(chunk)
    if (waiting !== undefined) waiting.push(ready)
    else {
      this.#fetching.set(chunk, [ready])
      void this.#fetch(chunk)
    }
  }

  async #fetch(chunk: Chunk): Promise<void> {
    try {
      const bytes = await this.#read(chunk)
      if (chunk.holders > 0) {
        chunk.bytes = bytes
        this.#space.memoryBytes += chunk.length
        this.#resident.add(chunk)
      }
    } catch (error) {
      chunk.broken = true
      this.#space.diskFailed('frames that waited on disk cannot be read', error)
    }
    const waiting = this.#fetching.get(chunk) ?? []
    this.#fetching.delete(chunk)
    for (const ready of waiting) ready()
    this.#relieve()
  }

  async #read(chunk: Chunk): Promise<Uint8Array> {
    const { segment, offset, nonce } = this.#places.get(chunk) as Place
    segment.live++ // the file stays open meanwhile
    try {
      const sealed = Buffer.allocUnsafeSlow(chunk.length + TAG_BYTES)
      const { bytesRead } = await segment.file.read(sealed, 0, sealed.length, offset)
      if (bytesRead < sealed.length) throw new Error(`${bytesRead} of ${sealed.length} bytes`)
      return this.#space.unseal(nonce, sealed)
    } finally {
      this.#leave(segment)
    }
  }

  /** Memory is crowded: drops bytes that are on disk, too, and begins to write others, those that came last first. */
  #relieve(): void {
    this.#dropPlaced()
    if (!this.#writing && this.#space.crowded) void this.#write()
  }

  /** As many as are too many. */
  #dropPlaced(): void {
    if (!this.#space.crowded) return
    for (const chunk of this.#spare()) {
      if (!this.#space.crowded) return
      if (this.#places.has(chunk)) this.#drop(chunk)
    }
  }

  /** The newest first. */
  #spare(): Chunk[] {
    return [...this.#resident].filter(chunk => chunk.wanted === 0).reverse()
  }

  #drop(chunk: Chunk): void {
    chunk.bytes = undefined
    this.#resident.delete(chunk)
    this.#space.memoryBytes -= chunk.length
  }

  async #write(): Promise<void> {
    this.#writing = true
    try {
      for (;;) {
        this.#dropPlaced() // who wanted one that is on disk may have let it go during the last write
        if (!this.#space.crowded) return
        const batch = this.#spare().slice(0, BATCH_CHUNKS)
        const bytes = batch.reduce((sum, { length }) => sum + length, 0)
        if (batch.length === 0 || !this.#space.diskHasRoom(bytes)) return
        await this.#writeBatch(batch)
      }
    } catch (error) {
      this.#space.diskFailed('frames that wait cannot be put on disk', error)
    } finally {
      this.#writing = false
    }
  }

  async #writeBatch(batch: readonly Chunk[]): Promise<void> {
    const segment = await this.#currentSegment()
    const buffers: Buffer[] = []
    const written: [Chunk, Place][] = []
    const start = segment.bytes
    for (const chunk of batch) {
      if (chunk.bytes === undefined || chunk.holders === 0) continue // forgotten while the file was opened
      const { nonce, sealed } = this.#space.seal(chunk.bytes)
      written.push([chunk, { segment, offset: segment.bytes, nonce }])
      buffers.push(...sealed)
      segment.bytes += chunk.length + TAG_BYTES
    }
    segment.live++
    try {
      const { bytesWritten } = await segment.file.writev(buffers, start)
      if (bytesWritten < segment.bytes - start) throw new Error(`${bytesWritten} of ${segment.bytes - start} bytes`)
      for (const [chunk, place] of written) if (chunk.holders > 0) this.#written(chunk, place)
    } finally {
      this.#leave(segment)
    }
  }

  #written(chunk: Chunk, place: Place): void {
    place.segment.live++
    this.#places.set(chunk, place)
    this.#space.diskBytes += chunk.length
    if (chunk.wanted === 0) this.#drop(chunk)
  }

  async #currentSegment(): Promise<Segment> {
    if (this.#segment !== undefined && this.#segment.bytes < SEGMENT_BYTES) return this.#segment
    this.#segment = { file: await this.#space.newFile(), bytes: 0, live: 0 }
    return this.#segment
  }

  /** One chunk or write less that needs the segment. */
  #leave(segment: Segment): void {
    segment.live--
    if (segment.live > 0) return
    if (segment === this.#segment) this.#segment = undefined
    this.#close(segment)
  }

  #close(segment: Segment): void {
    segment.file
      .close()
      .catch((error: unknown) => this.#space.diskFailed('a file of waiting frames does not close', error))
  }
}
