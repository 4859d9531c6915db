/**
 * The changes of a cluster's record, each a pure function for `Registers.change`: the present record in, the next one
 * out, or `undefined` for "leave it". All are guarded by what they expect to find, so that one that is tried twice, or
 * evaluated on a record which already contains its effect, changes nothing the second time.
 *
 * Voters change one at a time, and never while the set is not *settled*: two sets that differ by one peer have
 * overlapping majorities, sets that are two changes apart need not (CASPaxos, section 2.3; Ongaro's thesis on Raft,
 * section 4.1). What settles a set is in `protocols/register`.
 */
import type { PeerId } from '../core.ts'
import { nextVoters, type VoterSet } from '../register/voters.ts'
import { type ApiToken, hasExpired, MAX_API_TOKENS } from './api-tokens.ts'
import { type KeyMaking, keysForAll, needsNewKey, nextKeys, type Wrapped } from './keys.ts'
import {
  type ClusterRecord,
  findMember,
  type Invite,
  MAX_INVITES,
  MAX_REMOVED,
  MAX_VOTERS,
  memberById,
  type MemberRecord,
  wantedVoters
} from './record.ts'
import type { RecoveryNote } from './recovery.ts'
import { hasRoom } from './room.ts'

export type Change = (current: ClusterRecord) => ClusterRecord | undefined

const next = (current: ClusterRecord, fields: Partial<ClusterRecord>): ClusterRecord => ({
  ...current,
  ...fields,
  version: current.version + 1
})

/** For what a person asks for: `undefined` where it would take room that the cluster may need (`room.ts`). */
function wished(current: ClusterRecord, fields: Partial<ClusterRecord>): ClusterRecord | undefined {
  const after = next(current, fields)
  return hasRoom(after, current) ? after : undefined
}

function withMember(current: ClusterRecord, id: PeerId, fields: Partial<MemberRecord>): ClusterRecord {
  return next(current, {
    members: current.members.map(member => (member.id === id ? { ...member, ...fields } : member))
  })
}

// ---------------------------------------------------------------------------------------------- wishes

/** Nothing where it is so already, is leaving, would be one voter too many, or the last one would go. */
export function wishVotes(id: PeerId, votes: boolean): Change {
  return current => {
    const member = memberById(current, id)
    if (member === undefined || member.leaving || member.votes === votes) return undefined
    const wanted = wantedVoters(current).length
    if (votes ? wanted >= MAX_VOTERS : wanted <= 1) return undefined
    return withMember(current, id, { votes })
  }
}

/** Nothing where it is leaving so already, or nobody would be left to vote. `forced` is never taken back. */
export function wishLeave(id: PeerId, forced: boolean): Change {
  return current => {
    const member = memberById(current, id)
    if (member === undefined || (member.leaving && (member.forced || !forced))) return undefined
    if (!wantedVoters(current).some(voter => voter.id !== id)) return undefined
    return withMember(current, id, { leaving: true, forced: member.forced || forced })
  }
}

/** Nothing where it is so already, or there is no room for an address of that length. */
export function setAddress(id: PeerId, address: string): Change {
  return current => {
    const member = memberById(current, id)
    if (member === undefined || member.address === address) return undefined
    return wished(current, { members: current.members.map(each => (each === member ? { ...each, address } : each)) })
  }
}

// ---------------------------------------------------------------------------------------------- invitations

/** Nothing where it is there already, there are too many, or there is no room for whom it invites. */
export function addInvite(invite: Invite): Change {
  return current => {
    const { invites } = current
    if (invites.length >= MAX_INVITES || invites.some(each => each.id === invite.id)) return undefined
    return wished(current, { invites: [...invites, invite] })
  }
}

/** Nothing where there is none, or a peer has joined with it: that is a member then. */
export function dropInvite(id: PeerId): Change {
  return current => {
    const invites = current.invites.filter(invite => invite.id !== id || invite.usedBy !== undefined)
    return invites.length === current.invites.length ? undefined : next(current, { invites })
  }
}

export function dropExpiredInvites(wallMs: number): Change {
  return current => {
    const invites = current.invites.filter(invite => invite.expiresMs > wallMs)
    return invites.length === current.invites.length ? undefined : next(current, { invites })
  }
}

export interface Newcomer {
  readonly id: PeerId
  readonly name: string
  readonly address: string
}

/** Uses the invitation up and makes the newcomer a member in one step. Guarded by `judgeJoin` (`join.ts`), which the caller asks first. */
export function admit(invite: Invite, newcomer: Newcomer): Change {
  return current => {
    const found = current.invites.find(each => each.id === invite.id)
    if (found === undefined || found.usedBy !== undefined) return undefined
    const { role, votes, replaces } = found
    const replaced = replaces === undefined ? undefined : memberById(current, replaces)
    const members = current.members.map(member =>
      member === replaced ? { ...member, leaving: true, name: nameOfReplaced(current, member, newcomer) } : member
    )
    const wanted = members.filter(member => member.votes && !member.leaving).length
    const { id, name, address } = newcomer
    const joined: MemberRecord = {
      id,
      name,
      address,
      role,
      votes: (votes || wanted === 0) && wanted < MAX_VOTERS,
      leaving: false,
      forced: false,
      ...(replaced === undefined ? {} : { replaces: replaced.id })
    }
    return next(current, {
      members: [...members, joined],
      invites: current.invites.map(each => (each === found ? { ...found, usedBy: id } : each))
    })
  }
}

