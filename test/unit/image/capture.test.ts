import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createCodec } from '../../../node/erasure/codec.ts'
import { readWholeTable } from '../../../node/image/boot-set.ts'
import { CapturePipeline } from '../../../node/image/capture.ts'
import { wholeImage } from '../../../node/image/known-images.ts'
import { PageState } from '../../../node/image/page-state.ts'
import { PAGES_PER_MIB } from '../../../node/image/page-table.ts'
import { MAX_STREAMS } from '../../../node/image/stream-choice.ts'
import type { ImageManifest } from '../../../node/ports.ts'
import { pagesOfImage } from '../../contract/image-ram.ts'
import { frameLog } from '../frame-logs.ts'
import { deviceStream, factsOf, fakeMachine, MemoryCluster, PAGE, pageOf } from './support.ts'

const facts = factsOf({ disks: [{ blocks: 200 }, { blocks: 1000 }] })
const RAM_PAGES = PAGES_PER_MIB
const PAGES = RAM_PAGES + 1200
const ALL = ['a', 'b', 'c', 'd', 'e']
/** As many columns, and fewer losses borne: what is stored so is written again when all are there. */
const FEW = ['a', 'b', 'c', 'a', 'b']

/** Page → content; 0 is a page of zeros. */
type Writes = ReadonlyMap<number, number>

/** A VM with two disks: what it holds, and the pipeline told of what is written as disks and a tracker tell. */
class DiskVm {
  readonly cluster = new MemoryCluster()
  readonly state = new PageState(RAM_PAGES, PAGES - RAM_PAGES)
  readonly contents = new Array<number>(PAGES).fill(0)
  /** Written since the last commit. */
  readonly #due = new Map<number, number>()
  #epoch = 0
  image: ImageManifest | undefined
  committed: number[] = []
  /** How often an old stream was read from. */
  readsBack = 0

