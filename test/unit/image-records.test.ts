import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeRecord, type ImageRecord, MAX_DATA_BYTES, RecordReader } from '../../node/edge/image-records.ts'

const record: fc.Arbitrary<ImageRecord> = fc.oneof(
  fc.constantFrom('about', 'file', 'error').chain(kind => fc.jsonValue().map(value => ({ kind, value }))),
  fc.uint8Array({ maxLength: 50 }).map(bytes => ({ kind: 'data' as const, bytes })),
  fc.constant({ kind: 'end' as const })
)

describe('records of an image on its way', () => {
  test('are read as they were written, wherever chunks end', () => {
    const property = fc.property(fc.array(record), fc.array(fc.nat()), (records, cuts) => {
      const bytes = Buffer.concat(records.flatMap(encodeRecord))
      const at = [0, ...cuts.map(cut => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
      const reader = new RecordReader()
      const plain = (each: ImageRecord) => JSON.stringify(each.kind === 'data' ? [...each.bytes] : each)
      const found = at.slice(1).flatMap((end, i) => reader.push(Uint8Array.from(bytes.subarray(at[i], end))).map(plain))
      expect(found).toEqual(records.map(plain))
    })
    fc.assert(property, { numRuns: 200 })
  })

  test('are refused where they are none, before they are kept', () => {
    const head = (kind: number, length: number) => {
      const bytes = Buffer.alloc(5)
      bytes.writeUInt8(kind)
      bytes.writeUInt32BE(length, 1)
      return bytes
    }
    for (const bytes of [
      head(9, 0),
      head(2, MAX_DATA_BYTES + 1),
      head(0, MAX_DATA_BYTES),
      Buffer.from([0, 0, 0, 0, 1, 123])
    ]) {
      expect(() => new RecordReader().push(bytes)).toThrow(expect.objectContaining({ code: 'IMAGE_RECORDS' }))
    }
  })
})