/** A host that is set up anew usually comes back under its name: the old member gives it up. */
function nameOfReplaced(current: ClusterRecord, replaced: MemberRecord, { name }: Newcomer): string {
  if (replaced.name !== name) return replaced.name
  for (let attempt = 1; ; attempt++) {
    const suffix = attempt === 1 ? '-replaced' : `-replaced-${attempt}`
    const free = name.slice(0, 40 - suffix.length) + suffix
    if (findMember(current, free) === undefined) return free
  }
}

// ---------------------------------------------------------------------------------------------- steps towards the wishes

/** Guard of all changes of voters: the set is the one that the planner saw, and settled. */
const isSettled = (voters: VoterSet, version: number): boolean => voters.settled && voters.version === version

/** `version`: of the present set. */
export function addVoter(version: number, id: PeerId): Change {
  return current => {
    const { voters } = current
    if (!isSettled(voters, version) || voters.ids.includes(id) || memberById(current, id) === undefined)
      return undefined
    return next(current, { voters: nextVoters(voters, [...voters.ids, id].sort()) })
  }
}

/** Never the last one. */
export function removeVoter(version: number, id: PeerId): Change {
  return current => {
    const { voters } = current
    if (!isSettled(voters, version) || !voters.ids.includes(id) || voters.ids.length === 1) return undefined
    const ids = voters.ids.filter(each => each !== id)
    return next(current, { voters: nextVoters(voters, ids) })
  }
}

/** For whoever has done all that `protocols/register` asks for, with this version of the set. */
export function markSettled(version: number): Change {
  return current => {
    const { voters } = current
    if (voters.version !== version || voters.settled) return undefined
    return next(current, { voters: { ...voters, settled: true } })
  }
}

/** Only a leaving member without a vote, and only by who can make the data key that those who stay then have. */
export function removeMember(id: PeerId, making: KeyMaking): Change {
  return current => {
    const member = memberById(current, id)
    if (member?.leaving !== true || current.voters.ids.includes(id)) return undefined
    const made = needsNewKey(current, id) ? nextKeys(current, making, id) : {}
    if (made === undefined) return undefined
    // Who came in its stead no longer waits for it.
    const members = current.members
      .filter(each => each.id !== id)
      .map(({ replaces, ...rest }) => (replaces === undefined || replaces === id ? rest : { ...rest, replaces }))
    const removed = [...current.removed, id].slice(-MAX_REMOVED)
    return next(current, { removed, ...withKeys(members, made) })
  }
}

// ---------------------------------------------------------------------------------------------- data keys

function withKeys(members: readonly MemberRecord[], { keys, wrapped }: Partial<Wrapped>): Partial<ClusterRecord> {
  if (keys === undefined) return { members }
  const given = members.map(member => {
    const key = wrapped?.[member.id]
    return key === undefined ? member : { ...member, key }
  })
  return { members: given, keys }
}

const keyed = (current: ClusterRecord, made: Wrapped | undefined): ClusterRecord | undefined =>
  made && next(current, withKeys(current.members, made))

/** For storage members that do not have the newest data key yet. */
export function giveKeys(making: KeyMaking): Change {
  return current => keyed(current, keysForAll(current, making))
}

/** A new data key after `newest`, which is 0 where there was none. */
export function rotateKeys(newest: number, making: KeyMaking): Change {
  return current => ((current.keys?.newest.id ?? 0) === newest ? keyed(current, nextKeys(current, making)) : undefined)
}

/** Epochs in the second home are sealed to this key from now on, which `replaces` the one of that public part, or none. */
export function setRecovery(recovery: RecoveryNote, replaces: string | undefined): Change {
  return current =>
    current.recovery?.public === replaces && current.recovery?.public !== recovery.public
      ? next(current, { recovery })
      : undefined
}

/** Nothing where its name is taken, there are too many, or the record has no room for it. Those that have expired make room. */
export function addApiToken(token: ApiToken): Change {
  return current => {
    const kept = (current.apiTokens ?? []).filter(each => !hasExpired(each, token.madeMs))
    if (kept.length >= MAX_API_TOKENS || kept.some(({ name }) => name === token.name)) return undefined
    return wished(current, { apiTokens: [...kept, token] })
  }
}

/** Where none is left the record is as older members know it. */
export function removeApiToken(name: string): Change {
  return current => {
    const { apiTokens = [], ...rest } = current
    const kept = apiTokens.filter(each => each.name !== name)
    if (kept.length === apiTokens.length) return undefined
    return next(rest, kept.length === 0 ? {} : { apiTokens: kept })
  }
}

/** Groups that are made from now on count from above `floor`. */
export function raiseGroupFloor(floor: number): Change {
  return current => (current.groupFloor >= floor ? undefined : next(current, { groupFloor: floor }))
}
