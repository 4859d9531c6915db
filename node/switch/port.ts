/** One VM's port: its link to QEMU on one side, its channels on the other. What agents hold is a NicPort. */
import { type Arrival, ChannelReceiver, ChannelSender, type ReceiverLimits } from '../../protocols/epoch/channel.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, FrameCounts, Log, NicPort } from '../ports.ts'
import type { Counters } from './counters.ts'
import { PREFIX_BYTES, toPacket } from './ethernet.ts'
import { NicLink } from './link.ts'

/** What a port asks of the group it belongs to. */
export interface PortGroup {
  readonly id: string
  readonly generation: number
  /** A newer generation has taken over. */
  readonly retired: boolean
  /** A packet that the VM has sent. */
  forward(port: VmPort, packet: Uint8Array): void
  /** The VM's colour has turned: its receivers are to learn where the old one ended. */
  turned(port: VmPort): void
  /** `flush` is to be called at the end of this turn of the event loop. */
  dirty(port: VmPort): void
  marker(vm: string, epoch: number): void
}

/** 64 MiB: a second at 500 Mb/s (issue of GENI-VIOLIN's buffers); frames by number, because small ones cost 200 bytes each. */
const LIMITS: ReceiverLimits = {
  waiting: { frames: 65_536, bytes: 64 << 20 },
  recording: { frames: 65_536, bytes: 64 << 20 },
  recordings: 2
}
/** Delivered packets are written at the end of the turn, or when there are this many bytes of them. */
const FLUSH_BYTES = 128 * 1024

export class VmPort implements NicPort {
  readonly vm: string
  readonly sender: ChannelSender
  readonly receiver: ChannelReceiver
  readonly #group: PortGroup
  readonly #counters: Counters
  readonly #clock: Clock
  readonly #log: Log
  readonly #recordings = new Map<number, PromiseWithResolvers<Uint8Array[]>>()
  #link: NicLink | undefined
  #released = false
  /** Since when nothing is given to the VM; undefined: it is. */
  #heldMs: number | undefined
  #writable = false
  #detached = false
  #out: Uint8Array[] = []
  #outBytes = 0

  /** `previous`: the detached port of the same VM and generation, whose numbering goes on. */
  constructor(options: {
    vm: string
    epoch: number
    group: PortGroup
    previous: VmPort | undefined
    counters: Counters
    clock: Clock
    log: Log
  }) {
    const { vm, group, previous, counters } = options
    this.vm = vm
    this.#group = group
    this.#counters = counters
    this.#clock = options.clock
    this.#log = options.log
    const colour = Math.max(options.epoch, previous?.sender.colour ?? 0)
    this.sender = previous?.sender ?? new ChannelSender(colour)
    if (this.sender.colour < colour) this.sender.turn(colour)
    this.receiver = new ChannelReceiver({
      colour,
      limits: LIMITS,
      tally: counters,
      sink: {
        deliver: packet => this.#deliver(packet),
        marker: epoch => group.marker(vm, epoch),
        recorded: (epoch, packets) => {
          this.#recording(epoch).resolve(packets.map(packet => packet.subarray(PREFIX_BYTES)))
        },
        failed: (epoch, error) => this.#recording(epoch).reject(error)
      }
    })
    if (previous !== undefined) this.receiver.continueFrom(previous.receiver)
  }

  get detached(): boolean {
    return this.#detached
  }

