/**
 * The disks of a VM that is restored, served to its machine block by block until all of them are local. The server listens
 * before the machine starts, and what is asked for before the image's tables have come waits for them.
 *
 * A block that cannot be had now (its holders are away) is tried again for a while, because a peer that restarts is back
 * after seconds and a disk that fails ends the VM. But not for long: while a read is under way QEMU can neither be stopped nor
 * cut (its drain waits for it, and everything that talks to QEMU waits for that, 10 s at most until it is killed). Served by
 * the same peer, the disks have no other end than the VM's own.
 */
import { DiapauseError } from '../errors.ts'
import type { BlockExtent, BlockServer, BlockSource, Clock, Log, Restore, ServeBlocks } from '../ports.ts'

/** Half of what a command to QEMU may take (QMP). A guess. */
export const PATIENCE_MS = 5_000
/** A guess: little beside what a peer takes to come back. */
export const RETRY_MS = 250

export interface LazyDisksOptions {
  readonly group: string
  readonly vm: string
  /** Sizes of the disks in their order, in bytes. */
  readonly sizes: readonly number[]
  readonly restore: Promise<Pick<Restore, 'disks' | 'closeDisks'>>
  readonly serve: ServeBlocks
  readonly socketPath: string
  readonly clock: Clock
  readonly log: Log
}

/** Where a machine finds a disk (`DiskStart`). */
export interface LazyDisk {
  readonly kind: 'nbd'
  readonly socketPath: string
  readonly exportName: string
}

export interface LazyDisks {
  /** One for each disk. */
  readonly starts: readonly LazyDisk[]
  /** Nobody reads them any more: what they took is given back. Resolves with what was read of them, also when called again. */
  end(): Promise<{ readonly bytes: number; readonly ms: number }>
}

/** Resolves when a machine may start with `starts`. NBD_SOCKET. */
export async function serveLazily(options: LazyDisksOptions): Promise<LazyDisks> {
  const { sizes, restore, serve, socketPath, clock } = options
  const fromMs = clock.now()
  const disks = sizes.map((bytes, disk) => new PatientDisk(bytes, disk, options))
  const names = sizes.map((_, disk) => `disk${disk}`)
  const server: BlockServer = await serve(socketPath, new Map(disks.map((source, disk) => [names[disk] ?? '', source])))
  const close = async () => {
    await server.close()
    // Not waited for: an image that cannot be read may keep its reader busy for long.
    restore.then(image => image.closeDisks()).catch(() => {}) // then it has no disks to close
    return { bytes: disks.reduce((sum, { readBytes }) => sum + readBytes, 0), ms: clock.now() - fromMs }
  }
  let ended: ReturnType<typeof close> | undefined
  return {
    starts: names.map(exportName => ({ kind: 'nbd', socketPath, exportName })),
    end: () => (ended ??= close())
  }
}

class PatientDisk implements BlockSource {
  readonly bytes: number
  readonly #disk: number
  readonly #options: LazyDisksOptions
  readBytes = 0
  #failing = false

  constructor(bytes: number, disk: number, options: LazyDisksOptions) {
    this.bytes = bytes
    this.#disk = disk
    this.#options = options
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = await this.#readPatiently(offset, length)
    this.readBytes += bytes.length
    return bytes
  }

  /** Needs no shards. */
  async extents(offset: number, length: number, most: number): Promise<readonly BlockExtent[]> {
    return await (await this.#source()).extents(offset, length, most)
  }

  async #readPatiently(offset: number, length: number): Promise<Uint8Array> {
    const { clock } = this.#options
    const late = Promise.withResolvers<never>()
    late.promise.catch(() => {}) // it may come when nobody waits for it any more
    let why: unknown
    const disarm = clock.after(PATIENCE_MS, () => late.reject(why ?? this.#slow(offset)))
    try {
      for (;;) {
        try {
          const reading = this.#source().then(source => source.read(offset, length))
          const bytes = await Promise.race([reading, late.promise])
          this.#tell(false, offset)
          return bytes
        } catch (error) {
          why = error
          this.#tell(true, offset, error)
        }
        const again = new Promise<void>(resolve => clock.after(RETRY_MS, resolve))
        await Promise.race([again, late.promise])
      }
    } finally {
      disarm()
    }
  }

  async #source(): Promise<BlockSource> {
    const source = (await this.#options.restore).disks[this.#disk]
    if (source === undefined) throw new DiapauseError('IMAGE_INVALID', `the image has no disk ${this.#disk}`)
    return source
  }

  #slow(offset: number): DiapauseError {
    return new DiapauseError('DISK_SLOW', `Disk ${this.#disk} did not answer within ${PATIENCE_MS} ms`, {
      details: { disk: this.#disk, offset }
    })
  }

  /** Once when it begins to fail, and once when it is over. */
  #tell(failing: boolean, offset: number, error?: unknown): void {
    if (this.#failing === failing) return
    this.#failing = failing
    const { log, group, vm } = this.#options
    const about = { group, vm, disk: this.#disk, offset }
    if (failing) log.warn({ ...about, err: error }, 'a block of a disk cannot be read from the shards yet')
    else log.info(about, 'blocks of the disk can be read again')
  }
}
