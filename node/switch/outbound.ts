/**
 * What a fabric has under way to other peers. The records of one turn of the event loop leave as one batch a peer, at
 * the moment at which this peer may act for the group. A batch that may not leave is kept for the moment when it may
 * again, and so nothing is lost where a lease is regained; a generation that is over takes its batches with it.
 */
import type { PeerId } from '../../protocols/core.ts'
import { BATCH_TARGET_BYTES, BatchWriter, type FrameRecord } from '../../protocols/frames/records.ts'
import type { Clock, Transport } from '../ports.ts'
import type { Counters } from './counters.ts'
import type { Trace } from './trace.ts'

export interface OutboundOptions {
  readonly group: string
  readonly generation: number
  readonly transport: Transport
  readonly clock: Clock
  readonly counters: Counters
  readonly trace: Trace | undefined
  /** The lease of the group and its margin allow it now. */
  mayAct(): boolean
  /** `flush` is to be called at the end of this turn of the event loop. */
  schedule(): void
  /** Turn records to `peer` were lost: to be added again. */
  sayTurnsAgain(peer: PeerId): void
}

interface Batch {
  /** Batches of a fabric in their order. */
  readonly number: number
  readonly message: Uint8Array
  readonly frames: number
  readonly turns: number
}

interface Lane {
  readonly peer: PeerId
  readonly writer: BatchWriter
  /** Oldest first. */
  held: Batch[]
  heldBytes: number
  cancelRetry: (() => void) | undefined
}

/** For each peer: what a VM can send at 10 Gb/s in the 25 ms until it is paused. A guess. */
const HELD_BYTES = 32 << 20
/** A turn record that the transport had no room for is said again after this time. */
const RETRY_TURN_MS = 5

export class Outbound {
  readonly #options: OutboundOptions
  readonly #lanes = new Map<PeerId, Lane>()
  #number = 0
  #closed = false

  constructor(options: OutboundOptions) {
    this.#options = options
  }

  /** The packet is copied. */
  add(peer: PeerId, record: FrameRecord): void {
    if (this.#closed) return
    const lane = this.#laneOf(peer)
    if (lane.writer.full) this.#flush(lane)
    if (lane.writer.bytes === 0) this.#options.schedule()
    lane.writer.add(record)
    if (lane.writer.bytes >= BATCH_TARGET_BYTES) this.#flush(lane)
  }

  flush(): void {
    for (const lane of this.#lanes.values()) this.#flush(lane)
  }

  /** The generation is over: nothing of it leaves any more. */
  close(): void {
    this.#closed = true
    for (const lane of this.#lanes.values()) {
      lane.cancelRetry?.()
      if (lane.writer.bytes > 0) this.#hold(lane, this.#finish(lane))
      for (const { frames } of lane.held) this.#options.counters.droppedFenced += frames
    }
    this.#lanes.clear()
  }

  #flush(lane: Lane): void {
    const { mayAct, counters } = this.#options
    if (lane.writer.bytes > 0) {
      const batch = this.#finish(lane)
      const may = mayAct()
      if (may && lane.held.length === 0) return this.#send(lane, batch)
      if (!may) counters.heldFenced += batch.frames
      this.#hold(lane, batch)
    }
    while (lane.held.length > 0 && mayAct()) {
      const next = lane.held.shift() as Batch
      lane.heldBytes -= next.message.length
      this.#send(lane, next)
    }
    while (lane.heldBytes > HELD_BYTES) {
      const last = lane.held.pop() as Batch
      lane.heldBytes -= last.message.length
      counters.droppedFull += last.frames
      if (last.turns > 0) this.#retryTurns(lane)
    }
  }

  #finish(lane: Lane): Batch {
    const { message, frames, turns } = lane.writer.take()
    return { number: this.#number++, message, frames, turns }
  }

  #hold(lane: Lane, batch: Batch): void {
    // The transport gives back what it was given before; it goes before what has come since.
    const after = lane.held.findIndex(({ number }) => number > batch.number)
    lane.held.splice(after < 0 ? lane.held.length : after, 0, batch)
    lane.heldBytes += batch.message.length
  }

  #send(lane: Lane, batch: Batch): void {
    const { transport, counters } = this.#options
    if (transport.send(lane.peer, 'frames', [batch.message], () => this.#leaves(lane, batch))) return
    counters.droppedUnsent += batch.frames
    // Lost turns would cost their epoch. Without a connection `connected` says them; with a full queue a timer does.
    if (batch.turns > 0 && transport.connected(lane.peer)) this.#retryTurns(lane)
  }

  /** The transport is about to write the batch, perhaps after this process was stopped for a while. */
  #leaves(lane: Lane, batch: Batch): boolean {
    const { mayAct, counters, trace } = this.#options
    if (this.#closed) counters.droppedFenced += batch.frames
    else if (mayAct()) {
      trace?.note('out', 'sent', lane.peer, batch.message)
      return true
    } else {
      counters.heldFenced += batch.frames
      this.#hold(lane, batch)
    }
    return false
  }

  #retryTurns(lane: Lane): void {
    lane.cancelRetry ??= this.#options.clock.after(RETRY_TURN_MS, () => {
      lane.cancelRetry = undefined
      this.#options.sayTurnsAgain(lane.peer)
    })
  }

  #laneOf(peer: PeerId): Lane {
    let lane = this.#lanes.get(peer)
    if (lane === undefined) {
      const { group, generation } = this.#options
      lane = { peer, writer: new BatchWriter(group, generation), held: [], heldBytes: 0, cancelRetry: undefined }
      this.#lanes.set(peer, lane)
    }
    return lane
  }
}
