/**
 * The channel core: what a coloured frame does at a VM of some colour. Pure; the switch is its shell.
 *
 * A channel is (sender VM, receiver VM) within one generation. Every VM has a colour, the number of the last epoch it
 * was cut for, and every frame carries its sender's. Mattern ("Efficient algorithms for distributed snapshots", 1993,
 * section 3) and Lai-Yang (1987) need no FIFO channels and no marker: the colour alone says on which side of the cut a
 * frame was sent, and counters say when the last frame from before it has come (Mattern, section 4).
 *
 *     frame c, receiver e     c == e  deliver
 *                             c >  e  early: hold until the receiver is cut to c, and ask for that cut
 *                             c <  e  in flight: deliver, and record for every open epoch in (c, e]
 *
 * Counters are cumulative: a frame's sequence number is its place in its channel since the generation began, and the
 * sender's count at a cut is the sequence number of its last frame. So epochs that were aborted, skipped, or taken as
 * a colour without a cut disturb no sum. A link keeps order while it lasts and loses the rest when it breaks; hence a
 * higher number than expected means that those between are lost for good, and a lost frame counts as come. A frame
 * from before that point which turns up nevertheless is refused: an image may already have been closed without it.
 *
 * A channel is complete for epoch E, whichever comes first, when
 *   - a frame or a turn record of colour E or newer has come on it (Chandy-Lamport 1985, section 3: the marker), or
 *   - as many frames have come, or are known lost, as the sender says it sent before its cut (Mattern's counters).
 * One lost frame, or one lost turn record, can thus spoil at most the epoch it belongs to.
 *
 * Effects leave through a sink and not as a list (core.ts), because this runs for every frame.
 */
import { DiapauseError } from '../../node/errors.ts'
import { FrameQueue, type QueueLimits } from './channel-queue.ts'

/** Receiver VM id → frames sent to it since the generation began. */
export type Counts = Readonly<Record<string, number>>

/** One VM as a sender: numbers its frames per receiver and counts them at each turn of its colour. */
export class ChannelSender {
  #colour: number
  readonly #sent = new Map<string, number>()
  #sentAtTurn: Map<string, number> = new Map()

  constructor(colour: number) {
    this.#colour = colour
  }

  get colour(): number {
    return this.#colour
  }

