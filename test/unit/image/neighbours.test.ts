import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createImageWorker } from '../../../node/image/image-worker.ts'
import type { NeighbourNews } from '../../../node/image/neighbours.ts'
import { type Member, type MemberOptions, SharedContents } from '../../../node/image/shared-contents.ts'
import type { ImageManifest, ImageWorker } from '../../../node/ports.ts'
import { allPieces, frameLog } from '../frame-logs.ts'
import { fakeTarget } from './fake-target.ts'
import {
  factsOf,
  fakeMachine,
  MemoryCluster,
  PAGE,
  pageOf,
  quietLog,
  snapshotStream,
  storedAndRead,
  u32
} from './support.ts'

type Ram = Map<number, Buffer>
type Vm = readonly [ImageWorker, Ram]

const MEMORY_MIB = 2
const PAGES = MEMORY_MIB * 256
const WAIT_MS = 20_000
const HOLDERS = ['a', 'b', 'c', 'd', 'e']

/** Notes what is told. */
class TellingContents extends SharedContents {
  readonly #told: (number | undefined)[] = []

  override join(options: MemberOptions): Member {
    const tell = (news: NeighbourNews) => {
      options.tell(news)
      this.#told.push(news.publication?.epoch)
    }
    return super.join({ ...options, tell })
  }

  /** So many have been told of that epoch: their captures that begin now know of it. */
  async told(epoch: number, count: number): Promise<void> {
    await vi.waitFor(() => {
      if (this.#told.filter(each => each === epoch).length < count) throw new Error(`nobody has told of epoch ${epoch}`)
    }, WAIT_MS)
  }
}

let dir: string
let cluster: MemoryCluster
let shared: TellingContents
let opened: ImageWorker[] = []
let sockets = 0

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'neighbours-'))
  cluster = new MemoryCluster()
  shared = new TellingContents()
})

afterEach(async () => {
  await Promise.all(opened.map(worker => worker.close()))
  opened = []
  await rm(dir, { recursive: true })
})

async function open(vm: string, group = 'g', neighbours: SharedContents | undefined = shared): Promise<ImageWorker> {
  const worker = await createImageWorker({
    ...factsOf({ group, vm, memoryMiB: MEMORY_MIB, shape: { k: 3, m: 2, symbolBytes: 16_384 } }),
    cluster,
    log: quietLog,
    neighbours
  })
  opened.push(worker)
  return worker
}

const socketPath = (): string => join(dir, `s${sockets++}`)

async function capture(worker: ImageWorker, epoch: number, ram: Ram, generation = 1): Promise<ImageManifest> {
  const path = socketPath()
  const capturing = await worker.capture({ generation, epoch, socketPath: path, holders: HOLDERS })
  const socket = connect(path)
  socket.on('error', () => {})
  socket.end(snapshotStream(fakeMachine(ram, MEMORY_MIB)))
  return capturing.finish(frameLog([]))
}

/** An epoch of the group: of all its VMs, or of none. Each has heard of the others' when it resolves. */
async function epochOf(epoch: number, vms: readonly Vm[], generation = 1): Promise<readonly ImageManifest[]> {
  const images = await Promise.all(vms.map(([worker, ram]) => capture(worker, epoch, ram, generation)))
  for (const [worker] of vms) worker.commit(epoch)
  await shared.told(epoch, vms.length * (vms.length - 1))
  return images
}

/** Restores by `worker`, and checks the RAM. */
async function serve(worker: ImageWorker, manifest: ImageManifest | undefined, ram: Ram): Promise<void> {
  if (manifest === undefined) throw new Error('there is no image')
  const restore = await worker.restore(await storedAndRead(manifest))
  await allPieces(restore.frames)
  const target = fakeTarget(socketPath(), [])
  await once(target.server, 'listening')
  const [, sent] = await Promise.all([restore.serve(target.path), target.done])
  target.server.close()
  const got = sent.ram.get('pc.ram')
  for (let page = 0; page < PAGES; page++) {
    expect(got?.get(page)?.equals(ram.get(page) ?? Buffer.alloc(PAGE)), `page ${page}`).toBe(true)
  }
}

const restoreEquals = async (manifest: ImageManifest | undefined, ram: Ram): Promise<void> =>
  serve(await open(manifest?.vm ?? '', 'g', undefined), manifest, ram)

const ramOf = (from: number, count: number, seed: number): Ram =>
  new Map(Array.from({ length: count }, (_, i) => [from + i, pageOf(seed + i)]))
const vmsOf = (workers: readonly ImageWorker[], rams: readonly Ram[]): Vm[] =>
  workers.map((worker, i) => [worker, rams[i] ?? new Map()])

const CHANGES = ['new', 'zero', 'as the other', 'touched'] as const
let contents = 0

/** `other`: what the other VM has committed. */
function changePages(
  ram: Ram | undefined,
  other: Ram | undefined,
  first: number,
  count: number,
  to: (typeof CHANGES)[number]
): void {
  for (let page = first; page < Math.min(PAGES, first + count); page++) {
    const there = to === 'as the other' ? other?.get(page) : ram?.get(page)
    if (to === 'new') ram?.set(page, pageOf(5_000_000 + ++contents))
    else if (to === 'zero' || there === undefined) ram?.delete(page)
    else if (to === 'as the other') ram?.set(page, there)
    else ram?.set(page, Buffer.concat([u32(++contents), there.subarray(4)]))
  }
}

const streamsOf = (image: ImageManifest | undefined): string[] => image?.streams.map(({ stream }) => stream) ?? []

