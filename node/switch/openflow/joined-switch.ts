/**
 * A peer's switch with a bridge: networks of groups with openFlow are on the bridge, all others are the own switch's, and a
 * VM may have NICs on both. Either has its colour and records what is in flight to it; an image has what both recorded.
 */
import type { PeerId } from '../../../protocols/core.ts'
import type { ChunkKeeper } from '../../../protocols/epoch/channel-queue.ts'
import { type GroupRecord, groupKey, nicsOf, onBridge } from '../../../protocols/group.ts'
import { sparinglyEach } from '../../../protocols/sparingly.ts'
import { DiapauseError, messageOf } from '../../errors.ts'
import type { Leases, Log, NicPort, Switch } from '../../ports.ts'
import type { SwitchCounters } from '../counters.ts'
import { macNumber } from '../ethernet.ts'
import type { VirtualSwitch } from '../switch.ts'
import { type BridgeOptions, OpenFlowBridge } from './bridge.ts'
import { JoinedPort } from './joined-port.ts'
import type { BridgeStation } from './plan.ts'
import type { Tap, Taps } from './taps.ts'

type MarkerHandler = Parameters<Switch['onMarker']>[0]
type AttachOptions = Parameters<Switch['attach']>[0]

export interface JoinedSwitchOptions {
  readonly self: PeerId
  /** Made with `bridged`. */
  readonly own: VirtualSwitch
  readonly bridge: Omit<BridgeOptions, 'onMarker'>
  readonly taps: Pick<Taps, 'make' | 'remove'>
  readonly log: Log
  /** The bridge's port behind which other bridges are, or one for each member's name. */
  readonly towards: string | Readonly<Record<string, string>>
  readonly nameOf: (peer: PeerId) => string | undefined
}

/** A group with openFlow, in its newest generation. */
interface Group {
  readonly record: GroupRecord
  /** VM of ours → its TAP devices' numbers at the bridge, by the NIC's number. */
  readonly ports: Map<string, ReadonlyMap<number, number>>
  /** For each member by its name; a group that has gone takes with it what was counted. */
  readonly tellNoWay: (name: string, peer: PeerId) => void
}

/** What a VM of ours has that is not attached: no entry names it. */
const NO_PORT = 0

export class JoinedSwitch implements VirtualSwitch {
  readonly #options: JoinedSwitchOptions
  readonly #bridge: OpenFlowBridge
  /** Ports that lead to other bridges, by name. Open vSwitch keeps their numbers when it is started again. */
  readonly #ways: ReadonlyMap<string, number>
  readonly #markerHandlers: MarkerHandler[] = []
  readonly #groups = new Map<string, Group>()
  /** The bridge's numbers for networks, by group and name. */
  readonly #networks = new Map<string, number>()
  #lastNetwork = 0

  private constructor(options: JoinedSwitchOptions, bridge: OpenFlowBridge, ways: ReadonlyMap<string, number>) {
    this.#options = options
    this.#bridge = bridge
    this.#ways = ways
  }

