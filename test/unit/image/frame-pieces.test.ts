import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MAX_PIECE_BYTES, openPieces, sealPiece } from '../../../node/image/frame-pieces.ts'
import { newSalt, StreamSeal } from '../../../node/image/seal.ts'
import { allPieces } from '../frame-logs.ts'

const seal = new StreamSeal(new Uint8Array(32).fill(7), 'g/v/1/1', newSalt())
const stored = (pieces: readonly Uint8Array[]): Buffer =>
  Buffer.concat(pieces.flatMap((piece, index) => [...sealPiece(seal, index, piece)]))

/** Reads `bytes` as a part that begins at 1000; the largest read is noted. */
function open(bytes: Buffer, largest = { bytes: 0 }): Promise<Buffer[]> {
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    largest.bytes = Math.max(largest.bytes, length)
    return bytes.subarray(offset - 1000, offset - 1000 + length)
  }
  return allPieces(openPieces(Promise.resolve(seal), { offset: 1000, length: bytes.length }, read))
}

describe('pieces of in-flight frames', () => {
  test('come back as they were, from no piece to many', async () => {
    const pieces = fc.array(fc.uint8Array({ maxLength: 3000, size: 'max' }), { maxLength: 20 })
    await fc.assert(
      fc.asyncProperty(pieces, async list => {
        expect(await open(stored(list))).toEqual(list.map(piece => Buffer.from(piece)))
      })
    )
  })

  test('are read a few at a time, however many there are and however badly they pack', async () => {
    const list = Array.from({ length: 9 }, () => randomBytes(MAX_PIECE_BYTES))
    const largest = { bytes: 0 }
    const back = await open(stored(list), largest)
    expect(back.every((piece, index) => piece.equals(list[index] as Buffer))).toBe(true)
    expect([back.length, largest.bytes]).toEqual([9, 2 << 20])
  })

  test('too large for one are not written', () => {
    const writing = () => [...sealPiece(seal, 0, new Uint8Array(MAX_PIECE_BYTES + 1))]
    expect(writing).toThrow(expect.objectContaining({ code: 'IMAGE_FRAMES' }))
  })

  test('cut short, exchanged or damaged are refused with a code', async () => {
    const list = [randomBytes(100), randomBytes(200)]
    const whole = stored(list)
    const first = [...sealPiece(seal, 0, list[0] as Buffer)].reduce((sum, { length }) => sum + length, 0)
    const exchanged = Buffer.concat([whole.subarray(first), whole.subarray(0, first)])
    await expect(open(exchanged)).rejects.toMatchObject({ code: 'IMAGE_SEAL' })
    await expect(open(whole.subarray(0, -1))).rejects.toMatchObject({ code: 'IMAGE_INVALID' })
    const damage = fc.tuple(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }))
    await fc.assert(
      fc.asyncProperty(damage, async ([at, change]) => {
        const copy = Buffer.from(whole)
        copy[at] = (copy[at] as number) ^ change
        await expect(open(copy)).rejects.toMatchObject({ code: expect.stringMatching(/^IMAGE_(SEAL|INVALID)$/) })
      })
    )
  })
})
