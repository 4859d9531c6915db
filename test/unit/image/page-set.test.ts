import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PageSet } from '../../../node/image/page-set.ts'

const PAGES = 150
const range = fc
  .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: 40 }))
  .map(([first, count]) => [first, Math.min(count, PAGES - first)] as const)
const ranges = fc.array(range, { maxLength: 12 })

describe('a set of pages', () => {
  test('holds what a plain set of numbers holds, whatever ranges are added', () => {
    fc.assert(
      fc.property(ranges, ranges, (one, two) => {
        const [set, other, plain] = [new PageSet(PAGES), new PageSet(PAGES), new Set<number>()]
        set.addRanges(Uint32Array.from(one.flat()))
        other.addRanges(Uint32Array.from(two.flat()))
        set.addAll(other)
        for (const [first, count] of [...one, ...two]) for (let i = 0; i < count; i++) plain.add(first + i)
        expect(Array.from({ length: PAGES }, (_, page) => set.has(page))).toEqual(
          Array.from({ length: PAGES }, (_, page) => plain.has(page))
        )
      })
    )
  })

  test('gives each page once, in ascending runs that are no longer and no emptier than told', () => {
    fc.assert(
      fc.property(ranges, fc.integer({ min: 1, max: 30 }), fc.nat(5), (given, maxPages, gapPages) => {
        const set = new PageSet(PAGES)
        set.addRanges(Uint32Array.from(given.flat()))
        const runs = [...set.runs(maxPages, gapPages)]
        const wanted = runs.flatMap(run => run.wanted)
        expect(wanted).toEqual(Array.from({ length: PAGES }, (_, page) => page).filter(page => set.has(page)))
        for (const run of runs) {
          expect(run.count).toBeLessThanOrEqual(maxPages)
          expect([run.first, run.first + run.count - 1]).toEqual([run.wanted[0], run.wanted.at(-1)])
          for (const [i, page] of run.wanted.entries()) {
            if (i > 0) expect(page - (run.wanted[i - 1] ?? 0) - 1).toBeLessThanOrEqual(gapPages)
          }
        }
      })
    )
  })

  test('refuses pages that there are not', () => {
    const set = new PageSet(PAGES)
    expect(() => set.add(PAGES)).toThrow(RangeError)
    expect(() => set.addRanges(Uint32Array.of(PAGES - 1, 2))).toThrow(RangeError)
  })
})
