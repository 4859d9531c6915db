/** Data keys wrapped without mathematics: whom a text is for stands beside the key, and no other box opens it. */
import { createHash } from 'node:crypto'
import type { PeerId } from '../../protocols/core.ts'
import { DATA_KEY_BYTES, type KeyBox } from '../../protocols/membership/key-box.ts'

/** Names of simulated hosts are no Ed25519 keys, and what cannot be guessed is not what is looked for. */
export function plainBox(self: PeerId, random: () => number): KeyBox {
  return {
    fresh: () => Uint8Array.from({ length: DATA_KEY_BYTES }, () => Math.floor(random() * 256)),
    wrap: (to, key, context) => Buffer.concat([labelOf(to, context), key]).toString('base64url'),
    unwrap(wrapped, context) {
      const bytes = Buffer.from(wrapped, 'base64url')
      const label = labelOf(self, context)
      return bytes.subarray(0, label.length).equals(label) ? new Uint8Array(bytes.subarray(label.length)) : undefined
    }
  }
}

const labelOf = (to: PeerId, context: string): Buffer =>
  createHash('sha256').update(`${to}\n${context}`).digest().subarray(0, 16)
