import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { DiapauseError } from '../../../node/errors.ts'
import { decodeBootPart, encodeBootPart } from '../../../node/image/boot-part.ts'
import { BootPages, compareWithTable } from '../../../node/image/boot-pages.ts'
import { BootSending } from '../../../node/image/boot-sending.ts'
import { readBootSet, readWholeTable } from '../../../node/image/boot-set.ts'
import { bootPartOf } from '../../../node/image/warm-pages.ts'
import { sealOf } from '../../../node/image/facts.ts'
import { PostcopySource } from '../../../node/image/postcopy-source.ts'
import { WriteOrder } from '../../../node/image/write-order.ts'
import type { ImageManifest } from '../../../node/ports.ts'
import { collected } from './collected.ts'
import { fakeTarget } from './fake-target.ts'
import { PAGE } from './support.ts'
import { facts, fill, RAM_PAGES, touch, TrackedVm } from './tracked-vm.ts'

/** Every eighth page, in no order. */
const TOUCHED = Array.from({ length: 48 }, (_, i) => ((i * 29) % 48) * 8 + 1)
const asked = (pages: readonly number[]) => pages.map((page, atMs) => ({ atMs, pages: [page] }))

async function bootOf(vm: TrackedVm) {
  if (!vm.image) throw new Error('no image')
  const { boot } = await readBootSet(facts, vm.image, vm.read, { workingSet: true })
  if (!boot) throw new Error('no boot part')
  const pages = new Map<number, Uint8Array | undefined>()
  while (await boot.more()) for (const { page, bytes } of boot.take()) pages.set(page, bytes)
  return { part: boot.part, pages }
}

test('pages that are learned lie together an epoch later, in learned order, and stay where they are', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  vm.working.learnAsked(asked(TOUCHED))
  const moved = await vm.epoch([])
  expect(moved.stats.pagesChanged).toBe(0)
  const { part, pages } = await bootOf(vm)
  expect(part.extents.length).toBe(3)
  expect(part.pages.map(({ page }) => page)).toEqual(TOUCHED)
  for (const page of TOUCHED) expect(vm.committed[page]?.equals(pages.get(page) ?? Buffer.alloc(0))).toBe(true)
  expect(part.extents.map(({ extent }) => extent)).toEqual([0, 1, 2])
  const idle = await vm.epoch([])
  expect(idle.stats.bytesData).toBeLessThan(moved.stats.bytesData / 10)
  expect((await bootOf(vm)).part.extents).toHaveLength(3)
  expect(await vm.wrong()).toEqual([])
})

test('the first of the set comes before the VM runs, with what changed of it since, and its next epoch is a difference', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  vm.working.learnAsked(asked([0, 450, ...TOUCHED])) // the first of RAM, and one that is zero
  await vm.epoch([])
  await vm.epoch([touch(1, 30, 77, 5)])
  const sent = await vm.moves(8 << 20)
  expect(vm.sentBefore).toBe(2 * 16) // two extents of 64 KiB
  for (const [page, bytes] of sent)
    if (page < RAM_PAGES) expect(vm.committed[page]?.equals(bytes), `${page}`).toBe(true)
  const next = await vm.epoch([fill(9, 10, 7777)])
  expect(next.stats.pagesChanged).toBe(1)
  expect(vm.working.list(RAM_PAGES).map(({ page }) => page)).toEqual([0, 450, ...TOUCHED])
  expect(await vm.wrong()).toEqual([])
})

test('what has not come when the VM runs is sent while it does', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  vm.working.learnAsked(asked([0, ...TOUCHED]))
  await vm.epoch([])
  const { read } = vm
  vm.read = async (stream, offset, length) => {
    if (length > 16 * PAGE) await sleep(100) // extents, not what a boot needs: the VM runs before them unless the host is starved
    return await read(stream, offset, length)
  }
  const sent = await vm.moves(8 << 20, [TOUCHED[40] ?? 0], 0)
  for (const [page, bytes] of sent)
    if (page < RAM_PAGES) expect(vm.committed[page]?.equals(bytes), `${page}`).toBe(true)
  expect(sent.size).toBe(RAM_PAGES)
})

