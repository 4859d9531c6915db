import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ContentIds } from '../../../node/image/content-ids.ts'
import { ContentIndex } from '../../../node/image/content-index.ts'

/** Spread as those of hashes are. */
const keyOf = (content: number): number => Math.imul(content + 1, 0x9e3779b1) >>> 0

describe('the content index', () => {
  test('finds a page of every content that it has room for, over any changes, and none that does not hold it', () => {
    const change = fc.tuple(fc.nat(60), fc.nat(30))
    const property = fc.property(fc.array(change, { maxLength: 300 }), changes => {
      const index = new ContentIndex(1 << 20)
      const contents = new Map<number, number>()
      for (const [page, content] of changes) {
        const before = contents.get(page)
        if (before !== undefined) index.remove(keyOf(before), page)
        contents.set(page, content)
        index.add(keyOf(content), page)
        expect(index.pages).toBe(contents.size)
        for (let wanted = 0; wanted <= 30; wanted++) {
          const found = index.find(keyOf(wanted), other => contents.get(other) === wanted)
          const there = [...contents.values()].filter(other => other === wanted).length
          // Of more pages with one content than a bucket has entries, some are not told of; one always is.
          if (found === -1) expect(there).toBe(0)
          else expect(contents.get(found)).toBe(wanted)
        }
      }
    })
    fc.assert(property, { numRuns: 30 })
  })

  test('grows to its bound and no further, and finds nearly all while half of it is free', () => {
    const index = new ContentIndex(1 << 20) // room for 131,072
    for (let page = 0; page < 60_000; page++) index.add(keyOf(page), page)
    let found = 0
    for (let page = 0; page < 60_000; page++) if (index.find(keyOf(page), other => other === page) === page) found++
    expect(found).toBeGreaterThan(59_000)
    for (let page = 60_000; page < 400_000; page++) index.add(keyOf(page), page)
    expect(index.bytes).toBe(1 << 20)
    expect(index.pages).toBeLessThanOrEqual(131_072)
    expect(index.find(keyOf(399_999), other => other === 399_999)).toBe(399_999)
  })

  test('has a page twice in it only where it was added with two keys', () => {
    const index = new ContentIndex(1 << 16)
    for (let i = 0; i < 5; i++) index.add(7, 3)
    expect(index.pages).toBe(1)
    index.add(8, 3)
    index.remove(7, 3)
    index.remove(7, 3)
    expect([index.pages, index.find(7, () => true), index.find(8, () => true)]).toEqual([1, -1, 3])
    index.clear()
    expect([index.pages, index.find(8, () => true)]).toEqual([0, -1])
  })
})

describe('a content id', () => {
  test('is of the whole page and of the secret', () => {
    const [one, two] = [1, 2].map(value => new ContentIds(new Uint8Array(32).fill(value)))
    const page = new Uint8Array(4096).fill(9)
    const id = one?.of(page)
    expect(id).toHaveLength(32)
    expect(one?.of(page.slice())).toBe(id)
    expect(two?.of(page)).not.toBe(id)
    for (const at of [0, 4095]) {
      const other = page.slice()
      other[at] = 8
      expect(one?.of(other)).not.toBe(id)
    }
  })
})
