/**
 * How a peer becomes a member. It connects under the invitation's key, which members admit to the join channel only, and
 * sends one request; the member that is asked changes the cluster's register and answers with all that a member needs.
 *
 * The request is signed with the newcomer's own key over the cluster and the invitation: nobody can make a member of an
 * id whose key he does not hold. The answer is believed because the connection proves that a member of the token gave it.
 */
import { z } from 'zod'
import { addressSchema, nameSchema } from '../../config/schema.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { PeerId } from '../core.ts'
import { packMessage, unpackMessage } from '../msgpack.ts'
import { admit, type Newcomer } from './changes.ts'
import {
  type ClusterRecord,
  clusterIdSchema,
  clusterRecordSchema,
  findMember,
  type Invite,
  MAX_MEMBERS,
  memberById
} from './record.ts'
import { CLUSTER_FULL, hasRoom } from './room.ts'

export interface JoinRequest extends Newcomer {
  readonly cluster: string
  /** Of `joinProof`, by the key of `id`. */
  readonly signature: Uint8Array
}

export type JoinReply =
  | {
      readonly kind: 'welcome'
      readonly record: ClusterRecord
      /** Data key 0, while there is no other: later ones come with the record, wrapped, and this one under them. */
      readonly secret?: Uint8Array | undefined
      /** Sections of the config that all members should have alike, as the member that answers has them. */
      readonly settings: Readonly<Record<string, unknown>>
    }
  | { readonly kind: 'refused'; readonly code: string; readonly message: string }

export const JOIN_VERSION = 1

const requestSchema = z.strictObject({
  version: z.literal(JOIN_VERSION),
  cluster: clusterIdSchema,
  id: z.string().regex(/^[A-Za-z0-9]{1,60}$/),
  name: nameSchema,
  address: addressSchema,
  signature: z.instanceof(Uint8Array).refine(bytes => bytes.length <= 128)
})

const replySchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('welcome'),
    record: clusterRecordSchema,
    secret: z
      .instanceof(Uint8Array)
      .refine(bytes => bytes.length === 32)
      .optional(),
    settings: z.record(z.string().max(40), z.unknown())
  }),
  z.strictObject({
    kind: z.literal('refused'),
    code: z.string().regex(/^[A-Z_]{1,40}$/),
    message: z.string().max(1_000)
  })
])

/** What the newcomer signs. */
export const joinProof = (cluster: string, invite: PeerId, id: PeerId): Uint8Array =>
  new TextEncoder().encode(['diapause join 1', cluster, invite, id].join('\n'))

export const encodeJoinRequest = (request: JoinRequest): Uint8Array =>
  packMessage({ version: JOIN_VERSION, ...request })

/** JOIN_MESSAGE for anything else. */
export function parseJoinRequest(bytes: Uint8Array): JoinRequest {
  try {
    const { version: _, signature, ...request } = requestSchema.parse(unpackMessage(bytes, { depth: 2, tokens: 64 }))
    return { ...request, signature: new Uint8Array(signature) }
  } catch (cause) {
    throw new DiapauseError('JOIN_MESSAGE', 'this is no request to join that this version of diapause knows', { cause })
  }
}

export const encodeJoinReply = (reply: JoinReply): Uint8Array => packMessage(reply)

/** JOIN_MESSAGE for anything else. */
export function parseJoinReply(bytes: Uint8Array): JoinReply {
  try {
    const reply = replySchema.parse(unpackMessage(bytes, { depth: 16, tokens: 65_536 }))
    return reply.kind === 'welcome' && reply.secret ? { ...reply, secret: new Uint8Array(reply.secret) } : reply
  } catch (cause) {
    throw new DiapauseError('JOIN_MESSAGE', 'the member gave an answer that this version of diapause does not know', {
      cause
    })
  }
}

// ---------------------------------------------------------------------------------------------- who may

export type Verdict =
  | { readonly kind: 'admit'; readonly invite: Invite }
  /** It is a member already by this very invitation: the answer is given again. */
  | { readonly kind: 'admitted' }
  | { readonly kind: 'refuse'; readonly code: string; readonly message: string }

/** `invite`: the key under which the newcomer connected. Its signature has been checked. */
export function judgeJoin(
  record: ClusterRecord,
  invite: PeerId,
  request: Newcomer & { cluster: string },
  wallMs: number
): Verdict {
  const found = record.invites.find(each => each.id === invite)
  const refuse = (code: string, message: string): Verdict => ({ kind: 'refuse', code, message })
  if (request.cluster !== record.id) return refuse('OTHER_CLUSTER', 'the token is of another cluster')
  if (found === undefined) {
    return refuse('INVITE_UNKNOWN', 'the token has expired or was withdrawn: make another with `diapause invite`')
  }
  if (found.usedBy === request.id) {
    return memberById(record, request.id) === undefined ? refuseRemoved(request.id) : { kind: 'admitted' }
  }
  if (found.usedBy !== undefined) {
    const name = memberById(record, found.usedBy)?.name ?? found.usedBy
    return refuse(
      'INVITE_USED',
      `the token has been used by ${name}: a token works once, make another with \`diapause invite\``
    )
  }
  if (found.expiresMs <= wallMs) {
    return refuse('INVITE_EXPIRED', 'the token has expired: make another with `diapause invite`')
  }
  if (record.removed.includes(request.id)) return refuseRemoved(request.id)
  const { id, name, address } = request
  if (memberById(record, id) !== undefined) return refuse('MEMBER_ALREADY', `${id} is a member already`)
  if (record.members.length >= MAX_MEMBERS)
    return refuse('MEMBERS_FULL', `a cluster has at most ${MAX_MEMBERS} members`)
  const others = record.members.filter(member => member.id !== found.replaces)
  const named = findMember({ ...record, members: others }, name)
  if (named !== undefined) return refuse('NAME_TAKEN', `there is a member named ${name} already: choose another --name`)
  const there = others.find(member => member.address === address)
  if (there !== undefined) {
    return refuse(
      'ADDRESS_TAKEN',
      `${there.name} has the address ${address}: give the one at which this peer is reached`
    )
  }
  // Room was kept for whom it invites, unless a member of an older version made it.
  const joined = admit(found, request)(record)
  if (joined !== undefined && !hasRoom(joined)) return refuse('CLUSTER_FULL', CLUSTER_FULL)
  return { kind: 'admit', invite: found }
}

const refuseRemoved = (id: PeerId): Verdict => ({
  kind: 'refuse',
  code: 'MEMBER_REMOVED',
  message: `${id} was removed from the cluster: a removed identity never comes back, use a new --data-dir`
})

/** What a peer that was removed while it was down has been told: by whom, and of which cluster. */
export interface Removal {
  readonly cluster: string
  readonly by: string
}

export const removalText = ({ cluster, by }: Removal): string =>
  `this identity was removed from cluster ${cluster}, says ${by}: stop this peer, and join anew with a new data folder ` +
  '(diapause join TOKEN)'
