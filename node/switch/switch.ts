/**
 * The switch of a peer: the only way out of a VM and into it. Coloured frames are forwarded between the VMs of a group,
 * on this peer and on others, so that cuts of the group are consistent. See README.md for the way of a frame.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { ChunkKeeper } from '../../protocols/epoch/channel-queue.ts'
import { decodeBatch, type FrameRecord } from '../../protocols/frames/records.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { DiapauseError } from '../errors.ts'
import type { Clock, Log, NicPort, NicSockets, Switch, Transport } from '../ports.ts'
import { type SwitchCounters, zeroCounters } from './counters.ts'
import { Fabric, type FabricHost } from './fabric.ts'
import { NicLink, type OpenLink, type OpenSocket } from './link.ts'
import { Network, type Station } from './network.ts'
import { Parking } from './parking.ts'
import { FrameSpace } from './spill.ts'
import { Uplink } from './uplink.ts'
import type { Trace, Verdict } from './trace.ts'
import { WaitingNics } from './waiting-nics.ts'

/** A Switch whose `stats` say more. */
export interface VirtualSwitch extends Switch {
  stats(): SwitchCounters
  /** Listens for the relay to the outside. NIC_LISTEN. */
  openUplink(path: string): Promise<void>
  closeUplink(): Promise<void>
  /** Room for frames of one VM, in what all of this peer share. */
  keeper(): ChunkKeeper
}

export interface SwitchOptions {
  readonly self: PeerId
  readonly transport: Transport
  readonly clock: Clock
  readonly log: Log
  /**
   * Whether this peer may speak for the VMs of `group` at this moment: its lease of this generation has more left than
   * the margin in which VMs are paused. Asked synchronously, right before frames leave for peers and NICs.
   */
  readonly mayAct: (group: string, generation: number) => boolean
  readonly trace?: Trace | undefined
  /** NICs on networks that pass through bridges (`onBridge`) are plugged in there by somebody else. Without: OPENFLOW_UNSET. */
  readonly bridged?: boolean
  /** Room for frames that wait and for those that are recorded. Default: 64 MiB of memory, no disk. */
  readonly room?: { readonly directory: string; readonly memoryBytes: number; readonly diskBytes: number }
  /** How NICs are reached: by a unix socket, unless a simulator has other ones. */
  readonly openLink?: OpenSocket
  /** Runs something at the end of this turn of the event loop: `setImmediate`, unless a simulator has turns of its own. */
  readonly atTurnEnd?: (run: () => void) => void
}

/** Takes the `frames` channel of `transport`; to be called before `transport.start`. */
export function createSwitch(options: SwitchOptions): VirtualSwitch {
  return new FabricSwitch(options)
}

/** A second at 500 Mb/s. */
const DEFAULT_MEMORY_BYTES = 64 << 20

type MarkerHandler = Parameters<Switch['onMarker']>[0]

/** One fabric a group, of the newest generation that this peer has heard of; what comes too early is parked. */
class FabricSwitch implements VirtualSwitch, FabricHost {
  readonly self: PeerId
  readonly transport: Transport
  readonly clock: Clock
  readonly log: Log
  readonly openLink: OpenLink
  readonly mayAct: SwitchOptions['mayAct']
  readonly trace: Trace | undefined
  readonly space: FrameSpace
  readonly #bridged: boolean
  readonly #atTurnEnd: (run: () => void) => void
  readonly counters = zeroCounters()
  readonly #fabrics = new Map<string, Fabric>()
  readonly #sharedNetworks = new Map<string, Network>()
  readonly uplink: Uplink
  readonly #parking: Parking
  readonly #waiting = new WaitingNics()
  readonly #scheduled = new Set<{ flush(): void }>()
  #inBurst = false
  readonly #markerHandlers: MarkerHandler[] = []

