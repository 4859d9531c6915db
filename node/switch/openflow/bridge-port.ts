/**
 * One VM on a bridge: what its peer holds, records and gives it later. The channel core decides, over the frames that go
 * up; all others pass in the bridge. Numbers in a channel are the peer's own here, of the frames that went up, since the
 * bridge does not number; so a channel is complete by a marker alone, never by counts.
 */
import { type Arrival, ChannelReceiver, MAX_RECORDINGS } from '../../../protocols/epoch/channel.ts'
import type { ChunkKeeper } from '../../../protocols/epoch/channel-queue.ts'
import { DiapauseError } from '../../errors.ts'
import type { Clock, FrameLog } from '../../ports.ts'
import { PREFIX_BYTES } from '../ethernet.ts'
import { RecordedFrames } from '../recorded-frames.ts'
import { roomFor } from '../room.ts'
import type { BridgeCounters } from './bridge.ts'
import { ahead, type BridgeVm, type Inbound } from './plan.ts'

/** What a port asks of its bridge. */
export interface PortBridge {
  readonly counters: BridgeCounters
  readonly clock: Clock
  /** Resolves when the bridge forwards by what the ports are now. OPENFLOW_DOWN, OPENFLOW_REFUSED, OPENFLOW_CONTROL. */
  sync(): Promise<void>
  /** Resolves when the bridge has answered. OPENFLOW_DOWN. */
  answer(): Promise<void>
  /** As `sync`, soon, where nobody waits: what fails is logged, and done when the bridge is there again. */
  syncSoon(): void
  /** Frames for the VM leave at once. */
  mayDeliver(group: string): boolean
  deliver(group: string, vm: string, nic: number, frame: Uint8Array): void
  /** All that VMs of ours have sent and the bridge has not read. */
  queuedBytes(group: string, vm: string): Promise<number>
  /** Tells all receivers that the VM's old colour has ended. */
  sayTurn(group: string, vm: string, epoch: number): void
  marker(group: string, vm: string, epoch: number): void
  detached(port: BridgePort): void
}

interface Recording extends PromiseWithResolvers<FrameLog> {
  log: RecordedFrames | undefined
}

/** Frames that a VM may not have taken when it is held: a TAP device's queue (1,000) and a ring (256 to 1,024). */
const RECENT_FRAMES = 2048
/** A stopped VM's last frames are read in microseconds; a bridge that takes this long is not forwarding. A guess. */
const DRAIN_MS = 2_000
const DRAIN_POLL_MS = 1
/** Without a frame for so long, none is on its way through the bridge, this process and back. A guess. */
const QUIET_MS = 5
/** The most that is waited for a gap: a guess between TCP's shortest timeout (200 ms) and a round trip. */
const BUSY_MS = 50

export class BridgePort {
  readonly group: string
  readonly vm: string
  readonly #bridge: PortBridge
  readonly #nics: number
  readonly #receiver: ChannelReceiver
  readonly #recordings = new Map<number, Recording>()
  /** Epochs whose in-flight frames are still wanted. */
  readonly #wanted = new Set<number>()
  /** Sender → frames of it that went up. */
  readonly #numbers = new Map<string, number>()
  #recent: Uint8Array[] = []
  #inbound: Inbound = 'held'
  #prepared = false
  #released = false
  #retired = false
  /** When a frame came up last, and whether the bridge is to deliver by itself soon. */
  #lastUpMs = 0
  #passing = false

