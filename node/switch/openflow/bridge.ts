/**
 * A bridge of Open vSwitch as the switch of a peer's VMs: bulk traffic is forwarded by flow entries and never enters this
 * process; what must be held or recorded at a cut does (GENI-VIOLIN's way). README.md has the way of a frame.
 *
 * The entries are a function of what is true now (`plan.ts`), computed anew at every change; the difference is sent, a
 * barrier behind it, and the datapath's cache emptied (`control.ts`). A connection that breaks leaves the entries where they are: frames flow on, and what should have come
 * up meanwhile is lost, so recordings fail; then the entries are read back and corrected.
 */
import { readFile } from 'node:fs/promises'
import type { ChannelTally } from '../../../protocols/epoch/channel.ts'
import type { ChunkKeeper } from '../../../protocols/epoch/channel-queue.ts'
import type { FlowEntry } from '../../../protocols/openflow/messages.ts'
import { DiapauseError, messageOf } from '../../errors.ts'
import type { Clock, Log } from '../../ports.ts'
import { BridgePort, type PortBridge } from './bridge-port.ts'
import { changesOf } from './changes.ts'
import { OpenFlowConnection } from './connection.ts'
import { purgeCache } from './control.ts'
import { PACKET_QUEUES, queuedBytes } from './packet-queue.ts'
import { type BridgeStation, COOKIE, COOKIE_MASK, MARKER_COOKIE, planFlows, type StationName, type Up } from './plan.ts'
import { markerFrame, readMarker, readTagged, tagOf, untagged } from './tagged.ts'

/** All that a bridge counts, since it was opened. */
export interface BridgeCounters extends ChannelTally {
  /** Frames and markers that came up, and frames and markers that went down. */
  packetIns: number
  packetOuts: number
  heldEarly: number
  /** Frames of a generation that is over. */
  refusedGeneration: number
  droppedLate: number
  /** Frames that came up by an entry, or of a VM, that is not known (any more). */
  droppedUnknown: number
}

export interface BridgeGroupSpec {
  readonly id: string
  readonly generation: number
  /** Networks of different groups need different numbers. */
  readonly stations: readonly BridgeStation[]
}

export interface BridgeOptions {
  /** The bridge's management socket, or HOST:PORT where it listens for controllers. */
  readonly address: string
  /** The path of the control socket of the bridge's daemon. Asked at each connection: a daemon started again has another. */
  readonly control: () => Promise<string>
  readonly clock: Clock
  readonly log: Log
  /** Room for the frames of one VM. */
  readonly keeper: () => ChunkKeeper
  /** A frame or marker of colour `epoch` has come for `vm`, which is older: it must be cut first. */
  readonly onMarker: (group: string, vm: string, epoch: number) => void
  /** The kernel's table of packet sockets, of the network namespace in which the bridge runs. */
  readonly packetQueues?: () => Promise<string>
}

interface Group extends BridgeGroupSpec {
  readonly tag: number
  readonly byMac: ReadonlyMap<number, BridgeStation>
  acting: boolean
  readonly ports: Map<string, BridgePort>
  /** VM → interface numbers of its NICs. */
  readonly interfaces: Map<string, readonly number[]>
}

/** Between attempts to reach a bridge that is gone. A guess. */
const RETRY_MS = 200
/** Receivers of entries that are gone: what they sent up may be under way still. A guess, some KiB. */
const MAX_UPS = 1024

const counters = (): BridgeCounters => ({
  packetIns: 0,
  packetOuts: 0,
  heldEarly: 0,
  refusedGeneration: 0,
  lost: 0,
  recordedInFlight: 0,
  recordedRecent: 0,
  droppedLate: 0,
  droppedUnknown: 0,
  droppedFull: 0
})

