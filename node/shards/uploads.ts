/**
 * Columns on their way to their holders. Whoever puts a grid's columns may do without some of them (`spare`): as soon as all
 * but so many are durable, the rest is background. It goes on, behind what others wait for, and its putter waits a little
 * longer and is then told SHARD_LATE, so that a holder that hangs or is slow holds nobody up. Memory is bounded: what finds
 * no room in the background is given up. Its holder finds by itself what it lacks, and repairs it.
 */
import type { PeerId } from '../../protocols/core.ts'
import { IN_FLIGHT } from '../../protocols/shards/asking.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Clock, Log, StreamId } from '../ports.ts'

/** How long who may do without a column waits for it. A guess: several times an fsync on a busy disk, half a failover. */
export const PATIENCE_MS = 500
/** Bytes of the background: of one holder, and of all. Guesses: 50 columns of 5 × 64 KiB, and four such holders. */
const HOLDER_BYTES = 16 << 20
const ALL_BYTES = 64 << 20
/** Streams that are forgotten and may still be written for a moment, the last ones. A guess: more than a host has VMs. */
const MAX_FORGOTTEN = 256

export interface UploadTarget {
  readonly stream: StreamId
  readonly holders: readonly PeerId[]
  /** Columns of each grid without which a put need not wait. All columns of a grid must be put then. Absent: 0. */
  readonly spare?: number | undefined
}

export interface UploadStats {
  /** Of columns whose putters went on without them: how often that was so, how many were given up, how many failed. */
  readonly lateColumns: number
  readonly givenUpColumns: number
  readonly failedColumns: number
}

interface Grid {
  /** Acknowledgements until the rest is background. */
  need: number
  /** Columns that have not ended, or were not put yet. */
  left: number
  readonly open: Set<Upload>
}

interface Upload {
  readonly stream: StreamId
  readonly grid: number
  readonly column: number
  readonly bytes: Uint8Array
  readonly queue: HolderQueue
  /** Of its grid; undefined where nothing of it may be missing. */
  readonly together: Grid | undefined
  background: boolean
  answer(error?: Error): void
}

interface HolderQueue {
  readonly holder: PeerId
  readonly needed: Upload[]
  readonly background: Upload[]
  /** Under way to the holder. */
  sent: number
  /** Of the background, waiting or under way. */
  backgroundBytes: number
}

export interface UploadsOptions {
  put(holder: PeerId, stream: StreamId, grid: number, column: number, bytes: Uint8Array): Promise<void>
  readonly clock: Clock
  readonly log: Log
  /** For tests. */
  readonly holderBytes?: number | undefined
  readonly allBytes?: number | undefined
}

export class Uploads {
  readonly #options: UploadsOptions
  readonly #queues = new Map<PeerId, HolderQueue>()
  readonly #grids = new Map<string, Grid>()
  readonly #forgotten = new Set<StreamId>()
  readonly #stats = { lateColumns: 0, givenUpColumns: 0, failedColumns: 0 }
  #backgroundBytes = 0

  constructor(options: UploadsOptions) {
    this.#options = options
  }

