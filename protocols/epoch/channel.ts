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
import { type ChunkKeeper, FrameQueue } from './channel-queue.ts'
import { WaitingFrames } from './channel-waiting.ts'

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

/** Epochs recorded at once; the oldest gives way. More than one only where aborts are learned late. */
export const MAX_RECORDINGS = 2

/** What the receiver tells its shell, synchronously. Of the receiver a sink may call `setOpen(…, false)` only. */
export interface ReceiverSink {
  /** The frame goes to the VM now. `foreign`: it is from outside of the group, and not to be among a cut's `recent`. */
  deliver(frame: Uint8Array, foreign: boolean): void
  /** A newer colour has been seen: cut this VM to `epoch` first. Once for each epoch. */
  marker(epoch: number): void
  /** The recording is complete; the frames are the sink's own, and cost memory until it clears them. */
  recorded(epoch: number, frames: FrameQueue): void
  /** Of a recording that was handed over: its first frames are at hand again; some are lost with the disk they were on. */
  ready(epoch: number): void
  lost(epoch: number): void
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
  /** Frames that had to go because there was no room for more, or were lost with the disk on which they waited. */
  droppedFull: number
}

/** What became of a frame: unknown: no such sender in the group, or no such colour can be; late: its number had been passed already. */
export type Arrival = 'delivered' | 'waiting' | 'early' | 'late' | 'unknown'

interface Inbound {
  /** Highest sequence number come or known lost. */
  arrived: number
  /** Highest colour seen. */
  colour: number
}

interface Recording {
  readonly frames: FrameQueue
  /** Channels on which older frames may still come. */
  readonly missing: Set<string>
}

/**
 * No honest colour is further ahead of its receiver's: six days in which each epoch, two a second, came to nothing and the
 * receiver heard of none. A colour that is taken stays the newest of its channel, and marks for good: one that damage made
 * would silence both.
 */
const MAX_COLOURS_AHEAD = 2 ** 20

/** How many epochs' counts are kept for a VM that has not turned yet. Two would do; more costs nothing. */
const EXPECTED_EPOCHS = 8

/**
 * One VM as a receiver: holds, delivers and records. A frame here is a packet: the number of the receiving NIC (u8) and
 * its length (u24 big-endian) stand before it.
 */
export class ChannelReceiver {
  readonly #keeper: ChunkKeeper
  readonly #sink: ReceiverSink
  readonly #tally: ChannelTally
  readonly #inbound = new Map<string, Inbound>()
  readonly #recordings = new Map<number, Recording>()
  /** Epoch → sender → frames it sent before its cut. */
  readonly #expected = new Map<number, Map<string, number>>()
  readonly #waiting: WaitingFrames
  #colour: number
  #announced: number

