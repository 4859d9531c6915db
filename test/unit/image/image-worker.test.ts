import { connect, createServer } from 'node:net'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import fc from 'fast-check'
import { afterAll, afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { DiapauseError } from '../../../node/errors.ts'
import { createImageWorker } from '../../../node/image/image-worker.ts'
import type { ImageManifest, ImageWorker, ShardCluster } from '../../../node/ports.ts'
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
  storedAndRead
} from './support.ts'

type Ram = Map<number, Buffer>

const MEMORY_MIB = 2
const PAGES = MEMORY_MIB * 256
const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const KEY = new Uint8Array(32).fill(7)

let dir: string
let cluster: MemoryCluster
let worker: ImageWorker
let sockets = 0
/** The worker of another host, which lives through all tests. */
let other: ImageWorker | undefined
const theCluster: ShardCluster = {
  putColumn: (...args) => cluster.putColumn(...args),
  readData: (manifest, offset, length) => cluster.readData(manifest, offset, length),
  putManifest: () => cluster.putManifest(),
  getManifest: hash => cluster.getManifest(hash)
}

const SHAPE = { k: 3, m: 2, symbolBytes: 16_384 }
const options = (key = KEY) => ({ ...factsOf({ memoryMiB: MEMORY_MIB, key, shape: SHAPE }), cluster, log: quietLog })

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'image-'))
  cluster = new MemoryCluster()
  worker = await createImageWorker(options())
})

afterAll(() => other?.close())

afterEach(async () => {
  await worker.close()
  await rm(dir, { recursive: true })
})

test('a thread that has only begun to load is not ended before it stands still', async () => {
  const posted = vi.spyOn(Worker.prototype, 'postMessage')
  const ended = vi.spyOn(Worker.prototype, 'terminate')
  try {
    const fresh = await createImageWorker(options())
    await fresh.close()
    const { argument } = posted.mock.calls.map(([message]) => message).find(({ method }) => method === 'standStill')
    expect(Atomics.load(argument, 0)).toBe(1)
    expect(posted.mock.invocationCallOrder[0]).toBeLessThan(ended.mock.invocationCallOrder[0] ?? 0)
  } finally {
    posted.mockRestore()
    ended.mockRestore()
  }
})

const socketPath = (): string => join(dir, `s${sockets++}`)

async function beginCapture(epoch: number, generation = 1) {
  const path = socketPath()
  const capture = await worker.capture({ generation, epoch, socketPath: path, holders: HOLDERS })
  return { path, capture }
}

/** Captures `ram` as QEMU would stream it. */
async function capture(epoch: number, ram: Ram, frames: Uint8Array[] = [], generation = 1): Promise<ImageManifest> {
  const { path, capture } = await beginCapture(epoch, generation)
  const socket = connect(path)
  socket.on('error', () => {})
  socket.end(snapshotStream(fakeMachine(ram, MEMORY_MIB)))
  return capture.finish(frameLog(frames))
}

/** Restores by a worker of its own, as another host would; checks the whole machine, returns frames and counts. */
async function restoreEquals(manifest: ImageManifest, ram: Ram, faults: readonly number[] = []) {
  other ??= await createImageWorker({ ...options(), cluster: theCluster })
  return serveEquals(other, manifest, ram, faults)
}

async function serveEquals(by: ImageWorker, manifest: ImageManifest, ram: Ram, faults: readonly number[] = []) {
  const restore = await by.restore(await storedAndRead(manifest))
  const frames = await allPieces(restore.frames)
  const target = fakeTarget(socketPath(), faults)
  await once(target.server, 'listening')
  const [counts, sent] = await Promise.all([restore.serve(target.path), target.done])
  target.server.close()
  const got = sent.ram.get('pc.ram')
  expect(got?.size).toBe(PAGES)
  for (let page = 0; page < PAGES; page++) {
    expect(got?.get(page)?.equals(ram.get(page) ?? Buffer.alloc(PAGE)), `page ${page}`).toBe(true)
  }
  expect(sent.ram.get('pc.bios')?.get(1)).toEqual(Buffer.alloc(PAGE, 'rom'))
  expect(sent.devices).toEqual(fakeMachine(new Map(), 1).devices)
  expect(sent.sentTwice).toBe(0)
  expect(counts.pagesFaulted + counts.pagesPushed).toBe(PAGES)
  return { frames, counts }
}

