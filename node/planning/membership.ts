/**
 * The next step from the cluster as it is to the cluster as it is wished: a pure function of the record and of what this
 * peer sees. Every peer computes it and any may carry it out, since each step is a guarded compare-and-set.
 *
 * The order of voters' changes. Who is to go and cannot be reached goes first: to add a voter beside a dead one makes the
 * majority larger before it makes it likelier. Then those come who are wanted and reachable, then those go who are reachable,
 * but not before the member that came in their stead has its vote. Nobody's vote is taken where that would leave a set
 * without a reachable majority: the next change would need one to undo it. (Adding a reachable voter never does.)
 */
import type { PeerId } from '../../protocols/core.ts'
import { keyHolders, keysAreFull, lackingKeys, mayMakeKey, needsNewKey } from '../../protocols/membership/keys.ts'
import {
  type ClusterRecord,
  MAX_VOTERS,
  type MemberRecord,
  placeable,
  wantedVoters
} from '../../protocols/membership/record.ts'
import { majorityOf } from '../../protocols/register/voters.ts'
import type { ImageManifest, StreamId } from '../ports.ts'
import { planHolders, tolerates } from './holders.ts'

export interface MembershipFacts {
  readonly self: PeerId
  /** This peer opens the newest data key. */
  readonly opensKeys: boolean
  /** Data keys that kept images have streams under; undefined: not known, so all. */
  readonly neededKeys: ReadonlySet<number> | undefined
  /** Members that this peer holds for alive and is connected to, itself included. */
  readonly reachable: ReadonlySet<PeerId>
  readonly dead: ReadonlySet<PeerId>
  /** Members that have been dead for so long, without a break, that nobody waits for them any more (`membership.lostAfterMs`). */
  readonly lost: ReadonlySet<PeerId>
  /** False until this peer has learned which groups there are: `owners` and `needed` tell nothing before. */
  readonly groupsKnown: boolean
  /** Members that own a VM. */
  readonly owners: ReadonlySet<PeerId>
  /** Members whose shards are needed (`neededStores`). */
  readonly needed: ReadonlySet<PeerId>
  readonly wallMs: number
}

export type MembershipStep =
  | { readonly kind: 'settle'; readonly version: number }
  /** `version`: of the voter set that is changed. */
  | { readonly kind: 'add-voter' | 'remove-voter'; readonly version: number; readonly peer: PeerId }
  | { readonly kind: 'remove-member'; readonly peer: PeerId }
  /** `newest`: the data key that `peers` are given. */
  | { readonly kind: 'give-keys'; readonly newest: number; readonly peers: readonly PeerId[] }
  | { readonly kind: 'drop-invites' }

/** Something wished for that cannot be done now, and why. */
export interface Wait {
  readonly peer: PeerId
  readonly why: string
}

export function planMembershipStep(record: ClusterRecord, facts: MembershipFacts): MembershipStep | undefined {
  const { voters } = record
  const giving = givingOfKeys(record, facts) // at once: nothing is placed at those who lack them
  if (giving !== undefined) return giving
  if (!voters.settled) return { kind: 'settle', version: voters.version }
  return (
    changeOfVoters(record, facts) ??
    removalOfMember(record, facts) ??
    (record.invites.some(invite => invite.expiresMs <= facts.wallMs) ? { kind: 'drop-invites' } : undefined)
  )
}

/** A majority of them can be reached. */
const stands = (ids: readonly PeerId[], { reachable }: MembershipFacts): boolean =>
  ids.filter(id => reachable.has(id)).length >= majorityOf(ids.length)

function changeOfVoters(record: ClusterRecord, facts: MembershipFacts): MembershipStep | undefined {
  const { ids, version } = record.voters
  const step = (kind: 'add-voter' | 'remove-voter', peer: PeerId): MembershipStep => ({ kind, version, peer })
  const { newcomers, leavers } = differences(record)
  const removable = leavers.filter(id => whyVoterStays(record, id, facts) === undefined)
  const unreachable = removable.find(id => !facts.reachable.has(id))
  if (unreachable !== undefined) return step('remove-voter', unreachable)
  const newcomer = newcomers.find(id => facts.reachable.has(id))
  if (newcomer !== undefined && ids.length <= MAX_VOTERS) return step('add-voter', newcomer)
  const [leaver] = removable
  return leaver === undefined ? undefined : step('remove-voter', leaver)
}

function differences(record: ClusterRecord): { newcomers: PeerId[]; leavers: PeerId[] } {
  const { ids } = record.voters
  const wanted = wantedVoters(record).map(member => member.id)
  return {
    newcomers: wanted.filter(id => !ids.includes(id)).sort(),
    leavers: ids.filter(id => !wanted.includes(id)).sort()
  }
}

function whyVoterStays(record: ClusterRecord, id: PeerId, facts: MembershipFacts): string | undefined {
  const { ids } = record.voters
  const rest = ids.filter(each => each !== id)
  if (rest.length === 0) return 'it has the only vote: another member must get one first'
  if (!stands(rest, facts)) return 'without its vote no majority of the others could be reached'
  if (!facts.reachable.has(id)) return undefined
  const successor = record.members.find(member => member.replaces === id)
  if (successor === undefined || successor.leaving || !successor.votes || ids.includes(successor.id)) return undefined
  return `${successor.name}, which replaces it, must get its vote first`
}

