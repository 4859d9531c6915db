/** Blocks of a restored image's disks, read while epochs go on. */
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { createCodec } from '../../../node/erasure/codec.ts'
import { DiapauseError } from '../../../node/errors.ts'
import { readWholeTable } from '../../../node/image/boot-set.ts'
import { CapturePipeline } from '../../../node/image/capture.ts'
import { DiskReader } from '../../../node/image/disk-reader.ts'
import { createImageWorker } from '../../../node/image/image-worker.ts'
import { wholeImage } from '../../../node/image/known-images.ts'
import { PageState } from '../../../node/image/page-state.ts'
import type { ImageManifest, ImageWorker } from '../../../node/ports.ts'
import { frameLog } from '../frame-logs.ts'
import { deviceStream, factsOf, fakeMachine, MemoryCluster, PAGE, pageOf, quietLog } from './support.ts'

const HOLDERS = ['a', 'b', 'c', 'd', 'e']
/** As many columns, and fewer losses borne: what is stored so is written again when all are there. */
const FEW = ['a', 'b', 'c', 'a', 'b']
const RAM_PAGES = 256
const facts = factsOf({ disks: [{ blocks: 300 }, { blocks: 5_000 }] })
const SECOND = RAM_PAGES + 300

class Vm {
  readonly cluster = new MemoryCluster()
  readonly state = new PageState(RAM_PAGES, 5_300)
  /** Streams that are no more. */
  readonly gone = new Set<string>()
  /** Bytes of each read. */
  readonly reads: number[] = []
  #image: ImageManifest | undefined

