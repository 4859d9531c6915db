/**
 * One group in one generation: who is where, which frame goes to whom, and what is under way to other peers. A new
 * generation is a new fabric, so that no number or colour of the old one can reach into it.
 */
import type { PeerId } from '../../protocols/core.ts'
import {
  BATCH_TARGET_BYTES,
  encodeBatch,
  type FrameRecord,
  MIN_FRAME_BYTES,
  recordBytes
} from '../../protocols/frames/records.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, Log, Transport } from '../ports.ts'
import type { Counters } from './counters.ts'
import { destinationMac, isMulticast, macNumber, PREFIX_BYTES, sourceMac } from './ethernet.ts'
import { type PortGroup, VmPort } from './port.ts'

/** What the fabrics of one switch share. */
export interface FabricHost {
  readonly self: PeerId
  readonly transport: Transport
  readonly clock: Clock
  readonly log: Log
  readonly counters: Counters
  /** `flush` of this fabric is to be called at the end of this turn of the event loop. */
  schedule(fabric: Fabric): void
  /** For a VM of ours that is not attached yet. The record's packet may be a view. */
  park(from: PeerId, group: string, generation: number, record: FrameRecord): void
  marker(group: string, vm: string, epoch: number): void
}

interface Member {
  readonly id: string
  readonly mac: number
  readonly owner: PeerId | undefined
}

interface Batch {
  records: FrameRecord[]
  bytes: number
}

/** The table of names of a batch has room for this many. */
const MAX_VMS = 255
/** A turn record that the transport had no room for is said again after this time. */
const RETRY_TURN_MS = 5

export class Fabric implements PortGroup {
  readonly id: string
  readonly generation: number
  readonly #host: FabricHost
  #version = -1
  #members: Member[] = []
  #byId = new Map<string, Member>()
  #byMac = new Map<number, Member>()
  readonly #ports = new Map<string, VmPort>()
  readonly #batches = new Map<PeerId, Batch>()
  readonly #dirty = new Set<VmPort>()
  readonly #retries = new Map<PeerId, () => void>()
  #retired = false

  constructor(record: GroupRecord, host: FabricHost) {
    this.id = record.id
    this.generation = record.generation
    this.#host = host
    this.update(record)
  }

  get retired(): boolean {
    return this.#retired
  }

