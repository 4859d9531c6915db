/**
 * Room on the disk. Puts are refused while there is still some, because what else lies on this disk needs it more: the
 * acceptor's registers, logs, and the index, which must be written for anything to be deleted. And because others may
 * take even that, there is a file of nothing (`DIR/reserve`), which is removed when the index cannot be written.
 *
 * A disk that takes nothing, whatever it says of its room (a quota, a broken disk), is said to have none, so that nobody chooses it
 * for new columns; from then on it is tried whether it takes something.
 */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import { type Files, storeError } from './files.ts'

/** Kept free of shards: a hundred times what registers and logs of a busy hour take. A guess. */
const KEPT_FREE_BYTES = 64 << 20
/** But no more than this part of a disk. A guess. */
const KEPT_FREE_PART = 1 / 10
/** Enough for level to open twice: its log and a table are 4 MiB each. */
const RESERVE_BYTES = 8 << 20
/** The disk is asked again after this, or when so much has been put: others write, too. Both a guess. */
const ASK_AGAIN_MS = 1_000
const ASK_AGAIN_BYTES = 256 << 20
/** Written to see whether a disk takes something again: as a small column. */
const TRIAL_BYTES = 64 << 10

export interface SpaceOptions {
  readonly dir: string
  readonly reservePath: string
  readonly files: Files
  readonly clock: Clock
  readonly log: Log
  /** For tests on small file systems. */
  readonly keptFreeBytes?: number | undefined
  readonly reserveBytes?: number | undefined
}

export class Space {
  readonly #options: SpaceOptions
  #known: { readonly freeBytes: number; readonly atMs: number } | undefined
  #claimedBytes = 0
  /** The last write failed. */
  #refuses = false

  constructor(options: SpaceOptions) {
    this.#options = options
  }

  /** STORE_FULL where so many bytes would take what is kept free. */
  async claim(bytes: number): Promise<void> {
    const { clock, dir } = this.#options
    this.#claimedBytes += bytes
    const left = (this.#known?.freeBytes ?? 0) - this.#claimedBytes
    const old = this.#known === undefined || clock.now() - this.#known.atMs > ASK_AGAIN_MS
    if (!old && this.#claimedBytes < ASK_AGAIN_BYTES && left > 0) return
    const freeBytes = await this.freeBytes()
    this.#claimedBytes = bytes
    if (bytes <= freeBytes) return
    throw new DiapauseError(
      'STORE_FULL',
      `no shard is stored in ${dir}: its disk is full but for what is kept to delete with; free space, or drop old epochs`
    )
  }

  /** What may be put: free, and not kept. */
  async freeBytes(): Promise<number> {
    const { files, dir, clock, keptFreeBytes } = this.#options
    const { freeBytes, totalBytes } = await files.room(dir)
    const kept = keptFreeBytes ?? Math.min(KEPT_FREE_BYTES, totalBytes * KEPT_FREE_PART)
    const usable = Math.max(0, Math.floor(freeBytes - kept))
    this.#known = { freeBytes: usable, atMs: clock.now() }
    return usable
  }

  /** What others may count on: as `freeBytes`, but 0 while the disk takes nothing. */
  async offeredBytes(): Promise<number> {
    if (this.#refuses) await this.noting(this.#trial()).catch(() => {})
    return this.#refuses ? 0 : await this.freeBytes()
  }

  /** `write` is a write to this disk, as whose errors those of the disk are known. */
  async noting(write: Promise<void>): Promise<void> {
    const { log, dir } = this.#options
    try {
      await write
      if (this.#refuses) log.info({ dir }, 'the disk of the shard store takes what is written again')
      this.#refuses = false
    } catch (error) {
      const ofDisk = hasCode(error, 'STORE_IO') || hasCode(error, 'STORE_FULL')
      if (ofDisk && !this.#refuses) {
        log.error(
          { dir, error: messageOf(error) },
          'the disk of the shard store takes nothing: others are told that it is full'
        )
      }
      this.#refuses ||= ofDisk
      throw error
    }
  }

  async #trial(): Promise<void> {
    const { dir, files } = this.#options
    const path = join(dir, 'trial')
    try {
      await rm(path, { force: true }) // of a peer that was killed
      const file = await files.openSegment(path, true)
      try {
        await file.writeAll([new Uint8Array(TRIAL_BYTES)], 0)
      } finally {
        await file.close()
      }
      await rm(path, { force: true })
    } catch (error) {
      throw storeError(`a trial of ${dir} failed`, error)
    }
  }

  /** After a drop: what was claimed may be free again. */
  forget(): void {
    this.#known = undefined
  }

  /** Makes the reserve where there is room for it. */
  async keepReserve(): Promise<void> {
    const { reservePath, reserveBytes = RESERVE_BYTES, log, files } = this.#options
    try {
      if ((await files.sizeOf(reservePath)) === reserveBytes) return
      if ((await this.freeBytes()) >= reserveBytes) {
        await writeFile(reservePath, Buffer.alloc(reserveBytes), { flush: true })
        this.forget()
      }
    } catch (error) {
      await this.giveReserve()
      log.warn({ reservePath, error: messageOf(error) }, 'no space could be kept to delete with')
    }
  }

  /** True where there was one. */
  async giveReserve(): Promise<boolean> {
    const { reservePath, log, files } = this.#options
    const had = (await files.sizeOf(reservePath)) !== undefined
    if (!had) return false
    await rm(reservePath, { force: true })
    this.forget()
    log.warn({ reservePath }, 'the disk is full: what was kept to delete with is used now')
    return true
  }
}