  /** `pages`: number → content, as a number or in bytes; 0 is zeros. */
  async epoch(epoch: number, pages: ReadonlyMap<number, number | Buffer>, holders = HOLDERS): Promise<ImageManifest> {
    const pipeline = new CapturePipeline({
      facts,
      state: this.state,
      codec: createCodec(),
      generation: 1,
      epoch,
      holders,
      put: (grid, column, bytes) => this.cluster.putColumn({ stream: `g/v/1/${epoch}` }, grid, column, bytes),
      partial: true,
      read: (stream, offset, length) => this.read(stream, offset, length)
    })
    for (const [page, content] of pages) {
      pipeline.page(page, typeof content === 'number' ? (content === 0 ? undefined : pageOf(content)) : content)
    }
    pipeline.push(deviceStream(fakeMachine(new Map(), 1)))
    const image = wholeImage(await pipeline.finish({ count: 0, pieces: frameLog().pieces() }), this.#image)
    this.state.commit(epoch)
    this.#image = image
    return image
  }

  read(stream: string, offset: number, length: number): Promise<Uint8Array> {
    const manifest = this.#image?.streams.find(each => each.stream === stream)
    if (!manifest || this.gone.has(stream)) throw new DiapauseError('SHARD_LOST', `${stream} is gone`)
    this.reads.push(length)
    return this.cluster.readData(manifest, offset, length)
  }
}

async function readerOf(vm: Vm, image: ImageManifest): Promise<DiskReader> {
  const read = async (stream: string, offset: number, length: number) => vm.read(stream, offset, length)
  const table = await readWholeTable(facts, image, read)
  return new DiskReader({ facts, table, read, newest: () => vm.state.committed })
}

const blocks = (from: number, count: number, content: number): ReadonlyMap<number, number> =>
  new Map(Array.from({ length: count }, (_, i) => [from + i, content + i] as const))
const contents = (first: number, count: number): Buffer =>
  Buffer.concat(Array.from({ length: count }, (_, i) => pageOf(first + i)))

describe('the disks of a restored image', () => {
  test('are read at any place and length, zeros without a read', async () => {
    const vm = new Vm()
    const reader = await readerOf(
      vm,
      await vm.epoch(1, new Map([...blocks(SECOND + 10, 40, 1), [RAM_PAGES + 299, 77]]))
    )
    const expected = Buffer.concat([Buffer.alloc(10 * PAGE), contents(1, 40), Buffer.alloc(10 * PAGE)])
    expect(Buffer.from(await reader.read({ disk: 1, offset: 0, length: 60 * PAGE })).equals(expected)).toBe(true)
    const odd = { disk: 1, offset: 9 * PAGE + 4_000, length: 5_001 }
    expect(Buffer.from(await reader.read(odd)).equals(expected.subarray(odd.offset, odd.offset + odd.length))).toBe(
      true
    )
    expect(Buffer.from(await reader.read({ disk: 0, offset: 299 * PAGE, length: PAGE })).equals(pageOf(77))).toBe(true)
    vm.reads.length = 0
    const zeros = await reader.read({ disk: 1, offset: 50 * PAGE, length: 4_000 * PAGE })
    expect(Buffer.alloc(4_000 * PAGE).equals(zeros)).toBe(true)
    expect(vm.reads).toEqual([])
    for (const range of [
      { disk: 2, offset: 0, length: 1 },
      { disk: 0, offset: 300 * PAGE, length: 1 },
      { disk: 0, offset: -1, length: 1 }
    ]) {
      await expect(reader.read(range)).rejects.toThrow(RangeError)
    }
  })

  test('are read in few pieces, and a neighbour of what was read is there', async () => {
    const vm = new Vm()
    const reader = await readerOf(vm, await vm.epoch(1, blocks(SECOND, 512, 1)))
    vm.reads.length = 0
    await reader.read({ disk: 1, offset: 0, length: 512 * PAGE })
    expect(vm.reads.length).toBeLessThanOrEqual(4)
    const count = vm.reads.length
    await reader.read({ disk: 1, offset: 511 * PAGE, length: PAGE })
    expect(vm.reads.length).toBe(count)
  })

  test('are told as ranges that end at the limit asked for', async () => {
    const vm = new Vm()
    const reader = await readerOf(vm, await vm.epoch(1, blocks(SECOND + 2_000, 2, 1)))
    const all = { disk: 1, offset: 0, length: 5_000 * PAGE }
    const found = reader.extents(all, 100)
    expect(found.map(({ length, zero }) => [length / PAGE, zero])).toEqual([
      [2_000, true],
      [2, false],
      [2_998, true]
    ])
    expect(reader.extents(all, 2)).toEqual(found.slice(0, 2))
    expect(reader.extents({ disk: 1, offset: 2_001 * PAGE + 100, length: 5_000 }, 9)).toEqual([
      { length: PAGE - 100, zero: false },
      { length: 1_004, zero: true }
    ])
  })

  test('stay readable when a stream that they lay in was given up', async () => {
    const vm = new Vm()
    const reader = await readerOf(vm, await vm.epoch(1, blocks(SECOND, 100, 1), FEW))
    const image = await vm.epoch(2, blocks(SECOND, 1, 900))
    expect(image.streams.map(({ stream }) => stream)).toEqual(['g/v/1/2'])
    vm.gone.add('g/v/1/1')
    const there = await reader.read({ disk: 1, offset: PAGE, length: 99 * PAGE })
    expect(Buffer.from(there).equals(contents(2, 99))).toBe(true)
    vm.gone.add('g/v/1/2')
    const lost = expect.objectContaining({ code: 'SHARD_LOST' })
    const other = await readerOf(vm, image).catch((error: unknown) => error)
    expect(other).toEqual(lost)
  })
})

describe('a block of which only what changed was stored', () => {
  test('is read again when the shards of that are back', async () => {
    const vm = new Vm()
    await vm.epoch(1, blocks(SECOND, 64, 1))
    const changed = Buffer.from(pageOf(5))
    changed[1_000] = 255 - (changed[1_000] ?? 0)
    const image = await vm.epoch(2, new Map([[SECOND + 4, changed]]))
    expect(image.stats.pagesDelta).toBe(1)
    const reader = await readerOf(vm, image)
    const block = { disk: 1, offset: 4 * PAGE, length: PAGE }
    vm.gone.add('g/v/1/2')
    await expect(reader.read(block)).rejects.toThrow(expect.objectContaining({ code: 'SHARD_LOST' }))
    vm.gone.clear()
    expect(changed.equals(await reader.read(block))).toBe(true)
  })
})

describe('the image worker', () => {
  let worker: ImageWorker | undefined
  afterEach(() => worker?.close())

  test('reads the disks of a restored image until they are closed', async () => {
    const vm = new Vm()
    const image = await vm.epoch(1, blocks(SECOND + 3, 5, 1))
    worker = await createImageWorker({ ...facts, cluster: vm.cluster, log: quietLog })
    const restore = await worker.restore(image)
    expect(restore.disks.map(({ bytes }) => bytes / PAGE)).toEqual([300, 5_000])
    const disk = restore.disks[1]
    expect(Buffer.from((await disk?.read(3 * PAGE, 5 * PAGE)) ?? []).equals(contents(1, 5))).toBe(true)
    expect(await disk?.extents(0, 4 * PAGE, 9)).toEqual([
      { length: 3 * PAGE, zero: true },
      { length: PAGE, zero: false }
    ])
    await restore.cancel()
    expect((await disk?.read(0, 10))?.length).toBe(10)
    await restore.closeDisks()
    await expect(disk?.read(0, 10)).rejects.toThrow(expect.objectContaining({ code: 'IMAGE_CANCELLED' }))
  })
  test('captures nothing after a restore that ended before the page table had come: it would take disks for empty', async () => {
    const vm = new Vm()
    const image = await vm.epoch(1, blocks(SECOND + 3, 5, 1))
    worker = await createImageWorker({ ...facts, cluster: vm.cluster, log: quietLog })
    const restore = await worker.restore(image)
    await restore.cancel()
    const request = { generation: 2, epoch: 2, socketPath: join(tmpdir(), `torn-${process.pid}`), holders: HOLDERS }
    await expect(worker.capture(request)).rejects.toThrow(expect.objectContaining({ code: 'IMAGE_CANCELLED' }))
    await restore.disks[1]?.read(0, 10) // which reads all of the table
    await (await worker.capture(request)).cancel()
  })
})
