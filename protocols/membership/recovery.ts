/**
 * The recovery key of a cluster: what opens its second home when the cluster is gone. It is the 32 random bytes of an X25519
 * private key (RFC 7748), printed once and kept by a person; the cluster's record has the public part, to which any peer seals
 * without being able to open. Sealed is as in ECIES: X25519 between a key pair made for this one sealing and the public part;
 * shared secret and both public keys go through HKDF-SHA256 (RFC 5869) to a key for AES-256-GCM that is used once; what it is
 * for is in HKDF's info and authenticated, and so is what stands beside it.
 *
 *     sealed = 32 bytes public key of the sealing | ciphertext | 16 bytes tag
 *
 * Printed, the key is its bytes and the first 3 of a SHA-256 of them in Crockford's base 32, which has no letters that look
 * like digits, in 14 groups of four. The public part is no secret of the cluster's, but who does not know it cannot
 * make anything that the key opens: so it is nowhere in the second home, only a hash of it. Pure; randomness comes from outside.
 */
import { createHash, hkdfSync } from 'node:crypto'
import { x25519 } from '@noble/curves/ed25519.js'
import { z } from 'zod'
import { UsageError } from '../../node/errors.ts'
import { open, seal, TAG_BYTES } from './key-box.ts'

export const RECOVERY_KEY_BYTES = 32
const CHECK_BYTES = 3
/** Crockford's: no I, L, O and U. */
const DIGITS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ'
const TEXT_DIGITS = ((RECOVERY_KEY_BYTES + CHECK_BYTES) * 8) / 5

export const recoveryPublicSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{43}$/)
  .refine(isPoint, 'a public key')

/** Of the cluster's record. */
export interface RecoveryNote {
  /** base64url. */
  readonly public: string
  /** Wall clock of whoever made it. */
  readonly madeMs: number
}

export function recoveryKeyText(secret: Uint8Array): string {
  const bytes = Buffer.concat([secret, checkOf(secret)])
  const bits = [...bytes].map(byte => byte.toString(2).padStart(8, '0')).join('')
  const digits = (bits.match(/.{5}/g) ?? []).map(five => DIGITS[Number.parseInt(five, 2)]).join('')
  return (digits.match(/.{4}/g) ?? []).join('-')
}

/** Whatever case, blanks and dashes it was typed with. UsageError RECOVERY_KEY. */
export function parseRecoveryKey(text: string): Uint8Array {
  const digits = text.toUpperCase().replace(/[\s-]/g, '').replace(/O/g, '0').replace(/[IL]/g, '1')
  if (digits.length !== TEXT_DIGITS)
    throw wrong(`it has ${digits.length} letters and digits, and must have ${TEXT_DIGITS}`)
  if (!/^[0-9A-HJKMNP-TV-Z]*$/.test(digits)) throw wrong('it has characters that are in none')
  const bits = digits
    .split('')
    .map(digit => DIGITS.indexOf(digit).toString(2).padStart(5, '0'))
    .join('')
  const bytes = Buffer.from((bits.match(/.{8}/g) ?? []).map(eight => Number.parseInt(eight, 2)))
  const secret = bytes.subarray(0, RECOVERY_KEY_BYTES)
  if (!checkOf(secret).equals(bytes.subarray(RECOVERY_KEY_BYTES))) throw wrong('a letter or digit of it is wrong')
  return new Uint8Array(secret)
}

const checkOf = (secret: Uint8Array): Buffer =>
  createHash('sha256').update('diapause recovery key').update(secret).digest().subarray(0, CHECK_BYTES)

const wrong = (why: string) => new UsageError('RECOVERY_KEY', `this is no recovery key: ${why}`)

/** Something can be sealed to it: it is no point at which everybody's secret is the same. */
function isPoint(publicPart: string): boolean {
  try {
    x25519.getSharedSecret(
      new Uint8Array(RECOVERY_KEY_BYTES).fill(1),
      new Uint8Array(Buffer.from(publicPart, 'base64url'))
    )
    return true
  } catch {
    return false
  }
}

export const recoveryPublic = (secret: Uint8Array): string =>
  Buffer.from(x25519.getPublicKey(secret)).toString('base64url')

/** 16 hex digits that tell one key from another. */
export const recoveryName = (publicPart: string): string =>
  createHash('sha256').update('diapause recovery public').update(publicPart).digest('hex').slice(0, 16)

/** `once`: 32 random bytes that are used for nothing else. `beside`: authenticated with it. */
export function sealForRecovery(
  publicPart: string,
  { context, beside, once }: { readonly context: string; readonly beside: Uint8Array; readonly once: Uint8Array },
  plain: Uint8Array
): Uint8Array {
  const recipient = new Uint8Array(Buffer.from(publicPart, 'base64url'))
  const point = x25519.getPublicKey(once)
  const key = keyOf(x25519.getSharedSecret(once, recipient), point, recipient, context)
  return Buffer.concat([point, seal(key, aadOf(context, beside), plain)])
}

/** Undefined where it does not open. */
export function openWithRecovery(
  secret: Uint8Array,
  { context, beside }: { readonly context: string; readonly beside: Uint8Array },
  sealed: Uint8Array
): Uint8Array | undefined {
  if (sealed.length < RECOVERY_KEY_BYTES + TAG_BYTES) return undefined
  const point = sealed.slice(0, RECOVERY_KEY_BYTES)
  let shared: Uint8Array
  try {
    shared = x25519.getSharedSecret(secret, point)
  } catch {
    return undefined // a point at which everybody's secret is the same
  }
  const key = keyOf(shared, point, x25519.getPublicKey(secret), context)
  return open(key, aadOf(context, beside), sealed.subarray(RECOVERY_KEY_BYTES))
}

const keyOf = (shared: Uint8Array, point: Uint8Array, recipient: Uint8Array, context: string): Uint8Array =>
  new Uint8Array(hkdfSync('sha256', shared, Buffer.concat([point, recipient]), context, 32))

const aadOf = (context: string, beside: Uint8Array): string =>
  `${context}\n${createHash('sha256').update(beside).digest('hex')}`
