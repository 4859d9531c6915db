/**
 * Who runs which VM: pure functions of agreed facts, so that every survivor computes the same plan. Carrying a plan out
 * starts with a compare-and-set, so two survivors whose facts differ cannot both act.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import type { StoragePeer } from './domains.ts'
import { findHosts, type Move } from './restore-owners.ts'

export type { Move } from './restore-owners.ts'

export interface PlacementFacts {
  /** Peers that can run VMs and are alive, in any order. */
  readonly hosts: readonly PeerId[]
  /** Hosts that are alive and leave the cluster: they keep what they run, and get nothing new. */
  readonly leaving?: readonly PeerId[]
  /** Records of all other groups: what the hosts run already. */
  readonly groups: readonly GroupRecord[]
  /** What hosts have said of themselves: labels, memory for VMs. Whoever has said nothing has room for any VM. */
  readonly known?: readonly StoragePeer[]
  /** VM of the group → hosts that keep a copy of it ready. */
  readonly standbys?: Readonly<Record<string, readonly PeerId[]>>
  /** VM of the group → host → how many columns of its committed image are there. */
  readonly columns?: Readonly<Record<string, Readonly<Record<PeerId, number>>>>
}

export interface Placement {
  readonly owners: Readonly<Record<string, PeerId>>
  /** VMs that had to find a host, in the order in which they did. */
  readonly moves: readonly Move[]
}

/** A plan that may leave VMs without a host. */
export interface PartialPlacement extends Placement {
  /** VMs for which no host has room, or there is none. They are not among the owners. */
  readonly homeless: readonly VmSpec[]
}

/** Owners for `vms`. Those in `keep` stay where they are if that host is alive; for the rest see `restore-owners.ts`. */
export function placeVms(
  vms: readonly VmSpec[],
  keep: Readonly<Record<string, PeerId>>,
  facts: PlacementFacts
): PartialPlacement {
  const { known = [], standbys = {}, columns = {} } = facts
  const about = new Map(known.map(each => [each.peer, each]))
  const mayKeep = new Set([...facts.hosts, ...(facts.leaving ?? [])])
  const kept = vms.flatMap(vm => {
    const host = keep[vm.id]
    return host !== undefined && mayKeep.has(host) ? [{ vm, host }] : []
  })
  const promisedMiB = new Map<PeerId, number>()
  const promise = (host: PeerId, { memoryMiB }: VmSpec): void =>
    void promisedMiB.set(host, (promisedMiB.get(host) ?? 0) + memoryMiB)
  for (const group of facts.groups) {
    if (!group.removed && !group.resting) for (const vm of group.vms) promise(group.owners[vm.id] ?? '', vm)
  }
  for (const { vm, host } of kept) promise(host, vm)

  const stays = new Set(kept.map(({ vm }) => vm.id))
  const moves = findHosts(
    vms
      .filter(vm => !stays.has(vm.id))
      .map(vm => ({ vm, standbys: standbys[vm.id] ?? [], columns: columns[vm.id] ?? {} })),
    [...new Set(facts.hosts)].map(peer => ({
      ...(about.get(peer) ?? { peer }),
      promisedMiB: promisedMiB.get(peer) ?? 0
    })),
    kept.map(({ vm, host }) => ({ vm, host: about.get(host) ?? { peer: host } }))
  )
  const owners: Record<string, PeerId> = {}
  for (const { vm, host } of kept) owners[vm.id] = host
  for (const { vm, to } of moves) owners[vm.id] = to
  return { owners, moves, homeless: vms.filter(vm => owners[vm.id] === undefined) }
}

/** As `placeVms`; undefined where a VM has no host. */
export function planOwners(
  vms: readonly VmSpec[],
  keep: Readonly<Record<string, PeerId>>,
  facts: PlacementFacts
): Placement | undefined {
  const { owners, moves, homeless } = placeVms(vms, keep, facts)
  return homeless.length === 0 ? { owners, moves } : undefined
}

/** A restore of the whole group: who lives keeps its VMs, the others' go to survivors. */
export function placeRestore(record: GroupRecord, facts: PlacementFacts): PartialPlacement {
  return placeVms(record.vms, record.owners, { ...facts, groups: othersRestored(record, facts) })
}

