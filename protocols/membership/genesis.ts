/**
 * What a cluster's record is before its register was first changed: as `init` made it, or what the founders' config files
 * say, which every founder reads for itself and must read the same.
 */
import { createHash } from 'node:crypto'
import type { PeerId } from '../core.ts'
import { firstVoters } from '../register/voters.ts'
import { type ClusterRecord, MAX_VOTERS, type MemberRecord, type Role } from './record.ts'

export interface Founder {
  readonly id: PeerId
  readonly name: string
  readonly address: string
  readonly role: Role
}

/** `id`: 32 random hex digits. */
export function initialRecord(id: string, name: string, founder: Founder): ClusterRecord {
  return genesis(id, name, [founder])
}

/**
 * The cluster's id is a hash of its name and of the founders' ids: addresses, names and the order of the list may differ
 * from file to file without making another cluster of it. Of more founders than MAX_VOTERS those vote whose ids are first.
 */
export function foundersRecord(name: string, founders: readonly Founder[]): ClusterRecord {
  const ids = founders.map(founder => founder.id).sort()
  const id = createHash('sha256')
    .update(['diapause founders', name, ...ids].join('\n'))
    .digest('hex')
    .slice(0, 32)
  return genesis(id, name, founders)
}

function genesis(id: string, name: string, founders: readonly Founder[]): ClusterRecord {
  const sorted = [...founders].sort((a, b) => (a.id < b.id ? -1 : 1))
  const ids = sorted.slice(0, MAX_VOTERS).map(founder => founder.id)
  const members = sorted.map(
    (founder): MemberRecord => ({ ...founder, votes: ids.includes(founder.id), leaving: false, forced: false })
  )
  return {
    id,
    name,
    version: 1,
    members,
    voters: firstVoters(ids),
    removed: [],
    invites: [],
    groupFloor: 0
  }
}
