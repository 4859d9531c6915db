import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Anchors } from '../../../node/image/anchors.ts'

const PAGE = 4096
const contentOf = (value: number): Uint8Array => new Uint8Array(PAGE).fill(value)

/** What it holds of a page: its first byte where all are the same. */
function held(anchors: Anchors, page: number): number | undefined {
  const entry = anchors.find(page)
  if (entry === -1) return undefined
  const at = anchors.wordAt(entry)
  const words = new Set(anchors.wordsOf(entry).subarray(at, at + PAGE / 4))
  expect(words.size).toBe(1)
  return ([...words][0] ?? 0) & 0xff
}

describe('the anchors', () => {
  test('hold of every page what was put last, or nothing, and never more pages than fit', () => {
    const action = fc.oneof(
      { weight: 6, arbitrary: fc.record({ page: fc.nat(20), value: fc.nat(255), admit: fc.boolean() }) },
      { weight: 2, arbitrary: fc.record({ drop: fc.nat(20) }) },
      { weight: 2, arbitrary: fc.record({ useful: fc.nat(20) }) },
      { weight: 1, arbitrary: fc.constantFrom('begin' as const, 'abort' as const) }
    )
    const property = fc.property(fc.nat(9), fc.array(action, { maxLength: 200 }), (most, actions) => {
      const anchors = new Anchors(most * PAGE + 100)
      const last = new Map<number, { value: number; fresh: boolean }>()
      for (const action of actions) {
        if (action === 'begin') {
          anchors.begin()
          for (const entry of last.values()) entry.fresh = false
        } else if (action === 'abort') {
          anchors.abort()
          for (const [page, { fresh }] of last) if (fresh) last.delete(page)
        } else if ('drop' in action) {
          anchors.drop(action.drop)
          last.delete(action.drop)
        } else if ('useful' in action) {
          const entry = anchors.find(action.useful)
          if (entry !== -1) anchors.useful(entry)
        } else {
          anchors.put(action.page, contentOf(action.value), action.admit)
          last.set(action.page, { value: action.value, fresh: true })
        }
        expect(anchors.pages).toBeLessThanOrEqual(most)
        for (let page = 0; page <= 20; page++) expect([undefined, last.get(page)?.value]).toContain(held(anchors, page))
      }
    })
    fc.assert(property, { numRuns: 100 })
  })

  test('take any page while there is room, then only those that may push another out', () => {
    const anchors = new Anchors(4 * PAGE)
    for (let page = 0; page < 10; page++) anchors.put(page, contentOf(page), false)
    expect([0, 1, 2, 3, 4, 9].map(page => held(anchors, page))).toEqual([0, 1, 2, 3, undefined, undefined])
    anchors.put(9, contentOf(9), true)
    expect([anchors.pages, held(anchors, 9)]).toEqual([4, 9])
    anchors.put(9, contentOf(10), false)
    expect(held(anchors, 9)).toBe(10)
  })

  test('keep the pages that deltas are made of while others come and go', () => {
    const anchors = new Anchors(100 * PAGE)
    for (let page = 0; page < 50; page++) anchors.put(page, contentOf(page), true)
    for (let epoch = 0; epoch < 20; epoch++) {
      anchors.begin()
      if (epoch % 5 === 0) for (let page = 0; page < 50; page++) anchors.useful(anchors.find(page))
      for (let page = 0; page < 400; page++) anchors.put(1000 + 400 * epoch + page, contentOf(1), true)
    }
    for (let page = 0; page < 50; page++) expect(held(anchors, page)).toBe(page)
  })

  test('let go of those that are not used any more', () => {
    const anchors = new Anchors(10 * PAGE)
    for (let page = 0; page < 10; page++) {
      anchors.put(page, contentOf(page), true)
      anchors.useful(anchors.find(page))
    }
    for (let epoch = 0; epoch < 10; epoch++) {
      anchors.begin()
      for (let page = 10; page < 20; page++) anchors.put(page, contentOf(page), true)
    }
    for (let page = 10; page < 20; page++) expect(held(anchors, page)).toBe(page)
  })

  test('of a capture that came to nothing are gone, and those of before it are there', () => {
    const anchors = new Anchors(10 * PAGE)
    anchors.begin()
    for (const page of [1, 2, 3]) anchors.put(page, contentOf(page), true)
    anchors.begin()
    for (const page of [2, 4]) anchors.put(page, contentOf(10 + page), true)
    anchors.abort()
    expect([1, 2, 3, 4].map(page => held(anchors, page))).toEqual([1, undefined, 3, undefined])
  })
})