function givingOfKeys(record: ClusterRecord, { self, opensKeys }: MembershipFacts): MembershipStep | undefined {
  const peers = lackingKeys(record)
  if (record.keys === undefined || peers.length === 0 || !mayMakeKey(record, self, opensKeys)) return undefined
  return { kind: 'give-keys', newest: record.keys.newest.id, peers }
}

function removalOfMember(record: ClusterRecord, facts: MembershipFacts): MembershipStep | undefined {
  const { self, opensKeys } = facts
  const leaver = record.members.find(
    member =>
      member.leaving &&
      !record.voters.ids.includes(member.id) &&
      whyMemberStays(record, member, facts) === undefined &&
      whyNobodyRemoves(record, member, facts) === undefined &&
      (!needsNewKey(record, member.id) || mayMakeKey(record, self, opensKeys, member.id))
  )
  return leaver === undefined ? undefined : { kind: 'remove-member', peer: leaver.id }
}

/** Whoever removes it must make the data key of those who stay. */
function whyNobodyRemoves(record: ClusterRecord, { id }: MemberRecord, facts: MembershipFacts): string | undefined {
  if (!needsNewKey(record, id)) return undefined
  if (keysAreFull(record, facts.neededKeys))
    return 'with it the data key changes, and snapshots need too many older ones: take an epoch of each group'
  const lacking = lackingKeys(record)
  if (lacking.length > 0 && facts.reachable.has(id) && keyHolders(record).every(each => each === id))
    return `it alone has the data keys, and has yet to give them to ${namesOf(record, lacking)}`
  if ([...facts.reachable].some(peer => mayMakeKey(record, peer, true, id))) return undefined
  const holders = keyHolders(record).filter(each => each !== id)
  const makers = holders.length > 0 ? holders : lackingKeys(record)
  return `with it the data key changes, for which one of ${namesOf(record, makers)} must be up`
}

const namesOf = ({ members }: ClusterRecord, ids: readonly PeerId[]): string =>
  members.flatMap(({ id, name }) => (ids.includes(id) ? [name] : [])).join(', ')

/** Who only looks dead now may be back in a moment; a removal is for good. Whom people have replaced will not be. */
function whyMemberStays(
  { members }: ClusterRecord,
  { id, forced, role }: MemberRecord,
  facts: MembershipFacts
): string | undefined {
  const replaced = facts.dead.has(id) && members.some(member => member.replaces === id && !member.leaving)
  if (forced || replaced || facts.lost.has(id)) return undefined
  if (!facts.groupsKnown)
    return 'which groups may need it is not known here yet: a majority of the voters must be reached'
  if (facts.owners.has(id))
    return 'it owns VMs: remove their groups, or force it and they go back to their last epoch elsewhere'
  if (role === 'storage' && facts.needed.has(id))
    return 'snapshots need what it stores, until the next epoch of each group'
  return undefined
}

/** What is wished for and waits, for people. Steps that are only a matter of moments are not among it. */
export function membershipWaits(record: ClusterRecord, facts: MembershipFacts): Wait[] {
  const { newcomers, leavers } = differences(record)
  const unreachable = newcomers.filter(id => !facts.reachable.has(id))
  const waits = unreachable.map(peer => ({ peer, why: 'it gets its vote when it runs and is connected' }))
  for (const peer of leavers) {
    const why = whyVoterStays(record, peer, facts)
    if (why !== undefined) waits.push({ peer, why })
  }
  for (const member of record.members) {
    if (!member.leaving) continue
    const why = whyMemberStays(record, member, facts) ?? whyNobodyRemoves(record, member, facts)
    if (why !== undefined) waits.push({ peer: member.id, why })
  }
  return waits
}

/** Of an image's manifest: the streams that it leans on. */
export interface ImageLean {
  readonly streams: readonly (Pick<ImageManifest['streams'][number], 'holders' | 'k' | 'm' | 'key'> & {
    readonly stream?: StreamId
  })[]
  /** It is of an epoch that is kept beside the committed one. */
  readonly older?: boolean
}

/**
 * Leaving storage members that some committed image still leans on: without them one of its streams would bear fewer
 * losses than a new one bears that is spread over those who stay. After the next epoch none does (`image/page-state.ts`
 * writes such streams anew). Older images that are kept change no more and may be kept for months: they need who is to leave
 * only where they could not be read without him, and what they lack without him is repaired. Holders are those of now: what
 * has been rebuilt elsewhere needs nobody who leaves. `images` undefined: not known here, so all of them. Who only looks dead
 * now is counted as one who stays.
 */
export function neededStores(
  record: ClusterRecord,
  images: readonly ImageLean[] | undefined,
  lost: ReadonlySet<PeerId>
): Set<PeerId> {
  const leavers = record.members.filter(member => member.leaving && member.role === 'storage').map(member => member.id)
  if (images === undefined) return new Set(leavers)
  const stay = placeable(record).filter(id => !lost.has(id))
  const weak = images
    .flatMap(({ streams, older }) => streams.map(stream => ({ ...stream, older })))
    .filter(({ holders, k, m, older }) => {
      if (older === true) return tolerates(holders, m, stay) < 0
      const best = stay.length === 0 ? Number.POSITIVE_INFINITY : tolerates(planHolders(stay, k, m, 0), m)
      return tolerates(holders, m, stay) < best
    })
  return new Set(leavers.filter(id => weak.some(({ holders }) => holders.includes(id))))
}
