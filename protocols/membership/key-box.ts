/**
 * What hands a member needs for data keys (suite 1; made of its identity in `node/host/key-box.ts`), and how one data key is
 * sealed under another: AES-256-GCM with a nonce of zeros, under a key that HKDF-SHA256 (RFC 5869) makes of the other for this
 * one use. Cluster and numbers of the keys are in HKDF's info and authenticated: what is sealed for one place opens in no other.
 *
 *     sealed = base64url(32 bytes data key, sealed | 16 bytes tag)
 */
import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto'
import type { PeerId } from '../core.ts'

export const KEY_SUITE = 1
export const DATA_KEY_BYTES = 32
export const TAG_BYTES = 16

const NONCE = Buffer.alloc(12)

/** One member's hands on data keys; its randomness comes from outside. */
export interface KeyBox {
  /** A new data key. */
  fresh(): Uint8Array
  /** Undefined where nothing can be wrapped for this id: it is no Ed25519 key. */
  wrap(to: PeerId, key: Uint8Array, context: string): string | undefined
  /** What was wrapped for this member; undefined where it does not open. */
  unwrap(wrapped: string, context: string): Uint8Array | undefined
}

/** `key` under another data key, which must never seal another one in this context. */
export const sealUnder = (under: Uint8Array, context: string, key: Uint8Array): string =>
  Buffer.from(seal(subkey(under, context), context, key)).toString('base64url')

/** Undefined where it does not open. */
export function openUnder(under: Uint8Array, context: string, sealed: string): Uint8Array | undefined {
  const bytes = Buffer.from(sealed, 'base64url')
  return bytes.length === DATA_KEY_BYTES + TAG_BYTES ? open(subkey(under, context), context, bytes) : undefined
}

const subkey = (under: Uint8Array, context: string): Uint8Array =>
  new Uint8Array(hkdfSync('sha256', under, '', context, 32))

/** Ciphertext and tag. `key` must seal nothing else. */
export function seal(key: Uint8Array, context: string, plain: Uint8Array): Uint8Array {
  const cipher = createCipheriv('aes-256-gcm', key, NONCE, { authTagLength: TAG_BYTES })
  cipher.setAAD(Buffer.from(context))
  const body = cipher.update(plain)
  cipher.final()
  return Buffer.concat([body, cipher.getAuthTag()])
}

/** Undefined where it does not open. */
export function open(key: Uint8Array, context: string, sealed: Uint8Array): Uint8Array | undefined {
  const decipher = createDecipheriv('aes-256-gcm', key, NONCE, { authTagLength: TAG_BYTES })
  decipher.setAAD(Buffer.from(context))
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES))
  const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES))
  try {
    decipher.final()
  } catch {
    return undefined
  }
  return new Uint8Array(plain)
}
