import { hash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decodePageIndex1 } from '../../../node/image/page-index-1.ts'
import { PageState } from '../../../node/image/page-state.ts'
import { type PageStream, PageTable, ZERO_SLOT } from '../../../node/image/page-table.ts'
import {
  blocksToRewrite,
  inPages,
  MAX_STREAMS,
  streamsToRetire,
  toleratedLosses
} from '../../../node/image/stream-choice.ts'
import type { StreamManifest } from '../../../node/ports.ts'
import { encodePageIndex1 } from './page-index-1.ts'

const PAGES = 40
const HOLDERS = ['a', 'b']
/** No two pages are alike, so that each has its own place. */
const digestOf = (page: number, content: number): string => hash('sha256', `${page} ${content}`, 'binary')
const manifestOf = (stream: string): StreamManifest => ({
  stream,
  k: 1,
  m: 1,
  holders: HOLDERS,
  dataBytes: 1 << 20,
  grids: []
})
const streamOf = (stream: string, pages: number): PageStream => ({
  manifest: manifestOf(stream),
  salt: new Uint8Array(16),
  extentLengths: new Uint32Array(Math.ceil(pages / 16)).fill(100),
  pages,
  lengths: { offset: 16, length: 16 }
})

/** Passes a RAM (0 is a zero page) through an epoch; returns how many pages were written. */
function takeEpoch(state: PageState, epoch: number, ram: readonly number[]): number {
  state.begin(epoch, { holders: HOLDERS, m: 1 })
  let written = 0
  for (const [page, content] of ram.entries()) {
    if (content === 0) state.zero(page)
    else if (state.data(page, digestOf(page, content)) !== 'kept') state.place(page, written++)
  }
  expect(state.endPages().written).toBe(written)
  state.complete(streamOf(`${epoch}`, written))
  return written
}

describe('the page state', () => {
  test('knows, over any epochs, commits and aborts, what a plain list of contents knows', () => {
    const ram = fc.array(fc.nat(4), { minLength: PAGES, maxLength: PAGES })
    const property = fc.property(fc.array(fc.tuple(ram, fc.boolean()), { maxLength: 30 }), epochs => {
      const state = new PageState(PAGES)
      let base = new Array<number>(PAGES).fill(0)
      for (const [i, [contents, commits]] of epochs.entries()) {
        const changed = contents.filter((content, page) => content !== base[page] && content !== 0).length
        const before = state.committed.streams.length
        const written = takeEpoch(state, i, contents)
        expect(written).toBeGreaterThanOrEqual(changed)
        if (before < 2) expect(written).toBe(changed)
        expect(commits ? state.commit(i) : state.abort(i)).toBe(true)
        if (commits) base = contents
        const { streams } = state.committed
        expect(streams.filter(Boolean).length).toBeLessThanOrEqual(MAX_STREAMS)
        for (let page = 0; page < PAGES; page++) {
          const place = state.committed.placeOf(page)
          expect(place === undefined).toBe(base[page] === 0)
          if (place !== undefined) expect(place.locator).toBeLessThan(streams[place.slot]?.pages ?? 0)
        }
      }
    })
    fc.assert(property, { numRuns: 100 })
  })

  test('has blocks of disks written again whose deltas are too many to be kept', () => {
    const blocks = 12_000
    const state = new PageState(PAGES, blocks)
    const pages = Array.from({ length: blocks }, (_, i) => PAGES + i)
    const begin = (epoch: number) => state.begin(epoch, { holders: HOLDERS, m: 1, partial: true })
    const end = (epoch: number) => {
      state.endPages()
      state.complete(streamOf(`${epoch}`, blocks))
      expect(state.commit(epoch)).toBe(true)
    }
    begin(1)
    for (const page of pages) {
      expect(state.data(page, digestOf(page, 1))).toBe('new')
      state.place(page, page)
    }
    end(1)
    begin(2)
    for (const page of pages) {
      expect(state.data(page, digestOf(page, 2))).toBe('changed')
      expect(state.placeDelta(page, 24)).toBe(true)
    }
    state.deltasWritten(pages, 16)
    end(2)
    begin(3)
    expect(state.blocksToRewrite).toBe(blocks)
    expect(state.retiredBlocks(blocks)).toEqual(pages)
  })

  test('leans on a bounded number of streams however long small changes go on', () => {
    const property = fc.property(fc.array(fc.array(fc.nat(PAGES - 1), { maxLength: 3 }), { minLength: 60 }), epochs => {
      const state = new PageState(PAGES)
      const ram = Array.from({ length: PAGES }, (_, page) => page + 1)
      for (const [epoch, pages] of epochs.entries()) {
        for (const page of pages) ram[page] = epoch * 1000 + page
        takeEpoch(state, epoch, ram)
        state.commit(epoch)
        expect(state.committed.streams.filter(Boolean).length).toBeLessThanOrEqual(MAX_STREAMS)
      }
    })
    fc.assert(property, { numRuns: 20 })
  })

  test('settles only the epoch that it has open, and commits it only when it is complete', () => {
    const state = new PageState(PAGES)
    takeEpoch(state, 5, new Array(PAGES).fill(1))
    expect([state.commit(4), state.abort(6), state.commit(5), state.commit(5)]).toEqual([false, false, true, false])
    state.begin(6, { holders: HOLDERS, m: 1 })
    expect(state.commit(6)).toBe(false)
    expect(() => state.begin(7, { holders: HOLDERS, m: 1 })).toThrow(
      expect.objectContaining({ code: 'IMAGE_EPOCH_OPEN' })
    )
    expect(() => state.endPages()).toThrow(expect.objectContaining({ code: 'MIGRATION_STREAM_INCOMPLETE' }))
  })

  test('writes a page again whose content was not known', () => {
    const state = new PageState(PAGES)
    const ram = new Array(PAGES).fill(3)
    takeEpoch(state, 1, ram)
    state.commit(1)
    state.committed.segments[0]?.hashes.fill(0)
    for (let page = 0; page < PAGES - 2; page++) state.noteHash(page, digestOf(page, 3))
    expect(takeEpoch(state, 2, ram)).toBe(2)
  })
})

