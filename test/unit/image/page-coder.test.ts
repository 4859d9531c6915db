import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createCodec } from '../../../node/erasure/codec.ts'
import { readBootSet, readWholeTable } from '../../../node/image/boot-set.ts'
import { CapturePipeline } from '../../../node/image/capture.ts'
import type { VmFacts } from '../../../node/image/facts.ts'
import { wholeImage } from '../../../node/image/known-images.ts'
import { PageState } from '../../../node/image/page-state.ts'
import { PAGES_PER_MIB } from '../../../node/image/page-table.ts'
import { PlaceReader, type ReadStream } from '../../../node/image/place-reader.ts'
import { PostcopySource } from '../../../node/image/postcopy-source.ts'
import type { ImageManifest } from '../../../node/ports.ts'
import { frameLog } from '../frame-logs.ts'
import { fakeTarget } from './fake-target.ts'
import { deviceStream, fakeMachine, MemoryCluster, PAGE, pageOf } from './support.ts'

const facts: VmFacts = {
  group: 'g',
  vm: 'v',
  memoryMiB: 2,
  accel: 'tcg',
  key: new Uint8Array(32).fill(7),
  shape: { k: 3, m: 2, symbolBytes: 4096 },
  disks: [{ blocks: 100 }]
}
const RAM_PAGES = 2 * PAGES_PER_MIB
const PAGES = RAM_PAGES + 100
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const ZEROS = Buffer.alloc(PAGE)

/** What a program does to a page: fills it with something, zeros, what another page holds, or changes a few bytes. */
type Write = { page: number } & (
  | { fill: number }
  | { copy: number }
  | { bytes: readonly (readonly [number, number])[] }
)

/** A VM whose RAM is tracked, with a disk; pages may pass more than once in an epoch. */
class TrackedVm {
  readonly cluster = new MemoryCluster()
  readonly ram: Buffer[] = Array.from({ length: PAGES }, () => ZEROS)
  state: PageState
  image: ImageManifest | undefined
  committed: Buffer[] = []
  readonly #due = new Set<number>()
  #epoch = 0

  constructor(memoryBytes: number) {
    this.state = new PageState(RAM_PAGES, PAGES - RAM_PAGES, memoryBytes)
  }

  read: ReadStream = (stream, offset, length) => {
    const manifest = this.image?.streams.find(each => each.stream === stream)
    if (!manifest) throw new Error(`${stream} is not of the last committed image`)
    return this.cluster.readData(manifest, offset, length)
  }

  write(write: Write): void {
    const { page } = write
    this.#due.add(page)
    if ('fill' in write) this.ram[page] = write.fill === 0 ? ZEROS : pageOf(write.fill)
    else if ('copy' in write) this.ram[page] = this.ram[write.copy] ?? ZEROS
    else {
      const bytes = Buffer.from(this.ram[page] ?? ZEROS)
      for (const [at, value] of write.bytes) bytes[at] = value
      this.ram[page] = bytes
    }
  }

  bytesRead = 0

