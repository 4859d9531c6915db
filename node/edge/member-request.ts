/** Requests about members, checked. Pure. */
import { z } from 'zod'
import { addressSchema } from '../../config/schema.ts'
import { check, problemText } from '../../config/words.ts'
import { UsageError } from '../errors.ts'
import { DEFAULT_EXPIRY_MINUTES, type InviteRequest, type MemberWish } from './cluster-view.ts'

export const inviteSchema = z.strictObject({
  role: z.enum(['storage', 'witness']).default('storage'),
  votes: z.boolean().default(true),
  replaces: z.string().min(1).max(100).optional(),
  expiresMinutes: z.number().int().min(1).max(10_080).default(DEFAULT_EXPIRY_MINUTES)
})

export const wishSchema = z.strictObject({ votes: z.boolean().optional(), address: addressSchema.optional() })

export const leaveSchema = z.strictObject({ force: z.boolean().default(false) })

/** UsageError MEMBER_REQUEST lists every problem, as the others here. */
export const parseInviteRequest = (raw: unknown): InviteRequest => checked(inviteSchema, raw)

export const parseMemberWish = (raw: unknown): MemberWish => checked(wishSchema, raw)

export const parseLeaveRequest = (raw: unknown): { force: boolean } => checked(leaveSchema, raw)

function checked<T>(schema: z.ZodType<T>, raw: unknown): T {
  const shape = check(schema, raw)
  if (shape.ok) return shape.value
  const { problems } = shape
  throw new UsageError('MEMBER_REQUEST', problems.map(problemText).join('\n'), { details: { problems } })
}
