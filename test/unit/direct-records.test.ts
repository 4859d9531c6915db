import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  KEY_BYTES,
  MAX_RECORD_BYTES,
  RECORD_HEADER_BYTES,
  RecordCutter,
  RecordOpener,
  RecordSealer
} from '../../protocols/direct-records.ts'
import { TAG_BYTES } from '../../protocols/noise-crypto.ts'

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

/** A Noise record, which is what its length says. */
function noiseRecord(text: Uint8Array): Uint8Array {
  const record = Buffer.alloc(2 + text.length)
  record.writeUInt16BE(text.length)
  record.set(text, 2)
  return record
}

/** What a cutter makes of `bytes` that come in pieces as long as `cuts` say, in turn. */
function cutUp(bytes: Uint8Array, cuts: readonly number[], had: Uint8Array = new Uint8Array(0)) {
  const records: string[] = []
  let noise = ''
  const cutter = new RecordCutter({
    record: sealed => void records.push(hex(sealed)),
    noise: piece => {
      noise += hex(piece)
    }
  })
  cutter.began(had)
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const end = at + (cuts[turn % cuts.length] as number)
    cutter.push(bytes.slice(at, end)) // its memory is used again, as a read buffer is
    at = end
  }
  return { records, noise }
}

describe('records past libp2p', () => {
  const anyNoise = fc.uint8Array({ minLength: TAG_BYTES, maxLength: 300 }).map(noiseRecord)

  it('are told from those of Noise, in whatever pieces both come', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(anyNoise, fc.uint8Array({ minLength: 1, maxLength: 300 })), { maxLength: 8 }),
        fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 20 }),
        fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
        (bodies, cuts, ours) => {
          const sealer = new RecordSealer(new Uint8Array(KEY_BYTES))
          const parts = bodies.map((body, i) => (ours[i] === true ? sealer.seal(body) : noiseRecord(body)))
          const found = cutUp(Buffer.concat(parts), cuts)
          expect(found.records).toEqual(
            parts.filter((_, i) => ours[i]).map(record => hex(record.subarray(RECORD_HEADER_BYTES)))
          )
          expect(found.noise).toBe(
            parts
              .filter((_, i) => ours[i] !== true)
              .map(hex)
              .join('')
          )
        }
      ),
      { numRuns: 200 }
    )
  })

  it('are found behind a record of Noise of which Noise has the beginning already', () => {
    const noise = noiseRecord(randomBytes(40))
    const ours = new RecordSealer(randomBytes(KEY_BYTES)).seal(Uint8Array.of(1, 2, 3))
    for (let had = 0; had < noise.length; had++) {
      for (const piece of [1, 7, 500]) {
        const found = cutUp(Buffer.concat([noise.subarray(had), ours]), [piece], noise.subarray(0, had))
        expect(found).toEqual({ records: [hex(ours.subarray(RECORD_HEADER_BYTES))], noise: hex(noise.subarray(had)) })
      }
    }
  })

  it('are opened as they were sealed, of every size', () => {
    const key = randomBytes(KEY_BYTES)
    const sealer = new RecordSealer(key)
    const opener = new RecordOpener(key)
    for (const length of [1, 100, 399, 400, 401, 1_500, 9_000, MAX_RECORD_BYTES]) {
      const text = randomBytes(length)
      expect(hex(opener.open(sealer.seal(text).subarray(RECORD_HEADER_BYTES)))).toBe(hex(text))
    }
  })

  it.each([10, 5_000])('of %i bytes are not opened when changed, again, out of order, or with another key', length => {
    const key = randomBytes(KEY_BYTES)
    const sealer = new RecordSealer(key)
    const [first, second] = [1, 2].map(() => sealer.seal(randomBytes(length)).subarray(RECORD_HEADER_BYTES))
    const open = (sealed: Uint8Array, opener = new RecordOpener(key)) => opener.open(Uint8Array.from(sealed))
    for (const at of [0, length, length + TAG_BYTES - 1]) {
      const changed = Uint8Array.from(first as Uint8Array)
      changed[at] = (changed[at] as number) ^ 1
      expect(() => open(changed)).toThrow(expect.objectContaining({ code: 'RECORD_FORGED' }))
    }
    expect(() => open(second as Uint8Array)).toThrow(expect.objectContaining({ code: 'RECORD_FORGED' }))
    expect(() => open(first as Uint8Array, new RecordOpener(randomBytes(KEY_BYTES)))).toThrow('changed on its way')
    const opener = new RecordOpener(key)
    open(first as Uint8Array, opener)
    expect(() => open(first as Uint8Array, opener)).toThrow('changed on its way')
    open(second as Uint8Array, opener)
  })

  it.each([0, TAG_BYTES, MAX_RECORD_BYTES + TAG_BYTES + 1, 2 ** 32 - 1])(
    'of %i bytes are refused before memory is taken for them',
    length => {
      const header = Buffer.alloc(RECORD_HEADER_BYTES)
      header.writeUInt32BE(length, 2)
      expect(() => cutUp(header, [RECORD_HEADER_BYTES])).toThrow(expect.objectContaining({ code: 'RECORD_LENGTH' }))
    }
  )
})
