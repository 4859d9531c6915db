/** The API's tokens: what the edge asks of a peer about them, and shows; part of `PeerView`. */
import { z } from 'zod'
import { nameSchema } from '../../config/schema.ts'
import { check, problemText } from '../../config/words.ts'
import { API_ROLES, type ApiRole, type ApiToken } from '../../protocols/membership/api-tokens.ts'
import { UsageError } from '../errors.ts'

export interface TokenView {
  /** Also those that have expired; the oldest first. */
  list(): readonly TokenStatus[]
  /** Resolves when all peers that hear of it will take it. TOKEN_EXISTS, TOKENS_FULL, MEMBER_OLDER. */
  make(wish: TokenWish): Promise<MadeToken>
  /** A peer that is cut off from the others takes it until it hears of this. TOKEN_UNKNOWN. */
  remove(name: string): Promise<void>
  /** Who has this token and what it is good for, as this peer knows it now. */
  holderOf(token: string): TokenHolder | undefined
}

export type TokenHolder = Pick<ApiToken, 'name' | 'role' | 'expiresMs'>

/** Times are wall clocks in milliseconds. */
export type TokenStatus = Omit<ApiToken, 'hash'> & { readonly expired: boolean }

export interface MadeToken extends TokenHolder {
  /** Told once; nobody can tell it again. */
  readonly token: string
}

/** Who asks, as `GET /v1/whoami` tells it. */
export interface Asker {
  /** Of the token; "local": through the socket, which takes none. */
  readonly name: string
  readonly role: ApiRole
  readonly expiresMs?: number | undefined
}

/** Ten years. */
export const MAX_TOKEN_DAYS = 3_650

export const tokenWishSchema = z.strictObject({
  name: nameSchema,
  role: z.enum(API_ROLES),
  /** Absent: until it is removed. */
  expiresDays: z.number().int().min(1).max(MAX_TOKEN_DAYS).optional()
})
export type TokenWish = z.output<typeof tokenWishSchema>

/** UsageError TOKEN_REQUEST lists every problem. */
export function parseTokenWish(raw: unknown): TokenWish {
  const shape = check(tokenWishSchema, raw)
  if (shape.ok) return shape.value
  const { problems } = shape
  throw new UsageError('TOKEN_REQUEST', problems.map(problemText).join('\n'), { details: { problems } })
}