describe('the choice of streams to retire', () => {
  test('leaves fewer than the most streams, and none that is mostly dead', () => {
    const stream = fc.nat(1000).chain(pages => fc.record({ pages: fc.constant(pages), live: fc.nat(pages) }))
    const property = fc.property(fc.array(stream, { maxLength: 80 }), fc.nat(5000), (streams, changed) => {
      const retired = new Set(streamsToRetire(streams, changed))
      const kept = streams.filter((stream, i) => stream.live > 0 && !retired.has(i))
      expect(kept.length).toBeLessThan(MAX_STREAMS)
      for (const { live, pages } of kept) expect(live * 4).toBeGreaterThanOrEqual(pages)
      const cheapest = Math.min(...kept.map(({ live }) => live))
      for (const i of retired) {
        const { live, pages } = streams[i] ?? { live: 0, pages: 0 }
        expect(live * 4 < pages || live <= cheapest).toBe(true)
      }
    })
    fc.assert(property)
  })

  test('leaves a large old stream alone while smaller ones can go', () => {
    const streams = [
      { live: 9000, pages: 10_000 },
      ...Array.from({ length: 7 }, (_, i) => ({ live: 10 + i, pages: 20 }))
    ]
    expect(streamsToRetire(streams, 5)).toEqual([1])
  })

  test('lets them wait that cost much more than what changes, until there are too many', () => {
    const streams = Array.from({ length: 48 }, (_, i) => ({ live: 1000 + i, pages: 1500 }))
    expect(streamsToRetire(streams.slice(0, 47), 100)).toEqual([])
    expect(streamsToRetire(streams, 100)).toEqual([0])
    expect(streamsToRetire(streams.slice(0, 47), 1000)).toEqual([0])
    expect(streamsToRetire(streams.slice(0, 9), 100_000)).toEqual([0, 1])
    // Many pages changed, all of them a little.
    expect(streamsToRetire(streams.slice(0, 9), inPages(5000, 5000))).toEqual([])
  })

  test('writes again a few times what changes, however small that is beside all that a VM writes to', () => {
    const area = 3_000
    const written = 20
    const state = new PageState(area)
    const ram = Array.from({ length: area }, (_, page) => page + 1)
    takeEpoch(state, 0, ram)
    state.commit(0)
    let all = 0
    for (let epoch = 1; epoch <= 300; epoch++) {
      for (let i = 0; i < written; i++) ram[(epoch * written + i) % area] = epoch * 10_000 + i
      all += takeEpoch(state, epoch, ram)
      state.commit(epoch)
    }
    expect(all).toBeLessThan(8 * 300 * written)
  })
})