  constructor(options: SwitchOptions) {
    const { self, transport, clock, log, mayAct, trace, openLink = NicLink.listen, atTurnEnd = setImmediate } = options
    const { room = { directory: undefined, memoryBytes: DEFAULT_MEMORY_BYTES, diskBytes: 0 } } = options
    this.self = self
    this.transport = transport
    this.clock = clock
    this.#parking = new Parking(clock, group => this.#fabrics.has(group))
    this.log = log
    this.mayAct = mayAct
    this.trace = trace
    this.#bridged = options.bridged ?? false
    this.space = new FrameSpace({ ...room, log })
    this.openLink = (path, at, events) =>
      openLink(path, at, { ...events, burst: cut => this.#burst(cut) }, this.#waiting.take(path))
    this.#atTurnEnd = atTurnEnd
    this.uplink = new Uplink(this)
    transport.handle('frames', (from, message) => {
      const { group, generation, records } = decodeBatch(message)
      trace?.note('in', this.#fate(group, generation), from, message)
      this.#burst(() => {
        for (const record of records) this.#receive(from, group, generation, record)
      })
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
    for (const network of this.commonNetworks) network.setStations(id, [])
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
    if (fabric.openFlow && !this.#bridged) {
      throw new DiapauseError(
        'OPENFLOW_UNSET',
        `group ${group} has openFlow, and this host has no bridge for it: set switch.openFlow, or make the group without`
      )
    }
    const attaching = fabric.attach(vm, epoch, nicPath)
    this.#unpark(group) // before anything newer can come
    return await attaching
  }

  reserve(nicPath: string, nics: number): Promise<NicSockets> {
    return this.#waiting.open(nicPath, nics)
  }

  onMarker(handler: MarkerHandler): void {
    this.#markerHandlers.push(handler)
  }

  openUplink(path: string): Promise<void> {
    return this.uplink.listen(path)
  }

  closeUplink(): Promise<void> {
    return this.uplink.close()
  }

  keeper(): ChunkKeeper {
    return this.space.keeper()
  }

  stats(): SwitchCounters {
    const { memoryBytes, diskBytes, outputBytes } = this.space
    const outputs = [...this.#fabrics.values()].flatMap(({ output }) => output ?? [])
    return {
      ...this.counters,
      waitingMemoryBytes: memoryBytes,
      waitingDiskBytes: diskBytes,
      outputWaiting: outputs.reduce((sum, { frames }) => sum + frames, 0),
      outputWaitingBytes: outputBytes,
      outputLongestMs: Math.max(this.counters.outputLongestMs, ...outputs.map(({ longestMs }) => longestMs))
    }
  }

  // -------------------------------------------------------------------------------------------- for the fabrics

  /** What one read brought leaves at its end, in one write a way out; all else at the end of this turn of the event loop. */
  schedule(part: { flush(): void }): void {
    if (this.#scheduled.size === 0 && !this.#inBurst) this.#atTurnEnd(() => this.#flush())
    this.#scheduled.add(part)
  }

  /** `cut` gives the frames of one read to their ports. */
  #burst(cut: () => void): void {
    this.#inBurst = true
    try {
      cut()
    } finally {
      this.#inBurst = false
      this.#flush()
    }
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

  sharedNetwork(name: string): Network {
    let network = this.#sharedNetworks.get(name)
    if (network === undefined) {
      network = new Network()
      this.#sharedNetworks.set(name, network)
    }
    return network
  }

  get commonNetworks(): readonly Network[] {
    return [this.uplink.network, ...this.#sharedNetworks.values()]
  }

  stationOf(group: string, vm: string, nic: number): Station | undefined {
    return this.#fabrics.get(group)?.stationOf(vm, nic)
  }

  takeForeign(to: Station, packet: Uint8Array): void {
    packet[0] = to.nic
    this.#fabrics.get(to.group)?.takeForeign(to.vm, packet)
  }

  #flush(): void {
    const now = [...this.#scheduled]
    this.#scheduled.clear()
    for (const part of now) part.flush()
  }

  // -------------------------------------------------------------------------------------------- from other peers

  #receive(from: PeerId, group: string, generation: number, record: FrameRecord): void {
    const verdict = this.#verdict(group, generation)
    if (verdict === 'early') this.park(from, group, generation, record)
    else if (verdict === 'old') this.counters.refusedGeneration++
    else this.#fabrics.get(group)?.receive(from, record)
  }

  #verdict(group: string, generation: number): 'early' | 'old' | 'taken' {
    const fabric = this.#fabrics.get(group)
    if (fabric === undefined || generation > fabric.generation) return 'early'
    return generation < fabric.generation ? 'old' : 'taken'
  }

  /** The verdict as a trace has it. */
  #fate(group: string, generation: number): Verdict {
    const verdict = this.#verdict(group, generation)
    return verdict === 'taken' && this.#fabrics.get(group)?.mayAct() === false ? 'fenced' : verdict
  }

  #unpark(group: string): void {
    for (const { from, generation, record } of this.#parking.take(group)) {
      this.#receive(from, group, generation, record)
    }
  }
}
