import { randomBytes } from 'node:crypto'
import { pureJsCrypto } from '@chainsafe/libp2p-noise'
import fc from 'fast-check'
import { Uint8ArrayList } from 'uint8arraylist'
import { describe, expect, it } from 'vitest'
import { noiseCrypto } from '../../protocols/noise-crypto.ts'

/** A list of libp2p's own version of uint8arraylist. */
type Sealable = Parameters<typeof noiseCrypto.chaCha20Poly1305Encrypt>[0]

const [key, otherKey, nonce] = [randomBytes(32), randomBytes(32), randomBytes(12)]
/** Nothing in a transport message, a hash in the handshake (Noise, section 5.2). */
const additional = fc.constantFrom(new Uint8Array(0), new Uint8Array(randomBytes(32)))
const text = fc
  .oneof(fc.integer({ min: 0, max: 500 }), fc.integer({ min: 390, max: 410 }), fc.constant(65_519))
  .map(length => new Uint8Array(randomBytes(length)))

/** In up to three pieces, as it comes from yamux and from a socket. */
const inPieces = (bytes: Uint8Array, at: number): Sealable =>
  new Uint8ArrayList(bytes.subarray(0, at), bytes.subarray(at, 2 * at), bytes.subarray(2 * at)) as object as Sealable

describe('the cipher of Noise', () => {
  it('seals as the plain implementation does, in one piece and in several', () => {
    fc.assert(
      fc.property(text, additional, fc.nat(200), (plain, ad, at) => {
        const expected = pureJsCrypto.chaCha20Poly1305Encrypt(plain, nonce, ad, key).subarray()
        for (const bytes of [plain, inPieces(plain, at)]) {
          const sealed = noiseCrypto.chaCha20Poly1305Encrypt(bytes, nonce, ad, key)
          expect(Buffer.compare(sealed.subarray(), expected)).toBe(0)
        }
      }),
      { numRuns: 60 }
    )
  })

  it('opens what the plain implementation sealed, and nothing that was changed or has another key', () => {
    fc.assert(
      fc.property(text, additional, fc.nat(200), fc.nat(), (plain, ad, at, wrongAt) => {
        const sealed = pureJsCrypto.chaCha20Poly1305Encrypt(plain, nonce, ad, key).subarray()
        const opened = noiseCrypto.chaCha20Poly1305Decrypt(inPieces(sealed, at), nonce, ad, key)
        expect(Buffer.compare(opened.subarray(), plain)).toBe(0)
        expect(() => noiseCrypto.chaCha20Poly1305Decrypt(sealed, nonce, ad, otherKey)).toThrow()
        const wrong = Uint8Array.from(sealed, (byte, i) => (i === wrongAt % sealed.length ? byte ^ 1 : byte))
        expect(() => noiseCrypto.chaCha20Poly1305Decrypt(wrong, nonce, ad, key)).toThrow()
      }),
      { numRuns: 60 }
    )
  })
})
