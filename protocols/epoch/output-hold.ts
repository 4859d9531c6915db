/**
 * Output commit (Remus, NSDI 2008, section "Network buffering"; Strom and Yemini 1985 named the problem): what a VM tells
 * the outside waits until the state that told it can no longer be rolled back.
 *
 * A frame that a VM of colour c sends comes after the VM's cut to c and before its next one, so the first epoch above c
 * that is committed contains the state it was sent from. It is kept under the first epoch that may be that one; when
 * that epoch is void, it waits for the next. All VMs of the group are committed together, so what a VM had learned from
 * others of the group before it spoke is safe by then, too. A generation that is over takes its hold with it: its VMs
 * went back to a state before these frames, or to one that sent them, for which they are lost as on any network.
 *
 * Pure: where the frames lie is the keeper's business.
 */
import type { GroupRecord } from '../group.ts'
import { type ChunkKeeper, FrameQueue } from './channel-queue.ts'

/** What a record says of epochs. */
export type EpochNews = Pick<GroupRecord, 'generation' | 'lastEpoch' | 'open' | 'committed'>

export interface OutputHoldOptions {
  readonly generation: number
  readonly keeper: ChunkKeeper
  /** `shift` may have something again: a frame that may leave is back from disk. */
  ready(): void
  /** So many frames were lost with the disk that they were on. */
  lost(frames: number): void
}

export interface OutputFrame {
  /** As given to `hold`. */
  readonly source: string
  /** A view. */
  readonly packet: Uint8Array
}

/** Frames of one VM that the same epoch lets out. */
interface Batch {
  epoch: number
  /** Since when its oldest frame waits. */
  readonly sinceMs: number
  readonly frames: FrameQueue
}

interface Lane {
  readonly source: string
  /** By epoch. At most a few: those of void epochs are one. */
  waiting: Batch[]
  /** What may leave. */
  readonly free: FrameQueue
}

/** The frames to the outside of one group in one generation, on one peer. */
export class OutputHold {
  readonly #options: OutputHoldOptions
  readonly #lanes: Lane[] = []
  readonly #bySource = new Map<string, Lane>()
  /** All epochs up to this are decided. */
  #settled = 0
  /** The lane that is asked first by `shift`. */
  #turn = 0
  #longestMs = 0

  constructor(options: OutputHoldOptions) {
    this.#options = options
  }

  /** Frames that are here, those that may leave included. */
  get frames(): number {
    return this.#lanes.reduce(
      (sum, { waiting, free }) => sum + free.length + waiting.reduce((all, { frames }) => all + frames.length, 0),
      0
    )
  }

  /** The longest that a frame has waited for its epoch, those that wait now included. */
  longestMs(nowMs: number): number {
    return Math.max(this.#longestMs, ...this.#lanes.map(({ waiting }) => nowMs - (waiting[0]?.sinceMs ?? nowMs)))
  }

  /** Keeps a copy of a frame that VM `source` sends with this colour; false: there is no room. */
  hold(source: string, colour: number, packet: Uint8Array, nowMs: number): boolean {
    const { waiting } = this.#laneOf(source)
    const last = waiting.at(-1)
    const epoch = Math.max(colour, this.#settled) + 1
    if (last !== undefined && last.epoch >= epoch) return last.frames.push(packet)
    const batch = { epoch, sinceMs: nowMs, frames: this.#newQueue() }
    if (!batch.frames.push(packet)) return false
    waiting.push(batch)
    return true
  }

  /** Of a record of this generation: what its committed epoch contains may leave. */
  learn({ generation, lastEpoch, open, committed }: EpochNews, nowMs: number): void {
    if (generation !== this.#options.generation) return
    this.#settled = Math.max(this.#settled, open === null ? lastEpoch : open.epoch - 1)
    // One of an older generation is where this one began: it has none of these frames.
    const epoch = committed?.generation === generation ? committed.epoch : 0
    for (const lane of this.#lanes) {
      for (let first = lane.waiting[0]; first !== undefined && first.epoch <= epoch; first = lane.waiting[0]) {
        this.#longestMs = Math.max(this.#longestMs, nowMs - first.sinceMs)
        lane.free.absorb(first.frames)
        lane.waiting.shift()
      }
      this.#waitOn(lane)
    }
  }

  /** The next frame that may leave: in its VM's order, VMs in turn. Undefined: none, or none at hand (then `ready`). */
  shift(): OutputFrame | undefined {
    for (let tries = this.#lanes.length; tries > 0; tries--) {
      const lane = this.#lanes[this.#turn++ % this.#lanes.length] as Lane
      const packet = lane.free.shift()
      if (packet !== undefined) return { source: lane.source, packet }
    }
    return undefined
  }

  /** Forgets all of it: how many frames that were. */
  clear(): number {
    const { frames } = this
    for (const { waiting, free } of this.#lanes.splice(0)) {
      free.clear()
      for (const batch of waiting) batch.frames.clear()
    }
    this.#bySource.clear()
    return frames
  }

  /** What waited for epochs that came to nothing waits for the next, before what its VM sent after a cut to one of them. */
  #waitOn(lane: Lane): void {
    const next = this.#settled + 1
    const [first, ...others] = lane.waiting.filter(({ epoch }) => epoch <= next)
    if (first === undefined) return
    first.epoch = next
    for (const { frames } of others) first.frames.absorb(frames)
    lane.waiting = [first, ...lane.waiting.slice(1 + others.length)]
  }

  #laneOf(source: string): Lane {
    let lane = this.#bySource.get(source)
    if (lane === undefined) {
      lane = { source, waiting: [], free: this.#newQueue() }
      this.#bySource.set(source, lane)
      this.#lanes.push(lane)
    }
    return lane
  }

  #newQueue(): FrameQueue {
    const { keeper, ready, lost } = this.#options
    return new FrameQueue(keeper, { ready, lost })
  }
}
