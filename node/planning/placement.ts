/**
 * Who runs which VM: pure functions of agreed facts, so that every survivor computes the same plan. Carrying a plan out
 * starts with a compare-and-set, so two survivors whose facts differ cannot both act.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'

export interface PlacementFacts {
  /** Peers that can run VMs and are alive, in any order. */
  readonly hosts: readonly PeerId[]
  /** Hosts that are alive and leave the cluster: they keep what they run, and get nothing new. */
  readonly leaving?: readonly PeerId[]
  /** Records of all other groups: what the hosts run already. */
  readonly groups: readonly GroupRecord[]
}

export interface Placement {
  readonly owners: Readonly<Record<string, PeerId>>
  /** VMs that had to find a host, in the order in which they did. */
  readonly moves: readonly Move[]
}

/** Why a VM goes where it goes. */
export interface Move {
  readonly vm: VmSpec
  readonly to: PeerId
  /** What every host had promised when it was this VM's turn: the least first. */
  readonly promised: readonly { readonly peer: PeerId; readonly memoryMiB: number }[]
}

/**
 * Owners for `vms`. Those in `keep` stay where they are if that host is alive; each of the rest, largest first, goes to
 * the host with the least memory promised so far; of equals, to the first in sorted order. Undefined where one has no host.
 */
export function planOwners(
  vms: readonly VmSpec[],
  keep: Readonly<Record<string, PeerId>>,
  facts: PlacementFacts
): Placement | undefined {
  const hosts = [...facts.hosts].sort()
  const mayKeep = new Set([...hosts, ...(facts.leaving ?? [])])
  const promisedMiB = new Map(hosts.map(host => [host, 0]))
  const promise = (host: PeerId, vm: VmSpec): void => {
    const sum = promisedMiB.get(host)
    if (sum !== undefined) promisedMiB.set(host, sum + vm.memoryMiB)
  }
  for (const group of facts.groups) for (const vm of group.vms) promise(group.owners[vm.id] ?? '', vm)

  const owners: Record<string, PeerId> = {}
  for (const vm of vms) {
    const host = keep[vm.id]
    if (host === undefined || !mayKeep.has(host)) continue
    owners[vm.id] = host
    promise(host, vm)
  }
  const homeless = vms.filter(vm => owners[vm.id] === undefined)
  if (homeless.length > 0 && hosts.length === 0) return undefined
  const moves: Move[] = []
  for (const vm of homeless.toSorted((a, b) => b.memoryMiB - a.memoryMiB || (a.id < b.id ? -1 : 1))) {
    const promised = [...promisedMiB]
      .map(([peer, memoryMiB]) => ({ peer, memoryMiB }))
      .sort((a, b) => a.memoryMiB - b.memoryMiB || (a.peer < b.peer ? -1 : 1))
    const host = promised[0]?.peer as PeerId
    owners[vm.id] = host
    moves.push({ vm, to: host, promised })
    promise(host, vm)
  }
  return { owners, moves }
}

/** A restore of the whole group: who lives keeps its VMs, the others' go to survivors. Undefined where none can. */
export function planRestore(record: GroupRecord, facts: PlacementFacts): Placement | undefined {
  return planOwners(record.vms, record.owners, {
    ...facts,
    groups: facts.groups.filter(group => group.id !== record.id)
  })
}
