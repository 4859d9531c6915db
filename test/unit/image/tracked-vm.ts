/** A VM whose RAM is tracked, as the tests of what becomes of its pages have it: captured without QEMU, restored into a fake one. */
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createCodec } from '../../../node/erasure/codec.ts'
import { readBootSet, readWholeTable } from '../../../node/image/boot-set.ts'
import { CapturePipeline } from '../../../node/image/capture.ts'
import { wholeImage } from '../../../node/image/known-images.ts'
import { PageState } from '../../../node/image/page-state.ts'
import { PAGES_PER_MIB } from '../../../node/image/page-table.ts'
import { PlaceReader, type ReadStream } from '../../../node/image/place-reader.ts'
import { PostcopySource } from '../../../node/image/postcopy-source.ts'
import { WorkingSet } from '../../../node/image/working-set.ts'
import type { ImageManifest } from '../../../node/ports.ts'
import { frameLog } from '../frame-logs.ts'
import { fakeTarget } from './fake-target.ts'
import { deviceStream, factsOf, fakeMachine, MemoryCluster, PAGE, pageOf } from './support.ts'

export const facts = factsOf({ memoryMiB: 2, disks: [{ blocks: 100 }] })
export const RAM_PAGES = 2 * PAGES_PER_MIB
export const PAGES = RAM_PAGES + 100
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const ZEROS = Buffer.alloc(PAGE)

/** What a program does to a page: fills it with something, zeros, what another page holds, or changes a few bytes. */
export type Write = { page: number } & (
  | { fill: number }
  | { copy: number }
  | { bytes: readonly (readonly [number, number])[] }
)

/** A VM whose RAM is tracked, with a disk; pages may pass more than once in an epoch. */
export class TrackedVm {
  readonly cluster = new MemoryCluster()
  readonly ram: Buffer[] = Array.from({ length: PAGES }, () => ZEROS)
  state: PageState
  image: ImageManifest | undefined
  committed: Buffer[] = []
  /** What it touches first. */
  working = new WorkingSet()
  /** How many pages the last restore sent before the VM ran. */
  sentBefore = 0
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
      working: this.working,
      read
    })
    const again = [...this.state.toRewrite().runs(1, 0)].flatMap(({ wanted }) => wanted)
    const moving = [...pipeline.moving.runs(1, 0)].flatMap(({ wanted }) => wanted)
    const passed = new Set([...again, ...moving, ...this.#due])
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
  async moves(memoryBytes: number, faults: readonly number[] = [], firstBytes?: number): Promise<Map<number, Buffer>> {
    if (!this.image) throw new Error('no epoch was committed')
    const image = await readBootSet(facts, this.image, this.read, {
      workingSet: true,
      ...(firstBytes !== undefined && { firstBytes })
    })
    this.state = new PageState(RAM_PAGES, PAGES - RAM_PAGES, memoryBytes)
    this.state.reset(image.pages.table)
    const folder = await mkdtemp(join(tmpdir(), 'coder-'))
    try {
      const target = fakeTarget(join(folder, 's'), faults)
      await once(target.server, 'listening')
      const source = new PostcopySource({ facts, image, readMs: 0, state: this.state, read: this.read })
      const [, sent] = await Promise.all([source.serve(target.path), target.done])
      target.server.close()
      for (let page = 0; page < PAGES; page++) this.#due.add(page)
      for (const page of this.committed.keys()) this.ram[page] = this.committed[page] ?? ZEROS
      this.working = new WorkingSet(image.learned())
      this.working.learnAsked(source.requests)
      this.sentBefore = sent.before
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

export const fill = (from: number, to: number, seed: number): Write[] =>
  Array.from({ length: to - from }, (_, i) => ({ page: from + i, fill: seed + i }))
/** Eight bytes each. */
export const touch = (from: number, to: number, at: number, value: number): Write[] =>
  Array.from({ length: to - from }, (_, i) => ({
    page: from + i,
    bytes: Array.from({ length: 8 }, (_, byte) => [at + byte, value + byte] as const)
  }))
