/**
 * The record of a cluster: the value of register `cluster`, and the only truth about who belongs to it and whose votes
 * count. `version` grows by one at each change; of two records the one with the higher version is newer. What it is
 * before the first change says `genesis.ts`; the changes are in `changes.ts`.
 *
 * Commands change wishes only (`votes`, `leaving`); every peer works towards them, one step at a time
 * (`node/planning/membership.ts`), so that nothing is left half done when the peer that was asked dies.
 */
import { z } from 'zod'
import { addressSchema, nameSchema } from '../../config/schema.ts'
import type { PeerId } from '../core.ts'
import type { VoterSet } from '../register/voters.ts'
import { type ApiToken, apiTokensSchema } from './api-tokens.ts'
import { type DataKeys, dataKeysSchema, keyHolders, keysFitMembers, sealedSchema } from './keys.ts'
import { type RecoveryNote, recoveryPublicSchema } from './recovery.ts'

export const CLUSTER_KEY = 'cluster'

export interface ClusterRecord {
  /** 32 hex digits: random where a cluster was made by `init`, a hash of the founders' list where a config names them. */
  readonly id: string
  readonly name: string
  readonly version: number
  readonly members: readonly MemberRecord[]
  readonly voters: VoterSet
  /** Cut off for good, the newest last: such an identity never comes back, also not with a token. */
  readonly removed: readonly PeerId[]
  readonly invites: readonly Invite[]
  /** Versions and generations of groups that are made from now on start above this: names of forgotten groups come back. */
  readonly groupFloor: number
  /** What images are sealed under; undefined until the first is made: then it is the cluster's secret. */
  readonly keys?: DataKeys | undefined
  /** What epochs in the second home are sealed to. Absent: there is no such key, and nothing is copied. */
  readonly recovery?: RecoveryNote | undefined
  /** Who may ask what over TCP, the oldest first. Absent: nobody; a member of before there were any refuses a record with some. */
  readonly apiTokens?: readonly ApiToken[] | undefined
}

export interface MemberRecord {
  readonly id: PeerId
  readonly name: string
  readonly address: string
  readonly role: Role
  /** Wanted as a voter; `voters` says whose votes count now. */
  readonly votes: boolean
  /** To be removed as soon as it has no vote, no VM, and no snapshot needs what it stores. */
  readonly leaving: boolean
  /** Removed without waiting for its VMs and its shards. */
  readonly forced: boolean
  /** The member in whose stead it came, which keeps its vote until this one has one. */
  readonly replaces?: PeerId | undefined
  /** The newest data key, wrapped for it; an empty text: nothing can be wrapped for such an id. Undefined until it is given it. */
  readonly key?: string | undefined
}

export type Role = 'storage' | 'witness'

/** A key was made for it, which is in the token; `id` is that key's peer id. */
export interface Invite {
  readonly id: PeerId
  readonly role: Role
  readonly votes: boolean
  readonly replaces?: PeerId | undefined
  /** Wall clock: tokens cross machines. */
  readonly expiresMs: number
  /** Who has joined with it. It stays until it expires, so that the same peer may ask again when the answer was lost. */
  readonly usedBy?: PeerId | undefined
}

/** As many as a config could name so far. With the longest addresses they would not fit a register: `room.ts`. */
export const MAX_MEMBERS = 100
/** Wanted at once: each decision waits for a majority's disks, and four of seven may be lost already. A guess. */
export const MAX_VOTERS = 7
/** Kept to tell a removed peer from a stranger; forgetting one does not let it in. */
export const MAX_REMOVED = 100
export const MAX_INVITES = 20

const peer = z.string().regex(/^[A-Za-z0-9]{1,60}$/)
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const role = z.enum(['storage', 'witness'])

const memberSchema = z.strictObject({
  id: peer,
  name: nameSchema,
  address: addressSchema,
  role,
  votes: z.boolean(),
  leaving: z.boolean(),
  forced: z.boolean(),
  replaces: peer.optional(),
  key: sealedSchema.optional()
})

const votersSchema = z.strictObject({
  version: count.min(1),
  // One more than wanted while one replaces another, and as many as a last wish left over.
  ids: z
    .array(peer)
    .min(1)
    .max(2 * MAX_VOTERS),
  since: z.record(peer, count.min(1)),
  settled: z.boolean()
})

const inviteSchema = z.strictObject({
  id: peer,
  role,
  votes: z.boolean(),
  replaces: peer.optional(),
  expiresMs: z.number().min(0).max(Number.MAX_SAFE_INTEGER),
  usedBy: peer.optional()
})

const recoveryNoteSchema = z.strictObject({ public: recoveryPublicSchema, madeMs: count })

export const clusterIdSchema = z.string().regex(/^[0-9a-f]{32}$/)

export const clusterRecordSchema = z
  .strictObject({
    id: clusterIdSchema,
    name: nameSchema,
    version: count.min(1),
    members: z.array(memberSchema).min(1).max(MAX_MEMBERS),
    voters: votersSchema,
    removed: z.array(peer).max(MAX_REMOVED),
    invites: z.array(inviteSchema).max(MAX_INVITES),
    groupFloor: count,
    keys: dataKeysSchema.optional(),
    recovery: recoveryNoteSchema.optional(),
    apiTokens: apiTokensSchema.optional()
  })
  .refine(isConsistent, 'members and voters that contradict each other')
  .refine(keysFitMembers, 'data keys for others than storage members')

function isConsistent({ members, voters }: ClusterRecord): boolean {
  const ids = new Set(members.map(member => member.id))
  const distinct = ids.size === members.length && new Set(members.map(member => member.name)).size === members.length
  const sinces = Object.entries(voters.since)
  return (
    distinct &&
    new Set(voters.ids).size === voters.ids.length &&
    voters.ids.every(id => ids.has(id)) &&
    sinces.length === voters.ids.length &&
    sinces.every(([id, since]) => voters.ids.includes(id) && since <= voters.version)
  )
}

/** The value of register `cluster`, or null before the first change. Throws on any other shape. */
export const parseClusterRecord = (value: unknown): ClusterRecord | null =>
  value === null || value === undefined ? null : clusterRecordSchema.parse(value)

export const memberById = (record: ClusterRecord, id: PeerId): MemberRecord | undefined =>
  record.members.find(member => member.id === id)

/** By name or by id, as people name them. */
export const findMember = (record: ClusterRecord, nameOrId: string): MemberRecord | undefined =>
  record.members.find(member => member.name === nameOrId) ?? memberById(record, nameOrId)

/** Members that are to vote in the end. */
export const wantedVoters = (record: ClusterRecord): MemberRecord[] =>
  record.members.filter(member => member.votes && !member.leaving)

/** Where new VMs and new shards may go: to storage members that have been given the data keys. */
export const placeable = (record: ClusterRecord): PeerId[] =>
  keyHolders(record).filter(id => memberById(record, id)?.leaving === false)

/** Those that may run VMs until they go: to take them away would need their leases, which they renew. */
export const leavingHosts = (record: ClusterRecord): PeerId[] =>
  record.members.filter(member => member.role === 'storage' && member.leaving).map(member => member.id)
