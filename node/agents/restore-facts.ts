/** What this peer knows now of who could run a group's VMs, for the planner (`planning/placement.ts`). */
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { StoragePeer } from '../planning/domains.ts'
import { placeColumns } from '../planning/holders.ts'
import type { PlacementFacts } from '../planning/placement.ts'
import { plannedStandbys } from '../planning/standby.ts'
import type { FailureDetector } from '../ports.ts'
import type { GroupDirectory } from './directory.ts'

export interface RestoreFactsDeps {
  /** Members that can run VMs. */
  readonly hosts: () => readonly PeerId[]
  /** Those that leave, and keep their VMs while they live. */
  readonly leaving: () => readonly PeerId[]
  readonly detector: Pick<FailureDetector, 'alive'>
  readonly directory: Pick<GroupDirectory, 'all'>
  /** What hosts have said of themselves. Absent: nothing is known. */
  readonly about?: ((peers: readonly PeerId[]) => readonly StoragePeer[]) | undefined
  /** Of the streams that images are made of. Absent: it is not known who has columns. */
  readonly shape?: { readonly k: number; readonly m: number } | undefined
}

/** What the room for VMs follows from, as a text: the same text, the same room. Much cheaper than a plan. */
export function roomText({ hosts, leaving, detector, directory, about }: RestoreFactsDeps): string {
  const alive = new Set(detector.alive())
  const here = [hosts(), leaving()].map(peers => peers.filter(peer => alive.has(peer)))
  const gives = about?.(here.flat()).map(({ peer, vmMemoryMiB }) => [peer, vmMemoryMiB])
  const groups = directory.all().map(({ id, generation, removed, resting }) => [id, generation, removed, resting])
  return JSON.stringify([here, gives, groups])
}

/** Columns are where they are planned (`planning/holders.ts`): to ask who really has them would cost a failover its time. */
export function restoreFacts(
  { hosts, leaving, detector, directory, about, shape }: RestoreFactsDeps,
  record: GroupRecord
): PlacementFacts {
  const { id, vms, committed } = record
  const alive = new Set(detector.alive())
  const here = hosts().filter(host => alive.has(host))
  const staying = leaving().filter(host => alive.has(host))
  const known = about?.([...here, ...staying]) ?? []
  const columns: Record<PeerId, number> = {}
  if (shape !== undefined && about !== undefined) {
    // Also who is dead by now was alive when they were planned.
    for (const holder of placeColumns(about(hosts()), { ...shape, key: id }))
      columns[holder] = (columns[holder] ?? 0) + 1
  }
  const facts = { hosts: here, leaving: staying, groups: directory.all(), known }
  return {
    ...facts,
    // Who leaves and is dead by now kept its VMs when copies were planned.
    standbys: plannedStandbys(record, { ...facts, leaving: leaving() }),
    columns: Object.fromEntries(vms.map(vm => [vm.id, committed?.images[vm.id] === undefined ? {} : columns]))
  }
}
