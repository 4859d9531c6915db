/** One VM's port: its NICs on one side, its channels on the other. What agents hold is a NicPort. */
import { type Arrival, ChannelReceiver, ChannelSender, MAX_RECORDINGS } from '../../protocols/epoch/channel.ts'
import type { ChunkKeeper } from '../../protocols/epoch/channel-queue.ts'
import { nicPathOf } from '../../protocols/group.ts'
import type { Talk } from '../../protocols/talks.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, FrameCounts, FrameLog, Log, NicEnd, NicPort } from '../ports.ts'
import { encodeAddresses, type HeardAddress, takeAddresses } from './addresses.ts'
import type { Counters } from './counters.ts'
import { announcement, isMulticast } from './ethernet.ts'
import type { OpenLink } from './link.ts'
import { Nic } from './nic.ts'
import { RecordedFrames } from './recorded-frames.ts'
import { roomFor } from './room.ts'
import { Talks } from './talks.ts'

/** What a port asks of the group it belongs to. */
export interface PortGroup {
  readonly id: string
  readonly generation: number
  /** A newer generation has taken over. */
  readonly retired: boolean
  /** What `mayAct` said last. */
  readonly acting: boolean
  /** Whether packets may go to the VM now. */
  mayAct(): boolean
  /** A packet from NIC number `nic`, that the VM has sent or the switch says in its stead: that tells nothing of its state. */
  forward(port: VmPort, nic: number, packet: Uint8Array, by: 'vm' | 'switch'): void
  /** Addresses of the VM that switches outside of the cluster know. */
  outsideAddresses(vm: string): HeardAddress[]
  /** Addresses that were heard behind the VM, besides its own. */
  heardBehind(vm: string): HeardAddress[]
  /** The VM's colour has turned: its receivers are to learn where the old one ended. */
  turned(port: VmPort): void
  /** `flush` is to be called at the end of this turn of the event loop. */
  dirty(port: VmPort): void
  marker(vm: string, epoch: number): void
}

interface Recording extends PromiseWithResolvers<FrameLog> {
  /** Addresses heard by the time of the cut, as the first piece. */
  readonly head: Uint8Array
  /** When it is complete. */
  log: RecordedFrames | undefined
}

export interface PortOptions {
  readonly vm: string
  /** The numbers of its NICs whose frames pass here, with their networks. */
  readonly nics: ReadonlyMap<number, string>
  readonly epoch: number
  readonly group: PortGroup
  /** The detached port of the same VM and generation, whose numbering goes on. */
  readonly previous: VmPort | undefined
  readonly counters: Counters
  readonly clock: Clock
  readonly log: Log
  readonly openLink: OpenLink
  readonly keeper: ChunkKeeper
}

export class VmPort implements NicPort {
  readonly vm: string
  readonly sender: ChannelSender
  readonly receiver: ChannelReceiver
  readonly #group: PortGroup
  readonly #counters: Counters
  readonly #clock: Clock
  readonly #recordings = new Map<number, Recording>()
  readonly #openLink: OpenLink
  readonly #nics: readonly Nic[]
  readonly #now = (): number => this.#clock.now()
  readonly #talks: Talks
  #talksAtTurn: readonly Talk[] = []
  #ends: readonly NicEnd[] = []
  #released = false
  /** Since when nothing is given to the VM; undefined: it is. */
  #heldMs: number | undefined
  #detached = false
  /** What is to be announced when the VM runs: addresses that others know to be elsewhere, or not at all. */
  readonly #moved: HeardAddress[]

