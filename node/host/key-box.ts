/**
 * How a data key is wrapped for a member: X25519 between a key pair that is made for this one wrapping and the member's own,
 * which is its Ed25519 identity on the other form of the curve (RFC 7748, section 4.1; one key for signatures and for key
 * exchange: Thormarker, "On using the same key pair for Ed25519 and an X25519 based KEM", 2021). The shared secret and both
 * public keys go through HKDF-SHA256 to a key for AES-256-GCM that is used once; cluster, number of the key and recipient are in
 * HKDF's info and authenticated.
 *
 *     wrapped = base64url(32 bytes public key of the wrapping | 32 bytes data key, sealed | 16 bytes tag)
 */
import { createPrivateKey, createPublicKey, diffieHellman, hkdfSync, type KeyObject, randomBytes } from 'node:crypto'
import { ed25519 } from '@noble/curves/ed25519.js'
import type { PeerId } from '../../protocols/core.ts'
import { DATA_KEY_BYTES, type KeyBox, open, seal, TAG_BYTES } from '../../protocols/membership/key-box.ts'
import { publicKeyOf } from './identity.ts'

const POINT_BYTES = 32
/** What stands before the 32 bytes of an X25519 key in PKCS #8 and in SPKI (RFC 8410). */
const PKCS8 = Buffer.from('302e020100300506032b656e04220420', 'hex')
const SPKI = Buffer.from('302a300506032b656e032100', 'hex')

/** `identity`: the 32 bytes that the Ed25519 key of `self` is made of. */
export function createKeyBox(self: PeerId, identity: Uint8Array): KeyBox {
  const secret = ed25519.utils.toMontgomerySecret(identity)
  const own = publicOf(secret)
  return {
    fresh: () => new Uint8Array(randomBytes(DATA_KEY_BYTES)),
    wrap(to, key, context) {
      const recipient = exchangeKeyOf(to)
      if (recipient === undefined) return undefined
      const once = new Uint8Array(randomBytes(POINT_BYTES))
      const point = publicOf(once)
      const sealing = wrappingKey(once, recipient, { point, recipient, info: infoOf(context, to) })
      if (sealing === undefined) return undefined
      return Buffer.concat([point, seal(sealing, infoOf(context, to), key)]).toString('base64url')
    },
    unwrap(wrapped, context) {
      const bytes = Buffer.from(wrapped, 'base64url')
      if (bytes.length !== POINT_BYTES + DATA_KEY_BYTES + TAG_BYTES) return undefined
      const point = bytes.subarray(0, POINT_BYTES)
      const opening = wrappingKey(secret, point, { point, recipient: own, info: infoOf(context, self) })
      return opening && open(opening, infoOf(context, self), bytes.subarray(POINT_BYTES))
    }
  }
}

const infoOf = (context: string, recipient: PeerId): string => `${context}\n${recipient}`

/** A member's public key for the exchange. */
function exchangeKeyOf(id: PeerId): Uint8Array | undefined {
  const bytes = publicKeyOf(id)
  try {
    return bytes && ed25519.utils.toMontgomery(bytes)
  } catch {
    return undefined // it need be no point of the curve
  }
}

const privateKeyOf = (secret: Uint8Array): KeyObject =>
  createPrivateKey({ key: Buffer.concat([PKCS8, secret]), format: 'der', type: 'pkcs8' })

const publicOf = (secret: Uint8Array): Uint8Array =>
  createPublicKey(privateKeyOf(secret)).export({ format: 'der', type: 'spki' }).subarray(SPKI.length)

/** Undefined where the other's key is a point at which everybody's secret is the same. */
function wrappingKey(
  secret: Uint8Array,
  other: Uint8Array,
  { point, recipient, info }: { point: Uint8Array; recipient: Uint8Array; info: string }
): Uint8Array | undefined {
  let shared: Uint8Array
  try {
    shared = diffieHellman({
      privateKey: privateKeyOf(secret),
      publicKey: createPublicKey({ key: Buffer.concat([SPKI, other]), format: 'der', type: 'spki' })
    })
  } catch {
    return undefined
  }
  return new Uint8Array(hkdfSync('sha256', shared, Buffer.concat([point, recipient]), info, 32))
}
