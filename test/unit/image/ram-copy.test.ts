/** Captures out of a RAM file, checked against a plain buffer: any writes, rounds, and epochs that come to nothing. */
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createImageWorker } from '../../../node/image/image-worker.ts'
import { PageSet } from '../../../node/image/page-set.ts'
import { RamCopy } from '../../../node/image/ram-copy.ts'
import type { Capture, ImageManifest, ImageWorker, PageRanges } from '../../../node/ports.ts'
import { ramOfImage } from '../../contract/image-ram.ts'
import { frameLog } from '../frame-logs.ts'
import { deviceStream, factsOf, fakeMachine, MemoryCluster, PAGE, pageOf, quietLog } from './support.ts'

const MEMORY_MIB = 1
const PAGES = MEMORY_MIB * 256
const facts = factsOf({ memoryMiB: MEMORY_MIB, shape: { k: 3, m: 2, symbolBytes: 16_384 } })

let dir: string
let files = 0
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ram-'))
})
afterAll(() => rm(dir, { recursive: true }))

/** A VM that stands still between writes, its RAM file, and what a tracker would know. */
class FakeVm {
  readonly cluster = new MemoryCluster()
  readonly ramPath = join(dir, `ram${files++}`)
  readonly ram = Buffer.alloc(PAGES * PAGE)
  worker!: ImageWorker
  readonly #written = new Set<number>(Array.from({ length: PAGES }, (_, page) => page))
  #epoch = 0

  async start(): Promise<this> {
    this.worker = await createImageWorker({ ...facts, cluster: this.cluster, log: quietLog })
    await this.write([])
    return this
  }

  /** Content 0 is a page of zeros. */
  async write(writes: readonly (readonly [page: number, content: number])[]): Promise<void> {
    for (const [page, content] of writes) {
      this.ram.set(content === 0 ? Buffer.alloc(PAGE) : pageOf(content), page * PAGE)
      this.#written.add(page)
    }
    const file = await open(this.ramPath, 'w')
    await file.writeFile(this.ram)
    await file.close()
  }

