import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { elasticWindowMs, MAX_WORKING_PAGES, WorkingSet } from '../../../node/image/working-set.ts'

const MANY = 8 * MAX_WORKING_PAGES
const pagesOf = (set: WorkingSet, inUse = MANY) => set.list(inUse).map(({ page }) => page)
const asked = (...pages: number[]) => pages.map((page, i) => ({ atMs: i, pages: [page] }))

describe('a working set', () => {
  const page = fc.nat(400)
  const lesson = fc.oneof(
    fc.record({ how: fc.constant('asked' as const), pages: fc.array(page, { maxLength: 60 }) }),
    fc.record({ how: fc.constant('written' as const), pages: fc.array(page, { maxLength: 60 }) })
  )

  test('lists no page twice, what was asked for first and in that order, within its bounds, whatever it was taught', () => {
    const property = fc.property(fc.array(lesson, { maxLength: 12 }), fc.nat(3_000), (lessons, inUse) => {
      const set = new WorkingSet()
      for (const { how, pages } of lessons) {
        if (how === 'asked') set.learnAsked(asked(...pages))
        else set.learnWritten(pages)
      }
      const list = set.list(inUse)
      expect(list.length).toBeLessThanOrEqual(Math.floor(inUse / 4))
      expect(new Set(list.map(each => each.page)).size).toBe(list.length)
      const ranks = list.map(({ how }) => ['asked', 'written'].indexOf(how))
      expect(ranks).toEqual(ranks.toSorted((a, b) => a - b))
      const taught = new Set(lessons.flatMap(({ pages }) => pages))
      expect(list.every(each => taught.has(each.page))).toBe(true)
      const again = new WorkingSet(list)
      expect(again.list(MANY)).toEqual(list)
    })
    fc.assert(property, { numRuns: 200 })
  })

  test('has what processors stood on before other pages that were only written, and what was asked for as it was', () => {
    const set = new WorkingSet()
    set.learnAsked(asked(7, 5))
    set.learnWritten([1, 2, 3, 30, 31, 32, 33, 34])
    set.learnState([3, 9, 5])
    expect(pagesOf(set).slice(0, 5)).toEqual([7, 5, 1, 3, 9]) // 1 was written first
    expect(set.list(MANY)[1]).toMatchObject({ page: 5, how: 'asked' })
    for (let round = 0; round < 5; round++) set.learnWritten([1])
    expect(pagesOf(set)).toEqual([7, 5, 1])
  })

  test('has all that the last restore asked for in its window, where there is room', () => {
    const property = fc.property(fc.array(lesson, { maxLength: 6 }), fc.uniqueArray(page), (lessons, last) => {
      const set = new WorkingSet()
      for (const { how, pages } of lessons) {
        if (how === 'asked') set.learnAsked(asked(...pages))
        else set.learnWritten(pages)
      }
      set.learnAsked(asked(...last))
      expect(pagesOf(set)).toEqual(expect.arrayContaining(last))
    })
    fc.assert(property)
  })

  test('forgets what was written once when epochs go by, and keeps what is written again', () => {
    const set = new WorkingSet()
    set.learnWritten([1, 2])
    for (let epoch = 0; epoch < 20; epoch++) set.learnWritten([2, 100 + epoch])
    expect(pagesOf(set)).toContain(2)
    expect(pagesOf(set)).not.toContain(1)
    expect(pagesOf(set).length).toBeLessThan(10)
  })

  test('keeps what was asked for over what was written, and the newer over the older', () => {
    const set = new WorkingSet()
    set.learnAsked(asked(1, 2))
    set.learnAsked(asked(3, 4))
    set.learnWritten([5, 1])
    expect(pagesOf(set, 12)).toEqual([1, 3, 4]) // 1 was written since
    expect(pagesOf(set)).toEqual([1, 3, 2, 4, 5])
  })

  test('has at most a quarter that was only written', () => {
    const set = new WorkingSet()
    set.learnWritten(Array.from({ length: MANY }, (_, i) => i))
    expect(pagesOf(set).length).toBe(MAX_WORKING_PAGES / 4)
  })
})

describe('the window in which requests count', () => {
  const times = (fromMs: number, toMs: number, count: number) =>
    Array.from({ length: count }, (_, i) => fromMs + ((i + 1) * (toMs - fromMs)) / count)

  test('grows while requests come, and ends where they become few', () => {
    expect(elasticWindowMs([])).toBe(250)
    expect(elasticWindowMs(times(0, 200, 50))).toBe(250)
    expect(elasticWindowMs([...times(0, 250, 50), ...times(250, 500, 30), ...times(500, 1000, 20)])).toBe(1000)
    expect(elasticWindowMs([...times(0, 250, 50), ...times(500, 60_000, 40)])).toBe(250)
  })

  test('ends for any requests, and leaves out few of them at a time', () => {
    const property = fc.property(fc.array(fc.nat(100_000), { maxLength: 300 }), all => {
      const windowMs = elasticWindowMs(all)
      const inside = all.filter(ms => ms <= windowMs).length
      const next = all.filter(ms => ms > windowMs && ms <= 2 * windowMs).length
      expect(next === 0 || next < inside / 16).toBe(true)
    })
    fc.assert(property)
  })
})