export class OpenFlowBridge implements PortBridge {
  readonly counters = counters()
  readonly clock: Clock
  readonly #options: BridgeOptions
  readonly #groups = new Map<string, Group>()
  /** By cookie, the newest last. */
  readonly #ups = new Map<bigint, Up>()
  /** What the bridge has, or will have when it has done what was sent. */
  #present: readonly FlowEntry[] = []
  #connection: OpenFlowConnection | undefined
  /** The control socket of the daemon that `#connection` leads to. */
  #control = ''
  /** The bridge has had its entries since `#connection` was made. */
  #joined = false
  /** Why the last attempt to reach the bridge failed. */
  #failure: string | undefined
  #writable = true
  #closed = false
  #cancelRetry: () => void = () => {}

  private constructor(options: BridgeOptions) {
    this.#options = options
    this.clock = options.clock
  }

  /** Entries of an earlier run are removed: its VMs are not ours. OPENFLOW_DOWN, OPENFLOW_VERSION, OPENFLOW_CONTROL. */
  static async open(options: BridgeOptions): Promise<OpenFlowBridge> {
    const bridge = new OpenFlowBridge(options)
    try {
      await bridge.#connect()
    } catch (error) {
      bridge.close()
      throw error
    }
    return bridge
  }

  /** Its entries are as the ports are, or about to be. */
  get connected(): boolean {
    return this.#connection !== undefined
  }

  /** Entries stay, as they do where this process is killed; `removeGroup` and the next run take them away. */
  close(): void {
    this.#closed = true
    this.#cancelRetry()
    this.#connection?.close()
  }

  // -------------------------------------------------------------------------------------------- for the agents

