import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type NewRecord, writeRecords } from '../../node/store/append.ts'
import { nodeFiles, type SegmentFile } from '../../node/store/files.ts'
import { encodeRecordHead, streamHash } from '../../node/store/record.ts'
import { StreamWriter } from '../../node/store/writer.ts'
import { memoryLog } from './store-support.ts'

const HASH = streamHash('g/v/1/1')

/** A file in memory whose writes take some turns of the event loop; the one of this number fails. */
class SlowFile implements SegmentFile {
  bytes = Buffer.alloc(0)
  running = 0
  mostRunning = 0
  writes = 0
  failing = -1

  async writeAll(parts: readonly Uint8Array[], position: number): Promise<void> {
    const fails = this.writes++ === this.failing
    this.mostRunning = Math.max(this.mostRunning, ++this.running)
    for (let turns = (this.writes * 7) % 4; turns > 0; turns--) await new Promise(resolve => setImmediate(resolve))
    this.running--
    if (fails) throw new Error('no space')
    const written = Buffer.concat(parts)
    const grown = Buffer.alloc(Math.max(this.bytes.length, position + written.length))
    this.bytes.copy(grown)
    written.copy(grown, position)
    this.bytes = grown
  }

  async truncate(): Promise<void> {}
  async close(): Promise<void> {}
}

const groups = fc.array(fc.oneof(fc.integer({ min: 1, max: 3_000 }), fc.integer({ min: 400_000, max: 1_300_000 })), {
  minLength: 1,
  maxLength: 8
})
const recordsOf = (sizes: readonly number[]): NewRecord[] =>
  sizes.map((size, grid) => ({ grid, column: 1, bytes: randomBytes(size) }))

describe('a group of records', () => {
  it('is on the disk as if one had been written after the other, and its offsets are true', async () => {
    await fc.assert(
      fc.asyncProperty(groups, fc.nat({ max: 50 }), async (sizes, leadBytes) => {
        const file = new SlowFile()
        const lead = randomBytes(leadBytes)
        const group = recordsOf(sizes)
        await file.writeAll([Buffer.alloc(17)], 0)
        const { records, end } = await writeRecords(file, 17, lead, HASH, group)
        const plain = group.flatMap(record => [
          encodeRecordHead({ streamHash: HASH, ...record }, record.bytes).head,
          record.bytes
        ])
        expect(Buffer.compare(file.bytes, Buffer.concat([Buffer.alloc(17), lead, ...plain]))).toBe(0)
        expect(end).toBe(file.bytes.length)
        for (const [i, { payloadOffset, payloadBytes }] of records.entries()) {
          const there = file.bytes.subarray(payloadOffset, payloadOffset + payloadBytes)
          expect(Buffer.compare(there, group[i]?.bytes ?? Buffer.alloc(0))).toBe(0)
        }
        expect(file.mostRunning).toBeLessThanOrEqual(2)
      }),
      { numRuns: 40 }
    )
  })

  it('fails with the first write that fails, and leaves none under way', async () => {
    const group = recordsOf([600_000, 1_100_000, 1_100_000, 1_100_000, 10])
    const whole = new SlowFile()
    await writeRecords(whole, 0, Buffer.alloc(5), HASH, group)
    const { writes } = whole
    expect(writes).toBe(6)
    for (let failing = 0; failing < writes; failing++) {
      const file = new SlowFile()
      file.failing = failing
      await expect(writeRecords(file, 0, Buffer.alloc(5), HASH, group)).rejects.toThrow('no space')
      expect(file.running, `write ${failing} failed`).toBe(0)
    }
  })

  it('of small records is one write', async () => {
    const file = new SlowFile()
    await writeRecords(file, 0, Buffer.alloc(5), HASH, recordsOf(Array.from({ length: 200 }, () => 1_000)))
    expect(file.writes).toBe(1)
  })
})

describe('a writer that goes on in a segment it had closed', () => {
  it('names that segment also while it is opened again, so that nobody removes it', async () => {
    const opened: { fresh: boolean; segment: number | undefined }[] = []
    const catalog = { add() {}, writable: async () => {} }
    const writer: StreamWriter = new StreamWriter(
      {
        files: {
          ...nodeFiles,
          async openSegment(_path, fresh) {
            await new Promise(resolve => setImmediate(resolve))
            opened.push({ fresh, segment: writer.segment })
            return new SlowFile()
          },
          syncDirectory: async () => {}
        },
        catalog,
        log: memoryLog(),
        segmentsDir: '',
        segmentBytes: 100_000,
        pathOf: String,
        nextSegment: () => 7,
        grown() {}
      },
      'g/v/1/1',
      HASH
    )
    await writer.append(0, 0, randomBytes(100))
    await writer.settle()
    await writer.append(1, 0, randomBytes(100))
    await writer.settle()
    expect(opened).toEqual([
      { fresh: true, segment: undefined },
      { fresh: false, segment: 7 }
    ])
  })
})
