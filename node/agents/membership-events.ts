/** What happened to the cluster between two of its records, for people and for the API's event stream. */
import type { PeerId } from '../../protocols/core.ts'
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'

export interface MembershipEvent {
  readonly kind: string
  readonly [field: string]: unknown
}

export function membershipEvents(before: ClusterRecord, after: ClusterRecord): MembershipEvent[] {
  const events: MembershipEvent[] = []
  const nameOf = (id: PeerId): string => (memberById(after, id) ?? memberById(before, id))?.name ?? id
  for (const { id, name, role } of after.members) {
    if (memberById(before, id) === undefined) events.push({ kind: 'member.joined', member: name, id, role })
  }
  for (const { id, name } of after.members) {
    if (memberById(before, id)?.leaving === false && memberById(after, id)?.leaving === true) {
      events.push({ kind: 'member.leaving', member: name, id })
    }
  }
  for (const { id, name } of before.members) {
    if (memberById(after, id) === undefined) events.push({ kind: 'member.removed', member: name, id })
  }
  const made = after.keys?.newest
  if (made !== undefined && made.id > (before.keys?.newest.id ?? 0)) {
    events.push({ kind: 'key.made', key: made.id, ...(made.by === undefined ? {} : { by: nameOf(made.by) }) })
  }
  const { version, settled, ids } = after.voters
  if (version > before.voters.version) {
    events.push({ kind: 'voters.changed', version, voters: ids.map(nameOf) })
  }
  if (settled && (!before.voters.settled || version > before.voters.version)) {
    events.push({ kind: 'voters.settled', version })
  }
  return events
}