  /** The bridge's number for the interface `name`. OPENFLOW_PORT, OPENFLOW_DOWN. */
  async portNumber(name: string): Promise<number> {
    if (this.#connection === undefined) throw gone()
    const ports = await this.#connection.ports()
    const port = ports.find(each => each.name === name)
    if (port !== undefined) return port.port
    const known = ports.map(each => each.name).join(' ')
    throw new DiapauseError(
      'OPENFLOW_PORT',
      `the bridge has no port ${name}, only ${known}: add it with  ovs-vsctl add-port BRIDGE ${name}`
    )
  }

  /** Who is where. An older generation is refused; a newer one begins anew, without ports. */
  async setGroup(spec: BridgeGroupSpec): Promise<void> {
    const present = this.#groups.get(spec.id)
    if (present !== undefined && present.generation > spec.generation) return
    const same = present?.generation === spec.generation
    if (!same) for (const port of present?.ports.values() ?? []) port.retire()
    const { acting = true, ports = new Map(), interfaces = new Map() } = same ? present : {}
    const byMac = new Map(spec.stations.map(station => [station.mac, station]))
    const group: Group = { ...spec, tag: tagOf(spec.id, spec.generation), byMac, acting, ports, interfaces }
    this.#groups.set(spec.id, group)
    for (const port of group.ports.values()) port.setSenders(othersOf(group, port.vm))
    await this.sync()
  }

  async removeGroup(id: string): Promise<void> {
    for (const port of this.#groups.get(id)?.ports.values() ?? []) port.retire()
    this.#groups.delete(id)
    await this.sync()
  }

  /** Whether this peer may speak for the group's VMs. Without it nothing of theirs leaves, and nothing reaches them. */
  async setActing(id: string, acting: boolean): Promise<void> {
    const group = this.#groups.get(id)
    if (group === undefined) throw unknownGroup(id)
    group.acting = acting
    for (const port of group.ports.values()) {
      if (acting) port.updateOpen()
      else port.suspended()
    }
    await this.sync()
  }

  /**
   * Inbound frames are held until the first `release`. `interfaces`: the kernel's numbers of the VM's NICs, as far as they
   * have one. GROUP_UNKNOWN.
   */
  async attach(options: {
    readonly group: string
    readonly vm: string
    readonly epoch: number
    readonly interfaces: readonly number[]
  }): Promise<BridgePort> {
    const { vm, epoch, interfaces } = options
    const group = this.#groups.get(options.group)
    if (group === undefined) throw unknownGroup(options.group)
    const nics = 1 + Math.max(-1, ...group.stations.filter(station => station.vm === vm).map(({ nic }) => nic))
    const port = new BridgePort({ group: group.id, vm, nics, epoch, bridge: this, keeper: this.#options.keeper() })
    port.setSenders(othersOf(group, vm))
    group.ports.set(vm, port)
    group.interfaces.set(vm, interfaces)
    try {
      await this.sync()
    } catch (error) {
      this.detached(port)
      throw error
    }
    return port
  }

  // -------------------------------------------------------------------------------------------- for the ports

  async sync(): Promise<void> {
    await this.#change()
    await purgeCache(this.#control, this.clock)
  }

  async answer(): Promise<void> {
    if (this.#connection === undefined) throw gone()
    await this.#connection.apply([])
  }

  /** Frames follow within milliseconds, not at once. */
  async #change(): Promise<void> {
    if (this.#connection === undefined) throw gone()
    const groups = [...this.#groups.values()].map(group => ({
      ...group,
      vms: new Map([...group.ports.values()].map(port => [port.vm, port.facts]))
    }))
    const { entries, ups } = planFlows(groups)
    for (const [cookie, up] of ups) {
      this.#ups.delete(cookie)
      this.#ups.set(cookie, up)
    }
    for (const cookie of this.#ups.keys()) if (this.#ups.size > MAX_UPS && !ups.has(cookie)) this.#ups.delete(cookie)
    const changes = changesOf(this.#present, entries)
    this.#present = entries
    const connection = this.#connection
    try {
      await connection.apply(changes)
    } catch (error) {
      connection.close() // what the bridge has now must be read back
      throw error
    }
  }

  syncSoon(): void {
    this.#change().catch((error: unknown) => {
      this.#options.log.warn({ error: messageOf(error) }, 'flow entries wait for the bridge to be there again')
    })
  }

  mayDeliver(group: string): boolean {
    return this.#connection !== undefined && this.#writable && this.#groups.get(group)?.acting === true
  }

  deliver(id: string, vm: string, nic: number, frame: Uint8Array): void {
    const station = this.#groups.get(id)?.stations.find(each => each.vm === vm && each.nic === nic)
    if (station?.local === true) this.#down(station.port, frame)
  }

  async queuedBytes(group: string, vm: string): Promise<number> {
    const { packetQueues = () => readFile(PACKET_QUEUES, 'utf8') } = this.#options
    const table = await packetQueues()
    const interfaces = this.#groups.get(group)?.interfaces.get(vm) ?? []
    return interfaces.reduce((sum, number) => sum + queuedBytes(table, number), 0)
  }

  sayTurn(id: string, vm: string, colour: number): void {
    const group = this.#groups.get(id)
    const source = group?.stations.find(station => station.vm === vm)?.mac
    if (group === undefined || source === undefined) return
    const marker = markerFrame({ generation: group.generation, colour, source, vid: group.tag })
    const ways = new Set(group.stations.filter(({ local }) => !local).map(({ port }) => port))
    for (const way of ways) this.#down(way, marker)
    // What of the old colour went up from here came before the barrier's reply.
    for (const port of group.ports.values()) if (port.vm !== vm) port.turned(vm, colour)
  }

  marker(group: string, vm: string, epoch: number): void {
    // Later: a handler may cut, hold or release, and the frame that brought the marker is not yet put away.
    queueMicrotask(() => this.#options.onMarker(group, vm, epoch))
  }

  detached(port: BridgePort): void {
    const group = this.#groups.get(port.group)
    if (group?.ports.get(port.vm) === port) group.ports.delete(port.vm)
  }

  // -------------------------------------------------------------------------------------------- from the bridge

  #packetIn(cookie: bigint, frame: Uint8Array): void {
    this.counters.packetIns++
    if (cookie === MARKER_COOKIE) return this.#marker(frame)
    const up = this.#ups.get(cookie)
    const tagged = readTagged(frame)
    const group = this.#groups.get(up?.group ?? '')
    const source = group?.byMac.get(tagged?.source ?? -1)
    if (up === undefined || tagged === undefined || group === undefined || source === undefined) {
      this.counters.droppedUnknown++
    } else if (tagged.vid !== group.tag) this.counters.refusedGeneration++
    else {
      const give = ({ vm, nic }: StationName, copied: boolean): void => {
        if (vm !== source.vm) group.ports.get(vm)?.receive(source.vm, tagged.pcp, untagged(frame, nic), copied)
      }
      for (const station of up.copied) give(station, true)
      for (const station of up.held) give(station, false)
    }
  }

  #marker(frame: Uint8Array): void {
    const marker = readMarker(frame)
    const tagged = readTagged(frame)
    const groups = [...this.#groups.values()].filter(({ byMac }) => byMac.has(tagged?.source ?? -1))
    const group = groups.find(({ tag }) => tag === tagged?.vid) ?? groups[0]
    const source = group?.byMac.get(tagged?.source ?? -1)
    if (marker === undefined || group === undefined || source === undefined) this.counters.droppedUnknown++
    else if (marker.generation !== group.generation) this.counters.refusedGeneration++
    else for (const port of group.ports.values()) if (port.vm !== source.vm) port.turned(source.vm, marker.colour)
  }

  #down(port: number, frame: Uint8Array): void {
    this.counters.packetOuts++
    this.#connection?.packetOut([{ type: 'output', port }], frame)
  }

  // -------------------------------------------------------------------------------------------- the connection

  async #connect(): Promise<void> {
    const { address, clock, control } = this.#options
    let ended = false
    const connection = await OpenFlowConnection.open(address, clock, {
      packetIn: (cookie, frame) => this.#packetIn(cookie, frame),
      writable: writable => {
        this.#writable = writable
        this.#updateOpen()
      },
      closed: error => {
        ended = true
        this.#lost(error)
      }
    })
    try {
      this.#control = await control() // of the daemon that has answered
      const present = await connection.flows(COOKIE, COOKIE_MASK)
      if (this.#closed) return connection.close()
      if (ended) throw gone()
      this.#present = present // in one turn with the connection that it was read over: changes go by both
      this.#connection = connection
      this.#writable = true
      await this.sync()
      if (this.#connection !== connection) throw gone()
    } catch (error) {
      connection.close()
      throw error
    }
    this.#joined = true
    this.#failure = undefined
    this.#updateOpen()
  }

  #lost(error: DiapauseError | undefined): void {
    if (this.#connection === undefined) return // `#connect` tells
    this.#connection = undefined
    for (const group of this.#groups.values()) for (const port of group.ports.values()) port.interrupted()
    if (this.#closed || !this.#joined) return // `#connect` tells
    this.#joined = false
    this.#options.log.warn({ error: error?.message }, 'the connection to the bridge is lost: trying again')
    this.#retry()
  }

  #retry(): void {
    this.#cancelRetry()
    this.#cancelRetry = this.clock.after(RETRY_MS, () => {
      this.#connect().catch((error: unknown) => {
        if (this.#closed) return
        this.#failed(messageOf(error))
        this.#retry()
      })
    })
  }

  /** Told once, not five times a second. */
  #failed(reason: string): void {
    if (reason === this.#failure) return
    this.#failure = reason
    this.#options.log.warn({ error: reason }, 'the bridge is out of reach: trying again')
  }

  #updateOpen(): void {
    for (const group of this.#groups.values()) for (const port of group.ports.values()) port.updateOpen()
  }
}

const othersOf = (group: BridgeGroupSpec, vm: string): string[] => [
  ...new Set(group.stations.map(station => station.vm).filter(other => other !== vm))
]

const gone = (): DiapauseError =>
  new DiapauseError('OPENFLOW_DOWN', 'no OpenFlow connection to the bridge: it is tried again')

const unknownGroup = (id: string): DiapauseError =>
  new DiapauseError('GROUP_UNKNOWN', `the bridge knows no group ${id}: call setGroup first`)