  /** The sequence number of the next frame to `receiver`; the first is 1. */
  next(receiver: string): number {
    const sequence = (this.#sent.get(receiver) ?? 0) + 1
    this.#sent.set(receiver, sequence)
    return sequence
  }

  /** Takes a newer colour; the result is what had been sent before, per receiver, since the generation began. */
  turn(epoch: number): Counts {
    this.#colour = Math.max(this.#colour, epoch)
    this.#sentAtTurn = new Map(this.#sent)
    return Object.fromEntries(this.#sent)
  }

  /** Frames sent to `receiver` before the present colour was taken: what a turn record says. */
  sentBeforeTurn(receiver: string): number {
    return this.#sentAtTurn.get(receiver) ?? 0
  }
}

export interface ReceiverLimits {
  /** Early frames, and frames waiting for the VM to take them: each at most this. */
  readonly waiting: QueueLimits
  /** In-flight frames of one epoch. More of them fail the recording: an image is whole or is not. */
  readonly recording: QueueLimits
  /** Epochs recorded at once; the oldest gives way. More than one only where aborts are learned late. */
  readonly recordings: number
}

/** What the receiver tells its shell, synchronously. Of the receiver a sink may call `setOpen(false)` only. */
export interface ReceiverSink {
  /** The frame goes to the VM now. It is valid during the call only. */
  deliver(frame: Uint8Array): void
  /** A newer colour has been seen: cut this VM to `epoch` first. Once for each epoch. */
  marker(epoch: number): void
  /** The recording is complete; the frames are the sink's own. */
  recorded(epoch: number, frames: Uint8Array[]): void
  /** The recording is over without a result. */
  failed(epoch: number, error: DiapauseError): void
}

/** Sums for the switch's statistics, which the receivers of a switch share and add to. */
export interface ChannelTally {
  /** Frames whose number was passed by a later one: the link lost them. */
  lost: number
  /** In-flight frames recorded, and the recent ones recorded because the VM may not have taken them. */
  recordedInFlight: number
  recordedRecent: number
  /** Waiting frames that had to go because there were too many. */
  droppedFull: number
}

/** What became of a frame: unknown: no such sender in the group; late: its number had been passed already. */
export type Arrival = 'delivered' | 'waiting' | 'early' | 'late' | 'unknown'

interface Inbound {
  /** Highest sequence number come or known lost. */
  arrived: number
  /** Highest colour seen. */
  colour: number
}

interface Recording {
  readonly frames: Uint8Array[]
  bytes: number
  /** Channels on which older frames may still come. */
  readonly missing: Set<string>
}

/** How many epochs' counts are kept for a VM that has not turned yet. Two would do; more costs nothing. */
const EXPECTED_EPOCHS = 8

/** One VM as a receiver: holds, delivers and records. */
export class ChannelReceiver {
  readonly #limits: ReceiverLimits
  readonly #sink: ReceiverSink
  readonly #tally: ChannelTally
  readonly #inbound = new Map<string, Inbound>()
  readonly #recordings = new Map<number, Recording>()
  /** Epoch → sender → frames it sent before its cut. */
  readonly #expected = new Map<number, Map<string, number>>()
  readonly #early: FrameQueue
  readonly #waiting: FrameQueue
  #colour: number
  #open = false
  #announced: number

  constructor(options: { colour: number; limits: ReceiverLimits; sink: ReceiverSink; tally: ChannelTally }) {
    this.#colour = options.colour
    this.#announced = options.colour
    this.#limits = options.limits
    this.#sink = options.sink
    this.#tally = options.tally
    this.#early = new FrameQueue(options.limits.waiting)
    this.#waiting = new FrameQueue(options.limits.waiting)
  }

  get colour(): number {
    return this.#colour
  }

  /** The other VMs of the group. Channels that stay keep their numbers; a VM that has left is not waited for. */
  setSenders(senders: readonly string[]): void {
    for (const sender of senders) {
      if (!this.#inbound.has(sender)) this.#inbound.set(sender, { arrived: 0, colour: 0 })
    }
    for (const sender of this.#inbound.keys()) {
      if (senders.includes(sender)) continue
      this.#inbound.delete(sender)
      for (const recording of this.#recordings.values()) recording.missing.delete(sender)
    }
    this.#finishComplete()
  }

  /** Continues the numbering of `other`, an earlier receiver of the same VM in the same generation. */
  continueFrom(other: ChannelReceiver): void {
    for (const [sender, inbound] of other.#inbound) this.#inbound.set(sender, { ...inbound })
  }

  /** Whether the VM takes frames now. Opening delivers what waits, oldest first. */
  setOpen(open: boolean): void {
    this.#open = open
    this.#deliverWaiting()
  }

  /** A frame has come. `frame` is copied where it is kept. */
  arrive(sender: string, colour: number, sequence: number, frame: Uint8Array): Arrival {
    const inbound = this.#inbound.get(sender)
    if (inbound === undefined) return 'unknown'
    if (sequence <= inbound.arrived || colour < inbound.colour) return 'late'
    this.#pass(inbound, sequence - 1)
    inbound.arrived = sequence
    inbound.colour = colour
    const arrival = this.#place(colour, frame)
    if (this.#recordings.size > 0) this.#settle(sender, inbound)
    return arrival
  }

  /** The end of a colour on this channel: the sender is of `colour` now and had sent `sent` frames before. */
  turned(sender: string, colour: number, sent: number): void {
    const inbound = this.#inbound.get(sender)
    if (inbound === undefined || colour < inbound.colour) return
    this.#pass(inbound, sent)
    inbound.colour = colour
    if (colour > this.#colour) this.#announce(colour)
    this.#settle(sender, inbound)
  }

  /** What `sender` says it had sent to this VM before its cut to `epoch`. May come before this VM's own cut. */
  expect(epoch: number, sender: string, sent: number): void {
    if (epoch <= this.#colour && !this.#recordings.has(epoch)) return
    let counts = this.#expected.get(epoch)
    if (counts === undefined) {
      counts = new Map()
      this.#expected.set(epoch, counts)
      if (this.#expected.size > EXPECTED_EPOCHS) this.#expected.delete(Math.min(...this.#expected.keys()))
    }
    counts.set(sender, sent)
    const inbound = this.#inbound.get(sender)
    if (inbound !== undefined) this.#settle(sender, inbound)
  }

  /**
   * The cut. `recent` are frames given to the VM a moment ago that it may not have taken: they are recorded too. What
   * is here and older than `epoch` is received after the cut, and so in flight.
   */
  turn(epoch: number, recent: readonly Uint8Array[]): void {
    if (epoch <= this.#colour) {
      throw new DiapauseError('EPOCH_OLD', `cannot turn to epoch ${epoch}: the VM is at ${this.#colour} already`)
    }
    this.#colour = epoch
    if (this.#recordings.size >= this.#limits.recordings) this.#fail(Math.min(...this.#recordings.keys()), superseded)
    const recording: Recording = { frames: [], bytes: 0, missing: new Set(this.#inbound.keys()) }
    this.#recordings.set(epoch, recording)
    this.#tally.recordedRecent += recent.length
    for (const frame of recent) this.#keep(epoch, recording, new Uint8Array(frame))
    for (const { colour, frame } of [...this.#waiting.values(), ...this.#early.values()]) {
      if (colour < epoch) this.#record(epoch, recording, frame)
    }
    this.#promote()
    for (const [sender, inbound] of this.#inbound) this.#settle(sender, inbound)
    this.#finishComplete()
  }

  /** The epoch is void. A VM that has not been cut for it takes the colour, so that frames of that colour flow. */
  abandon(epoch: number): void {
    this.#fail(epoch, aborted)
    this.#expected.delete(epoch)
    if (epoch <= this.#colour) return
    this.#colour = epoch
    this.#promote()
  }

  /** Frames of the image: they go to the VM before all that waits, in this order. Takes them over. */
  inject(frames: readonly Uint8Array[]): void {
    this.#waiting.prepend(0, frames)
    this.#deliverWaiting()
  }

  /** Forgets all frames and fails all recordings. */
  clear(): void {
    this.#early.clear()
    this.#waiting.clear()
    for (const epoch of this.#recordings.keys()) this.#fail(epoch, aborted)
    this.#expected.clear()
  }

  #pass(inbound: Inbound, sequence: number): void {
    if (sequence <= inbound.arrived) return
    this.#tally.lost += sequence - inbound.arrived
    inbound.arrived = sequence
  }

  #place(colour: number, frame: Uint8Array): Arrival {
    if (colour > this.#colour) {
      this.#tally.droppedFull += this.#early.push(colour, new Uint8Array(frame))
      this.#announce(colour)
      return 'early'
    }
    const deliverNow = this.#open // and so nothing waits
    const inFlight = colour < this.#colour && this.#recordings.size > 0
    const kept = inFlight || !deliverNow ? new Uint8Array(frame) : frame
    if (inFlight) {
      for (const [epoch, recording] of this.#recordings) if (colour < epoch) this.#record(epoch, recording, kept)
    }
    if (deliverNow) {
      this.#sink.deliver(frame)
      return 'delivered'
    }
    this.#tally.droppedFull += this.#waiting.push(colour, kept)
    return 'waiting'
  }

  #record(epoch: number, recording: Recording, frame: Uint8Array): void {
    this.#tally.recordedInFlight++
    this.#keep(epoch, recording, frame)
  }

  #keep(epoch: number, recording: Recording, frame: Uint8Array): void {
    recording.frames.push(frame)
    recording.bytes += frame.length
    const { frames, bytes } = this.#limits.recording
    if (recording.frames.length > frames || recording.bytes > bytes) this.#fail(epoch, full)
  }

  #announce(colour: number): void {
    if (colour <= this.#announced) return
    this.#announced = colour
    this.#sink.marker(colour)
  }

  /** Early frames that are early no longer queue behind those that wait; per channel that is their order. */
  #promote(): void {
    for (const { colour, frame } of this.#early.takeUpTo(this.#colour)) {
      this.#tally.droppedFull += this.#waiting.push(colour, frame)
    }
    this.#deliverWaiting()
  }

  #deliverWaiting(): void {
    while (this.#open) {
      const next = this.#waiting.shift()
      if (next === undefined) return
      this.#sink.deliver(next.frame)
    }
  }

  #settle(sender: string, inbound: Inbound): void {
    for (const [epoch, recording] of this.#recordings) {
      const expected = this.#expected.get(epoch)?.get(sender)
      const complete = inbound.colour >= epoch || (expected !== undefined && inbound.arrived >= expected)
      if (complete && recording.missing.delete(sender)) this.#finish(epoch, recording)
    }
  }

  #finishComplete(): void {
    for (const [epoch, recording] of this.#recordings) this.#finish(epoch, recording)
  }

  #finish(epoch: number, recording: Recording): void {
    if (recording.missing.size > 0) return
    this.#recordings.delete(epoch)
    this.#expected.delete(epoch)
    this.#sink.recorded(epoch, recording.frames)
  }

  #fail(epoch: number, why: (epoch: number) => DiapauseError): void {
    if (!this.#recordings.delete(epoch)) return
    this.#expected.delete(epoch)
    this.#sink.failed(epoch, why(epoch))
  }
}

const aborted = (epoch: number) =>
  new DiapauseError('EPOCH_ABORTED', `epoch ${epoch} was aborted while its in-flight frames were being recorded`)
const superseded = (epoch: number) =>
  new DiapauseError('EPOCH_ABORTED', `epoch ${epoch} was given up: too many later ones were opened before it ended`)
const full = (epoch: number) =>
  new DiapauseError(
    'RECORDING_FULL',
    `epoch ${epoch} has more in-flight frames than may be kept: abort it; cuts nearer to each other leave fewer`
  )