  async epoch(writes: Writes, { holders = ALL, commits = true } = {}): Promise<ImageManifest> {
    const epoch = ++this.#epoch
    for (const [page, content] of writes) {
      this.contents[page] = content
      this.#due.set(page, content)
    }
    const base = this.image
    const pipeline = new CapturePipeline({
      facts,
      state: this.state,
      codec: createCodec(),
      generation: 1,
      epoch,
      holders,
      put: (grid, column, bytes) => this.cluster.putColumn({ stream: `g/v/1/${epoch}` }, grid, column, bytes),
      partial: true,
      read: (stream, offset, length) => {
        const manifest = base?.streams.find(each => each.stream === stream)
        if (!manifest) throw new Error(`${stream} is not of the last committed image`)
        this.readsBack++
        return this.cluster.readData(manifest, offset, length)
      }
    })
    const due = new Map(this.#due)
    for (const { page } of runsOf(this.state)) due.set(page, this.contents[page] ?? 0)
    for (const [page, content] of due) pipeline.page(page, content === 0 ? undefined : pageOf(content))
    pipeline.push(deviceStream(fakeMachine(new Map(), facts.memoryMiB)))
    const image = wholeImage(await pipeline.finish({ count: 0, pieces: frameLog().pieces() }), base)
    if (!commits) {
      this.state.abort(epoch)
      return image
    }
    this.state.commit(epoch)
    this.#due.clear()
    this.image = image
    this.committed = [...this.contents]
    return image
  }

  /** As a worker that has read the committed image on another host: contents are not known, places are. */
  async moved(): Promise<void> {
    const { image } = this
    if (!image) throw new Error('no epoch was committed')
    const table = await readWholeTable(facts, image, (stream, offset, length) => {
      const manifest = image.streams.find(each => each.stream === stream)
      if (!manifest) throw new Error(`no stream ${stream}`)
      return this.cluster.readData(manifest, offset, length)
    })
    this.state.reset(table)
  }

  /** Pages that are not in the committed image what they were. */
  async wrong(): Promise<number[]> {
    if (!this.image) throw new Error('no epoch was committed')
    const all = await pagesOfImage(facts, this.image, this.cluster)
    return this.committed.flatMap((content, page) => {
      const wanted = content === 0 ? Buffer.alloc(PAGE) : pageOf(content)
      return all.subarray(page * PAGE, (page + 1) * PAGE).equals(wanted) ? [] : [page]
    })
  }
}

const runsOf = (state: PageState) =>
  [...state.toRewrite().runs(1, 0)].flatMap(({ wanted }) => wanted.map(page => ({ page })))

const writesOf = (entries: readonly (readonly [number, number])[]): Writes => new Map(entries)
const filled = (from: number, to: number, seed: number): Writes =>
  writesOf(Array.from({ length: to - from }, (_, i) => [from + i, seed + i] as const))

describe('an image of RAM and disks', () => {
  test('is what was written, whatever the epochs, commits and holders', { timeout: 60_000 }, async () => {
    const page = fc.oneof(fc.nat(PAGES - 1), fc.nat(10), fc.integer({ min: RAM_PAGES - 2, max: RAM_PAGES + 10 }))
    const writes = fc.array(fc.tuple(page, fc.nat(6)), { maxLength: 60 }).map(writesOf)
    const how = fc.record({ holders: fc.constantFrom(ALL, ALL, FEW), commits: fc.boolean() })
    const property = fc.asyncProperty(
      fc.array(fc.tuple(writes, how), { minLength: 1, maxLength: 14 }),
      async epochs => {
        const vm = new DiskVm()
        for (const [each, options] of epochs) await vm.epoch(each, options)
        await vm.epoch(new Map())
        expect(await vm.wrong()).toEqual([])
      }
    )
    await fc.assert(property, { numRuns: 12 })
  })

  test('reads blocks of streams that are retired back, and writes them again', async () => {
    const vm = new DiskVm()
    await vm.epoch(filled(RAM_PAGES, RAM_PAGES + 300, 1), { holders: FEW })
    expect(vm.readsBack).toBe(0)
    const image = await vm.epoch(filled(RAM_PAGES + 100, RAM_PAGES + 110, 9000))
    expect(vm.readsBack).toBeGreaterThan(0)
    expect(vm.readsBack).toBeLessThan(10)
    expect(image.streams.map(({ stream }) => stream)).toEqual(['g/v/1/2'])
    expect(await vm.wrong()).toEqual([])
    const after = await vm.epoch(new Map())
    expect(after.stats.bytesRaw).toBeLessThan(PAGE)
  })

  test('leans on at most eight streams however long little is written to a disk', async () => {
    const vm = new DiskVm()
    await vm.epoch(filled(RAM_PAGES, PAGES, 1))
    for (let i = 0; i < 20; i++) {
      const image = await vm.epoch(filled(RAM_PAGES + 7 * i, RAM_PAGES + 7 * i + 5, 10_000 * (i + 1)))
      expect(image.streams.length).toBeLessThanOrEqual(MAX_STREAMS)
    }
    expect(await vm.wrong()).toEqual([])
  })

  test('writes of the page table what has changed, and little of the rest', async () => {
    const vm = new DiskVm()
    await vm.epoch(filled(0, PAGES, 1))
    const idle = await vm.epoch(new Map())
    const one = await vm.epoch(filled(RAM_PAGES + 5, RAM_PAGES + 6, 9999))
    expect(idle.index.length).toBeLessThan(300)
    expect(one.stats.bytesData - idle.stats.bytesData).toBeLessThan(3 * PAGE)
    expect(await vm.wrong()).toEqual([])
  })

  test('goes on, restored elsewhere, where it was', async () => {
    const vm = new DiskVm()
    for (let i = 0; i < 5; i++) await vm.epoch(filled(300 * i, 300 * i + 250, 1000 * i))
    const before = vm.cluster.reads
    await vm.moved()
    // Of each stream one piece of the page table; of the last also its salt, the machine and the directory.
    expect(vm.cluster.reads - before).toBeLessThanOrEqual((vm.image?.streams.length ?? 0) + 3)
    const image = await vm.epoch(filled(RAM_PAGES, RAM_PAGES + 10, 7777))
    expect(image.streams.map(({ stream }) => stream)).toContain('g/v/1/1')
    expect(await vm.wrong()).toEqual([])
  })
})
