/**
 * Symbols from those who have them: those of one column that are wanted in the same turn of the event loop go in one
 * request, runs of adjacent rows as one range, and every symbol is checked against its hash before anyone sees it. Whoever
 * lacks a column, has it wrongly or cannot be reached is followed by the next place of that column, where one is known.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { Range } from '../../protocols/shards/messages.ts'
import { symbolHash } from '../erasure/encode.ts'
import { type GridShape, SYMBOL_HASH_BYTES, symbolHashOffset, symbolOffsetInColumn } from '../erasure/grid.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Clock, Log, StreamId, StreamManifest } from '../ports.ts'
import type { Holders } from './holders.ts'
import type { Sources } from './sources.ts'

/** Bytes that one request asks for: an answer fits a message, and a slow link is seen soon. */
const REQUEST_BYTES = 1 << 20
/** A timer that fires so much after its time: this process stood still. A guess. */
const STALL_MS = 2

export interface FetchedSymbol {
  /** `lost`: nobody known has it rightly. */
  settled(symbol: Uint8Array | 'lost'): void
  /** Still under way past the forced timeout. */
  late(): void
}

/** What reads ranges of a column: the shard service. Rejects when `signal` aborts. */
export type ReadRanges = (
  peer: PeerId,
  stream: string,
  grid: number,
  column: number,
  ranges: readonly Range[],
  signal: AbortSignal
) => Promise<Uint8Array>

/** What `peer` has of a column is not what was put there. */
export type OnDamaged = (stream: StreamId, grid: number, column: number, peer: PeerId) => void

export interface FetcherOptions {
  readonly read: ReadRanges
  readonly holders: Holders
  readonly sources: Sources
  readonly clock: Clock
  readonly log: Log
  readonly onDamaged?: OnDamaged | undefined
}

/** A grid of a stream. */
export interface StreamGrid {
  readonly manifest: StreamManifest
  readonly shape: GridShape
  readonly grid: number
}

interface Waiter {
  readonly row: number
  readonly to: FetchedSymbol
  readonly tried: Set<PeerId>
  /** Of the request that it waits for. */
  leave: (() => void) | undefined
  cancelled: boolean
}

interface Batch extends StreamGrid {
  readonly column: number
  readonly peer: PeerId
  readonly waiters: Waiter[]
}

export class Fetcher {
  readonly #options: FetcherOptions
  /** By stream, grid, column and peer: what is asked for in this turn. */
  readonly #batches = new Map<string, Batch>()
  wrongHashes = 0
  /** Requests that were given up, as other symbols came first. */
  cancelled = 0

  constructor(options: FetcherOptions) {
    this.#options = options
  }

  /** The result gives the symbol up: nothing is told of it from then on. */
  fetch(of: StreamGrid, column: number, row: number, to: FetchedSymbol): () => void {
    const waiter: Waiter = { row, to, tried: new Set(), leave: undefined, cancelled: false }
    this.#enqueue(of, column, waiter)
    return () => {
      if (waiter.cancelled) return
      waiter.cancelled = true
      waiter.leave?.()
    }
  }

  #enqueue(of: StreamGrid, column: number, waiter: Waiter): void {
    const { manifest, shape, grid } = of
    const peer = this.#options.sources.pick(manifest, grid, column, waiter.tried)
    if (peer === undefined) {
      void this.#options.sources.search(manifest.stream)
      waiter.to.settled('lost')
      return
    }
    waiter.tried.add(peer)
    const key = `${manifest.stream} ${grid} ${column} ${peer}`
    const open = this.#batches.get(key)
    if (open?.manifest === manifest) {
      open.waiters.push(waiter)
      return
    }
    const batch: Batch = { manifest, shape, grid, column, peer, waiters: [waiter] }
    this.#batches.set(key, batch)
    queueMicrotask(() => {
      if (this.#batches.get(key) === batch) this.#batches.delete(key)
      for (const waiters of portions(batch.waiters, shape.symbolBytes)) void this.#request(batch, waiters)
    })
  }