describe('blocks of disks in streams that are retired', () => {
  // Taken off the smallest streams first, which helps a large one least.
  test.each([
    [100_000, 30_000],
    [5_000_000, 30_000],
    [5_000_000, 400],
    [30_000_000, 200_000]
  ])('are moved in few epochs and streams (%i blocks, %i more in each epoch)', (size, written) => {
    let streams = [{ live: size, pages: size, blocks: size }]
    const unsafe = new Set(streams)
    for (let epoch = 0; epoch < 120; epoch++) {
      if (epoch === 60) for (const stream of streams) unsafe.add(stream) // holders have gone
      const retired: boolean[] = streams.map(stream => unsafe.has(stream))
      for (const i of streamsToRetire(streams, written)) retired[i] = true
      const most = blocksToRewrite(streams, retired)
      expect(most).toBeLessThanOrEqual(Math.max(1 << 17, (size + 120 * written) / 8))
      let left = most
      for (const stream of streams.filter((_, i) => retired[i]).sort((a, b) => a.live - b.live)) {
        const taken = Math.min(left, stream.blocks)
        left -= taken
        stream.live -= taken
        stream.blocks -= taken
      }
      const moved = most - left + written
      streams = [...streams, { live: moved, pages: moved, blocks: moved }].filter(({ live }) => live > 0)
      expect(streams.length).toBeLessThanOrEqual(40)
      if (epoch % 60 >= 30) expect(streams.filter(stream => unsafe.has(stream))).toEqual([])
    }
  })
})

describe('the page index of format 1', () => {
  const manifests = [manifestOf('1'), manifestOf('2')]
  const table = (entries: readonly (readonly [number, number])[]) => {
    const made = new PageTable(entries.length)
    for (const [page, [slot, locator]] of entries.entries()) if (slot !== ZERO_SLOT) made.place(page, slot, locator)
    return made
  }
  const streams = manifests.map(({ stream }) => streamOf(stream, 1600))
  const entry = fc.tuple(fc.constantFrom(3, 5, ZERO_SLOT), fc.nat(1599))

  test('comes back as it was, with streams numbered as in the manifest', () => {
    const property = fc.property(fc.array(entry, { minLength: 1, maxLength: 300 }), entries => {
      const made = table(entries)
      const back = decodePageIndex1(encodePageIndex1(made, [5, 3], streams), entries.length, 0, manifests)
      expect(entries.map((_, page) => back.placeOf(page))).toEqual(
        entries.map(([slot, locator]) => (slot === ZERO_SLOT ? undefined : { slot: slot === 5 ? 0 : 1, locator }))
      )
      expect(back.streams).toEqual(streams.map(stream => ({ ...stream, lengths: undefined })))
    })
    fc.assert(property)
  })

  test('is small where pages lie in the order they were written', () => {
    const inOrder = table(Array.from({ length: 100_000 }, (_, i) => [3, i % 1600] as const))
    expect(encodePageIndex1(inOrder, [5, 3], streams).length).toBeLessThan(4000)
  })

  test('answers changed bytes with IMAGE_INVALID or a table within bounds', () => {
    const good = encodePageIndex1(
      table([
        [3, 1],
        [5, 1599],
        [ZERO_SLOT, 0]
      ]),
      [5, 3],
      streams
    )
    const property = fc.property(fc.nat(good.length - 1), fc.nat(255), fc.nat(good.length), (at, value, length) => {
      const bytes = good.slice(0, length % 2 ? length : good.length)
      bytes[at] = value
      try {
        const back = decodePageIndex1(bytes, 3, 0, manifests)
        for (const page of [0, 1, 2]) expect(back.placeOf(page)?.locator ?? 0).toBeLessThan(1600)
      } catch (error) {
        expect(error).toMatchObject({ code: 'IMAGE_INVALID' })
      }
    })
    fc.assert(property, { numRuns: 400 })
  })
})

