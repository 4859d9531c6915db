import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PAGE, pageOf } from './support.ts'
import { fill, PAGES, RAM_PAGES, touch, TrackedVm, type Write } from './tracked-vm.ts'

describe('an image of pages that change in little', () => {
  test('is what RAM and disk were, whatever was written, committed, given up, and moved', {
    timeout: 60_000
  }, async () => {
    const page = fc.oneof(fc.nat(PAGES - 1), fc.nat(12))
    const write: fc.Arbitrary<Write> = fc.oneof(
      fc.record({ page, fill: fc.nat(5) }),
      fc.record({ page, copy: page }),
      fc.record({ page, bytes: fc.array(fc.tuple(fc.nat(PAGE - 1), fc.nat(255)), { maxLength: 30 }) })
    )
    const epoch = fc.record({
      rounds: fc.array(fc.array(write, { maxLength: 40 }), { maxLength: 3 }),
      commits: fc.oneof(fc.constant(true), fc.boolean()),
      moves: fc.oneof(fc.constant(false), fc.boolean()),
      firstBytes: fc.constantFrom(0, 20_000, 1 << 20),
      touched: fc.array(fc.oneof(fc.nat(RAM_PAGES - 1), fc.nat(40)), { maxLength: 60 })
    })
    // Room for all, and for eight pages.
    const memory = fc.constantFrom(8 << 20, 10 * PAGE)
    const property = fc.asyncProperty(memory, fc.array(epoch, { maxLength: 10 }), async (memoryBytes, epochs) => {
      const vm = new TrackedVm(memoryBytes)
      await vm.epoch([fill(0, 20, 1)])
      for (const { rounds, commits, moves, touched, firstBytes } of epochs) {
        vm.working.learnAsked(touched.map((page, atMs) => ({ atMs, pages: [page] })))
        await vm.epoch(rounds, { commits })
        expect(await vm.wrong()).toEqual([])
        if (!moves) continue
        const sent = await vm.moves(memoryBytes, [3, 200, 0], firstBytes)
        expect([...sent].filter(([page, bytes]) => !vm.committed[page]?.equals(bytes))).toEqual([])
      }
    })
    await fc.assert(property, { numRuns: 25 })
  })

  test('takes a tenth of the bytes where a program changes eight in each page', async () => {
    const vm = new TrackedVm(8 << 20)
    await vm.epoch([fill(0, 200, 1)])
    const whole = await vm.epoch([fill(0, 200, 1000)])
    const little = await vm.epoch([touch(0, 200, 1234, 5)])
    expect([whole.stats.pagesChanged, little.stats.pagesChanged]).toEqual([200, 200])
    expect([whole.stats.pagesDelta, little.stats.pagesDelta]).toEqual([0, 200])
    expect(little.stats.bytesData).toBeLessThan((200 * PAGE) / 10)
    expect(await vm.wrong()).toEqual([])
  })

  test('has a page that is in RAM and on the disk once, in one epoch or in two', async () => {
    const vm = new TrackedVm(8 << 20)
    const copies = (from: number): Write[] =>
      Array.from({ length: 50 }, (_, i) => ({ page: RAM_PAGES + i, copy: from + i }))
    const one = await vm.epoch([fill(0, 50, 1), copies(0)])
    expect(one.stats.pagesSeen).toBe(50)
    const alone = await vm.epoch([fill(100, 150, 5000)])
    const then = await vm.epoch([copies(100)])
    expect([alone.stats.pagesSeen, then.stats.pagesSeen]).toEqual([0, 50])
    expect(then.stats.bytesData).toBeLessThan(alone.stats.bytesData / 5)
    expect(await vm.wrong()).toEqual([])
  })

  test('sends many pages of one content that lie at one place, those that are asked for first', async () => {
    const vm = new TrackedVm(8 << 20)
    const image = await vm.epoch([Array.from({ length: RAM_PAGES + 60 }, (_, page) => ({ page, fill: 7 }))])
    expect(image.stats.pagesSeen).toBe(RAM_PAGES + 59)
    const sent = await vm.moves(8 << 20, [250, 2])
    expect(sent.size).toBe(RAM_PAGES)
    expect([...sent.values()].every(bytes => bytes.equals(pageOf(7)))).toBe(true)
  })

  test('forgets what was written in an epoch that was given up', async () => {
    const vm = new TrackedVm(8 << 20)
    await vm.epoch([fill(0, 40, 1)])
    await vm.epoch([fill(0, 40, 1000), touch(0, 40, 8, 1)], { commits: false })
    await vm.epoch([touch(0, 40, 16, 2)])
    expect(await vm.wrong()).toEqual([])
  })

  test('reads back what pages were last written whole with where that is in no memory', async () => {
    const vm = new TrackedVm(120 * PAGE) // with room for a hundred of them
    await vm.epoch([fill(0, 400, 1)])
    const little = await vm.epoch([touch(200, 300, 1234, 5), touch(150, 160, 0, 9), touch(200, 210, 64, 6)])
    expect(little.stats.pagesChanged).toBe(110)
    expect(little.stats.pagesDelta).toBeGreaterThanOrEqual(100)
    expect(little.stats.bytesData).toBeLessThan((110 * PAGE) / 5)
    expect(await vm.wrong()).toEqual([])
  })

  test('writes pages whole where what they were cannot be read back', async () => {
    const vm = new TrackedVm(120 * PAGE)
    await vm.epoch([fill(0, 400, 1)])
    const whole = await vm.epoch([touch(200, 300, 1234, 5)], { reads: 0 })
    expect([whole.stats.pagesChanged, whole.stats.pagesDelta]).toEqual([100, 0])
    expect(await vm.wrong()).toEqual([])
  })

  test('finds no content at a page that waits for what it was', async () => {
    const vm = new TrackedVm(120 * PAGE)
    await vm.epoch([fill(0, 400, 1)])
    await vm.epoch([[{ page: 300, fill: 7_000 }]], { commits: false })
    await vm.epoch([
      [
        { page: 300, fill: 7_000 },
        { page: 301, copy: 300 }
      ]
    ])
    expect(await vm.wrong()).toEqual([])
  })

  test('needs no delta any more where a page is again what it was', async () => {
    const vm = new TrackedVm(8 << 20)
    await vm.epoch([fill(0, 40, 1)])
    await vm.epoch([touch(0, 40, 8, 1)])
    const back = await vm.epoch([fill(0, 40, 1)])
    expect([back.stats.pagesChanged, back.stats.pagesDelta]).toEqual([40, 0])
    expect(await vm.wrong()).toEqual([])
    expect(back.streams).toHaveLength(2)
  })
})
