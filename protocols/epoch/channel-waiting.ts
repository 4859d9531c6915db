import type { ChannelTally } from './channel.ts'
import { type ChunkKeeper, FrameQueue } from './channel-queue.ts'

/** What may wait for a NIC that takes nothing at all: a few rings of a network card. A guess. */
const STALLED_BYTES = 4 << 20

/** What waits for one NIC. */
interface Lane {
  /** Takes frames now. */
  open: boolean
  /** Has taken none for long, though it might: as a network card does, it loses what comes beyond a few. */
  stalled: boolean
  /** Of the image: before all others. */
  readonly injected: FrameQueue
  readonly waiting: FrameQueue
  /** From outside of the group: apart, because no cut records them. Behind all others. */
  readonly foreign: FrameQueue
}

/**
 * All frames that wait for one VM, by NIC (the first byte of a packet), so that one which is not read holds up no other;
 * early ones besides by colour. Within a channel colours only grow: what a cut promotes or records is whole queues.
 */
export class WaitingFrames {
  readonly #lanes: readonly Lane[]
  /** By colour, then by NIC. */
  readonly #early = new Map<number, readonly FrameQueue[]>()
  readonly #newQueues: () => FrameQueue[]
  readonly #deliver: (frame: Uint8Array, foreign: boolean) => void
  readonly #tally: ChannelTally

  constructor(options: {
    readonly nics: number
    readonly keeper: ChunkKeeper
    readonly tally: ChannelTally
    deliver(frame: Uint8Array, foreign: boolean): void
  }) {
    const { nics, keeper, tally } = options
    this.#deliver = options.deliver
    this.#tally = tally
    const lost = (frames: number): void => {
      tally.droppedFull += frames
    }
    this.#newQueues = () =>
      Array.from({ length: nics }, (_, nic) => new FrameQueue(keeper, { ready: () => this.#deliverWaiting(nic), lost }))
    const [injected, waiting, foreign] = [this.#newQueues(), this.#newQueues(), this.#newQueues()]
    this.#lanes = waiting.map((queue, nic) => ({
      open: false,
      stalled: false,
      injected: injected[nic] as FrameQueue,
      waiting: queue,
      foreign: foreign[nic] as FrameQueue
    }))
  }

  /** Opening delivers what waits, oldest first. */
  setOpen(nic: number, open: boolean): void {
    this.#lane(nic).open = open
    this.#deliverWaiting(nic)
  }

  setStalled(nic: number, stalled: boolean): void {
    this.#lane(nic).stalled = stalled
  }

  /** A frame that the VM may have: to it, or behind what waits. True: delivered. */
  take(frame: Uint8Array): boolean {
    const lane = this.#lane(frame[0] as number)
    if (lane.open && lane.injected.length === 0 && lane.waiting.length === 0) {
      this.#deliver(frame, false)
      return true
    }
    this.#wait(lane, lane.waiting, frame)
    return false
  }

  /** As `take`, but no cut knows it. */
  takeForeign(frame: Uint8Array): void {
    const lane = this.#lane(frame[0] as number)
    const first = [lane.injected, lane.waiting, lane.foreign].every(({ length }) => length === 0)
    if (lane.open && first) this.#deliver(frame, true)
    else this.#wait(lane, lane.foreign, frame)
  }

  /** A frame that the VM may have when `promote` is called with `colour`. */
  hold(colour: number, frame: Uint8Array): void {
    let queues = this.#early.get(colour)
    if (queues === undefined) {
      queues = this.#newQueues()
      this.#early.set(colour, queues)
    }
    this.#keep(queues[frame[0] as number] as FrameQueue, frame)
  }

  /** Packets end to end, before all that waits. They become this object's own; there must be room (`ChunkKeeper`). */
  inject(frames: Uint8Array): void {
    if (frames.length === 0) return
    if (this.#lanes.length === 1) this.#lane(0).injected.pushAll(frames)
    else for (const frame of FrameQueue.split(frames)) this.#lanes[frame[0] as number]?.injected.push(frame)
    for (const nic of this.#lanes.keys()) this.#deliverWaiting(nic)
  }

  /** Early frames that are early no longer queue behind those that wait; per channel that is their order. */
  promote(colour: number): void {
    for (const [early, queues] of this.#earlyUpTo(colour)) {
      for (const [nic, queue] of queues.entries()) this.#lane(nic).waiting.absorb(queue)
      this.#early.delete(early)
    }
    for (const nic of this.#lanes.keys()) this.#deliverWaiting(nic)
  }

  /** What is in flight at a cut to the colour after this one. */
  upTo(colour: number): FrameQueue[] {
    const early = this.#earlyUpTo(colour).flatMap(([, queues]) => queues)
    return [...this.#lanes.flatMap(({ injected, waiting }) => [injected, waiting]), ...early]
  }

  clear(): void {
    const foreign = this.#lanes.map(lane => lane.foreign)
    for (const queue of [...this.upTo(Number.POSITIVE_INFINITY), ...foreign]) queue.clear()
    this.#early.clear()
  }

  #lane(nic: number): Lane {
    return this.#lanes[nic] as Lane
  }

  #earlyUpTo(colour: number): [number, readonly FrameQueue[]][] {
    return [...this.#early].filter(([each]) => each <= colour).sort(([a], [b]) => a - b)
  }

  #wait(lane: Lane, queue: FrameQueue, frame: Uint8Array): void {
    const full = lane.stalled && lane.waiting.bytes + lane.foreign.bytes >= STALLED_BYTES
    if (full) this.#tally.droppedFull++
    else this.#keep(queue, frame)
  }

  #keep(queue: FrameQueue, frame: Uint8Array): void {
    if (!queue.push(frame)) this.#tally.droppedFull++
  }

  /** Goes on when frames that are on disk have come back. */
  #deliverWaiting(nic: number): void {
    const lane = this.#lane(nic)
    while (lane.open) {
      const queue = [lane.injected, lane.waiting].find(({ length }) => length > 0) ?? lane.foreign
      const next = queue.shift()
      if (next === undefined) return
      this.#deliver(next, queue === lane.foreign)
    }
  }
}
