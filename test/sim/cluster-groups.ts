/** Groups that are made, removed and made again, as `node/operations/operations.ts` does it. */
import { planOwners } from '../../node/planning/placement.ts'
import { createGroup, removeGroup } from '../../protocols/epoch/record.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { placeable } from '../../protocols/membership/record.ts'
import type { ClusterWiring } from './cluster-bugs.ts'
import type { SimPeer } from './cluster-peer.ts'

/** The floor is read after it was seen that there is no record. */
export async function makeGroup(
  peer: SimPeer,
  id: string,
  vms: readonly VmSpec[],
  floorOf: ClusterWiring['groupFloor']
): Promise<void> {
  const { directory, membership } = peer
  const found = await directory.refresh(id)
  if (found?.removed === false) return
  const floor = found === null ? floorOf(await membership.refresh()) : null
  const plan = planOwners(vms, {}, { hosts: placeable(membership.record()), groups: directory.all() })
  const settings = { outputCommit: vms.some(vm => vm.nics !== undefined) }
  if (plan !== undefined) await directory.change(id, createGroup(id, vms, plan.owners, floor, settings))
}

export async function endGroup({ directory }: SimPeer, id: string): Promise<void> {
  await directory.change(id, removeGroup)
}
