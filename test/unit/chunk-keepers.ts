import type { Chunk, ChunkKeeper } from '../../protocols/epoch/channel-queue.ts'

/** Keeps chunks in memory, and can tell how many bytes of them are held. */
export class MemoryKeeper implements ChunkKeeper {
  readonly chunkBytes: number
  readonly #limitBytes: number
  bytes = 0

  constructor(chunkBytes = 1024, limitBytes = Number.POSITIVE_INFINITY) {
    this.chunkBytes = chunkBytes
    this.#limitBytes = limitBytes
  }

  reserve(bytes: number): boolean {
    if (this.bytes + bytes > this.#limitBytes) return false
    this.bytes += bytes
    return true
  }

  sealed(_chunk: Chunk): void {}

  fetch(_chunk: Chunk, _ready: () => void): void {
    throw new Error('all chunks are in memory')
  }

  forget(chunk: Chunk): void {
    this.bytes -= chunk.length
  }

  release(bytes: number): void {
    this.bytes -= bytes
  }
}

/** A disk that takes every chunk it may, at moments that the test chooses, and gives them back likewise. */
export class DiskKeeper extends MemoryKeeper {
  readonly #sealed: Chunk[] = []
  readonly #disk = new Map<Chunk, Uint8Array>()
  readonly #fetches: { readonly chunk: Chunk; readonly ready: () => void }[] = []

  chunksWritten = 0

  override sealed(chunk: Chunk): void {
    this.#sealed.push(chunk)
  }

  override fetch(chunk: Chunk, ready: () => void): void {
    this.#fetches.push({ chunk, ready })
  }

  override forget(chunk: Chunk): void {
    super.forget(chunk)
    this.#disk.delete(chunk)
  }

  /** Writes what was sealed since, but for what is wanted. */
  write(): void {
    for (const chunk of this.#sealed.splice(0)) {
      if (chunk.bytes === undefined || chunk.wanted > 0 || chunk.holders === 0) continue
      this.#disk.set(chunk, chunk.bytes.slice())
      this.chunksWritten++
      chunk.bytes.fill(0xdd) // nobody may read it any more
      chunk.bytes = undefined
    }
  }

  /** Brings back what was asked for, or loses it. */
  read(lose = false): void {
    for (const { chunk, ready } of this.#fetches.splice(0)) {
      if (chunk.bytes === undefined && chunk.holders > 0) {
        if (lose) chunk.broken = true
        else chunk.bytes = this.#disk.get(chunk)
        this.#disk.delete(chunk)
        this.#sealed.push(chunk)
      }
      ready()
    }
  }
}