  changed(): PageRanges {
    const ranges = Uint32Array.from([...this.#written].flatMap(page => [page, 1]))
    this.#written.clear()
    return ranges
  }

  async begin(): Promise<{ capture: Capture; epoch: number; sent: Promise<void> }> {
    const epoch = ++this.#epoch
    const socketPath = `${this.ramPath}.${epoch}`
    const options = { generation: 1, epoch, socketPath, holders: ['a', 'b', 'c', 'd', 'e'], ramPath: this.ramPath }
    const capture = await this.worker.capture(options)
    const sent = new Promise<void>(resolve => {
      const socket = connect(socketPath)
      socket.on('error', () => {}).on('close', () => resolve())
      socket.resume().end(deviceStream(fakeMachine(new Map(), MEMORY_MIB)))
    })
    return { capture, epoch, sent }
  }

  async isRam(image: ImageManifest): Promise<boolean> {
    return (await ramOfImage(facts, image, this.cluster)).equals(this.ram)
  }
}

const writes = fc.array(fc.tuple(fc.nat(PAGES - 1), fc.nat(5)), { maxLength: 30 })
const epoch = fc.record({
  rounds: fc.array(writes, { minLength: 1, maxLength: 3 }),
  /** In which of its rounds the VM is to be cut at once, if in any. */
  hurried: fc.constantFrom(0, 1, 2, undefined, undefined, undefined),
  between: writes,
  fate: fc.constantFrom('committed', 'committed', 'cancelled in its rounds', 'cancelled at the end', 'aborted')
})

describe('a capture out of a RAM file', () => {
  test('is RAM byte for byte, whatever was written and whichever epochs came to nothing', async () => {
    const property = fc.asyncProperty(fc.array(epoch, { minLength: 1, maxLength: 14 }), async epochs => {
      const vm = await new FakeVm().start()
      for (const { rounds, hurried, between, fate } of epochs) {
        const { capture, epoch, sent } = await vm.begin()
        for (const [i, round] of rounds.entries()) {
          await vm.write(round)
          const copied = capture.copy(vm.changed())
          if (i === hurried) expect(await capture.hurry()).toBeLessThanOrEqual(PAGES)
          await copied
        }
        if (fate === 'cancelled in its rounds') {
          await capture.cancel()
          await vm.write(between)
          // The agent may still be between asking what has changed and telling it.
          await expect(capture.copy(vm.changed())).rejects.toMatchObject({ code: 'IMAGE_CANCELLED' })
          continue
        }
        await vm.write(between)
        await capture.copyLast(vm.changed())
        if (fate === 'cancelled at the end') {
          await capture.cancel()
          continue
        }
        const image = await capture.finish(frameLog())
        await sent
        expect(image.streams.length).toBeLessThanOrEqual(8)
        expect(await vm.isRam(image)).toBe(true)
        if (fate === 'aborted') vm.worker.abort(epoch)
        else vm.worker.commit(epoch)
      }
      await vm.worker.close()
    })
    await fc.assert(property, { numRuns: 25 })
  }, 60_000)

  test('copies pages of retired streams that nobody wrote, so that images lean on at most eight streams', async () => {
    const vm = await new FakeVm().start()
    for (let n = 0; n < 12; n++) {
      const { capture, epoch } = await vm.begin()
      await vm.write([[n, n + 1]])
      await capture.copy(vm.changed())
      await capture.copyLast(vm.changed())
      const image = await capture.finish(frameLog())
      expect(image.streams.length).toBeLessThanOrEqual(8)
      expect(await vm.isRam(image)).toBe(true)
      vm.worker.commit(epoch)
    }
    await vm.worker.close()
  })

  test('takes the pages of the pause as they were then, though they are written before it ends', async () => {
    const vm = await new FakeVm().start()
    const { capture } = await vm.begin()
    await capture.copy(vm.changed())
    await vm.write([[9, 1]])
    await capture.copyLast(vm.changed())
    const atTheCut = Buffer.from(vm.ram)
    await vm.write([[9, 2]])
    const image = await capture.finish(frameLog())
    expect((await ramOfImage(facts, image, vm.cluster)).equals(atTheCut)).toBe(true)
    await vm.worker.close()
  })

  test('has all of RAM where nothing was committed yet, though only the worker before was told of it', async () => {
    const vm = await new FakeVm().start()
    await vm.write([[PAGES - 1, 3]])
    vm.changed()
    const { capture } = await vm.begin()
    await vm.write([[0, 4]])
    await capture.copy(vm.changed())
    await capture.copyLast(vm.changed())
    expect(await vm.isRam(await capture.finish(frameLog()))).toBe(true)
    await vm.worker.close()
  })

  test('waits in its rounds while columns cannot leave, and never in the pause', async () => {
    const vm = await new FakeVm().start()
    const gate = Promise.withResolvers<void>()
    vm.cluster.beforePut = () => gate.promise
    await vm.write(Array.from({ length: PAGES }, (_, page) => [page, page + 1] as const))
    const { capture } = await vm.begin()
    await capture.copyLast(vm.changed())
    gate.resolve()
    expect(await vm.isRam(await capture.finish(frameLog()))).toBe(true)
    await vm.worker.close()
  })

  test('ends a round at once when the VM is to be cut, also one that waits for columns, and tells how much is left', async () => {
    const ramPath = join(dir, `ram${files++}`)
    const ram = Buffer.concat(Array.from({ length: 4 * PAGES }, (_, page) => pageOf(page + 1)))
    await writeFile(ramPath, ram)
    const copied: number[] = []
    let stuck: Promise<void> | undefined = new Promise(() => {})
    const copy = new RamCopy(ramPath, new PageSet(4 * PAGES), {
      page: (page, bytes) => {
        if (bytes !== undefined && ram.subarray(page * PAGE, (page + 1) * PAGE).equals(bytes)) copied.push(page)
      },
      congestion: () => stuck
    })
    const round = copy.copy(Uint32Array.of(0, 4 * PAGES))
    expect(await copy.hurry()).toBe(3 * PAGES)
    await round
    await copy.copy(Uint32Array.of(0, 1)) // comes late, and is left for the pause as well
    expect(copied).toEqual(Array.from({ length: PAGES }, (_, page) => page))
    stuck = undefined
    copy.readLast(Uint32Array.of(1, 1))
    await copy.finish()
    expect(copied.slice(PAGES)).toEqual([0, 1, ...Array.from({ length: 3 * PAGES }, (_, page) => PAGES + page)])
  })

  test('moves pages with the first round, and leaves none of them for the pause that nobody wrote', async () => {
    const ramPath = join(dir, `ram${files++}`)
    await writeFile(ramPath, Buffer.alloc(4 * PAGES * PAGE, 1))
    const copyOf = (stuck: Promise<void> | undefined) => {
      const moving = new PageSet(4 * PAGES)
      moving.addRanges(Uint32Array.of(3, 2, 2 * PAGES, PAGES))
      const copied: number[] = []
      const sink = { page: (page: number) => void copied.push(page), congestion: () => stuck, moving }
      return { copied, copy: new RamCopy(ramPath, new PageSet(4 * PAGES), sink) }
    }
    const moved = Array.from({ length: PAGES }, (_, page) => 2 * PAGES + page)
    const calm = copyOf(undefined)
    await calm.copy.copy(Uint32Array.of(1, 1))
    await calm.copy.copy(Uint32Array.of(9, 1))
    expect(calm.copied).toEqual([1, 3, 4, ...moved, 9])
    const hurried = copyOf(new Promise(() => {}))
    const round = hurried.copy.copy(Uint32Array.of(1, 1, 2 * PAGES + 7, 1))
    expect(await hurried.copy.hurry()).toBe(1)
    await round
    await hurried.copy.copy(Uint32Array.of())
    expect(hurried.copied).toEqual([1, 3, 4])
    for (const { copy } of [calm, hurried]) copy.close()
    const cutAtOnce = copyOf(undefined)
    expect(await cutAtOnce.copy.hurry()).toBe(0)
    cutAtOnce.copy.close()
  })

  test('tells how far it has come', async () => {
    const vm = await new FakeVm().start()
    await vm.write(Array.from({ length: PAGES }, (_, page) => [page, page + 1] as const))
    const { capture } = await vm.begin()
    expect(await capture.progress()).toBe(0)
    await capture.copy(vm.changed())
    const copied = await capture.progress()
    expect(copied).toBeGreaterThanOrEqual(PAGES)
    await capture.shipped()
    await capture.copyLast(Uint32Array.of())
    await capture.finish(frameLog())
    await expect(capture.progress()).rejects.toMatchObject({ code: 'IMAGE_CANCELLED' })
    await vm.worker.close()
  })

  test('rejects where the RAM is not there, and can be tried again', async () => {
    const vm = await new FakeVm().start()
    const options = { generation: 1, epoch: 9, socketPath: join(dir, 'none'), holders: ['a', 'b', 'c', 'd', 'e'] }
    const failing = vm.worker.capture({ ...options, ramPath: join(dir, 'nowhere') })
    await expect(failing).rejects.toMatchObject({ code: 'IMAGE_RAM' })
    const { capture } = await vm.begin()
    await capture.copyLast(vm.changed())
    expect(await vm.isRam(await capture.finish(frameLog()))).toBe(true)
    await vm.worker.close()
  })
})