  /** Errors of `OpenFlowBridge.open`, and OPENFLOW_PORT where a port of `towards` is not there. */
  static async open(options: JoinedSwitchOptions): Promise<JoinedSwitch> {
    let joined: JoinedSwitch | undefined
    const onMarker: MarkerHandler = (group, vm, epoch) => {
      for (const handler of joined === undefined ? [] : joined.#markerHandlers) handler(group, vm, epoch)
    }
    const bridge = await OpenFlowBridge.open({ ...options.bridge, onMarker })
    try {
      const names = typeof options.towards === 'string' ? [options.towards] : Object.values(options.towards)
      const ways = names.map(async name => [name, await bridge.portNumber(name)] as const)
      joined = new JoinedSwitch(options, bridge, new Map(await Promise.all(ways)))
    } catch (error) {
      bridge.close()
      throw error
    }
    return joined
  }

  close(): void {
    this.#bridge.close()
  }

  /** See `OpenFlowBridge.connected`. */
  get connected(): boolean {
    return this.#bridge.connected
  }

  /** While the lease of a group has run out, nothing of it passes the bridge. */
  follow(leases: Pick<Leases, 'onLapse' | 'onRegained' | 'onLost'>): void {
    leases.onLapse((key, generation) => this.#setActing(key, generation, false))
    leases.onLost((key, generation) => this.#setActing(key, generation, false))
    leases.onRegained((key, generation) => this.#setActing(key, generation, true))
  }

  /** `nameOf` may know more members, or other names: ways that go by them are looked up again. */
  refresh(): void {
    if (typeof this.#options.towards === 'string') return
    for (const group of this.#groups.values()) this.#logged(group.record.id, this.#tell(group))
  }

  // -------------------------------------------------------------------------------------------- for the agents

  setGroup(record: GroupRecord): void {
    this.#options.own.setGroup(record)
    const present = this.#groups.get(record.id)
    if (present !== undefined && record.version <= present.record.version) return
    if (record.openFlow !== true) return this.#forget(record.id)
    const same = present?.record.generation === record.generation
    const tellNoWay = present?.tellNoWay ?? this.#tellerOf(record.id)
    const group = { record, ports: same ? present.ports : new Map(), tellNoWay }
    this.#groups.set(record.id, group)
    this.#logged(record.id, this.#tell(group))
  }

  removeGroup(id: string): void {
    this.#options.own.removeGroup(id)
    this.#forget(id)
  }

  /** Errors of the own switch, of `Taps.make` and `OpenFlowBridge.attach`, and OPENFLOW_PORT. */
  async attach(options: AttachOptions): Promise<NicPort> {
    const { group: id, vm } = options
    const own = await this.#options.own.attach(options)
    const group = this.#groups.get(id)
    const nics = group === undefined ? [] : nicsOnBridge(group.record, vm)
    if (group === undefined || nics.length === 0) return own
    let taps: readonly Tap[] = []
    try {
      taps = await this.#options.taps.make({ group: id, vm, nics: nics.length })
      const numbers = await Promise.all(taps.map(({ device }) => this.#bridge.portNumber(device)))
      const current = this.#current(options)
      current.ports.set(vm, new Map(nics.map((nic, index) => [nic, numbers[index] as number])))
      await this.#tell(current)
      this.#current(options)
      const interfaces = taps.map(({ interfaceIndex }) => interfaceIndex)
      const bridged = await this.#bridge.attach({ group: id, vm, epoch: options.epoch, interfaces })
      const devices = new Map(nics.map((nic, index) => [nic, taps[index]?.device ?? '']))
      const detached = async (): Promise<void> => {
        group.ports.delete(vm)
        await this.#options.taps.remove([...devices.values()])
      }
      return new JoinedPort({ own, bridged, devices, detached, log: this.#options.log })
    } catch (error) {
      group.ports.delete(vm)
      const cleaned = [own.detach(), this.#options.taps.remove(taps.map(({ device }) => device))]
      for (const part of cleaned) this.#logged(id, part)
      await Promise.allSettled(cleaned)
      throw error
    }
  }

  /** NICs on the bridge do not wait: nobody reserves those of a group with openFlow. */
  get reserve(): Switch['reserve'] {
    const { own } = this.#options
    return own.reserve?.bind(own)
  }

  onMarker(handler: MarkerHandler): void {
    this.#markerHandlers.push(handler)
    this.#options.own.onMarker(handler)
  }

  openUplink(path: string): Promise<void> {
    return this.#options.own.openUplink(path)
  }

  closeUplink(): Promise<void> {
    return this.#options.own.closeUplink()
  }

  keeper(): ChunkKeeper {
    return this.#options.own.keeper()
  }

  stats(): SwitchCounters {
    const own = this.#options.own.stats()
    const { packetIns, packetOuts, ...bridge } = this.#bridge.counters
    const sums = Object.entries(bridge).map(([name, count]) => [name, own[name as keyof typeof bridge] + count])
    return { ...own, ...Object.fromEntries(sums), bridgeUp: packetIns, bridgeDown: packetOuts }
  }

  // -------------------------------------------------------------------------------------------- inside

  #setActing(key: string, generation: number, acting: boolean): void {
    for (const { record } of this.#groups.values()) {
      if (groupKey(record.id) !== key || record.generation !== generation) continue
      this.#logged(record.id, this.#bridge.setActing(record.id, acting))
    }
  }

  #forget(id: string): void {
    const group = this.#groups.get(id)
    if (group === undefined) return
    this.#groups.delete(id)
    for (const { network } of group.record.vms.flatMap(nicsOf)) this.#networks.delete(`${id}/${network}`)
    this.#logged(id, this.#bridge.removeGroup(id))
  }

  /** The bridge has it at once where it has a connection, else as soon as it has. */
  #tell(group: Group): Promise<void> {
    const { record, ports } = group
    const stations = record.vms.flatMap(spec => {
      const owner = record.owners[spec.id] ?? ''
      const local = owner === this.#options.self
      const way = local ? NO_PORT : this.#portTowards(owner, group)
      if (way === undefined) return [] // there is no channel between its VMs and ours
      return nicsOf(spec).flatMap(({ mac, network }, nic): BridgeStation[] => {
        if (!onBridge(record, network)) return []
        const port = ports.get(spec.id)?.get(nic) ?? way
        return [{ vm: spec.id, nic, mac: macNumber(mac), network: this.#networkOf(record.id, network), port, local }]
      })
    })
    return this.#bridge.setGroup({ id: record.id, generation: record.generation, stations })
  }

  #portTowards(peer: PeerId, group: Group): number | undefined {
    const { towards, nameOf } = this.#options
    const name = nameOf(peer)
    const port = typeof towards === 'string' ? towards : towards[name ?? '']
    if (port !== undefined) return this.#ways.get(port)
    if (name === undefined) return undefined // its membership comes after its VMs: `refresh`
    group.tellNoWay(name, peer)
    return undefined
  }

  #tellerOf(group: string): Group['tellNoWay'] {
    return sparinglyEach((name, peer, count) =>
      this.#options.log.error(
        { group, peer, name, code: 'OPENFLOW_TOWARDS', count },
        'no way to this member: add it to switch.openFlow.towards'
      )
    )
  }

  #networkOf(id: string, network: string): number {
    const key = `${id}/${network}`
    const number = this.#networks.get(key) ?? ++this.#lastNetwork
    this.#networks.set(key, number)
    return number
  }

  /** The group in the generation that a VM is being attached to. GENERATION_OLD. */
  #current({ group: id, vm, generation }: AttachOptions): Group {
    const group = this.#groups.get(id)
    if (group?.record.generation === generation) return group
    throw new DiapauseError('GENERATION_OLD', `generation ${generation} of VM ${vm} in group ${id} is over: destroy it`)
  }

  /** What fails for want of a connection is made good when there is one again. */
  #logged(group: string, done: Promise<unknown>): void {
    done.catch((error: unknown) => this.#options.log.warn({ group, error: messageOf(error) }, 'the bridge lags behind'))
  }
}

/** Numbers of the VM's NICs there. */
function nicsOnBridge(record: GroupRecord, vm: string): number[] {
  const spec = record.vms.find(({ id }) => id === vm)
  if (spec === undefined) return []
  return nicsOf(spec).flatMap(({ network }, nic) => (onBridge(record, network) ? [nic] : []))
}