const ramOf = (entries: Iterable<readonly [number, number]>): Ram =>
  new Map([...entries].map(([page, seed]) => [page, pageOf(seed)]))
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

describe('an image', () => {
  test('comes back byte for byte, with its frames, whatever the RAM, the epochs and the lost columns', async () => {
    let epoch = 0
    let committed: Ram = new Map()
    const change = fc.array(fc.tuple(fc.nat(PAGES - 1), fc.nat(5)), { maxLength: 120 })
    const property = fc.asyncProperty(
      fc.array(fc.tuple(change, fc.boolean()), { minLength: 1, maxLength: 4 }),
      fc.array(fc.nat(PAGES - 1), { maxLength: 30 }),
      fc.uniqueArray(fc.nat(4), { maxLength: 2 }),
      async (epochs, faults, lost) => {
        const frames = [Buffer.from('one'), Buffer.alloc(1500, 2)]
        let image: ImageManifest | undefined
        for (const [changes, commits] of [...epochs, [[], true] as const]) {
          const ram: Ram = new Map(committed)
          for (const [page, seed] of changes) {
            if (seed === 0) ram.delete(page)
            else ram.set(page, pageOf(seed))
          }
          const captured = await capture(++epoch, ram, frames)
          if (!commits) {
            worker.abort(epoch)
            continue
          }
          worker.commit(epoch)
          committed = ram
          image = captured
        }
        for (const column of lost) cluster.lose(column)
        if (!image) throw new Error('no epoch was committed')
        const restored = await restoreEquals(image, committed, faults)
        cluster.findAll()
        expect(restored.frames).toEqual(frames)
      }
    )
    await fc.assert(property, { numRuns: 12 })
  })

  test('of a second epoch carries only the pages that changed', async () => {
    const ram = ramOf(range(0, 500).map(page => [page, page + 1]))
    const first = await capture(1, ram)
    worker.commit(1)
    expect(first.stats).toMatchObject({ pages: PAGES, pagesNonZero: 500, pagesChanged: 500 })
    for (const page of [7, 300, 510]) ram.set(page, pageOf(page + 10_000))
    ram.delete(8)
    const second = await capture(2, ram)
    expect(second.stats).toMatchObject({ pagesNonZero: 500, pagesChanged: 4 })
    expect(second.streams.map(stream => stream.stream)).toEqual(['g/v/1/1', 'g/v/1/2'])
    expect(second.stats.bytesStored).toBeLessThan(first.stats.bytesStored / 20)
    await restoreEquals(second, ram)
  })

  test('after an aborted epoch is a difference to the last committed one', async () => {
    const ram = ramOf(range(0, 100).map(page => [page, page + 1]))
    await capture(1, ram)
    worker.commit(1)
    const other = ramOf(range(0, 100).map(page => [page, page + 500]))
    await capture(2, other)
    worker.abort(2)
    const third = await capture(3, ram)
    expect(third.stats.pagesChanged).toBe(0)
    expect(third.streams.map(stream => stream.stream)).toEqual(['g/v/1/1', 'g/v/1/3'])
    await restoreEquals(third, ram)
  })

  test('never leans on more than eight streams, and stays whole', async () => {
    const ram = ramOf(range(0, 200).map(page => [page, page + 1]))
    let image: ImageManifest | undefined
    for (let epoch = 1; epoch <= 20; epoch++) {
      for (let i = 0; i < 5; i++) ram.set(epoch * 6 + i, pageOf(epoch * 1000 + i))
      image = await capture(epoch, ram)
      worker.commit(epoch)
      expect(image.streams.length).toBeLessThanOrEqual(8)
    }
    if (image) await restoreEquals(image, ram)
    expect(image?.streams.length).toBe(8)
  })

  test('after a restore the next epoch of the new generation is again a difference', async () => {
    const ram = ramOf(range(0, 300).map(page => [page, page + 1]))
    const first = await capture(1, ram)
    await worker.close()
    worker = await createImageWorker(options())
    await serveEquals(worker, first, ram, [0, 2, 77, 400])
    ram.set(305, pageOf(4242))
    const next = await capture(2, ram, [], 2)
    expect(next.stats.pagesChanged).toBe(1)
    expect(next.streams.map(stream => stream.stream)).toEqual(['g/v/1/1', 'g/v/2/2'])
    await restoreEquals(next, ram)
  })

  test('counts faulted pages, and sends their neighbours with them once', async () => {
    const ram = ramOf(range(0, 64).map(page => [page, page + 1]))
    const image = await capture(1, ram)
    let faulted = 0
    // A request that comes when all is pushed already, as on a busy host, finds nothing left to send: then again.
    for (let tries = 0; faulted === 0 && tries < 30; tries++) {
      const { counts } = await restoreEquals(image, ram, [40, 41, 40, 400])
      faulted = counts.pagesFaulted
      expect(faulted).toBeLessThanOrEqual(3)
    }
    expect(faulted).toBeGreaterThan(0)
  })

  test('reads around a tampered symbol', async () => {
    const ram = ramOf(range(0, 300).map(page => [page, page + 1]))
    const image = await capture(1, ram)
    cluster.tamper('g/v/1/1', 0, 0)
    cluster.tamper('g/v/1/1', 1, 3)
    const { counts } = await restoreEquals(image, ram)
    expect(counts.pagesPushed).toBe(PAGES)
  })
})

