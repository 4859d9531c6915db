/**
 * One group in one generation: who is where, which frame goes to whom, and what is under way to other peers. A new
 * generation is a new fabric, so that no number or colour of the old one can reach into it.
 */
import type { PeerId } from '../../protocols/core.ts'
import { type FrameRecord, MIN_FRAME_BYTES } from '../../protocols/frames/records.ts'
import { type GroupRecord, nicsOf, onBridge, SHARED_NETWORK_PREFIX, UPLINK_NETWORK } from '../../protocols/group.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, Log, Transport } from '../ports.ts'
import type { HeardAddress } from './addresses.ts'
import type { Counters } from './counters.ts'
import { destinationMac, isMulticast, macNumber, PREFIX_BYTES, sourceMac } from './ethernet.ts'
import { FloodLimit } from './flood-limit.ts'
import type { OpenLink } from './link.ts'
import { Network, type Station } from './network.ts'
import { Outbound } from './outbound.ts'
import { Output, type OutputGroup } from './output.ts'
import { type PortGroup, VmPort } from './port.ts'
import type { FrameSpace } from './spill.ts'
import type { Trace } from './trace.ts'
import type { Uplink } from './uplink.ts'

/** What the fabrics of one switch share. */
export interface FabricHost {
  readonly self: PeerId
  readonly transport: Transport
  readonly clock: Clock
  readonly log: Log
  readonly openLink: OpenLink
  readonly counters: Counters
  readonly trace: Trace | undefined
  readonly space: FrameSpace
  /** Whether this peer may send for the group and deliver to it at this moment. */
  mayAct(group: string, generation: number): boolean
  /** `flush` is to be called at the end of this turn of the event loop. */
  schedule(part: { flush(): void }): void
  /** For a VM of ours that is not attached yet. The record's packet may be a view. */
  park(from: PeerId, group: string, generation: number, record: FrameRecord): void
  marker(group: string, vm: string, epoch: number): void
  /** The network of this name for VMs of all groups. */
  sharedNetwork(name: string): Network
  /** All networks that are not one group's own. */
  readonly commonNetworks: readonly Network[]
  readonly uplink: Uplink
  /** Where a frame to a VM of another group goes; undefined: that VM is not known here. */
  stationOf(group: string, vm: string, nic: number): Station | undefined
  /** A frame for a VM of ours in another group. */
  takeForeign(to: Station, packet: Uint8Array): void
}

interface Member {
  readonly id: string
  /** Those of its NICs whose frames pass here. */
  readonly stations: readonly Station[]
  /** Of all its NICs. */
  readonly networks: readonly string[]
  readonly owner: PeerId | undefined
}

/** The table of names of a batch has room for this many. */
const MAX_VMS = 255
/** How often a group that may not act is asked for again. Whoever is regained is also told (`release`). A guess. */
const FENCED_RECHECK_MS = 20

export class Fabric implements PortGroup, OutputGroup {
  readonly id: string
  readonly generation: number
  readonly #host: FabricHost
  #version = -1
  #members: Member[] = []
  #byId = new Map<string, Member>()
  /** Those of the group's own, by name. */
  readonly #networks = new Map<string, Network>()
  readonly #floods: FloodLimit
  readonly #ports = new Map<string, VmPort>()
  readonly #outbound: Outbound
  readonly openFlow: boolean
  /** Where the group has output commit. */
  readonly output: Output | undefined
  readonly #dirty = new Set<VmPort>()
  #retired = false
  #acting = true
  #cancelRecheck: () => void = () => {}