  /** Takes a newer record of the same generation: VMs may have joined or left. */
  update(record: GroupRecord): void {
    if (record.version <= this.#version) return
    if (record.vms.length > MAX_VMS) {
      throw new DiapauseError(
        'GROUP_TOO_LARGE',
        `group ${record.id} has ${record.vms.length} VMs; at most ${MAX_VMS} can be cut together`
      )
    }
    this.#version = record.version
    this.#members = record.vms.map(({ id, mac }) => ({ id, mac: macNumber(mac), owner: record.owners[id] }))
    this.#byId = new Map(this.#members.map(member => [member.id, member]))
    this.#byMac = new Map(this.#members.map(member => [member.mac, member]))
    for (const port of this.#ports.values()) port.receiver.setSenders(this.#othersOf(port.vm))
  }

  /** The generation is over: its ports receive nothing more, and what they send is refused. */
  retire(): void {
    this.#retired = true
    for (const cancel of this.#retries.values()) cancel()
    this.#batches.clear()
    for (const port of this.#ports.values()) {
      port.hold()
      port.receiver.clear()
    }
  }

  async attach(vm: string, epoch: number, nicPath: string): Promise<VmPort> {
    const previous = this.#ports.get(vm)
    if (this.#byId.get(vm)?.owner !== this.#host.self) {
      throw new DiapauseError(
        'VM_ELSEWHERE',
        `VM ${vm} of group ${this.id} is not this peer's in generation ${this.generation}`
      )
    }
    if (previous !== undefined && !previous.detached) {
      throw new DiapauseError('NIC_ATTACHED', `VM ${vm} of group ${this.id} has a NIC already: detach it first`)
    }
    const { counters, log, clock } = this.#host
    const port = new VmPort({ vm, epoch, group: this, previous, counters, clock, log })
    port.receiver.setSenders(this.#othersOf(vm))
    this.#ports.set(vm, port)
    try {
      await port.listen(nicPath)
      if (this.#retired)
        throw new DiapauseError('GENERATION_OLD', `group ${this.id} is past generation ${this.generation} by now`)
    } catch (error) {
      await port.detach()
      throw error
    }
    return port
  }

  /** A record from another peer. */
  receive(from: PeerId, record: FrameRecord): void {
    const { counters, self } = this.#host
    const destination = this.#byId.get(record.destination)
    const source = this.#byId.get(record.source)
    if (destination?.owner !== self || source === undefined) counters.droppedUnknown++
    else if (source.owner !== from) counters.refusedSource++
    else this.#toLocal(from, record)
  }

  /** Replays of what a VM's receivers on `peer` must know after a new connection. */
  connected(peer: PeerId): void {
    for (const port of this.#ports.values()) if (!port.detached) this.#sayTurn(port, peer)
  }

  forward(port: VmPort, packet: Uint8Array): void {
    const { counters } = this.#host
    if (this.#retired || port.detached) {
      counters.refusedGeneration++
      return
    }
    const self = this.#byId.get(port.vm)
    if (packet.length < PREFIX_BYTES + MIN_FRAME_BYTES || self?.mac !== sourceMac(packet)) {
      counters.droppedSpoofed++
      return
    }
    if (isMulticast(packet)) {
      for (const member of this.#members) if (member !== self) this.#send(port, member, packet)
      return
    }
    const member = this.#byMac.get(destinationMac(packet))
    if (member === undefined || member === self) counters.droppedUnknown++
    else this.#send(port, member, packet)
  }

  turned(port: VmPort): void {
    this.#sayTurn(port, undefined)
  }

  dirty(port: VmPort): void {
    this.#dirty.add(port)
    this.#host.schedule(this)
  }

  marker(vm: string, epoch: number): void {
    this.#host.marker(this.id, vm, epoch)
  }

  /** Sends batches to peers and packets to NICs. */
  flush(): void {
    for (const peer of this.#batches.keys()) this.#flushBatch(peer)
    for (const port of this.#dirty) port.flush()
    this.#dirty.clear()
  }

  #send(port: VmPort, member: Member, packet: Uint8Array): void {
    this.#host.counters.sent++
    const sequence = port.sender.next(member.id)
    this.#toOwner(member, { source: port.vm, destination: member.id, colour: port.sender.colour, sequence, packet })
  }

  /** Turn records behind all frames of the old colour, to the receivers on `peer`, or to all. */
  #sayTurn(port: VmPort, peer: PeerId | undefined): void {
    for (const member of this.#members) {
      if (member.id === port.vm || (peer !== undefined && member.owner !== peer)) continue
      const sequence = port.sender.sentBeforeTurn(member.id)
      this.#toOwner(member, {
        source: port.vm,
        destination: member.id,
        colour: port.sender.colour,
        sequence,
        packet: undefined
      })
    }
  }

  #toOwner(member: Member, record: FrameRecord): void {
    if (member.owner === undefined) {
      this.#host.counters.droppedUnknown++
      return
    }
    if (member.owner === this.#host.self) {
      this.#toLocal(member.owner, record)
      return
    }
    let batch = this.#batches.get(member.owner)
    if (batch === undefined) {
      batch = { records: [], bytes: 0 }
      this.#batches.set(member.owner, batch)
      this.#host.schedule(this)
    }
    batch.records.push(record)
    batch.bytes += recordBytes(record)
    if (batch.bytes >= BATCH_TARGET_BYTES) this.#flushBatch(member.owner)
  }

  #toLocal(from: PeerId, record: FrameRecord): void {
    const port = this.#ports.get(record.destination)
    if (port === undefined || port.detached) this.#host.park(from, this.id, this.generation, record)
    else if (record.packet === undefined) port.receiver.turned(record.source, record.colour, record.sequence)
    else port.receive(record.source, record.colour, record.sequence, record.packet)
  }

  #flushBatch(peer: PeerId): void {
    const batch = this.#batches.get(peer)
    if (batch === undefined) return
    this.#batches.delete(peer)
    const { transport, counters, clock } = this.#host
    const { id: group, generation } = this
    if (transport.send(peer, 'frames', [encodeBatch({ group, generation, records: batch.records })])) return
    const turns = batch.records.filter(({ packet }) => packet === undefined).length
    counters.droppedUnsent += batch.records.length - turns
    // Lost turns would cost their epoch. Without a connection `connected` says them; with a full queue a timer does.
    if (turns === 0 || this.#retries.has(peer) || !transport.connected(peer)) return
    const retry = (): void => {
      this.#retries.delete(peer)
      this.connected(peer)
    }
    this.#retries.set(peer, clock.after(RETRY_TURN_MS, retry))
  }

  #othersOf(vm: string): string[] {
    return this.#members.filter(member => member.id !== vm).map(member => member.id)
  }
}