test('what a VM of the group has committed on this host is not written by another, and comes back byte for byte', async () => {
  const [u, v] = [await open('u'), await open('v')]
  const [first, second] = [ramOf(0, 400, 1), ramOf(0, 5, 9_000)]
  const [own] = await epochOf(1, [
    [u, first],
    [v, second]
  ])
  for (let page = 0; page < 400; page++) second.set(PAGES - 1 - page, pageOf(1 + page))
  const [, image] = await epochOf(2, [
    [u, first],
    [v, second]
  ])
  expect(streamsOf(image)).toEqual(['g/v/1/1', 'g/u/1/1', 'g/v/1/2'])
  expect(image?.stats).toMatchObject({ pagesChanged: 400, pagesSeen: 400 })
  expect(image?.stats.bytesStored).toBeLessThan((own?.stats.bytesStored ?? 0) / 10)
  await restoreEquals(image, second)
  // The other gives it up, and this one goes on with it: also where a part of it changes.
  const empty: Ram = new Map()
  await epochOf(3, [
    [u, empty],
    [v, second]
  ])
  second.get(200)?.fill(1, 0, 8)
  const [without, later] = await epochOf(4, [
    [u, empty],
    [v, second]
  ])
  expect(streamsOf(without)).not.toContain('g/u/1/1')
  expect(streamsOf(later)).toContain('g/u/1/1')
  expect(later?.stats).toMatchObject({ pagesChanged: 1, pagesDelta: 1 })
  await restoreEquals(later, second)
})

test('VMs that went back to a common epoch share what they had then', async () => {
  const [u, v] = [await open('u'), await open('v')]
  const [first, second] = [ramOf(0, 300, 1), ramOf(0, 5, 9_000)]
  const [one, two] = await epochOf(1, [
    [u, first],
    [v, second]
  ])
  await Promise.all([u.close(), v.close()])
  const [x, y] = [await open('u'), await open('v')]
  await Promise.all([serve(x, one, first), serve(y, two, second)])
  await shared.told(1, 4)
  for (let page = 100; page < 200; page++) second.set(page, pageOf(1 + page))
  const [, image] = await epochOf(
    3,
    [
      [x, first],
      [y, second]
    ],
    2
  )
  expect(image?.stats).toMatchObject({ pagesChanged: 100, pagesSeen: 100 })
  await restoreEquals(image, second)
})

test('nothing is shared that is not committed, of another epoch, or of another group', async () => {
  const [u, v, stranger] = [await open('u'), await open('v'), await open('w', 'other')]
  const [first, second] = [ramOf(0, 300, 1), ramOf(0, 5, 9_000)]
  await Promise.all([
    epochOf(1, [
      [u, new Map()],
      [v, second]
    ]),
    epochOf(1, [[stranger, first]])
  ])
  const same = new Map([...second, ...ramOf(5, 295, 6)])
  await Promise.all([capture(u, 2, first), capture(v, 2, same)])
  for (const worker of [u, v]) worker.abort(2)
  expect(streamsOf(await capture(v, 3, same))).toEqual(['g/v/1/1', 'g/v/1/3'])
  v.abort(3)
  await capture(u, 4, first)
  u.commit(4) // which no group does for one VM alone
  await shared.told(4, 1)
  const image = await capture(v, 5, same)
  expect(streamsOf(image)).toEqual(['g/v/1/1', 'g/v/1/5'])
  await restoreEquals(image, same)
})

test('two VMs come back byte for byte, whatever they copy of each other, whatever is committed, wherever they go back', async () => {
  const change = fc.tuple(fc.nat(1), fc.nat(PAGES - 1), fc.nat(120), fc.constantFrom(...CHANGES))
  const step = fc.record({
    changes: fc.array(change, { maxLength: 4, size: 'max' }),
    end: fc.constantFrom('commit', 'commit', 'commit', 'abort', 'go back')
  })
  let [epoch, generation, foreign] = [0, 0, 0]
  const property = fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 7, size: 'max' }), async steps => {
    const openBoth = () => Promise.all(['u', 'v'].map(vm => open(vm)))
    let workers = await openBoth()
    let rams: Ram[] = [ramOf(100, 150, ++contents * 1_000), new Map()]
    let images = await epochOf(++epoch, vmsOf(workers, rams), ++generation)
    let committed = rams.map(ram => new Map(ram))
    const first = { changes: [[1, 100, 150, 'as the other'] as const], end: 'commit' }
    for (const { changes, end } of [first, ...steps]) {
      for (const [vm, from, count, to] of changes) changePages(rams[vm], committed[1 - vm], from, count, to)
      if (end === 'go back') {
        await Promise.all(workers.map(worker => worker.close()))
        rams = committed.map(ram => new Map(ram))
        workers = await openBoth()
        await Promise.all(vmsOf(workers, rams).map(([worker, ram], i) => serve(worker, images[i], ram)))
        generation++
      } else if (end === 'abort') {
        const number = ++epoch
        await Promise.all(vmsOf(workers, rams).map(([worker, ram]) => capture(worker, number, ram, generation)))
        for (const worker of workers) worker.abort(number)
      } else {
        images = await epochOf(++epoch, vmsOf(workers, rams), generation)
        committed = rams.map(ram => new Map(ram))
        foreign += images.filter(image => streamsOf(image).some(each => !each.startsWith(`g/${image.vm}/`))).length
      }
    }
    for (const [i, image] of images.entries()) await restoreEquals(image, committed[i] ?? new Map())
    await Promise.all(workers.map(worker => worker.close()))
  })
  await fc.assert(property, { numRuns: 3 })
  expect(foreign).toBeGreaterThan(0)
})
