import fc from 'fast-check'
import { expect, test } from 'vitest'
import { EXTENT_PAGES } from '../../../node/image/extents.ts'
import { PageTable, SEGMENT_PAGES } from '../../../node/image/page-table.ts'
import { RestorePlan } from '../../../node/image/restore-plan.ts'

const PAGES = 2 * SEGMENT_PAGES + 512
const EXTENTS = 20
/** Content of a page → its place; 0: zero. Pages of one content have one place, also in several segments. */
const placeOf = (content: number) => ({
  slot: content % 2 === 0 ? 0 : 2,
  locator: (content * 7) % (EXTENTS * EXTENT_PAGES)
})

function tableOf(contents: readonly number[]): PageTable {
  const table = new PageTable(PAGES)
  const manifest = { stream: 's', k: 1, m: 0, holders: [], dataBytes: 1 << 20 }
  const stream = { manifest, salt: new Uint8Array(16), extentLengths: new Uint32Array(EXTENTS).fill(100), pages: 0 }
  table.streams = [stream, undefined, stream]
  for (const [page, content] of contents.entries()) {
    if (content > 0) table.place(page, placeOf(content).slot, placeOf(content).locator)
  }
  return table
}

test('every page is taken once, with pages of its extent, whatever is asked for before and after all is sorted', () => {
  const contents = fc.array(fc.nat(300), { minLength: PAGES, maxLength: PAGES })
  const asked = fc.array(fc.nat(PAGES - 1), { maxLength: 200 })
  const property = fc.property(contents, asked, asked, (all, early, late) => {
    const table = tableOf(all)
    const plan = new RestorePlan(table)
    const taken: number[] = []
    const ask = (page: number) => {
      if (plan.isTaken(page)) return
      const run = plan.extentOf(page)
      if (run === undefined) {
        const zeros = plan.takeZerosAround(page, 16)
        expect(zeros).toContain(page)
        expect(zeros.every(zero => all[zero] === 0)).toBe(true)
        taken.push(...zeros)
        return
      }
      const pages = plan.take(plan.untakenWith(page))
      expect(pages).toContain(page)
      for (const each of pages) expect(plan.extentOf(each)).toEqual(run)
      taken.push(...pages)
    }
    for (const page of early) ask(page)
    for (const _ of plan.sort()) for (const page of late.splice(0, 10)) ask(page)
    for (const page of late) ask(page)
    for (const { slot, first, end } of plan.runs(500)) {
      for (let extent = first; extent < end; extent++) {
        const pages = plan.take(plan.untaken(slot, extent))
        expect(pages.length).toBeGreaterThan(0)
        for (const page of pages) expect(plan.extentOf(page)).toMatchObject({ slot, first: extent })
        taken.push(...pages)
      }
    }
    for (let zeros = plan.takeZeros(100); zeros.length > 0; zeros = plan.takeZeros(100)) taken.push(...zeros)
    expect(taken.toSorted((a, b) => a - b)).toEqual(Array.from({ length: PAGES }, (_, page) => page))
  })
  fc.assert(property, { numRuns: 20 })
})

test('an extent of which several pages are known to be touched is read once, and not when they were taken meanwhile', () => {
  const contents = Array.from({ length: PAGES }, (_, page) => (page < 40 ? 2 + 2 * (page % 4) : 0))
  const plan = new RestorePlan(tableOf(contents))
  const [first, other] = [plan.extentOf(0), plan.extentOf(1)]
  expect(first).not.toEqual(other)
  const pages = [0, 1, 4, 5, 300, 8] // 300 is zero; 0, 4 and 8 lie together, 1 and 5 do
  expect([...plan.runsOf(pages)]).toEqual([first, other])
  const runs = plan.runsOf(pages)
  expect(runs.next().value).toEqual(first)
  plan.take([1, 5])
  expect(runs.next().done).toBe(true)
})