  async #request(batch: Batch, waiters: ReadonlyMap<number, readonly Waiter[]>): Promise<void> {
    const { manifest, shape, grid, column, peer } = batch
    const { clock, holders, log, read } = this.#options
    const rows = [...waiters.keys()]
    const bytes = rows.length * shape.symbolBytes
    const waiting = [...waiters.values()].flat()
    const abort = new AbortController()
    let open = waiting.length
    for (const waiter of waiting) {
      waiter.leave = () => {
        if (--open === 0) abort.abort(new DiapauseError('SHARD_CANCELLED', 'other symbols came first'))
      }
    }
    const startedAt = clock.now()
    let ended: (() => void) | undefined
    const cancelTimer = this.#whenLate(startedAt, holders.forcedTimeoutMs(bytes), () => {
      ended = holders.late(peer, startedAt)
      for (const { to, cancelled } of waiting) if (!cancelled) to.late()
    })
    try {
      const answer = await read(peer, manifest.stream, grid, column, rangesOf(rows, shape), abort.signal)
      holders.answered(peer, bytes, clock.now() - startedAt, ended === undefined)
      if (answer.length !== bytes) {
        throw new DiapauseError('SHARD_CORRUPT', `${answer.length} bytes came for ${rows.length} symbols`)
      }
      this.#settle(batch, waiters, answer)
    } catch (error) {
      if (abort.signal.aborted) {
        this.cancelled++
        if (ended !== undefined) holders.givenUp(peer, bytes, clock.now() - startedAt)
        return
      }
      log.debug({ peer, stream: manifest.stream, grid, column, error: messageOf(error) }, 'symbols not read')
      this.#failed(batch, waiting, error)
    } finally {
      cancelTimer()
      ended?.()
    }
  }

  /** Unless the timer itself is late: then the answer may lie unread, and has as long again. */
  #whenLate(startedAt: number, timeoutMs: number, late: () => void): () => void {
    const { clock } = this.#options
    let cancel = clock.after(timeoutMs, () => {
      const stoodStillMs = clock.now() - startedAt - timeoutMs
      if (stoodStillMs < STALL_MS) late()
      else cancel = clock.after(Math.min(stoodStillMs, timeoutMs), late)
    })
    return () => cancel()
  }

  #settle(batch: Batch, waiters: ReadonlyMap<number, readonly Waiter[]>, answer: Uint8Array): void {
    const { symbolBytes } = batch.shape
    let at = 0
    for (const [row, waiting] of waiters) {
      const symbol = answer.subarray(at, at + symbolBytes)
      at += symbolBytes
      if (!this.#isRight(batch, row, symbol)) {
        this.#failed(batch, waiting, new DiapauseError('SHARD_CORRUPT', 'a symbol has a wrong hash'))
        continue
      }
      for (const { to, cancelled } of waiting) if (!cancelled) to.settled(symbol)
    }
  }

  /** The next place of the column is asked; where none is known the symbols are lost. */
  #failed(batch: Batch, waiting: readonly Waiter[], error: unknown): void {
    const { manifest, grid, column, peer } = batch
    const { sources, onDamaged } = this.#options
    const damaged = hasCode(error, 'SHARD_CORRUPT')
    if (damaged) onDamaged?.(manifest.stream, grid, column, peer)
    if (damaged || hasCode(error, 'SHARD_MISSING')) sources.lacks(manifest.stream, grid, column, peer)
    for (const waiter of waiting) if (!waiter.cancelled) this.#enqueue(batch, column, waiter)
  }

  #isRight({ manifest, shape, grid, column, peer }: Batch, row: number, symbol: Uint8Array): boolean {
    const at = symbolHashOffset(shape, { column, row })
    const wanted = manifest.grids[grid]?.hashes.subarray(at, at + SYMBOL_HASH_BYTES) ?? new Uint8Array(0)
    if (Buffer.compare(symbolHash(symbol), wanted) === 0) return true
    this.wrongHashes++
    this.#options.log.error(
      { holder: peer, stream: manifest.stream, grid, column, row },
      'a symbol has a wrong hash and counts as lost'
    )
    return false
  }
}

/** Those that still wait, by row in ascending order, in requests of bounded size. */
function portions(waiters: readonly Waiter[], symbolBytes: number): Map<number, Waiter[]>[] {
  const most = Math.max(1, Math.floor(REQUEST_BYTES / symbolBytes))
  const all: Map<number, Waiter[]>[] = []
  for (const waiter of waiters.filter(({ cancelled }) => !cancelled).sort((a, b) => a.row - b.row)) {
    let last = all.at(-1)
    if (last === undefined || (last.size === most && !last.has(waiter.row))) {
      last = new Map()
      all.push(last)
    }
    last.set(waiter.row, [...(last.get(waiter.row) ?? []), waiter])
  }
  return all
}

/** Adjacent rows become one range. */
function rangesOf(rows: readonly number[], shape: GridShape): Range[] {
  const ranges: { offset: number; length: number }[] = []
  for (const row of rows) {
    const offset = symbolOffsetInColumn(shape, row)
    const last = ranges.at(-1)
    if (last !== undefined && last.offset + last.length === offset) last.length += shape.symbolBytes
    else ranges.push({ offset, length: shape.symbolBytes })
  }
  return ranges
}
