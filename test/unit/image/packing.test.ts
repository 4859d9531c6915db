import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { looksRandom, packBest, unpackBest } from '../../../node/image/packing.ts'
import { pack } from '../../../node/image/seal.ts'

const EXTENT = 65_536

/** 64 KiB of what RAM holds, more or less. */
const kinds: Record<string, () => Uint8Array> = {
  'zeros with few bytes': () => new Uint8Array(EXTENT).map((_, i) => (i % 512 === 0 ? i >>> 9 : 0)),
  counters: () => new Uint8Array(Uint32Array.from({ length: EXTENT / 4 }, (_, i) => i * 7).buffer),
  text: () => Buffer.from('It was the best of times, it was the worst of times, '.repeat(1300)).subarray(0, EXTENT),
  'one random page 16 times': () => Buffer.concat(new Array(16).fill(randomBytes(4096)))
}

describe('packing', () => {
  test('comes back byte for byte, whatever the bytes', () => {
    const input = fc.oneof(
      fc.uint8Array({ maxLength: 3000 }),
      fc.integer({ min: 1, max: EXTENT }).map(length => new Uint8Array(randomBytes(length))),
      fc.constantFrom(...Object.values(kinds)).map(make => make())
    )
    const property = fc.property(input, bytes => {
      const packed = packBest(bytes)
      expect(packed.length).toBeLessThanOrEqual(bytes.length + 1)
      expect(Buffer.from(unpackBest(packed, EXTENT)).equals(bytes)).toBe(true)
    })
    fc.assert(property, { numRuns: 200 })
  })

  test('reads what was packed before there was a choice', () => {
    const text = kinds['text']?.() ?? new Uint8Array(0)
    expect(Buffer.from(unpackBest(pack(text), EXTENT)).equals(text)).toBe(true)
  })

  test('stores random bytes as they are', () => {
    for (let i = 0; i < 50; i++) {
      const bytes = randomBytes(EXTENT)
      expect(looksRandom(bytes)).toBe(true)
      expect(packBest(bytes).length).toBe(EXTENT + 1)
    }
  })

  test.each(['zeros with few bytes', 'counters', 'text'])('packs %s', name => {
    const bytes = kinds[name]?.() ?? new Uint8Array(0)
    expect(looksRandom(bytes)).toBe(false)
    expect(packBest(bytes).length).toBeLessThan(0.7 * EXTENT)
  })

  test('refuses what is too large, empty, or of an unknown way', () => {
    const refused = (bytes: Uint8Array, most = EXTENT) =>
      expect(() => unpackBest(bytes, most)).toThrow(expect.objectContaining({ code: 'IMAGE_INVALID' }))
    refused(packBest(randomBytes(2000)), 1999)
    refused(pack(new Uint8Array(2000)), 1999)
    refused(new Uint8Array(0))
    refused(Uint8Array.of(1, 2, 3))
    refused(Uint8Array.of(0x28, 2, 3))
  })
})
