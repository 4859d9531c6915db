/**
 * How large the record of a cluster may become. It is the value of one register, of 64 KiB, and a change that makes it larger
 * fails: a removal, say, which gives every member a new key. So what people ask for (tokens, invitations, longer addresses) is
 * refused before it takes room that may be needed for what nobody asks for. Pure.
 */
import { MAX_VALUE_BYTES } from '../register/messages.ts'
import { encodedBytes } from '../register/value.ts'
import { MAX_OLDER_KEYS } from './keys.ts'
import { type ClusterRecord, MAX_MEMBERS, MAX_REMOVED, MAX_VOTERS, type MemberRecord } from './record.ts'

/** The answer to a newcomer has the record, a secret and settings (about 500 bytes) in 64 KiB. */
export const MAX_RECORD_BYTES = MAX_VALUE_BYTES - 1_024

/** Ids of Ed25519 keys (`identity.ts`), names and addresses (`config/schema.ts`), a wrapped and a sealed key (`key-box.ts`): the longest. */
const id = 'i'.repeat(52)
const name = 'n'.repeat(40)
const address = `/dns4/${'a'.repeat(253)}/tcp/65535`
const key = 'w'.repeat(107)
const sealed = 's'.repeat(64)
const count = Number.MAX_SAFE_INTEGER

const newcomer: MemberRecord = {
  id,
  name,
  address,
  role: 'storage',
  votes: true,
  leaving: false,
  forced: false,
  replaces: id,
  key
}

/** With all that comes to it of itself: newcomers that are invited, keys, voters, those who were removed. */
export function bytesAtMost(record: ClusterRecord): number {
  const { members, invites } = record
  const open = invites.filter(({ usedBy }) => usedBy === undefined).length
  const newcomers = Math.min(open, MAX_MEMBERS - members.length)
  const note = { id: count, madeMs: count, by: id }
  const voters = Array.from({ length: 2 * MAX_VOTERS }, (_, at) => `${at}`.padEnd(id.length, 'i'))
  return encodedBytes({
    ...record,
    version: count,
    groupFloor: count,
    members: [
      ...members.map(member => (member.role === 'storage' ? { ...member, key } : member)),
      ...Array<MemberRecord>(Math.max(0, newcomers)).fill(newcomer)
    ],
    invites: invites.map(invite => ({ ...invite, usedBy: id })),
    voters: {
      version: count,
      ids: voters,
      since: Object.fromEntries(voters.map(each => [each, count])),
      settled: true
    },
    removed: Array<string>(MAX_REMOVED).fill(id),
    keys: { suite: 1, newest: note, older: Array(MAX_OLDER_KEYS).fill({ ...note, sealed }) },
    recovery: { public: 'p'.repeat(43), madeMs: count }
  })
}

/** For people who are refused (code CLUSTER_FULL). */
export const CLUSTER_FULL =
  'the record of the cluster has no room for it: remove members or tokens of the API that nobody needs, or shorten addresses'

/** Whether `after` may take the place of `before`: there is room for all that may come, or no less than there was. */
export function hasRoom(after: ClusterRecord, before?: ClusterRecord): boolean {
  const bytes = bytesAtMost(after)
  return bytes <= MAX_RECORD_BYTES || (before !== undefined && bytes <= bytesAtMost(before))
}