  constructor(options: PortOptions) {
    const { vm, nics, group, previous, counters, clock, keeper } = options
    this.vm = vm
    this.#group = group
    this.#counters = counters
    this.#clock = clock
    this.#openLink = options.openLink
    this.#nics = [...nics.keys()].map(index => this.#newNic(index, options.log))
    this.#talks = new Talks(nic => nics.get(nic) ?? '')
    const colour = Math.max(options.epoch, previous?.sender.colour ?? 0)
    this.sender = previous?.sender ?? new ChannelSender(colour)
    if (this.sender.colour < colour) this.sender.turn(colour)
    this.receiver = new ChannelReceiver({
      colour,
      nics: Math.max(-1, ...nics.keys()) + 1,
      keeper,
      tally: counters,
      sink: {
        deliver: (packet, foreign) => this.#deliver(packet, foreign),
        marker: epoch => group.marker(vm, epoch),
        recorded: (epoch, queue) => {
          const recording = this.#recording(epoch)
          recording.log = new RecordedFrames(queue, recording.head)
          recording.resolve(recording.log)
        },
        ready: epoch => this.#recordings.get(epoch)?.log?.ready(),
        lost: epoch => this.#recordings.get(epoch)?.log?.lost(),
        failed: (epoch, error) => this.#recording(epoch).reject(error)
      }
    })
    if (previous !== undefined) this.receiver.continueFrom(previous.receiver)
    this.#moved = group.outsideAddresses(vm)
  }

  get detached(): boolean {
    return this.#detached
  }

  get ends(): readonly NicEnd[] {
    return this.#ends
  }