/**
 * The other groups as they will be. A host's death takes VMs of many groups at once, each is restored for itself, and all would
 * find the same room: so those of smaller names count as restored already, where they would go without copies and columns.
 */
function othersRestored(record: GroupRecord, facts: PlacementFacts): GroupRecord[] {
  const alive = new Set([...facts.hosts, ...(facts.leaving ?? [])])
  const lost = ({ removed, resting, vms, owners }: GroupRecord): boolean =>
    !removed && !resting && vms.some(({ id }) => !alive.has(owners[id] ?? ''))
  const others = new Map(facts.groups.filter(({ id }) => id !== record.id).map(group => [group.id, group]))
  const before = [...others.values()].filter(group => group.id < record.id && lost(group))
  for (const group of before.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    const groups = [...others.values()].filter(({ id }) => id !== group.id)
    const { hosts, leaving = [], known = [] } = facts
    const { owners } = placeVms(group.vms, group.owners, { hosts, leaving, known, groups })
    others.set(group.id, { ...group, owners })
  }
  return [...others.values()]
}

/**
 * A group that rests starts: as a restore, but the memory of its VMs was nobody's meanwhile. Who lives and stays gets its VMs again as
 * far as there is room for them beside what runs there now; the others go where there is.
 */
export function placeStart(record: GroupRecord, facts: PlacementFacts): PartialPlacement {
  const groups = othersRestored(record, facts)
  const roomMiB = new Map((facts.known ?? []).map(({ peer, vmMemoryMiB }) => [peer, vmMemoryMiB ?? Infinity]))
  const fits = (host: PeerId, { memoryMiB }: VmSpec): boolean => {
    const left = (roomMiB.get(host) ?? Infinity) - memoryMiB
    if (left >= 0) roomMiB.set(host, left)
    return left >= 0
  }
  for (const { removed, resting, vms, owners } of groups) {
    if (removed || resting) continue
    for (const { id, memoryMiB } of vms) {
      const host = owners[id] ?? ''
      roomMiB.set(host, (roomMiB.get(host) ?? Infinity) - memoryMiB)
    }
  }
  const keep = record.vms.flatMap(vm => {
    const host = record.owners[vm.id]
    return host !== undefined && facts.hosts.includes(host) && fits(host, vm) ? [[vm.id, host] as const] : []
  })
  const plan = (stay: Readonly<Record<string, PeerId>>): PartialPlacement =>
    placeVms(record.vms, stay, { ...facts, leaving: [], groups })
  const kept = plan(Object.fromEntries(keep))
  if (kept.homeless.length === 0) return kept
  const moved = plan({})
  return moved.homeless.length < kept.homeless.length ? moved : kept
}

/** As `placeRestore`; undefined where a VM has no host. */
export function planRestore(record: GroupRecord, facts: PlacementFacts): Placement | undefined {
  const { owners, moves, homeless } = placeRestore(record, facts)
  return homeless.length === 0 ? { owners, moves } : undefined
}

/**
 * VM → the host that would run it if its owner were lost, which is who is to keep a copy of it ready. None for VMs that would
 * find no host. Whoever keeps one already (`standbys`) stays it, unless memory or VMs to be apart are against it.
 */
export function standbyHosts(record: GroupRecord, facts: PlacementFacts): Readonly<Record<string, PeerId>> {
  const hosts: Record<string, PeerId> = {}
  for (const lost of new Set(Object.values(record.owners))) {
    const { moves } = placeRestore(record, without(facts, lost))
    for (const { vm, to } of moves) if (record.owners[vm.id] === lost) hosts[vm.id] = to
  }
  return hosts
}

/** The facts when that host is dead. */
export const without = (facts: PlacementFacts, lost: PeerId): PlacementFacts => ({
  ...facts,
  hosts: facts.hosts.filter(host => host !== lost),
  leaving: (facts.leaving ?? []).filter(host => host !== lost)
})

/** Why VMs have no host, for people. */
export function whyHomeless(homeless: readonly VmSpec[], facts: PlacementFacts): string {
  if (facts.hosts.length === 0) return 'No living peer can run VMs.'
  const each = homeless.map(({ id, memoryMiB }) => `${id} (${memoryMiB} MiB)`).join(', ')
  return `No living host has room for VM ${each}: bring a host back, end other VMs, or raise hypervisor.vmMemoryMiB.`
}