  stats(): UploadStats {
    return { ...this.#stats }
  }

  /** Resolves when the column is durable at its holder. SHARD_LATE, and what the holder says. `bytes` must not change. */
  put(target: UploadTarget, grid: number, column: number, bytes: Uint8Array): Promise<void> {
    const { stream, holders } = target
    const holder = holders[column]
    if (holder === undefined) throw new RangeError(`column ${column} of ${holders.length}`)
    if (this.#forgotten.has(stream)) return Promise.reject(late(holder, `${stream} is forgotten`))
    const queue = this.#queueOf(holder)
    const together = this.#gridOf(target, grid)
    return new Promise((resolve, reject) => {
      const answer = (error?: Error): void => (error === undefined ? resolve() : reject(error))
      const upload = { stream, grid, column, bytes, queue, together, background: false, answer }
      together?.open.add(upload)
      queue.needed.push(upload)
      if (together !== undefined && together.need <= 0) this.#toBackground(upload)
      this.#pump(queue)
    })
  }

  /** Nobody wants this stream any more: what of it is not under way is not sent, nor what its writer still puts. */
  forget(stream: StreamId): void {
    this.#forgotten.add(stream)
    const [oldest] = this.#forgotten
    if (this.#forgotten.size > MAX_FORGOTTEN && oldest !== undefined) this.#forgotten.delete(oldest)
    for (const grid of this.#grids.keys()) if (grid.startsWith(`${stream} `)) this.#grids.delete(grid)
    for (const queue of this.#queues.values()) {
      for (const waiting of [queue.needed, queue.background]) {
        const [gone, rest] = [
          waiting.filter(each => each.stream === stream),
          waiting.filter(each => each.stream !== stream)
        ]
        waiting.splice(0, waiting.length, ...rest)
        for (const upload of gone) this.#ended(upload, late(queue.holder, `${stream} is forgotten`))
      }
    }
  }

  #queueOf(holder: PeerId): HolderQueue {
    let queue = this.#queues.get(holder)
    if (queue === undefined) {
      queue = { holder, needed: [], background: [], sent: 0, backgroundBytes: 0 }
      this.#queues.set(holder, queue)
    }
    return queue
  }

  #gridOf({ stream, holders, spare = 0 }: UploadTarget, number: number): Grid | undefined {
    if (spare === 0) return undefined
    const key = nameOf(stream, number)
    let grid = this.#grids.get(key)
    if (grid === undefined) {
      grid = { need: holders.length - spare, left: holders.length, open: new Set() }
      this.#grids.set(key, grid)
    }
    return grid
  }

  #pump(queue: HolderQueue): void {
    while (queue.sent < IN_FLIGHT) {
      const upload = queue.needed.shift() ?? queue.background.shift()
      if (upload === undefined) return
      queue.sent++
      void this.#send(upload)
    }
  }

  async #send(upload: Upload): Promise<void> {
    const { queue, stream, grid, column, bytes } = upload
    let failure: Error | undefined
    try {
      await this.#options.put(queue.holder, stream, grid, column, bytes)
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error))
    }
    queue.sent--
    if (failure !== undefined && upload.background) {
      this.#stats.failedColumns++
      this.#tell(this.#stats.failedColumns, upload, `it could not be stored: ${messageOf(failure)}`)
    }
    this.#ended(upload, failure)
    this.#pump(queue)
  }

  #ended(upload: Upload, failure: Error | undefined): void {
    const { queue, together, bytes } = upload
    if (upload.background) {
      queue.backgroundBytes -= bytes.length
      this.#backgroundBytes -= bytes.length
    }
    upload.answer(failure)
    if (together === undefined) return
    together.open.delete(upload)
    if (--together.left === 0) this.#grids.delete(nameOf(upload.stream, upload.grid))
    if (failure === undefined && --together.need === 0) this.#durable(together)
  }

  /** What is left of this grid is background. */
  #durable(grid: Grid): void {
    for (const upload of grid.open) this.#toBackground(upload)
    this.#options.clock.after(PATIENCE_MS, () => {
      for (const { answer, queue } of grid.open) {
        this.#stats.lateColumns++
        answer(late(queue.holder, `it was not acknowledged ${PATIENCE_MS} ms after the others`))
      }
    })
  }

  #toBackground(upload: Upload): void {
    const { queue, bytes } = upload
    const { holderBytes = HOLDER_BYTES, allBytes = ALL_BYTES } = this.#options
    upload.background = true
    queue.backgroundBytes += bytes.length
    this.#backgroundBytes += bytes.length
    const at = queue.needed.indexOf(upload)
    if (at === -1) return // under way already
    queue.needed.splice(at, 1)
    if (queue.backgroundBytes <= holderBytes && this.#backgroundBytes <= allBytes) {
      queue.background.push(upload)
      return
    }
    this.#stats.givenUpColumns++
    this.#tell(this.#stats.givenUpColumns, upload, 'its holder is too slow, and too much waits for it')
    this.#ended(upload, late(queue.holder, 'too much waits for it already'))
  }

  /** The 1st, 2nd, 4th, 8th … of each kind: a slow holder misses many. */
  #tell(count: number, { queue: { holder }, stream, grid, column }: Upload, why: string): void {
    if ((count & (count - 1)) !== 0) return
    const text = 'a column is left to repair'
    this.#options.log.warn({ holder, stream, grid, column, why, count }, text)
  }
}

const nameOf = (stream: StreamId, grid: number): string => `${stream} ${grid}`

function late(peer: PeerId, why: string): DiapauseError {
  return new DiapauseError('SHARD_LATE', `a column for ${peer} is not waited for: ${why}`, { details: { peer } })
}
