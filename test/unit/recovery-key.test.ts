import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  openWithRecovery,
  parseRecoveryKey,
  recoveryKeyText,
  recoveryName,
  recoveryPublic,
  sealForRecovery
} from '../../protocols/membership/recovery.ts'

const keys = fc.uint8Array({ minLength: 32, maxLength: 32 })
const context = 'a test'
const beside = Buffer.from('beside')

describe('a recovery key', () => {
  it('is read as it was printed, also in small letters, with blanks, and with letters for digits', () => {
    fc.assert(
      fc.property(keys, secret => {
        const text = recoveryKeyText(secret)
        expect(text).toMatch(/^([0-9A-HJKMNP-TV-Z]{4}-){13}[0-9A-HJKMNP-TV-Z]{4}$/)
        const typed = ` ${text.toLowerCase().replaceAll('-', ' ').replaceAll('0', 'o').replaceAll('1', 'l')}\n`
        for (const each of [text, typed]) expect(parseRecoveryKey(each)).toEqual(secret)
      })
    )
  })

  it('that was mistyped is refused', () => {
    const text = recoveryKeyText(randomBytes(32))
    for (let at = 0; at < text.length; at++) {
      if (text[at] === '-') continue
      const other = text[at] === '7' ? '8' : '7'
      const mistyped = text.slice(0, at) + other + text.slice(at + 1)
      expect(() => parseRecoveryKey(mistyped), mistyped).toThrow(expect.objectContaining({ code: 'RECOVERY_KEY' }))
    }
    for (const wrong of ['', text.slice(1), `${text}A`, text.replace(/.$/, 'U'), 'x'.repeat(56)])
      expect(() => parseRecoveryKey(wrong), wrong).toThrow(expect.objectContaining({ code: 'RECOVERY_KEY' }))
  })

  it('opens what was sealed to its public part, which no other does, and of which not a bit may differ', () => {
    const secret = new Uint8Array(randomBytes(32))
    const plain = new Uint8Array(randomBytes(100))
    const sealed = sealForRecovery(recoveryPublic(secret), { context, beside, once: randomBytes(32) }, plain)
    expect(openWithRecovery(secret, { context, beside }, sealed)).toEqual(plain)
    expect(openWithRecovery(randomBytes(32), { context, beside }, sealed)).toBeUndefined()
    expect(openWithRecovery(secret, { context: 'another', beside }, sealed)).toBeUndefined()
    expect(openWithRecovery(secret, { context, beside: Buffer.from('b') }, sealed)).toBeUndefined()
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      // The highest bit of a point is not a part of it (RFC 7748, section 5), but of what is authenticated.
      const flipped = sealed.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(openWithRecovery(secret, { context, beside }, flipped), `bit ${bit}`).toBeUndefined()
    }
    for (const short of [0, 31, 32, 47, 60])
      expect(openWithRecovery(secret, { context, beside }, sealed.subarray(0, short))).toBeUndefined()
    expect(openWithRecovery(secret, { context, beside }, new Uint8Array(80))).toBeUndefined() // the point at zero
  })

  it('has a name that tells nothing of its public part', () => {
    const publicPart = recoveryPublic(randomBytes(32))
    expect(recoveryName(publicPart)).toMatch(/^[0-9a-f]{16}$/)
    expect(Buffer.from(publicPart, 'base64url').toString('hex')).not.toContain(recoveryName(publicPart))
  })
})