test('of a read with many small extents pages are there before all are opened', async () => {
  const vm = new TrackedVm(8 << 20)
  const pages = Array.from({ length: 480 }, (_, page) => page)
  // Pack so well that all extents come in one read.
  const bytes = (page: number) => [0, 1].map(at => [at, 1 + ((page >> (4 * at)) % 16) + at * 40] as const)
  await vm.epoch([pages.map(page => ({ page, bytes: [...bytes(page), [2, 1 + (page >> 8)] as const] }))])
  if (!vm.image) throw new Error('no image')
  const table = await readWholeTable(facts, vm.image, vm.read)
  const streams = table.streams.flatMap((stream, slot) => (stream ? [{ slot, stream }] : []))
  const part = bootPartOf(
    table,
    streams,
    pages.map(page => ({ page, how: 'asked', atMs: 0, age: 0 }))
  )
  const boot = new BootPages({ facts, streams: vm.image.streams, part, read: vm.read })
  const taken: number[] = []
  while (await boot.more()) taken.push(boot.take().length)
  expect(part.extents).toHaveLength(30)
  expect(taken).toEqual([256, 224])
})

test('what was opened of a working set goes when its pages have been made', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  vm.working.learnAsked(asked(TOUCHED))
  const image = await vm.epoch([])
  const { part } = await bootOf(vm)
  const boot = new BootPages({ facts, streams: image.streams, part, read: vm.read })
  const openAll = async () => {
    const opened: WeakRef<ArrayBufferLike>[] = []
    while (await boot.more()) for (const { bytes } of boot.take()) if (bytes) opened.push(new WeakRef(bytes.buffer))
    return opened
  }
  const opened = await openAll()
  await collected()
  expect(opened).toHaveLength(TOUCHED.length)
  expect(opened.filter(each => each.deref() !== undefined)).toEqual([])
  expect(await boot.more()).toBe(false)
})

test('of a working set nothing more is read when the restore has ended', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  vm.working.learnAsked(asked(TOUCHED))
  const image = await vm.epoch([])
  const { part } = await bootOf(vm)
  let reads = 0
  const read: typeof vm.read = async (...range) => {
    reads++
    return await vm.read(...range)
  }
  const boot = new BootPages({ facts, streams: image.streams, part, read, firstBytes: 0 })
  await boot.first
  boot.stop(new DiapauseError('IMAGE_CANCELLED', 'the restore was cancelled'))
  await expect(boot.more()).rejects.toMatchObject({ code: 'IMAGE_CANCELLED' })
  await collected()
  expect(reads).toBe(0)
})

test('a working set that cannot be read is told of, to whoever waits and whoever comes later', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  vm.working.learnAsked(asked(TOUCHED))
  const image = await vm.epoch([])
  const { part } = await bootOf(vm)
  const read = () => Promise.reject(new DiapauseError('SHARD_LOST', 'gone'))
  const boot = new BootPages({ facts, streams: image.streams, part, read })
  await expect(boot.first).rejects.toMatchObject({ code: 'SHARD_LOST' })
  await expect(boot.more()).rejects.toMatchObject({ code: 'SHARD_LOST' })
})

const lost = () => {
  throw new DiapauseError('SHARD_LOST', 'gone')
}
const laterFormat = (bytes: Uint8Array) => Buffer.concat([Buffer.of(2), bytes.subarray(1)])
const otherExtents = (bytes: Uint8Array, image: ImageManifest) => {
  const part = decodeBootPart(bytes, RAM_PAGES, image.streams)
  const extents = part.extents.map(each => ({ ...each, extent: each.extent + 1 }))
  return encodeBootPart({ salts: part.salts, pages: part.pages, extents })
}