  constructor(options: {
    readonly group: string
    readonly vm: string
    readonly nics: number
    readonly epoch: number
    readonly bridge: PortBridge
    readonly keeper: ChunkKeeper
  }) {
    const { group, vm, nics, epoch, bridge, keeper } = options
    this.group = group
    this.vm = vm
    this.#bridge = bridge
    this.#nics = nics
    this.#receiver = new ChannelReceiver({
      colour: epoch,
      nics,
      keeper,
      tally: bridge.counters,
      sink: {
        deliver: packet => this.#deliver(packet),
        marker: colour => bridge.marker(group, vm, colour),
        recorded: (colour, queue) => {
          const recording = this.#recording(colour)
          recording.log = new RecordedFrames(queue, new Uint8Array(0))
          recording.resolve(recording.log)
          this.#settled(colour)
        },
        ready: colour => this.#recordings.get(colour)?.log?.ready(),
        lost: colour => this.#recordings.get(colour)?.log?.lost(),
        failed: (colour, error) => {
          this.#recording(colour).reject(error)
          this.#settled(colour)
        }
      }
    })
  }

  /** What the plan needs to know. */
  get facts(): BridgeVm {
    return { colour: this.#receiver.colour, inbound: this.#inbound, recording: this.#wanted.size > 0 }
  }

  setSenders(senders: readonly string[]): void {
    this.#receiver.setSenders(senders)
  }

  // -------------------------------------------------------------------------------------------- for whoever cuts

  /** A moment before `hold`: what the VM may not take any more by then is known here from now on. */
  async prepare(): Promise<void> {
    this.#prepared = true
    if (this.#inbound === 'direct') this.#inbound = 'copied'
    await this.#bridge.sync()
  }

  /** Inbound frames wait when it resolves. */
  async hold(): Promise<void> {
    this.#released = false
    this.#inbound = 'held'
    this.updateOpen()
    await this.#bridge.sync()
  }

  /** Inbound frames flow: the waiting ones first; past this peer soon after one has come and nothing waits. */
  async release(): Promise<void> {
    this.#recent = []
    this.#prepared = false
    this.#released = true
    if (this.#inbound === 'copied') this.#inbound = 'direct' // it was not held after all
    this.updateOpen()
    await this.#bridge.sync()
  }

  /** Resolves when all that the VM has sent is forwarded (the VM must be stopped). OPENFLOW_DRAIN. */
  async drained(): Promise<void> {
    for (let waitedMs = 0; (await this.#bridge.queuedBytes(this.group, this.vm)) > 0; waitedMs += DRAIN_POLL_MS) {
      if (waitedMs >= DRAIN_MS) {
        throw new DiapauseError(
          'OPENFLOW_DRAIN',
          `the bridge does not read what VM ${this.vm} has sent: abort the epoch`
        )
      }
      await new Promise<void>(resolve => this.#bridge.clock.after(DRAIN_POLL_MS, resolve))
    }
    await this.#bridge.answer() // one thread reads and answers: what it has read is forwarded by now
  }

  /** The cut: what the VM sends is of colour `epoch` when it resolves, and all who receive from it are told. EPOCH_OLD. */
  async turn(epoch: number): Promise<void> {
    if (epoch > this.#receiver.colour) {
      this.#recording(epoch)
      this.#wanted.add(epoch)
      for (const old of [...this.#recordings.keys()].slice(0, -MAX_RECORDINGS)) this.#forget(old)
    }
    this.#receiver.turn(epoch, this.#recent.splice(0))
    await this.#bridge.sync()
    this.#bridge.sayTurn(this.group, this.vm, epoch)
  }

  /** The in-flight frames, when a marker has come from every sender. EPOCH_ABORTED, RECORDING_FULL. */
  async recorded(epoch: number): Promise<FrameLog> {
    const recording = this.#recordings.get(epoch)
    if (recording !== undefined) return await recording.promise
    throw new DiapauseError(
      'EPOCH_NOT_CUT',
      `VM ${this.vm} keeps no in-flight frames of epoch ${epoch}: call turn first`
    )
  }

  /** The epoch is void; a VM that is not cut takes its colour. A log that was not read is taken away. */
  async abandon(epoch: number): Promise<void> {
    const behind = epoch > this.#receiver.colour
    this.#receiver.abandon(epoch)
    this.#forget(epoch)
    await this.#bridge.sync()
    if (behind) this.#bridge.sayTurn(this.group, this.vm, epoch)
  }

  /** Frames of the image: before all that waits, as soon as there is room for them. INJECTION_FULL, NIC_DETACHED. */
  async inject(frames: Uint8Array): Promise<void> {
    this.#assertAttached()
    await roomFor(frames.length, this.#receiver, this.#bridge.clock, () => this.#assertAttached())
    this.#receiver.inject(frames)
  }

  /** Its entries go, and what waits. */
  async detach(): Promise<void> {
    this.retire()
    this.#bridge.detached(this)
    await this.#bridge.sync()
  }

  // -------------------------------------------------------------------------------------------- for the bridge

  /** A frame of `sender` that went up; `copied`: the VM has it already. */
  receive(sender: string, pcp: number, packet: Uint8Array, copied: boolean): void {
    if (copied) return this.#noteRecent(packet)
    const colour = this.#receiver.colour + ahead(pcp, this.#receiver.colour)
    const number = (this.#numbers.get(sender) ?? 0) + 1
    this.#numbers.set(sender, number)
    const arrival = this.#receiver.arrive(sender, colour, number, packet)
    this.#count(arrival)
    this.#lastUpMs = this.#bridge.clock.now()
    // Nothing waits: the bridge may deliver by itself.
    if (arrival === 'delivered' && this.#inbound === 'held') this.#letPass(this.#lastUpMs)
  }

  turned(sender: string, colour: number): void {
    this.#receiver.turned(sender, colour, 0)
  }

  /** Whether packets may go to the VM may have changed. */
  updateOpen(): void {
    const open = this.#released && this.#bridge.mayDeliver(this.group)
    for (let nic = 0; nic < this.#nics; nic++) this.#receiver.setOpen(nic, open)
  }

  /** Its generation is over, or it is detached: nothing is kept. */
  retire(): void {
    this.#retired = true
    this.#released = false
    this.#receiver.clear()
    for (const epoch of this.#recordings.keys()) this.#forget(epoch)
  }

  /** The group is fenced: when it is not any more, what waits goes first. */
  suspended(): void {
    this.#inbound = 'held'
    this.updateOpen()
  }

  /** What passed unseen meanwhile is in no recording: those that are open fail. Frames come up again before they flow. */
  interrupted(): void {
    for (const epoch of this.#wanted) this.#receiver.abandon(epoch)
    this.#inbound = 'held'
    this.#recent = []
    this.updateOpen()
  }

  /**
   * Frames that pass by this peer overtake those that are on their way through it: better when there are none. Traffic
   * without a gap is let pass all the same, for this way is narrow: a little of it comes out of order.
   */
  #letPass(sinceMs: number): void {
    if (!this.#released || this.#passing) return
    this.#passing = true
    this.#bridge.clock.after(QUIET_MS, () => {
      this.#passing = false
      if (!this.#released || this.#inbound !== 'held') return
      const nowMs = this.#bridge.clock.now()
      if (nowMs - this.#lastUpMs < QUIET_MS && nowMs - sinceMs < BUSY_MS) return this.#letPass(sinceMs)
      this.#inbound = this.#prepared ? 'copied' : 'direct'
      this.#bridge.syncSoon()
    })
  }

  #count(arrival: Arrival): void {
    const { counters } = this.#bridge
    if (arrival === 'early') counters.heldEarly++
    else if (arrival === 'late') counters.droppedLate++
    else if (arrival === 'unknown') counters.droppedUnknown++
  }

  #noteRecent(packet: Uint8Array): void {
    this.#recent.push(packet)
    if (this.#recent.length > RECENT_FRAMES) this.#recent.shift()
  }

  #deliver(packet: Uint8Array): void {
    if (this.#prepared && this.#released) this.#noteRecent(Uint8Array.from(packet))
    this.#bridge.deliver(this.group, this.vm, packet[0] as number, packet.subarray(PREFIX_BYTES))
  }

  /** Its in-flight frames are together, or never will be. */
  #settled(epoch: number): void {
    this.#wanted.delete(epoch)
    this.#bridge.syncSoon()
  }

  #forget(epoch: number): void {
    const recording = this.#recordings.get(epoch)
    recording?.reject(new DiapauseError('EPOCH_ABORTED', `VM ${this.vm} keeps no in-flight frames of epoch ${epoch}`))
    recording?.log?.discard()
    this.#recordings.delete(epoch)
    this.#wanted.delete(epoch)
  }

  #assertAttached(): void {
    if (!this.#retired) return
    throw new DiapauseError('NIC_DETACHED', `VM ${this.vm} is not on the bridge any more: attach it again`)
  }

  #recording(epoch: number): Recording {
    let recording = this.#recordings.get(epoch)
    if (recording === undefined) {
      recording = { ...Promise.withResolvers<FrameLog>(), log: undefined }
      recording.promise.catch(() => {}) // nobody need be waiting for it
      this.#recordings.set(epoch, recording)
    }
    return recording
  }
}
