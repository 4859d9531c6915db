import fc from 'fast-check'
import { expect, test } from 'vitest'
import { noteHash } from '../../../node/image/page-hashes.ts'
import { PageTable, SEGMENT_PAGES } from '../../../node/image/page-table.ts'
import { carryContents, changedPages } from '../../../node/image/table-diff.ts'

/** Three segments, the last one short; and blocks of a disk behind RAM. */
const RAM_PAGES = 2 * SEGMENT_PAGES + 40
const BLOCKS = 60
const NAMES = ['a', 'b', 'c', 'd']

interface Placed {
  readonly stream: string
  readonly locator: number
  readonly delta: { readonly stream: string; readonly locator: number } | undefined
}

type Pages = ReadonlyMap<number, Placed>

/** A table with these pages, whose streams have the slots in which `order` names them. */
function tableOf(pages: Pages, order: readonly string[]): PageTable {
  const table = new PageTable(RAM_PAGES, BLOCKS)
  for (const [slot, stream] of order.entries()) {
    const manifest = { stream, k: 1, m: 1, holders: [], dataBytes: 0 }
    table.streams[slot] = { manifest, salt: new Uint8Array(), pages: 0, extentLengths: new Uint32Array() }
  }
  for (const [page, { stream, locator, delta }] of pages) {
    table.place(page, order.indexOf(stream), locator)
    if (delta !== undefined) table.setDelta(page, order.indexOf(delta.stream), delta.locator)
  }
  return table
}

const locator = fc.nat(3)
const stream = fc.constantFrom(...NAMES)
const placed = fc.record({ stream, locator, delta: fc.option(fc.record({ stream, locator }), { nil: undefined }) })
/** About the ends of segments, of RAM and of the disk. */
const page = fc.constantFrom(
  0,
  1,
  SEGMENT_PAGES - 1,
  SEGMENT_PAGES,
  SEGMENT_PAGES + 7,
  RAM_PAGES - 1,
  RAM_PAGES,
  RAM_PAGES + BLOCKS - 1
)
const image = fc.array(fc.tuple(page, placed), { maxLength: 8 }).map(pairs => new Map(pairs))
const order = fc.shuffledSubarray(NAMES, { minLength: NAMES.length })
const same = (a: Placed | undefined, b: Placed | undefined) => JSON.stringify(a) === JSON.stringify(b)

test('pages differ that lie elsewhere, whatever slots their streams have, and no others', () => {
  const property = fc.property(image, image, order, order, (one, other, slotsThen, slotsNow) => {
    const [before, after] = [tableOf(one, slotsThen), tableOf(other, slotsNow)]
    const expected = [...Array(RAM_PAGES).keys()].filter(at => !same(one.get(at), other.get(at)))
    const changed = changedPages(before, after)
    expect([...Array(RAM_PAGES).keys()].filter(at => changed.has(at))).toEqual(expected)
    const first = changedPages(undefined, after)
    expect(first.count).toBe([...other.keys()].filter(at => at < RAM_PAGES).length)
  })
  fc.assert(property, { numRuns: 200 })
})

test('a segment that is stored in the same record is as it was, and one in the same bytes of another stream is not', () => {
  const pages = new Map([[3, { stream: 'a', locator: 1, delta: undefined }]])
  const [before, after] = [tableOf(pages, ['a', 'b']), tableOf(pages, ['b', 'a'])]
  const moved = tableOf(new Map([[3, { stream: 'a', locator: 2, delta: undefined }]]), ['b', 'a'])
  const record = { offset: 16, length: 100, counter: 0 }
  before.setRecord(0, { ...record, slot: 0 })
  for (const table of [after, moved]) table.setRecord(0, { ...record, slot: 1 })
  expect(changedPages(before, after).count).toBe(0)
  expect(changedPages(before, moved).count).toBe(0) // by the record alone: nobody writes two segments to one place
  moved.setRecord(0, { ...record, slot: 0 })
  expect(changedPages(before, moved).has(3)).toBe(true)
})

test('ids of contents go on with pages that are as they were, and no others', () => {
  const at = (where: number) => ({ stream: 'a', locator: where, delta: undefined })
  const before = tableOf(new Map([5, 6, 7, SEGMENT_PAGES].map(number => [number, at(number)])), ['a'])
  for (const number of [5, 6, 7, SEGMENT_PAGES]) noteHash(before.writable(number), number, 'ABCDEFGHIJKLMNOP')
  const kept = [5, SEGMENT_PAGES]
  const after = tableOf(new Map([...kept.map(number => [number, at(number)] as const), [6, at(60)]]), ['a'])
  carryContents(before, after, changedPages(before, after))
  const known = (number: number) => after.segmentOf(number)?.hashes[4 * (number % SEGMENT_PAGES)] !== 0
  expect([5, 6, 7, SEGMENT_PAGES].filter(known)).toEqual(kept)
})