  /** `rounds`: writes before each round of copying. `reads`: how many reads of older streams are answered. */
  async epoch(
    rounds: readonly (readonly Write[])[],
    { commits = true, reads = Number.POSITIVE_INFINITY } = {}
  ): Promise<ImageManifest> {
    this.bytesRead = 0
    let answers = reads
    const read: ReadStream = async (stream, offset, length) => {
      if (answers-- <= 0) throw new Error('no peer answers')
      this.bytesRead += length
      return this.read(stream, offset, length)
    }
    const epoch = ++this.#epoch
    const pipeline = new CapturePipeline({
      facts,
      state: this.state,
      codec: createCodec(),
      generation: 1,
      epoch,
      holders: HOLDERS,
      put: (grid, column, bytes) => this.cluster.putColumn({ stream: `g/v/1/${epoch}` }, grid, column, bytes),
      partial: true,
      read
    })
    const again = [...this.state.toRewrite().runs(1, 0)].flatMap(({ wanted }) => wanted)
    const passed = new Set([...again, ...this.#due])
    for (const page of passed) this.#pass(pipeline, page)
    for (const writes of rounds) {
      for (const write of writes) this.write(write)
      for (const [i, { page }] of writes.entries()) {
        this.#pass(pipeline, page)
        if (i % 32 === 31) await pipeline.congestion()
      }
    }
    pipeline.push(deviceStream(fakeMachine(new Map(), facts.memoryMiB)))
    const image = wholeImage(await pipeline.finish({ count: 0, pieces: frameLog().pieces() }), this.image)
    if (commits) {
      this.state.commit(epoch)
      this.#due.clear()
      this.image = image
      this.committed = [...this.ram]
    } else this.state.abort(epoch)
    return image
  }

  /** Another host has it now, that asks for some pages first. Returns what RAM it was sent. */
  async moves(memoryBytes: number, faults: readonly number[] = []): Promise<Map<number, Buffer>> {
    if (!this.image) throw new Error('no epoch was committed')
    const image = await readBootSet(facts, this.image, this.read)
    this.state = new PageState(RAM_PAGES, PAGES - RAM_PAGES, memoryBytes)
    this.state.reset(image.pages.table)
    const folder = await mkdtemp(join(tmpdir(), 'coder-'))
    try {
      const target = fakeTarget(join(folder, 's'), faults)
      await once(target.server, 'listening')
      const source = new PostcopySource({ facts, image, state: this.state, read: this.read })
      const [, sent] = await Promise.all([source.serve(target.path), target.done])
      target.server.close()
      for (let page = 0; page < PAGES; page++) this.#due.add(page)
      for (const page of this.committed.keys()) this.ram[page] = this.committed[page] ?? ZEROS
      if (sent.sentTwice > 0) throw new Error('a page was sent twice')
      return sent.ram.get('pc.ram') ?? new Map<number, Buffer>()
    } finally {
      await rm(folder, { recursive: true })
    }
  }

  /** Of the committed image, pages that are not zero. */
  async contents(): Promise<Map<number, Buffer>> {
    if (!this.image) throw new Error('no epoch was committed')
    const table = await readWholeTable(facts, this.image, this.read)
    const contents = new Map<number, Buffer>()
    const reader = new PlaceReader({ facts, table, read: this.read })
    for await (const { page, bytes } of reader.contents(Array.from({ length: PAGES }, (_, page) => page))) {
      contents.set(page, Buffer.from(bytes))
    }
    return contents
  }

  async wrong(): Promise<number[]> {
    const contents = await this.contents()
    return this.committed.flatMap((bytes, page) => ((contents.get(page) ?? ZEROS).equals(bytes) ? [] : [page]))
  }

  #pass(pipeline: CapturePipeline, page: number): void {
    const bytes = this.ram[page] ?? ZEROS
    pipeline.page(page, bytes.equals(ZEROS) ? undefined : bytes)
  }
}

const fill = (from: number, to: number, seed: number): Write[] =>
  Array.from({ length: to - from }, (_, i) => ({ page: from + i, fill: seed + i }))
/** Eight bytes each. */
const touch = (from: number, to: number, at: number, value: number): Write[] =>
  Array.from({ length: to - from }, (_, i) => ({
    page: from + i,
    bytes: Array.from({ length: 8 }, (_, byte) => [at + byte, value + byte] as const)
  }))

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
      moves: fc.oneof(fc.constant(false), fc.boolean())
    })
    // Room for all, and for eight pages.
    const memory = fc.constantFrom(8 << 20, 10 * PAGE)
    const property = fc.asyncProperty(memory, fc.array(epoch, { maxLength: 10 }), async (memoryBytes, epochs) => {
      const vm = new TrackedVm(memoryBytes)
      await vm.epoch([fill(0, 20, 1)])
      for (const { rounds, commits, moves } of epochs) {
        await vm.epoch(rounds, { commits })
        expect(await vm.wrong()).toEqual([])
        if (!moves) continue
        const sent = await vm.moves(memoryBytes, [3, 200, 0])
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
