/**
 * From who is where, and of which colour, to the flow entries of a bridge. Pure. It is the channel core's rule
 * (`protocols/epoch/channel.ts`) for a switch that cannot hold or record: what must be held or recorded goes up to the peer
 * alone, which delivers it. In-flight frames could be delivered here and a copy go up, and that was tried: a bridge drops
 * what goes up too fast, on a busy machine one in a hundred of 5,000 frames a second, so that frames were delivered which
 * no image had. A frame that is lost on its way up is lost for both, as on any network.
 *
 *     table 0, ingress   from a VM of ours: tag (VID: the generation, PCP: the VM's colour), to table 1
 *                        from another peer, of a VM that is there, with the tag of our generation: to table 2
 *     table 1, remote    to a VM elsewhere: out on the way to its peer, as tagged; groups of VMs: that, and table 2
 *     table 2, local     by receiver and PCP: untag and deliver · up · both
 *
 * A frame that fits no entry is dropped: from an address that is not its VM's, of another generation, to nobody. Colours
 * are PCPs, so modulo eight: up to four ahead of the receiver is early, else it is from before the receiver's cut. No
 * member of a group is further behind, for there is one open epoch at a time and a VM that missed one takes its colour.
 */
import { createHash } from 'node:crypto'
import {
  type Action,
  type FlowEntry,
  type Instruction,
  type Match,
  PORT_CONTROLLER
} from '../../../protocols/openflow/messages.ts'
import { MARKER_TYPE } from './tagged.ts'

/** One NIC of a VM. */
export interface BridgeStation {
  readonly vm: string
  readonly nic: number
  readonly mac: number
  /** Of the bridge, below 2^32: stations reach those of the same number only. */
  readonly network: number
  /** Number of the bridge's port: the NIC's own where `local`, else that on the way to its peer. */
  readonly port: number
  readonly local: boolean
}

/**
 * What becomes of frames for a VM of ours that are of its colour. direct: it gets them. copied: the peer, too (for the
 * moment before they are held: the VM may not have taken what it got last). held: the peer alone.
 */
export type Inbound = 'direct' | 'copied' | 'held'

export interface BridgeVm {
  readonly colour: number
  readonly inbound: Inbound
  /** In-flight frames are wanted, by way of the peer: an epoch of this VM is not complete yet. */
  readonly recording: boolean
}

export interface BridgeGroup {
  readonly id: string
  /** VID: says generation and group. 1 to 4094. */
  readonly tag: number
  readonly stations: readonly BridgeStation[]
  /** Those of ours. */
  readonly vms: ReadonlyMap<string, BridgeVm>
  /** The peer may act for the group: without it, nothing of its VMs leaves and nothing reaches them. */
  readonly acting: boolean
}

/** Receivers of a frame that went up, by what has become of it. */
export interface Up {
  readonly group: string
  readonly held: readonly StationName[]
  readonly copied: readonly StationName[]
}

export interface StationName {
  readonly vm: string
  readonly nic: number
}

export interface Plan {
  readonly entries: readonly FlowEntry[]
  /** By the cookie of the entries that send up. Same receivers, same cookie, in every plan. */
  readonly ups: ReadonlyMap<bigint, Up>
}

/** The upper bits of every cookie of ours. */
export const COOKIE = 0xd1a9n << 48n
export const COOKIE_MASK = 0xffffn << 48n
/** Of the entries by which markers of other peers come. */
export const MARKER_COOKIE = COOKIE | 1n

/** PCP has three bits. */
export const COLOURS = 8
const MOST_AHEAD = 4
const INGRESS = 0
const REMOTE = 1
const LOCAL = 2
/** Where entries of one table overlap, the higher goes first. */
const PRIORITY = { marker: 20, exact: 10, rest: 0 } as const

/** How far colour `pcp` is ahead of `colour`: 1 to 4, 0, or -1 to -3. */
export function ahead(pcp: number, colour: number): number {
  const distance = (((pcp - colour) % COLOURS) + COLOURS) % COLOURS
  return distance > MOST_AHEAD ? distance - COLOURS : distance
}

export function planFlows(groups: readonly BridgeGroup[]): Plan {
  const planning = new Planning()
  for (const group of groups) planning.add(group)
  return { entries: [...planning.entries.values()], ups: planning.ups }
}

class Planning {
  /** By what they stand for: groups share the ways to other peers. */
  readonly entries = new Map<string, FlowEntry>()
  readonly ups = new Map<bigint, Up>()

  add(group: BridgeGroup): void {
    for (const station of group.stations) {
      if (station.local) {
        if (group.acting) this.#fromOurs(group, station)
        this.#toOurs(group, [station], { ethDst: station.mac })
      } else {
        this.#fromPeer(group, station)
        this.#toPeer(station)
      }
    }
    for (const network of new Set(group.stations.map(station => station.network))) this.#toMany(group, network)
    this.#entry(REMOTE, PRIORITY.rest, {}, [{ type: 'goto', table: LOCAL }])
  }

