import { describe, expect, test } from 'vitest'
import { DeltaBounds } from '../../../node/image/delta-bounds.ts'
import { PageTable } from '../../../node/image/page-table.ts'

const MAX = 100_000

/** 200 pages whole in slot 0, and deltas of so many of them in each slot. Those from `ramPages` on are blocks of a disk. */
function tableOf(deltas: Record<number, number>, ramPages = 200): PageTable {
  const table = new PageTable(ramPages, 200 - ramPages)
  for (let page = 0; page < 200; page++) table.place(page, 0, page)
  let page = 0
  for (const [slot, count] of Object.entries(deltas)) {
    for (const end = page + count; page < end; page++) table.setDelta(page, Number(slot), 16)
  }
  return table
}

/** As many as are taken, of 1,000 bytes each. */
function taken(bounds: DeltaBounds): number {
  let count = 0
  while (bounds.take(1000)) count++
  return count
}

describe('the bounds of deltas', () => {
  test('hold of one epoch', () => {
    const bounds = new DeltaBounds(MAX)
    expect(bounds.begin(tableOf({}), 1, [])).toEqual([])
    expect(taken(bounds)).toBe(95)
    expect(bounds.take(1)).toBe(true)
  })

  test('leave half of them to the next epoch, by having those of the most dead written again', () => {
    const bounds = new DeltaBounds(MAX)
    bounds.begin(tableOf({}), 1, [])
    for (let i = 0; i < 40; i++) bounds.take(1000)
    bounds.begin(tableOf({ 1: 40 }), 2, [])
    for (let i = 0; i < 30; i++) bounds.take(1000)
    const leaving = bounds.begin(tableOf({ 1: 5, 2: 30 }), 3, [])
    expect(leaving).toEqual([undefined, true])
    expect(taken(bounds)).toBe(95 - 30)
  })

  test('count nothing of streams that have no live deltas, or are retired', () => {
    const bounds = new DeltaBounds(MAX)
    bounds.note(
      new Map([
        [1, 90_000],
        [2, 90_000]
      ])
    )
    expect(bounds.begin(tableOf({ 2: 10 }), 3, [false, false, true])).toEqual([false, false, true])
    expect(taken(bounds)).toBe(95)
  })

  test('count deltas of disks until they have been written again, and tell how many are to be', () => {
    const bounds = new DeltaBounds(MAX)
    bounds.begin(tableOf({}), 1, [])
    for (let i = 0; i < 60; i++) bounds.take(1000)
    expect(bounds.begin(tableOf({ 1: 60 }, 50), 2, [])).toEqual([undefined, true])
    expect(bounds.blocks).toBe(10)
    expect(taken(bounds)).toBe(95 - 60)
    bounds.begin(tableOf({ 2: 35 }, 50), 3, [])
    expect(bounds.blocks).toBe(0)
    bounds.begin(tableOf({ 1: 60 }, 50), 3, [false, true])
    expect(bounds.blocks).toBe(0) // those of retired streams are counted already
    expect(taken(bounds)).toBe(95 - 60)
  })

  test('have those written again of which nobody knows how large they are', () => {
    const bounds = new DeltaBounds(MAX)
    expect(bounds.begin(tableOf({ 4: 1 }), 3, [])[4]).toBe(true)
  })
})