  async listen(firstPath: string): Promise<void> {
    const paths = this.#nics.map(({ index }) => nicPathOf(firstPath, index))
    this.#ends = paths.map(path => ({ kind: 'stream', path }))
    const opened = await Promise.allSettled(
      this.#nics.map((nic, index) => nic.listen(paths[index] as string, this.#openLink))
    )
    // Not before all have ended: `detach` is to find those that listen, and none may come to listen after it.
    for (const each of opened) if (each.status === 'rejected') throw each.reason
    if (this.#detached) await this.#close()
  }

  /** A packet of another VM, which need not be ours: it is copied where it is kept. */
  receive(source: string, colour: number, sequence: number, packet: Uint8Array): void {
    const arrival: Arrival = this.receiver.arrive(source, colour, sequence, packet)
    if (arrival === 'early') this.#counters.heldEarly++
    else if (arrival === 'late') this.#counters.droppedLate++
    else if (arrival === 'unknown') this.#counters.droppedUnknown++
    if (arrival === 'late' || arrival === 'unknown' || isMulticast(packet)) return
    this.#talks.heard(source, packet[0] as number, packet.length, this.#now)
  }

  /** A packet of the VM's NIC number `nic` is for that VM of the group alone. */
  saidTo(vm: string, nic: number, packet: Uint8Array, nowMs: number): void {
    this.#talks.sent(vm, nic, packet.length, nowMs)
  }

  talks(): readonly Talk[] {
    return this.#talksAtTurn
  }

  /** Writes what was delivered since the last time, or keeps it where this peer may not act. */
  flush(): void {
    for (const nic of this.#nics) nic.flush()
  }

  /** Nothing: this switch has seen what the VM may not have taken. */
  async prepare(): Promise<void> {}

  /** At once, as all that follows: what is a promise in `NicPort` is one here for others' sake. */
  async hold(): Promise<void> {
    this.flush()
    this.#heldMs ??= this.#clock.now()
    this.#released = false
    this.#updateOpen()
  }

  async release(): Promise<void> {
    const nowMs = this.#clock.now()
    for (const nic of this.#nics) nic.stoodStill(this.#heldMs ?? nowMs, nowMs)
    this.#heldMs = undefined
    this.#released = true
    this.#group.mayAct() // the lease may have been regained just now
    this.#updateOpen()
    for (const { nic, mac } of this.#moved.splice(0)) this.#group.forward(this, nic, announcement(mac), 'switch')
  }

  /** `PortGroup.acting` has changed. */
  actingChanged(): void {
    if (this.#nics.some(nic => nic.holds)) this.#group.dirty(this)
    this.#updateOpen()
  }

  async drained(): Promise<void> {
    this.#assertAttached()
    await Promise.all(this.#nics.map(nic => nic.drained()))
  }

  async turn(epoch: number): Promise<FrameCounts> {
    this.#assertAttached()
    this.flush()
    const heldMs = this.#heldMs ?? this.#clock.now()
    if (epoch > this.receiver.colour) this.#recording(epoch, encodeAddresses(this.#group.heardBehind(this.vm)))
    this.receiver.turn(
      epoch,
      this.#nics.flatMap(nic => nic.untaken(heldMs))
    )
    for (const old of [...this.#recordings.keys()].slice(0, -MAX_RECORDINGS)) this.#forget(old)
    const counts = this.sender.turn(epoch)
    this.#talksAtTurn = this.#talks.list()
    this.#talks.age()
    this.#group.turned(this)
    return counts
  }

  expect(epoch: number, vm: string, sent: FrameCounts): void {
    this.receiver.expect(epoch, vm, sent[this.vm] ?? 0)
  }

  async recorded(epoch: number): Promise<FrameLog> {
    const recording = this.#recordings.get(epoch)
    if (recording !== undefined) return await recording.promise
    if (epoch > this.receiver.colour) {
      throw new DiapauseError('EPOCH_NOT_CUT', `VM ${this.vm} has not been cut to epoch ${epoch}: call turn first`)
    }
    throw notKept(this.vm, epoch)
  }

  async abandon(epoch: number): Promise<void> {
    this.receiver.abandon(epoch)
    this.#recordings.get(epoch)?.log?.discard()
    if (epoch > this.sender.colour) this.sender.turn(epoch)
  }

  async inject(pieces: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const piece of pieces) {
      this.#assertAttached()
      const { addresses, rest } = takeAddresses(piece)
      this.#moved.push(...addresses)
      await roomFor(rest.length, this.receiver, this.#clock, () => this.#assertAttached())
      this.receiver.inject(rest)
    }
  }

  async detach(): Promise<void> {
    if (!this.#detached) {
      this.#detached = true
      this.#updateOpen()
      this.receiver.clear()
      for (const epoch of this.#recordings.keys()) this.#forget(epoch)
    }
    await this.#close()
  }

  #newNic(index: number, log: Log): Nic {
    return new Nic(index, this.#clock, {
      packet: packet => this.#group.forward(this, index, packet, 'vm'),
      changed: () => this.#updateOpen(),
      dirty: () => this.#group.dirty(this),
      mayAct: () => this.#group.mayAct(),
      broken: error => {
        this.#counters.linksBroken++
        log.error({ group: this.#group.id, vm: this.vm, nic: index, error }, 'a NIC of a VM was closed')
      }
    })
  }

  async #close(): Promise<void> {
    await Promise.all(this.#nics.map(nic => nic.close()))
  }

  #deliver(packet: Uint8Array, foreign: boolean): void {
    this.#counters.delivered++
    this.#nics.find(nic => nic.index === packet[0])?.push(packet, foreign)
  }

  #updateOpen(): void {
    const may = this.#released && this.#group.acting && !this.#detached
    for (const nic of this.#nics) {
      nic.setReading(may)
      this.receiver.setStalled(nic.index, nic.stuck)
      this.receiver.setOpen(nic.index, may && nic.writable)
    }
  }

  #recording(epoch: number, head: Uint8Array = new Uint8Array(0)): Recording {
    let recording = this.#recordings.get(epoch)
    if (recording === undefined) {
      recording = { ...Promise.withResolvers<FrameLog>(), head, log: undefined }
      recording.promise.catch(() => {}) // nobody need be waiting for it
      this.#recordings.set(epoch, recording)
    }
    return recording
  }

  #forget(epoch: number): void {
    const recording = this.#recordings.get(epoch)
    recording?.reject(notKept(this.vm, epoch))
    recording?.log?.discard()
    this.#recordings.delete(epoch)
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