  async listen(path: string): Promise<void> {
    this.#link = await NicLink.listen(path, this.#clock, {
      packet: packet => this.#group.forward(this, packet),
      writable: writable => {
        this.#writable = writable
        this.#updateOpen()
      },
      broken: error => {
        this.#counters.linksBroken++
        this.#log.error({ group: this.#group.id, vm: this.vm, error }, 'the NIC of a VM was closed')
      }
    })
    if (this.#detached) await this.#link.close()
  }

  /** A packet of another VM, which need not be ours: it is copied where it is kept. */
  receive(source: string, colour: number, sequence: number, packet: Uint8Array): void {
    const arrival: Arrival = this.receiver.arrive(source, colour, sequence, packet)
    if (arrival === 'early') this.#counters.heldEarly++
    else if (arrival === 'late') this.#counters.droppedLate++
    else if (arrival === 'unknown') this.#counters.droppedUnknown++
  }

  /** Writes what was delivered since the last time. */
  flush(): void {
    if (this.#out.length === 0) return
    const packets = this.#out
    const bytes = this.#outBytes
    this.#out = []
    this.#outBytes = 0
    this.#link?.write(packets, bytes)
  }

  hold(): void {
    this.flush()
    this.#heldMs ??= this.#clock.now()
    this.#released = false
    this.#updateOpen()
  }

  release(): void {
    this.#heldMs = undefined
    this.#released = true
    this.#updateOpen()
  }

  async drained(): Promise<void> {
    this.#assertAttached()
    await this.#link?.drained()
  }

  turn(epoch: number): FrameCounts {
    this.#assertAttached()
    this.flush()
    this.receiver.turn(epoch, this.#link?.recent(this.#heldMs ?? this.#clock.now()) ?? [])
    this.#recording(epoch)
    for (const old of [...this.#recordings.keys()].slice(0, -LIMITS.recordings)) {
      this.#recordings.get(old)?.reject(notKept(this.vm, old))
      this.#recordings.delete(old)
    }
    const counts = this.sender.turn(epoch)
    this.#group.turned(this)
    return counts
  }

  expect(epoch: number, vm: string, sent: FrameCounts): void {
    this.receiver.expect(epoch, vm, sent[this.vm] ?? 0)
  }

  async recorded(epoch: number): Promise<Uint8Array[]> {
    const recording = this.#recordings.get(epoch)
    if (recording !== undefined) return await recording.promise
    if (epoch > this.receiver.colour) {
      throw new DiapauseError('EPOCH_NOT_CUT', `VM ${this.vm} has not been cut to epoch ${epoch}: call turn first`)
    }
    throw notKept(this.vm, epoch)
  }

  abandon(epoch: number): void {
    this.receiver.abandon(epoch)
    if (epoch > this.sender.colour) this.sender.turn(epoch)
  }

  inject(frames: readonly Uint8Array[]): void {
    this.receiver.inject(frames.map(toPacket))
  }

  async detach(): Promise<void> {
    if (!this.#detached) {
      this.#detached = true
      this.#out = []
      this.#outBytes = 0
      this.#updateOpen()
      this.receiver.clear()
    }
    await this.#link?.close()
  }

  #deliver(packet: Uint8Array): void {
    if (this.#out.length === 0) this.#group.dirty(this)
    this.#out.push(packet)
    this.#outBytes += packet.length
    this.#counters.delivered++
    if (this.#outBytes >= FLUSH_BYTES) this.flush()
  }

  #updateOpen(): void {
    this.receiver.setOpen(this.#released && this.#writable && !this.#detached)
  }

  #recording(epoch: number): PromiseWithResolvers<Uint8Array[]> {
    let recording = this.#recordings.get(epoch)
    if (recording === undefined) {
      recording = Promise.withResolvers()
      recording.promise.catch(() => {}) // nobody need be waiting for it
      this.#recordings.set(epoch, recording)
    }
    return recording
  }

  #assertAttached(): void {
    if (this.#detached) throw new DiapauseError('NIC_DETACHED', `the NIC of VM ${this.vm} is detached: attach it again`)
    if (!this.#group.retired) return
    throw new DiapauseError(
      'GENERATION_OLD',
      `generation ${this.#group.generation} of VM ${this.vm} is over: destroy it`
    )
  }
}

const notKept = (vm: string, epoch: number) =>
  new DiapauseError('EPOCH_ABORTED', `VM ${vm} keeps no in-flight frames of epoch ${epoch}`)
