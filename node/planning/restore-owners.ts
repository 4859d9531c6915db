/**
 * Where VMs go that need a host: pure. What is given up first where not all can be had, from the last to the first:
 *
 * 1. Memory is never given up: a host that runs out of it kills VMs that live. A VM for which nobody has room gets no host.
 * 2. Different hosts for VMs that are to be `apart`: one failure fewer is survived, but all of them run.
 * 3. Different racks for these.
 * 4. A host that has said how much memory it gives to VMs: one that has not may be of an older version, which may not know how to
 *    read the VM's image.
 * 5. A host that keeps a copy of the VM ready (a standby): the restore is slower without, and as right.
 * 6. The host that is least full, in eighths of what it gives to VMs.
 * 7. Among hosts that are as full, the one that has most columns of the VM's image: it fetches less.
 *
 * 1 to 3 are minimised in this order over all VMs together, as exactly as `MAX_TRIES` lets it; the others are each VM's own, largest
 * VM first. So where the first try, each VM to its best host, gives nothing up, it is the plan.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { Ground } from '../../protocols/decisions/facts.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { domainsOf, type StoragePeer } from './domains.ts'

/** A host that may get VMs. */
export interface Room extends StoragePeer {
  /** MiB of RAM that VMs here have, which stay. */
  readonly promisedMiB: number
}

export interface Homeless {
  readonly vm: VmSpec
  /** Hosts that keep a copy of it ready. */
  readonly standbys: readonly PeerId[]
  /** Host → how many columns of its image it has. */
  readonly columns: Readonly<Record<PeerId, number>>
}

/** By the places of a rank: what counts where two hosts differ there first. */
const BY_RANK: readonly Ground[] = ['apart', 'apart', 'told', 'standby', 'fullness', 'columns', 'fullness']

/** Why a VM goes where it goes. */
export interface Move {
  readonly vm: VmSpec
  readonly to: PeerId
  /** What counted between its host and the best other. */
  readonly ground: Ground
  /** What every host had promised when it was this VM's turn: the least first. */
  readonly promised: readonly { readonly peer: PeerId; readonly memoryMiB: number }[]
  /** The host keeps a copy ready. */
  readonly standby: boolean
  /** How many columns of its image the host has. */
  readonly columns: number
  /** What it shares with a VM that it should be apart from: there was no other way. Absent: nothing. */
  readonly shares?: 'host' | 'rack'
}

/** Partial plans that are looked at. Beyond it the best so far is taken. A guess: some ms, and all of 6 VMs on 4 hosts. */
const MAX_TRIES = 4_000

/** What is given up: VMs without a host, pairs of VMs that share a host, or a rack, and should not. */
type Cost = readonly [homeless: number, hosts: number, racks: number]

interface Choice {
  readonly cost: Cost
  /** Of the VMs in their order; undefined: no host. */
  readonly hosts: readonly (Room | undefined)[]
}

/**
 * Hosts for `homeless`, which are not changed; `settled`: VMs that have one, with what is known of it. A host that has not said
 * how much memory it gives has room for any. Those that fit nowhere are not among the moves.
 */
export function findHosts(
  homeless: readonly Homeless[],
  rooms: readonly Room[],
  settled: readonly { readonly vm: VmSpec; readonly host: StoragePeer }[]
): Move[] {
  const order = homeless.toSorted(
    (a, b) => b.vm.memoryMiB - a.vm.memoryMiB || (a.vm.id < b.vm.id ? -1 : a.vm.id > b.vm.id ? 1 : 0)
  )
  const hosts = rooms.toSorted((a, b) => (a.peer < b.peer ? -1 : 1))
  const search = new Search(order, hosts, settled)
  return movesOf(order, hosts, search.best(), settled)
}

class Search {
  readonly #order: readonly Homeless[]
  readonly #rooms: readonly Room[]
  readonly #capacities: ReadonlyMap<PeerId, number>
  readonly #apart: Apart
  readonly #promised: Map<PeerId, number>
  readonly #chosen: (Room | undefined)[] = []
  #tries = 0
  #best: Choice | undefined

  constructor(
    order: readonly Homeless[],
    rooms: readonly Room[],
    settled: readonly { readonly vm: VmSpec; readonly host: StoragePeer }[]
  ) {
    this.#order = order
    this.#rooms = rooms
    this.#capacities = capacitiesOf(rooms)
    this.#apart = new Apart(settled)
    this.#promised = new Map(rooms.map(({ peer, promisedMiB }) => [peer, promisedMiB]))
  }

  best(): readonly (Room | undefined)[] {
    this.#look([0, 0, 0])
    return this.#best?.hosts ?? []
  }

