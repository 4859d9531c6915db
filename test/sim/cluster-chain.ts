/** What must hold between a version of the cluster's record and the next. */
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'

/** What is wrong, if something is: voters change one at a time, who was removed stays out, a token makes one member. */
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
  return undefined
}
