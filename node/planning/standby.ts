/**
 * Who keeps standby copies of which VMs: a pure function of record and members, so that every survivor of a host prefers the same
 * ones without asking.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { type PlacementFacts, standbyHosts } from './placement.ts'

/** VM that asks for one → the host besides its own that is to keep a copy: who would run it if its owner were lost. */
export function plannedStandbys(
  record: GroupRecord,
  facts: PlacementFacts
): Readonly<Record<string, readonly PeerId[]>> {
  const asking = record.removed || record.resting ? [] : record.vms.filter(asksForStandby)
  if (asking.length === 0) return {}
  // As it was before an owner was lost: then it was decided who keeps them. Who leaves is given nothing, and so no copy either.
  const leaving = new Set(facts.leaving)
  const hosts = [...new Set([...facts.hosts, ...Object.values(record.owners).filter(owner => !leaving.has(owner))])]
  const planned = standbyHosts(record, { ...facts, hosts, standbys: {}, columns: {} })
  return Object.fromEntries(
    asking.flatMap(({ id }): [string, readonly PeerId[]][] => {
      const host = planned[id]
      return host === undefined ? [] : [[id, [host]]]
    })
  )
}

export const asksForStandby = ({ standby = 0 }: Pick<VmSpec, 'standby'>): boolean => standby > 0

/**
 * VMs of which `self` is to keep a copy: those of others that it would run, and its own, for a rollback in place. What the facts
 * have as planned is not planned again.
 */
export function standbysAt(self: PeerId, record: GroupRecord, facts: PlacementFacts): readonly VmSpec[] {
  const planned = facts.standbys ?? plannedStandbys(record, facts)
  return record.vms.filter(vm => {
    if (record.removed || record.resting || !asksForStandby(vm)) return false
    return record.owners[vm.id] === self || planned[vm.id]?.includes(self) === true
  })
}