describe('the losses that a stream bears', () => {
  test('are as many as any choice of that many peers leaves k columns', () => {
    const peers = ['a', 'b', 'c', 'd', 'e']
    const subsets = (of: readonly string[]): string[][] =>
      of.reduce<string[][]>((found, peer) => found.flatMap(each => [each, [...each, peer]]), [[]])
    const slow = (holders: readonly string[], m: number, alive: readonly string[]): number => {
      const bears = (lost: readonly string[]) =>
        holders.filter(holder => !alive.includes(holder) || lost.includes(holder)).length <= m
      const concerned = alive.filter(peer => holders.includes(peer))
      for (let n = 0; n <= concerned.length; n++)
        if (!subsets(concerned).every(lost => lost.length !== n || bears(lost))) return n - 1
      return concerned.length
    }
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(...peers), { minLength: 1, maxLength: 8 }),
        fc.nat(4),
        fc.subarray(peers),
        (holders, m, alive) => {
          expect(toleratedLosses(holders, m, alive)).toBe(slow(holders, m, alive))
        }
      )
    )
  })

  test('decide what is written again: what two peers stored while the third was away, once it is back', () => {
    const state = new PageState(4)
    const epoch = (number: number, holders: readonly string[], ram: readonly number[]): number => {
      state.begin(number, { holders, m: 1 })
      let written = 0
      for (const [page, content] of ram.entries()) {
        if (state.data(page, digestOf(page, content)) !== 'kept') state.place(page, written++)
      }
      state.endPages()
      const stream = streamOf(`${number}`, written)
      state.complete({ ...stream, manifest: { ...stream.manifest, k: 2, holders } })
      state.commit(number)
      return written
    }
    const all = ['a', 'b', 'c']
    expect(epoch(1, all, [1, 2, 3, 4])).toBe(4)
    // Without c nothing bears another loss: writing the old pages again would not help.
    expect(epoch(2, ['a', 'b', 'a'], [1, 2, 30, 40])).toBe(2)
    expect(epoch(3, all, [1, 2, 30, 40])).toBe(2)
    expect(epoch(4, all, [1, 2, 30, 40])).toBe(0)
  })

  test('do not write again what others hold who live, only because the new stream goes elsewhere', () => {
    const state = new PageState(2)
    const epoch = (number: number, holders: readonly string[], peers: readonly string[]): number => {
      state.begin(number, { holders, peers, m: 1 })
      let written = 0
      for (const page of [0, 1]) if (state.data(page, digestOf(page, 7)) !== 'kept') state.place(page, written++)
      state.endPages()
      const stream = streamOf(`${number}`, written)
      state.complete({ ...stream, manifest: { ...stream.manifest, k: 2, holders } })
      state.commit(number)
      return written
    }
    const all = ['a', 'b', 'c', 'd']
    expect(epoch(1, ['a', 'b', 'c'], all)).toBe(2)
    expect(epoch(2, ['b', 'c', 'd'], all)).toBe(0)
    expect(epoch(3, ['b', 'c', 'd'], ['b', 'c', 'd'])).toBe(2) // a is gone
  })

  test('are those of the columns that are there: too few for the durability that is promised, and all is written again', () => {
    const all = ['a', 'b', 'c', 'd', 'e']
    /** Pages written in an epoch of a stream of 3 + 2 that leans on an older one, of which that is stored. */
    const again = (stored: readonly string[] | undefined, spare: number, peers: readonly string[] = all): number => {
      const state = new PageState(2)
      const epoch = (
        number: number,
        holders: readonly string[],
        elsewhere?: ReadonlyMap<string, readonly string[]>
      ) => {
        state.begin(number, { holders, peers: number === 1 ? all : peers, m: 2, spare, stored: elsewhere })
        let written = 0
        for (const page of [0, 1]) if (state.data(page, digestOf(page, 7)) !== 'kept') state.place(page, written++)
        state.endPages()
        const stream = streamOf(`${number}`, written)
        state.complete({ ...stream, manifest: { ...stream.manifest, k: 3, m: 2, holders } })
        state.commit(number)
        return written
      }
      epoch(1, all)
      return epoch(2, peers, stored && new Map([['1', stored]]))
    }
    expect(again(undefined, 0)).toBe(0)
    expect(again(['a', 'b', 'c', 'd', ''], 0)).toBe(2)
    // With one column to spare, what was to be had is waited for: repair brings it.
    expect(again(['a', 'b', 'c', 'd', ''], 1)).toBe(0)
    expect(again(['a', 'b', 'c', '', ''], 1)).toBe(2)
    // What repair has put elsewhere is there, and one that has two columns bears less.
    expect(again(['a', 'b', 'c', 'd', 'f'], 0, ['a', 'b', 'c', 'd', 'f'])).toBe(0)
    expect(again(undefined, 0, ['a', 'b', 'c', 'd', 'f'])).toBe(2)
    expect(again(['a', 'b', 'c', 'd', 'a'], 0)).toBe(2)
  })
})
