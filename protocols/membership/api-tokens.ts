/**
 * Tokens of the API: who may ask what of any peer over TCP. The cluster's record has their hashes only, so that whoever reads a
 * disk or a message can ask nothing. A token is 32 random bytes, so one round of SHA-256 is enough: slow hashes are for
 * what people make up (NIST SP 800-63B, 5.1.1.2 and 5.1.2.2). Pure; randomness and the time come from outside.
 *
 *     token = "diapause_" | base64url of 32 bytes
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { nameSchema } from '../../config/schema.ts'

/**
 * Each may what those before it may. view: look at everything but what VMs hold in RAM, on disks and consoles. operate: make
 * what is there do its work (snapshots, restores, drills, consoles). admin: what defines or ends something, names files or
 * commands of a host, or gives others rights.
 */
export const API_ROLES = ['view', 'operate', 'admin'] as const
export type ApiRole = (typeof API_ROLES)[number]

export interface ApiToken {
  readonly name: string
  readonly role: ApiRole
  /** base64url of 32 bytes. */
  readonly hash: string
  /** Wall clocks: of whoever made it, and of whoever is asked. */
  readonly madeMs: number
  readonly expiresMs?: number | undefined
}

/** A guess: people and programs of a company. Fewer where members are many and have long addresses (`room.ts`). */
export const MAX_API_TOKENS = 50
export const API_TOKEN_BYTES = 32
const PREFIX = 'diapause_'
const HASH_BYTES = 32

const ms = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)

export const apiTokenSchema = z.strictObject({
  name: nameSchema,
  role: z.enum(API_ROLES),
  hash: z.string().regex(/^[A-Za-z0-9_-]{43}$/),
  madeMs: ms,
  expiresMs: ms.optional()
})

export const apiTokensSchema = z
  .array(apiTokenSchema)
  .max(MAX_API_TOKENS)
  .refine(tokens => new Set(tokens.map(({ name }) => name)).size === tokens.length, 'tokens of different names')

/** `secret`: API_TOKEN_BYTES that are used for nothing else. */
export const apiTokenText = (secret: Uint8Array): string => `${PREFIX}${Buffer.from(secret).toString('base64url')}`

const digestOf = (text: string): Buffer => createHash('sha256').update('diapause api token\n').update(text).digest()

export const apiTokenHash = (text: string): string => digestOf(text).toString('base64url')

/** Whose token `text` is at `nowMs`. Takes as long whichever it is, or none: each hash is compared, and each whole. */
export function findApiToken(tokens: readonly ApiToken[], text: string, nowMs: number): ApiToken | undefined {
  const given = digestOf(text)
  let found: ApiToken | undefined
  for (const token of tokens) {
    const same = timingSafeEqual(hashBytes(token), given)
    if (same) found = token
  }
  return found === undefined || hasExpired(found, nowMs) ? undefined : found
}

function hashBytes({ hash }: ApiToken): Buffer {
  const bytes = Buffer.alloc(HASH_BYTES)
  bytes.write(hash, 'base64url')
  return bytes
}

export const hasExpired = ({ expiresMs }: Pick<ApiToken, 'expiresMs'>, nowMs: number): boolean =>
  expiresMs !== undefined && expiresMs <= nowMs

/** Whether who has `role` may ask what takes `needed`. */
export const roleAllows = (role: ApiRole, needed: ApiRole): boolean =>
  API_ROLES.indexOf(role) >= API_ROLES.indexOf(needed)