test.each<[string, (bytes: Uint8Array, image: ImageManifest) => Uint8Array]>([
  ['is lost', lost],
  ['is of a later format', laterFormat],
  ['is cut off', bytes => bytes.subarray(0, -9)],
  ['says wrong where pages lie', otherExtents]
])('an image whose boot part %s is restored without', async (_, change) => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  vm.working.learnAsked(asked(TOUCHED))
  const image = await vm.epoch([])
  const manifest = image.streams.at(-1)
  if (!manifest) throw new Error('no stream')
  const { read } = vm
  vm.read = async (stream, offset, length) => {
    const bytes = await read(stream, offset, length)
    if (stream !== manifest.stream || offset !== image.boot?.offset) return bytes
    const seal = sealOf(facts, { manifest, salt: await read(stream, 0, 16) })
    return seal.seal('boot', 0, change(seal.open('boot', 0, bytes), image))
  }
  const { boot, learned } = await readBootSet(facts, image, vm.read, { workingSet: true })
  expect(boot).toBeUndefined()
  expect(learned()).toEqual([])
  const sent = await vm.moves(8 << 20)
  expect(vm.sentBefore).toBe(0)
  for (const [page, bytes] of sent)
    if (page < RAM_PAGES) expect(vm.committed[page]?.equals(bytes), `${page}`).toBe(true)
  expect(sent.size).toBe(RAM_PAGES)
})

test.each([
  ['the first batch, of one extent', 1, 16],
  ['the last page', 128, 128]
])('a restore that is cancelled when %s is noted tells the page state no more', async (_, at, notes) => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, RAM_PAGES, 1)])
  vm.working.learnAsked(asked(Array.from({ length: 128 }, (_, i) => i + 1)))
  const outline = await vm.epoch([])
  const { read } = vm
  const image = await readBootSet(facts, outline, read, { workingSet: true })
  const { state } = vm
  state.reset(image.pages.table)
  const source = new PostcopySource({ facts, image, readMs: 0, state, read })
  const put = vi.spyOn(state.anchors, 'put').mockImplementation(() => {
    if (put.mock.calls.length === at) source.cancel()
  })
  const noteHash = vi.spyOn(state, 'noteHash')
  const folder = await mkdtemp(join(tmpdir(), 'warm-'))
  const target = fakeTarget(join(folder, 's'), [])
  await once(target.server, 'listening')
  await expect(source.serve(target.path)).rejects.toMatchObject({ code: 'IMAGE_CANCELLED' })
  for (let turn = 0; turn < 100; turn++) await nextTurn()
  expect(put).toHaveBeenCalledTimes(notes)
  expect(noteHash).not.toHaveBeenCalled()
  target.server.close()
  await rm(folder, { recursive: true })
})

test('a boot part that is not what the page table says is refused', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 400, 1)])
  vm.working.learnAsked(asked(TOUCHED))
  const image = await vm.epoch([])
  const { part } = await bootOf(vm)
  const table = await readWholeTable(facts, image, vm.read)
  compareWithTable(part, table, image.streams)
  const [first, second, ...rest] = part.pages
  if (!first || !second) throw new Error('two pages')
  const swapped = [{ ...first, page: second.page }, { ...second, page: first.page }, ...rest]
  const zero = [{ ...first, extent: undefined, place: 0 }, second, ...rest]
  for (const pages of [swapped, zero]) {
    expect(() => compareWithTable({ ...part, pages }, table, image.streams)).toThrow(
      expect.objectContaining({ code: 'IMAGE_INVALID' })
    )
  }
})

test('pages that come before their turn were written, in that order', () => {
  const order = new WriteOrder(12)
  for (const page of [0, 1, 7, 2, 11, 5, 3, 4, 6, 8, 9, 10]) order.pass(page)
  expect(order.written).toEqual([7, 11, 5])
})

