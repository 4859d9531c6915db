import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  applyDelta,
  BLOCK_BYTES,
  DELTA_EXTENT_BYTES,
  DeltaBatch,
  MAX_DELTA_BLOCKS,
  PageDiff,
  readDeltas
} from '../../../node/image/delta.ts'

const PAGE = 4096
const PAGES = 1000

/** Bytes of a page to change, by place. */
const changes = fc.dictionary(fc.nat(PAGE - 1).map(String), fc.integer({ min: 1, max: 255 }), { maxKeys: 40 })

function changed(page: Uint8Array, bytes: Record<string, number>): Uint8Array {
  const copy = page.slice()
  for (const [at, value] of Object.entries(bytes)) copy[Number(at)] = (copy[Number(at)] ?? 0) ^ value
  return copy
}

/** The slow way: every block on its own. */
const blocksThatDiffer = (a: Uint8Array, b: Uint8Array): number[] =>
  Array.from({ length: 64 }, (_, block) => block).filter(block => {
    const [from, to] = [block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES]
    return !Buffer.from(a.subarray(from, to)).equals(b.subarray(from, to))
  })

const wordsOf = (bytes: Uint8Array): Int32Array => new Int32Array(bytes.slice().buffer)

const bitsOf = ({ low, high }: { low: number; high: number }): number[] =>
  Array.from({ length: 64 }, (_, bit) => bit).filter(bit => (bit < 32 ? low >>> bit : high >>> (bit - 32)) & 1)

describe('a delta of a page', () => {
  test('has the blocks that differ, and makes the page of its anchor again', () => {
    const property = fc.property(fc.array(fc.tuple(fc.nat(PAGES - 1), changes), { maxLength: 30 }), entries => {
      const [batch, diff] = [new DeltaBatch(), new PageDiff()]
      const made: { number: number; anchor: Uint8Array; page: Uint8Array }[] = []
      for (const [number, bytes] of entries) {
        const anchor = new Uint8Array(randomBytes(PAGE))
        const page = changed(anchor, bytes)
        const plain = blocksThatDiffer(anchor, page)
        // Anywhere in a larger array, as the caches hold them.
        const words = new Int32Array(3 * 1024)
        words.set(wordsOf(anchor), 1024)
        expect(diff.compare(page, words, 1024)).toBe(plain.length)
        expect(bitsOf(diff)).toEqual(plain)
        if (plain.length === 0 || plain.length > MAX_DELTA_BLOCKS || !batch.hasRoomFor(plain.length)) continue
        batch.add(number, diff, words, 1024)
        made.push({ number, anchor, page })
      }
      if (made.length === 0) return
      const read = readDeltas(batch.take(), PAGES)
      expect(batch.isEmpty).toBe(true)
      expect(read.map(({ page }) => page)).toEqual(made.map(({ number }) => number))
      for (const [i, delta] of read.entries()) {
        const { anchor, page } = made[i] ?? { anchor: new Uint8Array(PAGE), page: new Uint8Array(0) }
        const before = anchor.slice()
        expect(Buffer.from(applyDelta(delta, anchor)).equals(page)).toBe(true)
        expect(Buffer.from(applyDelta(delta, Buffer.from(anchor.buffer))).equals(page)).toBe(true) // a view of it
        expect(Buffer.from(anchor).equals(before)).toBe(true)
      }
    })
    fc.assert(property, { numRuns: 50 })
  })

  test('compares pages that begin at any byte of a buffer', () => {
    const anchor = new Uint8Array(randomBytes(PAGE))
    const buffer = new Uint8Array(PAGE + 7)
    const diff = new PageDiff()
    for (let at = 0; at < 7; at++) {
      buffer.set(anchor, at)
      const page = buffer.subarray(at, at + PAGE)
      expect(diff.compare(page, wordsOf(anchor), 0)).toBe(0)
      page[PAGE - 1] = (page[PAGE - 1] ?? 0) ^ 1
      expect([diff.compare(page, wordsOf(anchor), 0), bitsOf(diff)]).toEqual([1, [63]])
    }
  })
})

describe('a delta extent', () => {
  test('is never larger than its bound, and takes what it says that it has room for', () => {
    const [batch, diff] = [new DeltaBatch(), new PageDiff()]
    const anchor = new Uint8Array(PAGE)
    diff.compare(changed(anchor, { 5: 1, 200: 2 }), wordsOf(anchor), 0)
    let count = 0
    for (; batch.hasRoomFor(diff.blocks); count++) batch.add(count, diff, wordsOf(anchor), 0)
    const bytes = batch.take()
    expect(bytes.length).toBeLessThanOrEqual(DELTA_EXTENT_BYTES)
    expect(bytes.length).toBeGreaterThan(DELTA_EXTENT_BYTES - 12 - 2 * BLOCK_BYTES)
    expect(readDeltas(bytes, PAGES)).toHaveLength(count)
  })

  test('is refused where it is short, long, empty, or of pages that there are not', () => {
    const [batch, diff] = [new DeltaBatch(), new PageDiff()]
    const anchor = new Uint8Array(PAGE)
    diff.compare(changed(anchor, { 5: 1 }), wordsOf(anchor), 0)
    batch.add(7, diff, wordsOf(anchor), 0)
    const bytes = batch.take().slice()
    const refused = (input: Uint8Array, pages = PAGES) =>
      expect(() => readDeltas(input, pages)).toThrow(expect.objectContaining({ code: 'IMAGE_INVALID' }))
    expect(readDeltas(bytes, 8)).toHaveLength(1)
    refused(bytes, 7)
    for (let length = 0; length < bytes.length; length++) refused(bytes.subarray(0, length))
    refused(Buffer.concat([bytes, Buffer.alloc(1)]))
    refused(Buffer.alloc(4))
    const noMask = Buffer.from(bytes)
    noMask.fill(0, 8, 16)
    refused(noMask)
    refused(new Uint8Array(DELTA_EXTENT_BYTES + 1))
  })
})
