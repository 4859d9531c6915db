import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PageTable, SEGMENT_PAGES, ZERO_SLOT } from '../../../node/image/page-table.ts'

const RAM = SEGMENT_PAGES + 300
const BLOCKS = 2 * SEGMENT_PAGES
const PAGES = RAM + BLOCKS

interface PlainPage {
  slot: number
  locator: number
  delta?: { slot: number; locator: number }
}

/** A table as a list of pages: what the real one is checked against. */
type PlainTable = ReadonlyMap<number, PlainPage>

interface Step {
  kind: 'place' | 'delta' | 'clear' | 'noDelta'
  page: number
  slot: number
  locator: number
}

// Few pages, near the borders of segments and of RAM, so that steps meet.
const page = fc.constantFrom(0, 1, SEGMENT_PAGES - 1, SEGMENT_PAGES, RAM - 1, RAM, RAM + 1, PAGES - 1)
const kind = fc.constantFrom<Step['kind']>('place', 'place', 'delta', 'clear', 'noDelta')
const step: fc.Arbitrary<Step> = fc.record({ kind, page, slot: fc.nat(4), locator: fc.nat(100_000) })

function plainly(table: Map<number, PlainPage>, change: Step): void {
  const before = table.get(change.page)
  if (change.kind === 'clear') table.delete(change.page)
  if (change.kind === 'place') table.set(change.page, { slot: change.slot, locator: change.locator })
  if (before === undefined) return
  const { slot, locator } = before
  if (change.kind === 'noDelta') table.set(change.page, { slot, locator })
  if (change.kind !== 'delta') return
  table.set(change.page, { slot, locator, delta: { slot: change.slot, locator: change.locator } })
}

function really(table: PageTable, change: Step): void {
  if (change.kind === 'clear') table.clear(change.page)
  else if (change.kind === 'noDelta') table.clearDelta(change.page)
  else if (change.kind === 'place') table.place(change.page, change.slot, change.locator)
  else if (table.slotOf(change.page) === ZERO_SLOT) expect(() => table.setDelta(change.page, 0, 0)).toThrow(TypeError)
  else table.setDelta(change.page, change.slot, change.locator)
}

function expectSame(table: PageTable, plain: PlainTable): void {
  const live = new Array<number>(5).fill(0)
  const count = (slot: number) => (live[slot] = (live[slot] ?? 0) + 1)
  for (let page = 0; page < PAGES; page++) {
    const { slot, locator, delta } = plain.get(page) ?? {}
    if (table.slotOf(page) !== (slot ?? ZERO_SLOT)) throw new Error(`page ${page} lies elsewhere`)
    if (slot === undefined) continue
    expect([table.placeOf(page), table.deltaOf(page)], `page ${page}`).toEqual([{ slot, locator }, delta])
    count(slot)
    if (delta !== undefined) count(delta.slot)
  }
  expect(live.map((_, slot) => table.live(slot))).toEqual(live)
  expect(table.nonZeroRam).toBe([...plain.keys()].filter(page => page < RAM).length)
  for (const [number, segment] of table.segments.entries()) {
    const pages = [...plain].filter(([page]) => Math.floor(page / SEGMENT_PAGES) === number).map(([, at]) => at)
    expect(segment?.used ?? 0).toBe(pages.length)
    for (const slot of live.keys()) {
      const places = pages.flatMap(at => [at.slot, at.delta?.slot]).filter(each => each === slot).length
      expect(segment?.references[slot] ?? 0).toBe(places)
    }
  }
}

describe('a page table', () => {
  test('is, after any changes, what a plain list of pages is, and so is the one that it was forked from', () => {
    const property = fc.property(fc.array(fc.array(step, { maxLength: 20 }), { maxLength: 6 }), rounds => {
      let table = new PageTable(RAM, BLOCKS)
      let plain = new Map<number, PlainPage>()
      for (const steps of rounds) {
        const [before, plainBefore] = [table, plain]
        table = table.fork()
        plain = new Map(plain)
        for (const each of steps) {
          really(table, each)
          plainly(plain, each)
        }
        expectSame(table, plain)
        expectSame(before, plainBefore)
      }
    })
    fc.assert(property, { numRuns: 60 })
  })

  test('has memory for the segments that are in use, and of its own for those that it changes', () => {
    const table = new PageTable(RAM, BLOCKS)
    expect(table.segments.filter(Boolean).length).toBe(0)
    table.place(RAM, 1, 1)
    table.place(0, 1, 2)
    const fork = table.fork()
    fork.place(1, 2, 0)
    expect(fork.segments.map((segment, i) => segment !== undefined && segment === table.segments[i])).toEqual([
      false,
      true,
      false,
      false
    ])
    expect(fork.segments.map(segment => segment !== undefined && fork.owns(segment))).toEqual([
      true,
      false,
      false,
      false
    ])
    fork.clear(RAM)
    expect([fork.segments[1], table.slotOf(RAM)]).toEqual([undefined, 1])
  })

  test('has no pages beyond its last', () => {
    const table = new PageTable(RAM, BLOCKS)
    for (const page of [-1, PAGES, Number.NaN]) expect(() => table.place(page, 0, 0)).toThrow(RangeError)
  })
})