  #fromOurs(group: BridgeGroup, { vm, mac, network, port }: BridgeStation): void {
    const facts = group.vms.get(vm)
    if (facts === undefined) return
    // A guest that forged a marker could end a recording before its time.
    this.#entry(INGRESS, PRIORITY.marker, { inPort: port, ethType: MARKER_TYPE }, [])
    const actions: Action[] = [
      { type: 'pushVlan' },
      { type: 'setVlanVid', vid: group.tag },
      { type: 'setVlanPcp', pcp: facts.colour % COLOURS }
    ]
    this.#entry(INGRESS, PRIORITY.exact, { inPort: port, ethSrc: mac }, [
      { type: 'apply', actions },
      { type: 'metadata', metadata: network },
      { type: 'goto', table: REMOTE }
    ])
  }

  #fromPeer(group: BridgeGroup, { mac, network, port }: BridgeStation): void {
    const up: Action[] = [{ type: 'output', port: PORT_CONTROLLER }]
    const marker = { inPort: port, ethType: MARKER_TYPE }
    this.#entry(INGRESS, PRIORITY.marker, marker, [{ type: 'apply', actions: up }], MARKER_COOKIE)
    this.#entry(INGRESS, PRIORITY.exact, { inPort: port, ethSrc: mac, vlanVid: group.tag }, [
      { type: 'metadata', metadata: network },
      { type: 'goto', table: LOCAL }
    ])
  }

  #toPeer({ mac, network, port }: BridgeStation): void {
    const actions: Action[] = [{ type: 'output', port }]
    this.#entry(REMOTE, PRIORITY.exact, { metadata: network, ethDst: mac }, [{ type: 'apply', actions }])
  }

  /** Broadcast and multicast: to everybody, without asking who listens. */
  #toMany(group: BridgeGroup, network: number): void {
    const here = group.stations.filter(station => station.network === network)
    const ways = new Set(here.filter(({ local }) => !local).map(({ port }) => port))
    if (ways.size > 0) {
      const actions = [...ways].map((port): Action => ({ type: 'output', port }))
      this.#entry(REMOTE, PRIORITY.exact, { metadata: network, multicast: true }, [
        { type: 'apply', actions },
        { type: 'goto', table: LOCAL }
      ])
    }
    const ours = here.filter(({ local }) => local)
    if (ours.length > 0) this.#toOurs(group, ours, { multicast: true })
  }

  /** `receivers`, which are of one network, by the colour of the frame and their own. */
  #toOurs(group: BridgeGroup, receivers: readonly BridgeStation[], match: Match): void {
    for (let pcp = 0; pcp < COLOURS; pcp++) {
      const fates = receivers.map(station => ({ station, fate: fateOf(group, station, pcp) }))
      const among = (...wanted: Fate[]): BridgeStation[] =>
        fates.filter(({ fate }) => wanted.includes(fate)).map(({ station }) => station)
      const delivered = among('deliver', 'copy').map(({ port }): Action => ({ type: 'output', port }))
      const up = { group: group.id, held: among('hold').map(nameOf), copied: among('copy').map(nameOf) }
      const goesUp = up.held.length + up.copied.length > 0
      const actions: Action[] = []
      if (goesUp) actions.push({ type: 'output', port: PORT_CONTROLLER }) // with its tag
      if (delivered.length > 0) actions.push({ type: 'popVlan' }, ...delivered)
      if (actions.length === 0) continue
      const { network } = receivers[0] as BridgeStation
      const fits = { metadata: network, ...match, vlanVid: group.tag, vlanPcp: pcp }
      const cookie = goesUp ? this.#cookieOf(up) : COOKIE
      this.#entry(LOCAL, PRIORITY.exact, fits, [{ type: 'apply', actions }], cookie)
    }
  }

  #cookieOf(up: Up): bigint {
    const hash = createHash('sha256').update(JSON.stringify(up)).digest()
    // 47 bits, and the last one off: never the cookie of markers, nor the one of entries that send nothing up.
    const cookie = COOKIE | (hash.readBigUInt64BE() & 0x7fff_ffff_fffen) | (1n << 47n)
    this.ups.set(cookie, up)
    return cookie
  }

  #entry(table: number, priority: number, match: Match, instructions: Instruction[], cookie = COOKIE): void {
    const entry = { table, priority, match, instructions, cookie }
    this.entries.set(entryKey(entry), entry)
  }
}

type Fate = 'deliver' | 'copy' | 'hold' | 'drop'

function fateOf(group: BridgeGroup, { vm }: BridgeStation, pcp: number): Fate {
  const facts = group.vms.get(vm)
  if (facts === undefined) return 'drop' // it is not attached
  const distance = ahead(pcp, facts.colour)
  const inFlight = distance < 0 && facts.recording
  if (!group.acting || facts.inbound === 'held' || distance > 0 || inFlight) return 'hold'
  return facts.inbound === 'copied' ? 'copy' : 'deliver'
}

const nameOf = ({ vm, nic }: BridgeStation): StationName => ({ vm, nic })

const FIELDS = ['inPort', 'metadata', 'ethDst', 'multicast', 'ethSrc', 'ethType', 'vlanVid', 'vlanPcp'] as const

/** What tells an entry from all others of a bridge. */
export function entryKey({ table, priority, match }: Pick<FlowEntry, 'table' | 'priority' | 'match'>): string {
  return [table, priority, ...FIELDS.map(field => match[field] ?? '')].join(' ')
}