  constructor(record: GroupRecord, host: FabricHost) {
    this.id = record.id
    this.generation = record.generation
    this.openFlow = record.openFlow === true
    this.#host = host
    const { transport, clock, counters, trace } = host
    this.#outbound = new Outbound({
      group: record.id,
      generation: record.generation,
      transport,
      clock,
      counters,
      trace,
      mayAct: () => this.mayAct(),
      schedule: () => host.schedule(this),
      sayTurnsAgain: peer => this.connected(peer)
    })
    this.#floods = new FloodLimit(clock)
    this.output = record.outputCommit === true ? new Output(this, record, host) : undefined
    this.update(record)
  }

  get retired(): boolean {
    return this.#retired
  }

  get acting(): boolean {
    return this.#acting
  }

  /**
   * Asked before anything leaves for a peer or a NIC: this process may have been stopped a moment ago, and its lease have
   * run out meanwhile. Where the answer changes, ports stop delivering or go on.
   */
  mayAct(): boolean {
    const may = !this.#retired && this.#host.mayAct(this.id, this.generation)
    if (may !== this.#acting) {
      this.#acting = may
      for (const port of this.#ports.values()) port.actingChanged()
      this.#cancelRecheck()
      if (may) for (const part of [this, this.#host.uplink]) this.#host.schedule(part)
      else if (!this.#retired) this.#recheckLater()
    }
    return may
  }

  #recheckLater(): void {
    this.#cancelRecheck = this.#host.clock.after(FENCED_RECHECK_MS, () => {
      if (!this.mayAct()) this.#recheckLater()
    })
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
    this.#members = record.vms.map(spec => {
      const owner = record.owners[spec.id]
      const stations = nicsOf(spec).flatMap(({ mac, network }, nic) => {
        if (onBridge(record, network)) return []
        return { group: this.id, vm: spec.id, nic, mac: macNumber(mac), owner, network: this.#networkOf(network) }
      })
      return { id: spec.id, owner, stations, networks: nicsOf(spec).map(({ network }) => network) }
    })
    this.#byId = new Map(this.#members.map(member => [member.id, member]))
    this.#setStations(this.#members.flatMap(({ stations }) => stations))
    for (const port of this.#ports.values()) port.receiver.setSenders(this.#othersOf(port.vm))
    this.output?.learn(record)
  }

  /** The generation is over: its ports receive nothing more, and what they send is refused. */
  retire(): void {
    this.#retired = true
    this.#cancelRecheck()
    this.#outbound.close()
    this.output?.close()
    this.#host.schedule(this.#host.uplink) // which has frames of ours, perhaps
    for (const port of this.#ports.values()) {
      void port.hold()
      port.receiver.clear()
    }
  }

  async attach(vm: string, epoch: number, nicPath: string): Promise<VmPort> {
    const previous = this.#ports.get(vm)
    const member = this.#byId.get(vm)
    if (member?.owner !== this.#host.self) {
      throw new DiapauseError(
        'VM_ELSEWHERE',
        `VM ${vm} of group ${this.id} is not this peer's in generation ${this.generation}`
      )
    }
    if (previous !== undefined && !previous.detached) {
      throw new DiapauseError('NIC_ATTACHED', `VM ${vm} of group ${this.id} has a NIC already: detach it first`)
    }
    const { counters, log, clock, openLink } = this.#host
    const keeper = this.#host.space.keeper()
    const nics = new Map(member.stations.map(({ nic }) => [nic, member.networks[nic] ?? '']))
    const port = new VmPort({ vm, nics, epoch, group: this, previous, counters, clock, log, openLink, keeper })
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

  /** A record from another peer: to a VM of this group, or from one of it to a VM of another group. */
  receive(from: PeerId, record: FrameRecord): void {
    const { counters, self } = this.#host
    const source = this.#byId.get(record.source)
    const to = this.#host.stationOf(record.group ?? this.id, record.destination, record.nic)
    const owner = record.packet === undefined ? this.#byId.get(record.destination)?.owner : to?.owner
    if (owner !== self || source === undefined) counters.droppedUnknown++
    else if (source.owner !== from) counters.refusedSource++
    else if (to === undefined || record.packet === undefined) this.#toLocal(from, record)
    else {
      const out = source.stations.find(({ network }) => network === to.network)
      if (out === undefined) counters.droppedUnknown++
      else if (!to.network.admit(out, sourceMac(record.packet), this.#host.clock.now())) counters.droppedSpoofed++
      else if (record.group === undefined) this.#toLocal(from, record)
      else this.#host.takeForeign(to, record.packet)
    }
  }

  stationOf(vm: string, nic: number): Station | undefined {
    return this.#byId.get(vm)?.stations.find(station => station.nic === nic)
  }

  /** A frame from another group for a VM of ours. */
  takeForeign(vm: string, packet: Uint8Array): void {
    const port = this.#ports.get(vm)
    if (port === undefined || port.detached) this.#host.counters.droppedUnknown++
    else port.receiver.takeForeign(packet)
  }

  /** Replays of what a VM's receivers on `peer` must know after a new connection. */
  connected(peer: PeerId): void {
    for (const port of this.#ports.values()) if (!port.detached) this.#sayTurn(port, peer)
  }

  forward(port: VmPort, nic: number, packet: Uint8Array, by: 'vm' | 'switch'): void {
    const { counters, clock } = this.#host
    if (this.#retired || port.detached) {
      counters.refusedGeneration++
      return
    }
    const from = this.stationOf(port.vm, nic)
    const nowMs = clock.now()
    if (
      from === undefined ||
      packet.length < PREFIX_BYTES + MIN_FRAME_BYTES ||
      !from.network.admit(from, sourceMac(packet), nowMs)
    ) {
      counters.droppedSpoofed++
      return
    }
    if (from.network === this.#host.uplink.network) return this.#outwards(port, from, packet, by)
    if (isMulticast(packet)) return this.#toAll(port, from, packet, by)
    const to = from.network.find(destinationMac(packet), nowMs)
    if (to !== undefined) {
      if (to.group !== this.id) this.#outwards(port, from, packet, by)
      else if (to.vm === port.vm) counters.droppedUnknown++
      else {
        port.saidTo(to.vm, nic, packet, nowMs)
        this.#send(port, to, packet)
      }
    } else if (this.#floods.allows()) {
      counters.flooded++
      this.#toAll(port, from, packet, by)
    } else counters.droppedUnknown++
  }

  /** To the outside, or to those of other groups whom it is for. */
  leave(from: Station, packet: Uint8Array): void {
    const { uplink, clock } = this.#host
    if (from.network === uplink.network) return uplink.forward(this, from, packet)
    const to = isMulticast(packet) ? undefined : from.network.find(destinationMac(packet), clock.now())
    for (const each of to === undefined ? from.network.stations : [to]) {
      if (each.group !== this.id) this.#sendForeign(from.vm, each, packet)
    }
  }

  /** Switches outside are told where these are now. */
  outsideAddresses(vm: string): HeardAddress[] {
    const outside = (this.#byId.get(vm)?.stations ?? []).filter(({ network }) => network === this.#host.uplink.network)
    return outside.map(({ nic, mac }) => ({ nic, mac }))
  }

  heardBehind(vm: string): HeardAddress[] {
    const nowMs = this.#host.clock.now()
    const stations = this.#byId.get(vm)?.stations ?? []
    return stations.flatMap(station => station.network.behind(station, nowMs).map(mac => ({ nic: station.nic, mac })))
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

  /** Sends batches to peers and packets to NICs, where this peer may act. */
  flush(): void {
    this.output?.flush()
    this.#outbound.flush()
    for (const port of this.#dirty) port.flush()
    this.#dirty.clear()
  }

  #toAll(port: VmPort, from: Station, packet: Uint8Array, by: 'vm' | 'switch'): void {
    const { stations } = from.network
    for (const to of stations) if (to.group === this.id && to.vm !== port.vm) this.#send(port, to, packet)
    if (stations.some(to => to.group !== this.id)) this.#outwards(port, from, packet, by)
  }

  #outwards(port: VmPort, from: Station, packet: Uint8Array, by: 'vm' | 'switch'): void {
    if (this.output === undefined || by === 'switch') this.leave(from, packet)
    else this.output.hold(from, port.sender.colour, packet)
  }

  #send(port: VmPort, to: Station, packet: Uint8Array): void {
    this.#host.counters.sent++
    const { vm: destination, nic, owner } = to
    const { colour } = port.sender
    const sequence = port.sender.next(destination)
    this.#toOwner(owner, { source: port.vm, destination, colour, sequence, nic, packet })
  }

  /** Without number and colour: no cut is common to the two groups. */
  #sendForeign(source: string, to: Station, packet: Uint8Array): void {
    const { counters, self } = this.#host
    const { group, vm: destination, nic, owner } = to
    counters.sent++
    if (owner === undefined) counters.droppedUnknown++
    else if (owner !== self) {
      this.#outbound.add(owner, { source, destination, group, colour: 0, sequence: 0, nic, packet })
    } else if (this.mayAct()) this.#host.takeForeign(to, packet)
    else counters.droppedFenced++
  }

  /** Turn records behind all frames of the old colour, to the receivers on `peer`, or to all. */
  #sayTurn(port: VmPort, peer: PeerId | undefined): void {
    for (const member of this.#members) {
      if (member.id === port.vm || (peer !== undefined && member.owner !== peer)) continue
      const sequence = port.sender.sentBeforeTurn(member.id)
      this.#toOwner(member.owner, {
        source: port.vm,
        destination: member.id,
        colour: port.sender.colour,
        sequence,
        nic: 0,
        packet: undefined
      })
    }
  }

  #toOwner(owner: PeerId | undefined, record: FrameRecord): void {
    if (owner === undefined) this.#host.counters.droppedUnknown++
    else if (owner === this.#host.self) this.#toLocal(owner, record)
    else this.#outbound.add(owner, record)
  }

  #toLocal(from: PeerId, record: FrameRecord): void {
    const port = this.#ports.get(record.destination)
    if (port === undefined || port.detached) this.#host.park(from, this.id, this.generation, record)
    else if (record.packet === undefined) port.receiver.turned(record.source, record.colour, record.sequence)
    else {
      record.packet[0] = record.nic
      port.receive(record.source, record.colour, record.sequence, record.packet)
    }
  }

  #networkOf(name: string): Network {
    if (name === UPLINK_NETWORK) return this.#host.uplink.network
    if (name.startsWith(SHARED_NETWORK_PREFIX)) return this.#host.sharedNetwork(name)
    let network = this.#networks.get(name)
    if (network === undefined) {
      network = new Network()
      this.#networks.set(name, network)
    }
    return network
  }

  #setStations(stations: readonly Station[]): void {
    // Also where none of them is: those of an earlier record, or generation, are not to stay there.
    for (const network of [...this.#networks.values(), ...this.#host.commonNetworks]) {
      network.setStations(
        this.id,
        stations.filter(each => each.network === network)
      )
    }
  }

  #othersOf(vm: string): string[] {
    return this.#members.filter(member => member.id !== vm).map(member => member.id)
  }
}
