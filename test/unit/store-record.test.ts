import { randomBytes } from 'node:crypto'
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseLocation } from '../../node/store/catalog.ts'
import {
  blocksOf,
  encodeRecordHead,
  encodeSegmentHeader,
  firstWrongBlock,
  MAX_PAYLOAD_BYTES,
  parseRecordHeader,
  parseSegmentHeader,
  streamHash
} from '../../node/store/record.ts'
import { type Scan, scanSegment } from '../../node/store/scan.ts'

const hash = streamHash('group/vm/1/2')
const record = (grid: number, column: number, payload: Uint8Array): Buffer =>
  Buffer.concat([encodeRecordHead({ streamHash: hash, grid, column }, payload).head, payload])

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'diapause-record-'))
})
afterAll(() => rm(dir, { recursive: true }))

async function scan(bytes: Uint8Array, from = 0): Promise<Scan> {
  const path = join(dir, 'segment')
  await writeFile(path, bytes)
  const file = await open(path)
  try {
    return await scanSegment(file, from, bytes.length, hash)
  } finally {
    await file.close()
  }
}

const places = ({ records }: Scan): string[] => records.map(({ grid, column }) => `${grid}/${column}`)

describe('a segment header', () => {
  it('gives the stream back', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, maxLength: 60, unit: 'grapheme' }), stream => {
        fc.pre(Buffer.byteLength(stream) <= 255 && Buffer.from(stream).toString() === stream)
        const bytes = encodeSegmentHeader(stream)
        expect(parseSegmentHeader(Buffer.concat([bytes, randomBytes(9)]))).toEqual({ stream, end: bytes.length })
      })
    )
  })

  it('is refused when any bit is flipped or any byte is missing', () => {
    const good = encodeSegmentHeader('group/vm/1/2')
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bad = Buffer.from(good)
      bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      // A version that has turned is no newer version.
      expect(parseSegmentHeader(bad)).toBeUndefined()
    }
    for (let end = 0; end < good.length; end++) expect(parseSegmentHeader(good.subarray(0, end))).toBeUndefined()
  })

  it('of a newer version says so', () => {
    const newer = encodeSegmentHeader('s')
    newer[7] = 2
    newer.writeUInt32LE(crc32(newer.subarray(0, -4)), newer.length - 4)
    expect(parseSegmentHeader(newer)).toBe('version')
  })
})

describe('a record header', () => {
  it('gives back what was put in, and has a checksum for each block', () => {
    const numbers = fc.tuple(fc.integer({ min: 0, max: 0xffff_ffff }), fc.integer({ min: 0, max: 0xffff }))
    fc.assert(
      fc.property(numbers, fc.integer({ min: 1, max: 70_000 }), ([grid, column], payloadBytes) => {
        const payload = randomBytes(payloadBytes)
        const { head, checksums } = encodeRecordHead({ streamHash: hash, grid, column }, payload)
        expect(parseRecordHeader(head, hash)).toMatchObject({ grid, column, payloadBytes })
        expect(checksums.length).toBe(4 * blocksOf(payloadBytes))
        expect(firstWrongBlock(payload, checksums, 0)).toBe(-1)
        const at = payloadBytes >> 1
        payload[at] = (payload[at] ?? 0) ^ 1
        expect(firstWrongBlock(payload, checksums, 0)).toBe(Math.floor(at / 16_384))
      }),
      { numRuns: 50 }
    )
  })

  it('is refused when any bit is flipped, for another stream, and for a length beyond the limit', () => {
    const good = encodeRecordHead({ streamHash: hash, grid: 1, column: 2 }, randomBytes(10)).head.subarray(0, 40)
    for (let bit = 0; bit < 320; bit++) {
      const bad = Buffer.from(good)
      bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(parseRecordHeader(bad, hash)).toBeUndefined()
    }
    expect(parseRecordHeader(good, streamHash('another'))).toBeUndefined()
    const huge = encodeRecordHead({ streamHash: hash, grid: 1, column: 2 }, Buffer.alloc(MAX_PAYLOAD_BYTES + 1)).head
    expect(parseRecordHeader(huge, hash)).toBeUndefined()
  })

  it('parsers take any bytes without throwing', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (noise, magic) => {
        const bytes = Buffer.concat([Buffer.from(magic ? 'DREC' : 'diapseg\x01'), noise])
        expect(parseRecordHeader(bytes, hash)).toBeUndefined()
        parseSegmentHeader(bytes)
        parseLocation(noise)
      }),
      { numRuns: 2_000 }
    )
  })
})

describe('a scan of a segment', () => {
  it('finds every whole record, whatever is cut off behind', async () => {
    const parts = [record(0, 1, randomBytes(100)), record(1, 1, randomBytes(40_000)), record(2, 1, randomBytes(7))]
    const ends = [0, parts[0]?.length ?? 0, (parts[0]?.length ?? 0) + (parts[1]?.length ?? 0)]
    const bytes = Buffer.concat(parts)
    for (let cut = bytes.length; cut >= 0; cut -= 1 + Math.floor(Math.random() * 400)) {
      const found = await scan(bytes.subarray(0, cut))
      const whole = cut === bytes.length ? 3 : ends.filter(end => end !== 0 && end <= cut).length
      expect(found.records).toHaveLength(whole)
      expect(found.end).toBe(whole === 3 ? bytes.length : ends[whole])
    }
  })

  it('goes on behind damage in the middle, and counts it', async () => {
    const parts = [0, 1, 2, 3].map(grid => record(grid, 0, randomBytes(20_000)))
    const length = parts[0]?.length ?? 0
    for (const [at, lost] of [
      [length + 2, '1/0'],
      [length * 2 + 60, '2/0'],
      [20, '0/0'],
      [length + 41, '1/0']
    ] as const) {
      const bytes = Buffer.concat(parts)
      bytes[at] = (bytes[at] ?? 0) ^ 0x40
      const found = await scan(bytes)
      expect(places(found)).toEqual(['0/0', '1/0', '2/0', '3/0'].filter(place => place !== lost))
      expect(found.end).toBe(bytes.length)
      expect(found.damaged).toBeGreaterThan(0)
    }
  })

  it('steps over a record that never reached the disk when the ones around it did', async () => {
    const parts = [record(0, 0, randomBytes(5_000)), record(1, 0, randomBytes(5_000)), record(2, 0, randomBytes(5_000))]
    parts[1]?.fill(0)
    expect(places(await scan(Buffer.concat(parts)))).toEqual(['0/0', '2/0'])
  })

  it('finds a record behind more noise than one piece of reading', async () => {
    const noise = Buffer.alloc((1 << 20) + 12_345)
    // The magic lies across the border between two pieces.
    const found = await scan(Buffer.concat([noise.subarray(0, (1 << 20) - 2), record(5, 5, randomBytes(64))]))
    expect(places(found)).toEqual(['5/5'])
    expect(places(await scan(Buffer.concat([noise, record(6, 6, randomBytes(64))])))).toEqual(['6/6'])
  })

  it('finds nothing in noise', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 500 }), async noise => {
        expect(await scan(Buffer.concat([Buffer.from('DREC'), noise, Buffer.from('DREC')]))).toMatchObject({
          records: [],
          end: 0
        })
      }),
      { numRuns: 100 }
    )
  })
})