describe('an image worker', () => {
  test('hedges what it reads before the restored VM can run, and nothing after', async () => {
    const ram = ramOf(range(0, 500).map(page => [page, page + 1]))
    const image = await capture(1, ram)
    let hedges = new Set<number>()
    const noting: ShardCluster = {
      ...theCluster,
      readData(manifest, offset, length, { hedge = 0 } = {}) {
        hedges.add(hedge)
        return cluster.readData(manifest, offset, length)
      }
    }
    const own = await createImageWorker({ ...options(), cluster: noting })
    const restore = await own.restore(image)
    for await (const _ of restore.frames) expect(hedges).toEqual(new Set([1]))
    expect(hedges).toEqual(new Set([1]))
    hedges = new Set()
    const target = fakeTarget(socketPath(), [400])
    await restore.serve(target.path)
    target.server.close()
    await own.close()
    expect(hedges).toEqual(new Set([0]))
  })

  test('rejects with SHARD_LOST, and does not hang, when columns vanish in the middle of a restore', async () => {
    const ram = ramOf(range(0, 500).map(page => [page, page + 1]))
    const image = await capture(1, ram)
    worker.commit(1)
    const restore = await worker.restore(image)
    for (const column of [0, 1, 2]) cluster.lose(column)
    const target = fakeTarget(socketPath(), [400])
    await expect(restore.serve(target.path)).rejects.toThrow(expect.objectContaining({ code: 'SHARD_LOST' }))
    target.server.close()
  })

  test('rejects when the target closes, and when it is cancelled', async () => {
    const image = await capture(1, ramOf([[1, 1]]))
    worker.commit(1)
    const path = socketPath()
    const server = createServer(socket => socket.once('data', () => socket.destroy())).listen(path)
    const first = await worker.restore(image)
    await expect(first.serve(path)).rejects.toThrow(expect.objectContaining({ code: 'MIGRATION_STREAM_CLOSED' }))
    server.close()
    const mute = socketPath()
    const muteServer = createServer(() => {}).listen(mute)
    const second = await worker.restore(image)
    const reason = second.serve(mute).catch((error: unknown) => error)
    await once(muteServer, 'connection')
    await second.cancel()
    expect(await reason).toMatchObject({ code: 'IMAGE_CANCELLED' })
    muteServer.close()
    await expect(first.serve(path)).rejects.toThrow(expect.objectContaining({ code: 'IMAGE_CANCELLED' }))
  })

  test('refuses an image under another key, of another VM, and one whose parts were exchanged', async () => {
    const image = await capture(1, ramOf([[1, 1]]))
    const stranger = await createImageWorker(options(new Uint8Array(32)))
    await expect(stranger.restore(image)).rejects.toThrow(expect.objectContaining({ code: 'IMAGE_SEAL' }))
    await stranger.close()
    await expect(worker.restore({ ...image, vm: 'w' })).rejects.toThrow(
      expect.objectContaining({ code: 'IMAGE_MISMATCH' })
    )
    await expect(worker.restore({ ...image, machine: image.frames })).rejects.toThrow(
      expect.objectContaining({ code: 'IMAGE_SEAL' })
    )
  })

  test('holds QEMU back while columns cannot leave, with few of them under way', async () => {
    let release = () => {}
    const gate = new Promise<void>(resolve => {
      release = resolve
    })
    cluster.beforePut = () => gate
    await worker.close()
    worker = await createImageWorker({ ...options(), memoryMiB: 32 })
    const ram = new Map(range(0, 32 * 256).map(page => [page, randomBytes(PAGE)]))
    const { path, capture } = await beginCapture(1)
    const socket = connect(path)
    const stream = snapshotStream(fakeMachine(ram, 32))
    let sent = 0
    const sending = (async () => {
      for (; sent < stream.length; sent += 65_536) {
        if (!socket.write(stream.subarray(sent, sent + 65_536))) await once(socket, 'drain')
      }
      socket.end()
    })()
    const finishing = capture.finish(frameLog())
    for (let stable = 0, last = 0; stable < 30; stable = sent === last && cluster.putsUnderway > 0 ? stable + 1 : 0) {
      last = sent
      await new Promise(resolve => setTimeout(resolve, 10))
    }
    expect(sent).toBeLessThan(8 << 20)
    expect(cluster.putsUnderway).toBeGreaterThan(0)
    expect(cluster.putsUnderway * 5 * 16_384).toBeLessThan(8 << 20)
    release()
    await sending
    const image = await finishing
    expect(image.stats.pagesChanged).toBe(32 * 256)
    expect(cluster.putsUnderwayMax * 5 * 16_384).toBeLessThan(8 << 20)
  })

  test('rejects with what the cluster says when a column cannot be stored, and captures again after it', async () => {
    cluster.beforePut = async () => {
      throw new DiapauseError('SHARD_UNREACHABLE', 'gone', { details: { peer: 'b' } })
    }
    const failing = capture(1, ramOf([[1, 1]]))
    await expect(failing).rejects.toThrow(
      expect.objectContaining({ code: 'SHARD_UNREACHABLE', details: { peer: 'b' } })
    )
    cluster.beforePut = async () => {}
    const image = await capture(2, ramOf([[1, 1]]))
    expect(image.stats.pagesChanged).toBe(1)
  })

  test('goes on without a column that is late, where it may, says so, and comes back', async () => {
    const putColumn: ShardCluster['putColumn'] = async (to, ...put) => {
      if (to.spare === 1 && put[1] === 2) throw new DiapauseError('SHARD_LATE', 'slow')
      await cluster.putColumn(to, ...put)
    }
    await worker.close()
    const shape = { ...options().shape, durability: 'most' as const }
    worker = await createImageWorker({ ...options(), shape, cluster: { ...theCluster, putColumn } })
    const image = await capture(1, ramOf([[1, 1]]))
    expect((await storedAndRead(image)).stats.columnsMissing).toBe(1)
    await restoreEquals(image, ramOf([[1, 1]]))
  })

  test('rejects bad and truncated streams, and captures again after them', async () => {
    const whole = snapshotStream(fakeMachine(ramOf([[1, 1]]), MEMORY_MIB))
    for (const [bytes, code] of [
      [whole.subarray(0, whole.length - 9), 'MIGRATION_STREAM_TRUNCATED'],
      [Buffer.from('GET / HTTP/1.1\r\n'), 'MIGRATION_STREAM_INVALID'],
      [snapshotStream(fakeMachine(new Map(), 8)), 'IMAGE_MEMORY_SIZE']
    ] as const) {
      const { path, capture } = await beginCapture(1)
      const socket = connect(path)
      socket.on('error', () => {})
      socket.end(bytes)
      await expect(capture.finish(frameLog())).rejects.toThrow(expect.objectContaining({ code }))
    }
    const image = await capture(1, ramOf([[1, 1]]))
    expect(image.stats.pagesNonZero).toBe(1)
  })

  test('takes one capture at a time, and none before the last epoch is decided', async () => {
    const { capture: open } = await beginCapture(1)
    await expect(beginCapture(2)).rejects.toThrow(expect.objectContaining({ code: 'IMAGE_BUSY' }))
    const reason = open.finish(frameLog()).catch((error: unknown) => error)
    await open.cancel()
    await open.cancel()
    expect(await reason).toMatchObject({ code: 'IMAGE_CANCELLED' })
    await capture(2, new Map())
    await expect(beginCapture(3)).rejects.toThrow(expect.objectContaining({ code: 'IMAGE_EPOCH_OPEN' }))
    worker.commit(2)
    await capture(3, new Map())
  })

  test('rejects everything once it is closed', async () => {
    const { capture: open } = await beginCapture(1)
    const reason = open.finish(frameLog()).catch((error: unknown) => error)
    await worker.close()
    expect(await reason).toMatchObject({ code: 'IMAGE_WORKER' })
    await open.cancel()
  })
})
