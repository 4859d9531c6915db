/**
 * What this peer writes into records while a cluster is upgraded one peer at a time. A peer of an older version refuses a record
 * with a word that it does not know: it would start none of the group's VMs and take none of its epochs, and nobody would be told.
 * Members say soon after they are connected what they understand (SPEAKS in `protocols/host-facts.ts`); who told less than this
 * version does, or nothing, counts as older, witnesses included: they keep records, too. Members that are dead do not count: what
 * has been upgraded meanwhile would be waited for.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { VmSpec } from '../../protocols/group.ts'
import { SPEAKS } from '../../protocols/host-facts.ts'
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'
import { DiapauseError } from '../errors.ts'
import type { StoragePeer } from './domains.ts'
import type { FailureDetector } from '../ports.ts'

export interface VersionFacts {
  readonly membership: { record(): ClusterRecord }
  readonly detector: Pick<FailureDetector, 'alive'>
  readonly storagePeers: { about(peers: readonly PeerId[]): readonly StoragePeer[] }
}

/** Words of a VM's specification that the older version does not know. `false` is what it does without. */
const YOUNG = ['standby', 'apart', 'generationId', 'clock', 'guestAgent', 'objective'] as const

/** Words that it wants in each. */
const BOOT = ['kernel', 'initrd', 'append'] as const

/** Names of living members that are, or may be, of an older version. */
export function olderMembers({ membership, detector, storagePeers }: VersionFacts): string[] {
  const record = membership.record()
  const alive = new Set(detector.alive())
  const silent = storagePeers
    .about(record.members.flatMap(({ id }) => (alive.has(id) ? [id] : [])))
    .filter(({ speaks = 0 }) => speaks < SPEAKS)
  return silent.map(({ peer }) => memberById(record, peer)?.name ?? peer)
}

/**
 * VMs that begin from nothing, as their record has them: with a generation id unless they say otherwise, for no image of theirs
 * is without, and a guest that repeats random numbers has no secrets; without one where a member is older. MEMBER_OLDER.
 */
export function newVms(vms: readonly VmSpec[], older: readonly string[]): VmSpec[] {
  if (older.length === 0) return vms.map(vm => ({ generationId: true, ...vm }))
  requireKnown(vms, older)
  return vms.map(({ generationId: _none, ...vm }) => vm)
}

/** MEMBER_OLDER where an older member would refuse a record with such VMs. */
export function requireKnown(vms: readonly VmSpec[], older: readonly string[]): void {
  if (older.length === 0) return
  const words = YOUNG.filter(word => vms.some(vm => vm[word] !== undefined && vm[word] !== false))
  if (words.length > 0) throw memberOlder(older, `VMs with ${words.join(', ')}`)
  const without = BOOT.filter(word => vms.some(vm => vm[word] === undefined))
  if (without.length > 0) throw memberOlder(older, `VMs without ${without.join(', ')}`)
}

/** `what`: what it does not know. */
export const memberOlder = (older: readonly string[], what: string): DiapauseError =>
  new DiapauseError(
    'MEMBER_OLDER',
    `Of ${older.join(', ')} nothing has been heard that only this version says: it would not understand ${what}. Upgrade all members first; where they are, try again in a minute.`,
    { details: { members: older } }
  )
