/** What the CLI prints about members. Pure. */
import type { ClusterMember, ClusterStatus } from './cluster-view.ts'
import { codeText, hasPlaces, liveText, lossText, placeText } from './format-places.ts'
import { table } from './format.ts'
import { plural } from './plural.ts'

export function membersText(status: ClusterStatus): string {
  const { name, voters, code, members, invites, waits } = status
  const places = hasPlaces(members)
  const settled = voters.settled ? '' : ' (being settled)'
  const open = invites.filter(invite => invite.usedBy === undefined)
  return [
    `cluster ${name}: ${plural(members.length, 'member')}, voter set version ${voters.version}${settled}`,
    ...table([
      ['member', 'role', 'vote', 'liveness', 'connected', 'address', ...(places ? ['place'] : [])],
      ...members.map(member => [
        member.name,
        member.role,
        voteText(member),
        member.leaving ? `${member.liveness}, leaving` : member.liveness,
        member.self ? '(this peer)' : member.connected ? 'yes' : 'no',
        member.address,
        ...(places ? [placeText(member)] : [])
      ])
    ]),
    votesText(status),
    codeText(code),
    ...open.map(
      ({ id, role, votes, replaces, expiresMs }) =>
        `invited${id === undefined ? '' : ` ${id}`}: a ${role} ${votes ? 'with' : 'without'} a vote${replaces === undefined ? '' : ` for ${replaces}`}, until ${new Date(expiresMs).toISOString()}`
    ),
    ...waits.map(({ member, why }) => `waiting: ${member}: ${why}`)
  ].join('\n')
}

/** How many voters may fail. */
export function votesText({ voters: { count, live = count, tolerates } }: ClusterStatus): string {
  if (live === count) return `votes: ${count}, of which ${lossText(tolerates)} may fail and the others still decide`
  const there = `votes: ${count}, of which ${liveText(live)}`
  if (2 * live <= count) return `${there}: NO MAJORITY, nothing is decided`
  return `${there}: ${lossText(tolerates)} more may fail${tolerates < 1 ? '' : ' and the others still decide'}`
}

function voteText({ votes, wantsVote }: ClusterMember): string {
  if (votes) return wantsVote ? 'yes' : 'yes, to go'
  return wantsVote ? 'no, to come' : 'no'
}

/** What a command about `member` (name or id) waits for now. */
export function progressText({ members, voters, waits }: ClusterStatus, member: string): string {
  const name = members.find(each => each.name === member || each.id === member)?.name ?? member
  const wait = waits.find(each => each.member === name)
  if (wait !== undefined) return `waiting: ${name}: ${wait.why}`
  return voters.settled ? 'the cluster is told' : `version ${voters.version} of the voters is settled`
}
