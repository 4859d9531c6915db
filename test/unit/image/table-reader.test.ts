import { expect, test } from 'vitest'
import { DiapauseError } from '../../../node/errors.ts'
import { encodeExtentLengths } from '../../../node/image/extent-lengths.ts'
import { sealOf } from '../../../node/image/facts.ts'
import { encodeDirectory } from '../../../node/image/page-directory.ts'
import { PageTable, SEGMENT_PAGES } from '../../../node/image/page-table.ts'
import { encodeSegments } from '../../../node/image/segment-records.ts'
import { LazyTable } from '../../../node/image/table-reader.ts'
import { collected } from './collected.ts'
import { factsOf } from './support.ts'

const MIB_SEGMENTS = 4
const SEGMENTS = 3
const facts = factsOf({ memoryMiB: SEGMENTS * MIB_SEGMENTS, shape: { k: 2, m: 1, symbolBytes: 4096 } })
const manifest = { stream: 'g/v/1/1', k: 2, m: 1, holders: ['a', 'b', 'c'], dataBytes: 100 << 20 }
/** So far apart that each record is a read of its own. */
const APART = 10 << 20

/** A table of three segments, the last all zero, each stored in a group of its own; `answer` makes what is read at an offset. */
function stored() {
  const salt = new Uint8Array(16).fill(1)
  const seal = sealOf(facts, { manifest, salt })
  const table = new PageTable(SEGMENTS * SEGMENT_PAGES)
  for (let page = 0; page < 2 * SEGMENT_PAGES; page += 3) table.place(page, 0, page % 160)
  const records = new Map<number, Uint8Array>()
  const put = (offset: number, sealed: Uint8Array) => {
    records.set(offset, sealed)
    return { offset, length: sealed.length }
  }
  for (const number of [0, 1]) {
    const range = put((number + 1) * APART, seal.seal('segments', number, encodeSegments(table, [number])))
    table.setRecord(number, { slot: 0, counter: number, ...range })
  }
  const extentLengths = new Uint32Array(10).fill(50)
  const lengths = put(5 * APART, seal.seal('lengths', 0, encodeExtentLengths(extentLengths)))
  const index = encodeDirectory(table, [0], [{ salt, pages: 160, extentLengths, lengths }])
  return { table, index, records }
}

test('a place is known when the segment of its page has come, and the rest may still be on its way', async () => {
  const { table, index, records } = stored()
  const late = Promise.withResolvers<Uint8Array>()
  const read = (_: string, offset: number) =>
    offset === 2 * APART ? late.promise : Promise.resolve(records.get(offset) ?? new Uint8Array())
  const pages = new LazyTable({ facts, streams: [manifest], index, read })
  const zero = 2 * SEGMENT_PAGES
  expect([pages.has(0), pages.has(SEGMENT_PAGES), pages.has(zero)]).toEqual([false, false, true])
  await pages.need(30)
  expect([pages.has(0), pages.has(SEGMENT_PAGES), pages.isWhole]).toEqual([true, false, false])
  for (let page = 0; page < SEGMENT_PAGES; page++) expect(pages.table.placeOf(page)).toEqual(table.placeOf(page))
  late.resolve(records.get(2 * APART) ?? new Uint8Array())
  await pages.whole()
  expect(pages.isWhole).toBe(true)
  for (let page = 0; page < table.pages; page++) expect(pages.table.placeOf(page)).toEqual(table.placeOf(page))
  expect(pages.table.recordOf(1)).toEqual(table.recordOf(1))
})

test('what was read of a table goes when all of it is there', async () => {
  const { index, records } = stored()
  const sealed: WeakRef<ArrayBufferLike>[] = []
  const read = async (_: string, offset: number) => {
    const bytes = Uint8Array.from(records.get(offset) ?? [])
    sealed.push(new WeakRef(bytes.buffer))
    return bytes
  }
  const pages = new LazyTable({ facts, streams: [manifest], index, read })
  await pages.whole()
  await collected()
  expect(sealed.map(each => each.deref())).toEqual([undefined, undefined, undefined])
  expect(pages.isWhole).toBe(true)
})

test('who waits for a segment that is lost is told, and so is who waits for the whole; others are not', async () => {
  const { index, records } = stored()
  const read = async (_: string, offset: number) => {
    if (offset === 2 * APART) throw new DiapauseError('SHARD_LOST', 'gone')
    return records.get(offset) ?? new Uint8Array()
  }
  const pages = new LazyTable({ facts, streams: [manifest], index, read })
  await pages.need(5)
  await expect(pages.need(SEGMENT_PAGES)).rejects.toMatchObject({ code: 'SHARD_LOST' })
  await expect(pages.whole()).rejects.toMatchObject({ code: 'SHARD_LOST' })
  expect(pages.isWhole).toBe(false)
})
