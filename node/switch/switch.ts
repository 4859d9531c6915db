/**
 * The switch of a peer: the only way out of a VM and into it. Coloured frames are forwarded between the VMs of a group,
 * on this peer and on others, so that cuts of the group are consistent. See README.md for the way of a frame.
 */
import type { PeerId } from '../../protocols/core.ts'
import { decodeBatch, type FrameRecord } from '../../protocols/frames/records.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, Log, Switch, Transport } from '../ports.ts'
import { type SwitchCounters, zeroCounters } from './counters.ts'
import { Fabric, type FabricHost } from './fabric.ts'
import { Parking } from './parking.ts'

/** A Switch whose `stats` say more. */
export interface VirtualSwitch extends Switch {
  stats(): SwitchCounters
}

/** Takes the `frames` channel of `transport`; to be called before `transport.start`. */
export function createSwitch(options: { self: PeerId; transport: Transport; clock: Clock; log: Log }): VirtualSwitch {
  const { self, transport, clock, log } = options
  const counters = zeroCounters()
  const fabrics = new Map<string, Fabric>()
  const parking = new Parking()
  const scheduled = new Set<Fabric>()
  const markerHandlers: ((group: string, vm: string, epoch: number) => void)[] = []

  const park = (from: PeerId, group: string, generation: number, record: FrameRecord): void => {
    counters.droppedFull += parking.add({ from, group, generation, record })
  }

  /** Once per turn of the event loop, after its poll phase: all that was read then leaves in one write per way out. */
  const flush = (): void => {
    const now = [...scheduled]
    scheduled.clear()
    for (const fabric of now) fabric.flush()
  }

  const host: FabricHost = {
    self,
    transport,
    clock,
    log,
    counters,
    park,
    schedule(fabric) {
      if (scheduled.size === 0) setImmediate(flush)
      scheduled.add(fabric)
    },
    marker(group, vm, epoch) {
      // Later: a handler may cut, hold or release, and the frame that brought the marker is not yet put away.
      queueMicrotask(() => {
        for (const handler of markerHandlers) handler(group, vm, epoch)
      })
    }
  }

  const receive = (from: PeerId, group: string, generation: number, record: FrameRecord): void => {
    const fabric = fabrics.get(group)
    if (fabric === undefined || generation > fabric.generation) park(from, group, generation, record)
    else if (generation < fabric.generation) counters.refusedGeneration++
    else fabric.receive(from, record)
  }

  const unpark = (group: string): void => {
    for (const { from, generation, record } of parking.take(group)) receive(from, group, generation, record)
  }

  transport.handle('frames', (from, message) => {
    const { group, generation, records } = decodeBatch(message)
    for (const record of records) receive(from, group, generation, record)
  })
  transport.onConnection((peer, connected) => {
    if (connected) for (const fabric of fabrics.values()) fabric.connected(peer)
  })

  return {
    setGroup(record) {
      const present = fabrics.get(record.id)
      if (present !== undefined && record.generation < present.generation) return
      if (present?.generation === record.generation) present.update(record)
      else {
        const fabric = new Fabric(record, host)
        present?.retire()
        fabrics.set(record.id, fabric)
      }
      unpark(record.id)
    },

    removeGroup(id) {
      fabrics.get(id)?.retire()
      fabrics.delete(id)
      parking.take(id)
    },

    async attach({ group, vm, generation, epoch, nicPath }) {
      const fabric = fabrics.get(group)
      if (fabric?.generation !== generation) {
        throw new DiapauseError(
          fabric !== undefined && generation < fabric.generation ? 'GENERATION_OLD' : 'GROUP_UNKNOWN',
          `cannot attach VM ${vm} to generation ${generation} of group ${group}: the switch knows ${
            fabric === undefined ? 'no such group' : `generation ${fabric.generation}`
          }; call setGroup first`
        )
      }
      const attaching = fabric.attach(vm, epoch, nicPath)
      unpark(group) // before anything newer can come
      return await attaching
    },

    onMarker(handler) {
      markerHandlers.push(handler)
    },

    stats: () => ({ ...counters })
  }
}
