/**
 * The switch of a peer: the only way out of a VM and into it. Coloured frames are forwarded between the VMs of a group,
 * on this peer and on others, so that cuts of the group are consistent. See README.md for the way of a frame.
 */
import type { PeerId } from '../../protocols/core.ts'
import { decodeBatch, type FrameRecord } from '../../protocols/frames/records.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, Log, NicPort, Switch, Transport } from '../ports.ts'
import { type SwitchCounters, zeroCounters } from './counters.ts'
import { Fabric, type FabricHost } from './fabric.ts'
import { Parking } from './parking.ts'

/** A Switch whose `stats` say more. */
export interface VirtualSwitch extends Switch {
  stats(): SwitchCounters
}

interface SwitchOptions {
  readonly self: PeerId
  readonly transport: Transport
  readonly clock: Clock
  readonly log: Log
}

/** Takes the `frames` channel of `transport`; to be called before `transport.start`. */
export function createSwitch(options: SwitchOptions): VirtualSwitch {
  return new FabricSwitch(options)
}

type MarkerHandler = Parameters<Switch['onMarker']>[0]

/** One fabric a group, of the newest generation that this peer has heard of; what comes too early is parked. */
class FabricSwitch implements VirtualSwitch, FabricHost {
  readonly self: PeerId
  readonly transport: Transport
  readonly clock: Clock
  readonly log: Log
  readonly counters = zeroCounters()
  readonly #fabrics = new Map<string, Fabric>()
  readonly #parking = new Parking()
  readonly #scheduled = new Set<Fabric>()
  readonly #markerHandlers: MarkerHandler[] = []

  constructor({ self, transport, clock, log }: SwitchOptions) {
    this.self = self
    this.transport = transport
    this.clock = clock
    this.log = log
    transport.handle('frames', (from, message) => {
      const { group, generation, records } = decodeBatch(message)
      for (const record of records) this.#receive(from, group, generation, record)
    })
    transport.onConnection((peer, connected) => {
      if (connected) for (const fabric of this.#fabrics.values()) fabric.connected(peer)
    })
  }

  // -------------------------------------------------------------------------------------------- for the agents

  setGroup(record: GroupRecord): void {
    const present = this.#fabrics.get(record.id)
    if (present !== undefined && record.generation < present.generation) return
    if (present?.generation === record.generation) present.update(record)
    else {
      const fabric = new Fabric(record, this)
      present?.retire()
      this.#fabrics.set(record.id, fabric)
    }
    this.#unpark(record.id)
  }

  removeGroup(id: string): void {
    this.#fabrics.get(id)?.retire()
    this.#fabrics.delete(id)
    this.#parking.take(id)
  }

  async attach({ group, vm, generation, epoch, nicPath }: Parameters<Switch['attach']>[0]): Promise<NicPort> {
    const fabric = this.#fabrics.get(group)
    if (fabric?.generation !== generation) {
      throw new DiapauseError(
        fabric !== undefined && generation < fabric.generation ? 'GENERATION_OLD' : 'GROUP_UNKNOWN',
        `cannot attach VM ${vm} to generation ${generation} of group ${group}: the switch knows ${
          fabric === undefined ? 'no such group' : `generation ${fabric.generation}`
        }; call setGroup first`
      )
    }
    const attaching = fabric.attach(vm, epoch, nicPath)
    this.#unpark(group) // before anything newer can come
    return await attaching
  }

  onMarker(handler: MarkerHandler): void {
    this.#markerHandlers.push(handler)
  }

  stats(): SwitchCounters {
    return { ...this.counters }
  }

  // -------------------------------------------------------------------------------------------- for the fabrics

  /** All that is read in a turn of the event loop leaves after its poll phase, in one write per way out. */
  schedule(fabric: Fabric): void {
    if (this.#scheduled.size === 0) setImmediate(() => this.#flush())
    this.#scheduled.add(fabric)
  }

  park(from: PeerId, group: string, generation: number, record: FrameRecord): void {
    this.counters.droppedFull += this.#parking.add({ from, group, generation, record })
  }

  marker(group: string, vm: string, epoch: number): void {
    // Later: a handler may cut, hold or release, and the frame that brought the marker is not yet put away.
    queueMicrotask(() => {
      for (const handler of this.#markerHandlers) handler(group, vm, epoch)
    })
  }

  #flush(): void {
    const now = [...this.#scheduled]
    this.#scheduled.clear()
    for (const fabric of now) fabric.flush()
  }

  // -------------------------------------------------------------------------------------------- from other peers

  #receive(from: PeerId, group: string, generation: number, record: FrameRecord): void {
    const fabric = this.#fabrics.get(group)
    if (fabric === undefined || generation > fabric.generation) this.park(from, group, generation, record)
    else if (generation < fabric.generation) this.counters.refusedGeneration++
    else fabric.receive(from, record)
  }

  #unpark(group: string): void {
    for (const { from, generation, record } of this.#parking.take(group)) {
      this.#receive(from, group, generation, record)
    }
  }
}