  #look(cost: Cost): void {
    const next = this.#order[this.#chosen.length]
    if (this.#best !== undefined && compare(cost, this.#best.cost) >= 0) return
    if (next === undefined) {
      this.#best = { cost, hosts: [...this.#chosen] }
      return
    }
    for (const { room, shared } of this.#ranked(next)) {
      if (this.#best !== undefined && ++this.#tries > MAX_TRIES) return
      this.#with(next.vm, room, () => this.#look([cost[0], cost[1] + shared[0], cost[2] + shared[1]]))
    }
    this.#with(next.vm, undefined, () => this.#look([cost[0] + 1, cost[1], cost[2]]))
  }

  #with(vm: VmSpec, room: Room | undefined, look: () => void): void {
    const before = room && (this.#promised.get(room.peer) ?? 0)
    if (room !== undefined) {
      this.#promised.set(room.peer, (before ?? 0) + vm.memoryMiB)
      this.#apart.add(vm, room)
    }
    this.#chosen.push(room)
    look()
    this.#chosen.pop()
    if (room === undefined) return
    this.#promised.set(room.peer, before ?? 0)
    this.#apart.remove(vm, room)
  }

  #ranked(next: Homeless): Ranked[] {
    return ranked(next, this.#rooms, { promised: this.#promised, capacities: this.#capacities, apart: this.#apart })
  }
}

interface Ranked {
  readonly room: Room
  readonly shared: readonly [number, number]
  /** The smaller, the better; place by place. */
  readonly rank: readonly number[]
}

/** What the hosts have at a VM's turn. */
interface Turn {
  readonly promised: ReadonlyMap<PeerId, number>
  readonly capacities: ReadonlyMap<PeerId, number>
  readonly apart: Apart
}

/** The hosts that have room for it, the best first. */
function ranked({ vm, standbys, columns }: Homeless, rooms: readonly Room[], turn: Turn): Ranked[] {
  const fitting = rooms.flatMap(room => {
    const needs = (turn.promised.get(room.peer) ?? 0) + vm.memoryMiB
    if (room.vmMemoryMiB !== undefined && needs > room.vmMemoryMiB) return []
    const share = needs / (turn.capacities.get(room.peer) ?? 1)
    const shared = turn.apart.shared(vm, room)
    const standby = standbys.includes(room.peer) ? 0 : 1
    const silent = room.vmMemoryMiB === undefined ? 1 : 0
    const rank = [...shared, silent, standby, Math.floor(8 * share), -(columns[room.peer] ?? 0), share]
    return [{ room, shared, rank }]
  })
  return fitting.sort((a, b) => compare(a.rank, b.rank))
}

/** `fitting`: all that have room for it, the best first. */
function groundOf(chosen: Room, fitting: readonly Ranked[], rooms: readonly Room[]): Ground {
  const own = fitting.find(({ room }) => room === chosen)
  const other = fitting.find(({ room }) => room !== chosen)
  if (other === undefined) return rooms.length === 1 ? 'only-host' : 'room'
  if (own === undefined || compare(own.rank, other.rank) > 0) return 'others'
  const at = own.rank.findIndex((value, i) => value !== other.rank[i])
  return BY_RANK[at] ?? 'name'
}

/** VMs of one `apart` by domain. */
class Apart {
  readonly #counts = new Map<string, number>()

  constructor(settled: readonly { readonly vm: VmSpec; readonly host: StoragePeer }[]) {
    for (const { vm, host } of settled) this.add(vm, host)
  }

  add(vm: VmSpec, host: StoragePeer): void {
    this.#change(vm, host, 1)
  }

  remove(vm: VmSpec, host: StoragePeer): void {
    this.#change(vm, host, -1)
  }

  /** How many VMs that it is to be apart from are in that host, and in that rack. */
  shared(vm: VmSpec, host: StoragePeer): readonly [number, number] {
    const [inHost = 0, inRack = 0] = keysOf(vm, host).map(key => this.#counts.get(key) ?? 0)
    return [inHost, inRack]
  }

  #change(vm: VmSpec, host: StoragePeer, by: number): void {
    for (const key of keysOf(vm, host)) this.#counts.set(key, (this.#counts.get(key) ?? 0) + by)
  }
}

function keysOf({ apart }: VmSpec, at: StoragePeer): string[] {
  if (apart === undefined) return []
  const { host, rack } = domainsOf(at)
  return [`${apart} in host ${host}`, `${apart} in rack ${rack}`]
}

/** What a host gives; the median of the others where it has not said so, and the same for all where nobody has. */
function capacitiesOf(rooms: readonly Room[]): Map<PeerId, number> {
  const known = rooms.flatMap(({ vmMemoryMiB }) => vmMemoryMiB ?? []).sort((a, b) => a - b)
  const median = known[known.length >> 1] ?? 1
  return new Map(rooms.map(({ peer, vmMemoryMiB = median }) => [peer, Math.max(1, vmMemoryMiB)]))
}

/** The plan, told VM by VM. */
function movesOf(
  order: readonly Homeless[],
  rooms: readonly Room[],
  chosen: readonly (Room | undefined)[],
  settled: readonly { readonly vm: VmSpec; readonly host: StoragePeer }[]
): Move[] {
  const promisedMiB = new Map(rooms.map(({ peer, promisedMiB: at }) => [peer, at]))
  const apart = new Apart(settled)
  const capacities = capacitiesOf(rooms)
  return order.flatMap((next, at) => {
    const { vm, standbys, columns } = next
    const room = chosen[at]
    if (room === undefined) return []
    const ground = groundOf(room, ranked(next, rooms, { promised: promisedMiB, capacities, apart }), rooms)
    const promised = [...promisedMiB]
      .map(([peer, memoryMiB]) => ({ peer, memoryMiB }))
      .sort((a, b) => a.memoryMiB - b.memoryMiB || (a.peer < b.peer ? -1 : 1))
    const [inHost, inRack] = apart.shared(vm, room)
    const { peer } = room
    const shares = inHost > 0 ? 'host' : inRack > 0 ? 'rack' : undefined
    promisedMiB.set(peer, (promisedMiB.get(peer) ?? 0) + vm.memoryMiB)
    apart.add(vm, room)
    const move = { vm, to: peer, ground, promised, standby: standbys.includes(peer), columns: columns[peer] ?? 0 }
    return [shares === undefined ? move : { ...move, shares }]
  })
}

function compare(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((value, i) => value !== b[i])
  return at === -1 ? 0 : (a[at] ?? 0) - (b[at] ?? 0)
}
