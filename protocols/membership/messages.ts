/**
 * What members say to each other about their cluster's record (control channel, protocol "membership"). Hints: truth is
 * in register `cluster`.
 *
 * | message | the receiver must |
 * |---|---|
 * | record  | take the record if it is of its cluster and newer than its own |
 * | ask     | answer with its own record if that is newer than `version` |
 */
import { z } from 'zod'
import { type ClusterRecord, clusterRecordSchema } from './record.ts'

export const MEMBERSHIP_PROTOCOL = 'membership'

export type MembershipMessage =
  | { readonly kind: 'record'; readonly record: ClusterRecord }
  | { readonly kind: 'ask'; readonly version: number }

const messageSchema = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('record'), record: clusterRecordSchema }),
  z.strictObject({ kind: z.literal('ask'), version: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER) })
])

export const parseMembershipMessage = (message: unknown): MembershipMessage => messageSchema.parse(message)
