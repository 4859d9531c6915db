/** What must hold between a version of the cluster's record and the next, and what the change of voters means for a value. */
import type { PeerId } from '../../protocols/core.ts'
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'
import { majorityOf, type VoterSet } from '../../protocols/register/voters.ts'

/** What is wrong, if something is: voters change one at a time, who was removed stays out and has no key, a token makes one member. */
export function wrongBetween(was: ClusterRecord, is: ClusterRecord): string | undefined {
  const ids = new Set([...was.voters.ids, ...is.voters.ids])
  const common = was.voters.ids.filter(id => is.voters.ids.includes(id)).length
  if (is.voters.version > was.voters.version + 1 || ids.size - common > 1)
    return `voters went from ${was.voters.ids.join()} to ${is.voters.ids.join()}`
  const back = is.members.find(({ id }) => was.removed.includes(id))
  if (back !== undefined) return `${back.id} was removed and is a member again`
  for (const field of ['id', 'name', 'address'] as const) {
    if (new Set(is.members.map(member => member[field])).size < is.members.length)
      return `two members have one ${field}`
  }
  const came = is.members.filter(({ id }) => memberById(was, id) === undefined)
  for (const { id } of came) {
    const open = was.invites.filter(invite => invite.usedBy === undefined)
    const token = is.invites.find(invite => invite.usedBy === id && open.some(each => each.id === invite.id))
    if (token === undefined) return `${id} has become a member without an invitation that was open`
  }
  return wrongKeys(was, is)
}

function wrongKeys(was: ClusterRecord, is: ClusterRecord): string | undefined {
  const [before, now] = [was.keys?.newest.id ?? 0, is.keys?.newest.id ?? 0]
  if (now < before || now > before + 1) return `data key ${before} was followed by ${now}`
  const gone = was.members.find(({ id, role }) => role === 'storage' && memberById(is, id) === undefined)
  return gone !== undefined && now === before ? `${gone.id} was removed and has the newest data key` : undefined
}

/**
 * Whether `peers` are a majority of set `version`, or of the one that follows: whoever proposes there meets one of these, and
 * so does a majority of the set before, since the two differ by one voter. A proposer that reads in the new set may know
 * before the old one has a majority.
 */
export function isByMajority(
  { peers, version }: { readonly peers: ReadonlySet<PeerId>; readonly version: number },
  sets: ReadonlyMap<number, VoterSet>
): boolean {
  return [version, version + 1].some(each => {
    const voters = sets.get(each)?.ids ?? []
    return voters.length > 0 && voters.filter(peer => peers.has(peer)).length >= majorityOf(voters.length)
  })
}