test('of what is touched first all is written together anew, when it lies in many places', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 500, 1)])
  // Whole extents, so that each by itself lies well; but far from one another.
  const apart = Array.from({ length: 7 }, (_, i) => Array.from({ length: 16 }, (_, j) => i * 64 + j)).flat()
  vm.working.learnAsked(asked(apart))
  const moved = await vm.epoch([])
  expect(moved.stats.pagesChanged).toBe(0)
  const { part, pages } = await bootOf(vm)
  const ends = part.extents.map(({ offset, length }) => [offset, offset + length])
  expect(ends.slice(1).map(([from]) => from)).toEqual(ends.slice(0, -1).map(([, to]) => to))
  expect(part.extents).toHaveLength(7)
  for (const page of apart) expect(vm.committed[page]?.equals(pages.get(page) ?? Buffer.alloc(0))).toBe(true)
  const idle = await vm.epoch([])
  expect(idle.stats.bytesData).toBeLessThan(moved.stats.bytesData / 10)
})

test('pages that were only written are not moved, however far apart they lie', async () => {
  const vm = new TrackedVm(8 << 20)
  await vm.epoch([fill(0, 500, 1)])
  const apart = Array.from({ length: 7 }, (_, i) => Array.from({ length: 16 }, (_, j) => i * 64 + j)).flat()
  vm.working.learnWritten(apart)
  const idle = await vm.epoch([])
  expect(idle.stats.bytesData).toBeLessThan(64 << 10)
})

test('a page of the working set that the VM waits for is read before others, and once', async () => {
  const vm = new TrackedVm(8 << 20)
  const image = await vm.epoch([fill(0, 400, 1)])
  const far = Array.from({ length: 8 }, (_, i) => i * 48)
  const table = await readWholeTable(facts, image, vm.read)
  const part = bootPartOf(
    table,
    table.streams.flatMap((stream, slot) => (stream ? [{ slot, stream }] : [])),
    far.map((page, atMs) => ({ page, how: 'asked', atMs, age: 0 }))
  )
  const asked: number[] = []
  const gate = Promise.withResolvers<void>()
  const read: typeof vm.read = async (stream, offset, length) => {
    asked.push(offset)
    await gate.promise
    return await vm.read(stream, offset, length)
  }
  const boot = new BootPages({ facts, streams: image.streams, part, read, firstBytes: 0 })
  expect(boot.hurry(far[7] ?? 0)).toBe(false) // nothing of it has been asked for
  const more = boot.more()
  expect(asked).toHaveLength(6)
  expect(boot.hurry(far[7] ?? 0)).toBe(true)
  expect(boot.hurry(1)).toBe(false)
  expect(asked.slice(6)).toEqual([part.extents[part.pages[7]?.extent ?? -1]?.offset])
  gate.resolve()
  const pages = new Map<number, Uint8Array | undefined>()
  for (let is = await more; is; is = await boot.more())
    for (const { page, bytes } of boot.take()) pages.set(page, bytes)
  expect(asked).toHaveLength(8)
  for (const page of far) expect(vm.committed[page]?.equals(pages.get(page) ?? Buffer.alloc(0)), `${page}`).toBe(true)
})

test('of pages that are there the one that the VM waits for goes first, and does not wait for room', async () => {
  const sent: number[][] = []
  const all = Array.from({ length: 200 }, (_, page) => ({ page, bytes: undefined }))
  const ready = [all]
  const awaited: number[] = []
  const rooms: number[] = []
  const sending: BootSending = new BootSending({
    boot: { more: async () => ready.length > 0, take: () => ready.pop() ?? [], hurry: () => true } as never,
    plan: { take: (pages: readonly number[]) => [...pages] } as never,
    pages: { note: () => {} } as never,
    faults: { answer: (page: number) => awaited.push(page) } as never,
    send: pages => {
      sent.push(pages.map(({ page }) => page))
      if (sent.length === 1) sending.hurry(190, 0)
    },
    room: async () => void rooms.push(sent.length),
    goOn: () => {}
  })
  await sending.rest()
  expect(sent[1]?.[0]).toBe(190)
  expect(awaited).toEqual([190])
  expect(rooms).toEqual([0, 2, 3])
  expect(sent.flat().toSorted((a, b) => a - b)).toEqual(all.map(({ page }) => page))
})