  /** `nics`: how many the VM has. */
  constructor(options: {
    colour: number
    nics: number
    keeper: ChunkKeeper
    sink: ReceiverSink
    tally: ChannelTally
  }) {
    const { nics, keeper, sink, tally } = options
    this.#colour = options.colour
    this.#announced = options.colour
    this.#keeper = keeper
    this.#sink = sink
    this.#tally = tally
    this.#waiting = new WaitingFrames({
      nics,
      keeper,
      tally,
      deliver: (frame, foreign) => sink.deliver(frame, foreign)
    })
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

  /** Whether a NIC takes frames now. Opening delivers what waits, oldest first. */
  setOpen(nic: number, open: boolean): void {
    this.#waiting.setOpen(nic, open)
  }

  /** A NIC that takes nothing, though it might, loses what comes beyond a few MB. */
  setStalled(nic: number, stalled: boolean): void {
    this.#waiting.setStalled(nic, stalled)
  }

  /** A frame without a colour, from outside of the group: no cut knows it, no recording has it. It is copied where it is kept. */
  takeForeign(frame: Uint8Array): void {
    this.#waiting.takeForeign(frame)
  }

  /** A frame has come. `frame` is copied where it is kept. */
  arrive(sender: string, colour: number, sequence: number, frame: Uint8Array): Arrival {
    const inbound = this.#inbound.get(sender)
    if (inbound === undefined || this.#beyond(colour)) return 'unknown'
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
    if (inbound === undefined || colour < inbound.colour || this.#beyond(colour)) return
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
    if (this.#recordings.size >= MAX_RECORDINGS) this.#fail(Math.min(...this.#recordings.keys()), superseded)
    const events = { ready: () => this.#sink.ready(epoch), lost: () => this.#sink.lost(epoch) }
    const recording = { frames: new FrameQueue(this.#keeper, events), missing: new Set(this.#inbound.keys()) }
    this.#recordings.set(epoch, recording)
    this.#recordUntaken(epoch, recording, recent)
    this.#waiting.promote(epoch)
    for (const [sender, inbound] of this.#inbound) this.#settle(sender, inbound)
    this.#finishComplete()
  }

  /** The epoch is void. A VM that has not been cut for it takes the colour, so that frames of that colour flow. */
  abandon(epoch: number): void {
    this.#fail(epoch, aborted)
    this.#expected.delete(epoch)
    if (epoch <= this.#colour) return
    this.#colour = epoch
    this.#waiting.promote(epoch)
  }

  /** Whether there is room for `bytes` of frames now. */
  hasRoom(bytes: number): boolean {
    const has = this.#keeper.reserve(bytes)
    if (has) this.#keeper.release(bytes)
    return has
  }

  /**
   * Frames of the image, packets end to end: they go to the VM before all that waits, in this order. Takes them over.
   * INJECTION_FULL, and takes none, where there is no room for all: images lose nothing.
   */
  inject(frames: Uint8Array): void {
    if (!this.hasRoom(frames.length)) {
      throw new DiapauseError(
        'INJECTION_FULL',
        `there is no room for ${frames.length} bytes of in-flight frames of the image: switch.bufferMemoryMiB and switch.bufferDiskMiB make it`
      )
    }
    this.#waiting.inject(frames)
  }

  /** Forgets all frames and fails all recordings. */
  clear(): void {
    this.#waiting.clear()
    for (const epoch of this.#recordings.keys()) this.#fail(epoch, aborted)
    this.#expected.clear()
  }

  #beyond(colour: number): boolean {
    return colour > this.#colour + MAX_COLOURS_AHEAD
  }

  #pass(inbound: Inbound, sequence: number): void {
    if (sequence <= inbound.arrived) return
    this.#tally.lost += sequence - inbound.arrived
    inbound.arrived = sequence
  }

  #place(colour: number, frame: Uint8Array): Arrival {
    if (colour > this.#colour) {
      this.#waiting.hold(colour, frame)
      this.#announce(colour)
      return 'early'
    }
    if (colour < this.#colour) {
      for (const [epoch, recording] of this.#recordings) {
        if (colour >= epoch) continue
        this.#tally.recordedInFlight++
        this.#record(epoch, recording, frame)
      }
    }
    return this.#waiting.take(frame) ? 'delivered' : 'waiting'
  }

  /** What the VM may not have taken at its cut, and what waits for it. */
  #recordUntaken(epoch: number, recording: Recording, recent: readonly Uint8Array[]): void {
    for (const frame of recent) {
      this.#record(epoch, recording, frame)
      // It had no room, and is over: nobody would ever clear what came into it now.
      if (this.#recordings.get(epoch) !== recording) return
    }
    this.#tally.recordedRecent += recording.frames.length
    for (const queue of this.#waiting.upTo(epoch - 1)) {
      recording.frames.share(queue)
      this.#tally.recordedInFlight += queue.length
    }
  }

  #record(epoch: number, recording: Recording, frame: Uint8Array): void {
    if (!recording.frames.push(frame)) this.#fail(epoch, full)
  }

  #announce(colour: number): void {
    if (colour <= this.#announced) return
    this.#announced = colour
    this.#sink.marker(colour)
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
    this.#recordings.get(epoch)?.frames.clear()
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
    `epoch ${epoch} has more in-flight frames than there is room for: abort it; switch.bufferDiskMiB makes room, and cuts nearer to each other leave fewer`
  )
