/**
 * The token that `invite` prints: what a new peer needs to find the cluster, to know that it is the right one, and to be
 * let in. Whoever has it may join once, until it expires, so it is to be kept like a password.
 *
 *     base64url of: u8 version | MessagePack of the fields | first 4 bytes of SHA-256 of all before (a copy cut short)
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { addressSchema, nameSchema } from '../../config/schema.ts'
import { UsageError } from '../../node/errors.ts'
import type { PeerId } from '../core.ts'
import { packMessage, unpackMessage } from '../msgpack.ts'
import { clusterIdSchema } from './record.ts'

export interface Token {
  readonly cluster: { readonly id: string; readonly name: string }
  /** The 32 bytes that the invitation's Ed25519 key is made of. */
  readonly seed: Uint8Array
  readonly expiresMs: number
  /** Members to ask, the best first; their ids prove that they are who answers. */
  readonly members: readonly { readonly id: PeerId; readonly address: string }[]
}

export const TOKEN_VERSION = 1
/** So many members stand in a token: some of them may be down when it is used. A guess between safety and its length. */
export const MAX_TOKEN_MEMBERS = 5
/** Far longer than a token with five members at DNS names. */
const MAX_TOKEN_CHARACTERS = 4_096
const CHECK_BYTES = 4

const tokenSchema = z.strictObject({
  cluster: z.strictObject({ id: clusterIdSchema, name: nameSchema }),
  seed: z.instanceof(Uint8Array).refine(bytes => bytes.length === 32),
  expiresMs: z.number().min(0).max(Number.MAX_SAFE_INTEGER),
  members: z
    .array(z.strictObject({ id: z.string().regex(/^[A-Za-z0-9]{1,60}$/), address: addressSchema }))
    .min(1)
    .max(MAX_TOKEN_MEMBERS)
})

export function encodeToken(token: Token): string {
  const { cluster, seed, expiresMs, members } = token
  const body = Buffer.concat([
    Uint8Array.of(TOKEN_VERSION),
    packMessage({ cluster, seed, expiresMs, members: members.slice(0, MAX_TOKEN_MEMBERS) })
  ])
  return Buffer.concat([body, checkOf(body)]).toString('base64url')
}

/** UsageError TOKEN_INVALID: damaged, of another version, or no token. */
export function decodeToken(text: string): Token {
  const trimmed = text.trim()
  if (trimmed.length > MAX_TOKEN_CHARACTERS || !/^[A-Za-z0-9_-]+$/.test(trimmed)) throw invalid('it is no token')
  const bytes = Buffer.from(trimmed, 'base64url')
  const body = bytes.subarray(0, -CHECK_BYTES)
  if (body.length < 2 || !checkOf(body).equals(bytes.subarray(-CHECK_BYTES))) {
    throw invalid('it was not copied whole')
  }
  if (body[0] !== TOKEN_VERSION) {
    throw invalid(
      `it is of version ${body[0]}, this diapause knows ${TOKEN_VERSION}: use the same version on all peers`
    )
  }
  try {
    const token = tokenSchema.parse(unpackMessage(body.subarray(1), { depth: 4, tokens: 64 }))
    return { ...token, seed: new Uint8Array(token.seed) }
  } catch (cause) {
    throw invalid('it is no token', cause)
  }
}

const checkOf = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest().subarray(0, CHECK_BYTES)

const invalid = (why: string, cause?: unknown): UsageError =>
  new UsageError('TOKEN_INVALID', `this token cannot be used: ${why}; copy all that \`diapause invite\` printed`, {
    cause
  })
