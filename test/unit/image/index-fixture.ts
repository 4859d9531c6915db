/** A page table whose parts are kept as bytes in `fixtures`: that of 512 pages of RAM and 2000 blocks, in streams of slots 5 and 2. */
import { PageTable } from '../../../node/image/page-table.ts'

export const RAM_PAGES = 512
export const BLOCKS = 2000

export function indexFixture() {
  const table = new PageTable(RAM_PAGES, BLOCKS)
  for (let page = 0; page < 1000; page++)
    if (page % 5 !== 0) table.place(page, page % 2 === 0 ? 2 : 5, (page * 7) % 160)
  for (let page = 2100; page < 2500; page++) table.place(page, 5, page - 2100)
  for (const page of [1, 2, 2400]) table.setDelta(page, 2, page % 100)
  const group = { slot: 5, counter: 1, offset: 5000, length: 200 }
  table.setRecord(0, group)
  table.setRecord(2, { ...group, slot: 2, offset: 9000 })
  const streams = [10, 30].map((extents, i) => ({
    salt: new Uint8Array(16).fill(i),
    extentLengths: new Uint32Array(extents).fill(700 + i),
    lengths: { offset: 4000, length: 100 + i },
    pages: 16 * extents - i
  }))
  return { table, order: [2, 5], streams }
}
