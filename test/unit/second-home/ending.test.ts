/** Work on a second home that is ended, by itself or by the death of a peer. */
import { hash, randomBytes } from 'node:crypto'
import { mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { HomeWish, ImageManifest, ObjectStore, SecondHome, StreamManifest } from '../../../node/ports.ts'
import { CHUNK_BYTES } from '../../../node/second-home/copy.ts'
import { openDirectory } from '../../../node/second-home/directory.ts'
import { createSecondHome } from '../../../node/second-home/home.ts'
import { openS3 } from '../../../node/second-home/s3.ts'
import { GRACE_MS } from '../../../node/second-home/sweep-plan.ts'
import { recoveryPublic } from '../../../protocols/membership/recovery.ts'
import { MemoryHome } from './memory-home.ts'

const cluster = { id: '0'.repeat(32), name: 'forest' }
const place = { cluster: cluster.id, group: 'shop' }

function wish(epoch: number, dataBytes: number): HomeWish {
  const stream = { stream: `shop/till/1/${epoch}`, dataBytes, k: 1, m: 0, holders: [], grids: [], key: 4 }
  return {
    cluster,
    group: 'shop',
    epoch,
    generation: 1,
    groupGeneration: 1,
    outputCommit: false,
    openFlow: false,
    images: { till: { vm: 'till', streams: [stream] } as unknown as ImageManifest },
    vms: [{ id: 'till', memoryMiB: 64, mac: '52:54:00:00:00:01', kernel: '/k', initrd: '/i', append: '' }],
    keys: [{ id: 4, key: new Uint8Array(32).fill(4) }],
    recovery: recoveryPublic(new Uint8Array(32).fill(9))
  }
}

const nameOf = ({ stream }: StreamManifest): string => hash('sha256', stream)

/** `work`, given up as soon as `isStuck`: what it was rejected with. */
async function ended(work: (signal: AbortSignal) => Promise<unknown>, isStuck: () => boolean): Promise<unknown> {
  const stop = new AbortController()
  const working = work(stop.signal).then(
    () => 'done',
    (error: unknown) => error
  )
  for (let turns = 0; turns < 500 && !isStuck(); turns++) await turn()
  expect(isStuck()).toBe(true)
  stop.abort()
  const late = (async () => {
    for (let turns = 0; turns < 500; turns++) await turn()
    return 'still at it'
  })()
  return await Promise.race([working, late])
}

const CANCELLED = expect.objectContaining({ code: 'HOME_CANCELLED' }) as unknown

describe('work on a second home that is ended', () => {
  let store: MemoryHome
  let nowMs: number
  /** Those that run, with how long in ms. */
  let timers: Map<() => void, number>
  let bytesPerSecond: number
  let readData: () => Promise<Uint8Array>
  beforeEach(() => {
    store = new MemoryHome()
    nowMs = 0
    timers = new Map()
    bytesPerSecond = 1e12
    readData = () => Promise.resolve(new Uint8Array(CHUNK_BYTES))
  })

  const open = (over: ObjectStore): SecondHome =>
    createSecondHome({
      store: over,
      clock: { now: () => nowMs, after: (ms, fn) => (timers.set(fn, ms), () => void timers.delete(fn)) },
      bytesPerSecond,
      wallMs: () => store.nowMs,
      randomBytes: count => new Uint8Array(randomBytes(count)),
      readData: () => readData(),
      nameOf,
      encodeImage: ({ streams, ...rest }) =>
        Buffer.from(
          JSON.stringify({ ...rest, streams: streams.map(each => ({ stream: each.stream, manifest: nameOf(each) })) })
        ),
      decodeImage: bytes => JSON.parse(Buffer.from(bytes).toString()) as never
    })
  const copy = (home: SecondHome, epoch: number, signal = new AbortController().signal) =>
    home.copy(wish(epoch, 2 * CHUNK_BYTES), { signal, progress: () => {} })

  /** The store, of which one operation is not answered from its `from`th call on, until it answers that and all that follows. */
  function stuckStore(operation: 'put' | 'get' | 'stat' | 'list' | 'delete', from: number) {
    const answer = Promise.withResolvers<void>()
    const stuck = { is: false, after: 0, answer: answer.resolve }
    let calls = 0
    const over = new Proxy<ObjectStore>(store, {
      get: (target, name: keyof ObjectStore) => {
        const known: unknown = target[name]
        if (typeof known !== 'function') return known
        return (...given: unknown[]): unknown => {
          if (stuck.is) stuck.after++
          const asked = (): unknown => (known as (...all: unknown[]) => unknown).apply(store, given)
          if (name !== operation || ++calls < from) return asked()
          stuck.is = true
          const late = answer.promise.then(asked)
          return name === 'list' ? { [Symbol.asyncIterator]: () => ({ next: () => late }) } : late
        }
      }
    })
    return { over, stuck }
  }

  it.each([
    ['list', 1],
    ['stat', 1],
    ['put', 1],
    ['stat', 2],
    ['put', 2],
    ['put', 4],
    ['stat', 5]
  ] as const)('does not wait for a home that never answers a copy: %s no. %i', async (operation, from) => {
    const { over, stuck } = stuckStore(operation, from)
    expect(
      await ended(
        signal => copy(open(over), 1, signal),
        () => stuck.is
      )
    ).toEqual(CANCELLED)
    const { after } = stuck
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(stuck.after).toBe(after) // nothing more is asked for
    expect(store.names('epochs/')).toEqual([])
  })

  it('keeps what comes after it from asking more of a home that has not answered yet, which fails after half a minute', async () => {
    const { over, stuck } = stuckStore('put', 2)
    const home = open(over)
    const [isStuck, waits] = [() => stuck.is, () => [...timers.values()].join() === '10000']
    expect(await ended(signal => copy(home, 1, signal), isStuck)).toEqual(CANCELLED)
    nowMs = 20_000
    expect(await ended(signal => copy(home, 2, signal), waits)).toEqual(CANCELLED)
    expect(await ended(signal => home.sweep(place, 1, undefined, signal), waits)).toEqual(CANCELLED)
    for (const atMs of [30_000, 31_000]) {
      nowMs = atMs
      const late = copy(home, 2).catch((error: unknown) => error)
      await turn()
      expect([...timers.values()]).toEqual([0])
      for (const fire of timers.keys()) fire()
      expect(await late).toMatchObject({ code: 'HOME_UNREACHABLE' })
    }
    expect(stuck.after).toBe(0)
    stuck.answer()
    await turn()
    expect(await copy(home, 2)).toMatchObject({ streamsCopied: 1 })
    expect(store.names('epochs/')).toHaveLength(1)
    expect(timers.size).toBe(0)
  })

  it('goes on as soon as the home has answered', async () => {
    const { over, stuck } = stuckStore('put', 2)
    const home = open(over)
    await ended(
      signal => copy(home, 1, signal),
      () => stuck.is
    )
    const next = copy(home, 2)
    for (let turns = 0; turns < 20; turns++) await turn()
    expect(stuck.after).toBe(0)
    stuck.answer()
    expect(await next).toMatchObject({ streamsCopied: 1 })
  })

  it('leaves nothing under way where shards cannot be read: it fails when the home has answered', async () => {
    const { over, stuck } = stuckStore('put', 2)
    let reads = 0
    readData = () =>
      ++reads === 1 ? Promise.resolve(new Uint8Array(CHUNK_BYTES)) : Promise.reject(new Error('too few shards'))
    const failed: unknown[] = []
    const copying = copy(open(over), 1).catch((error: unknown) => failed.push(error))
    for (let turns = 0; turns < 500 && !stuck.is; turns++) await turn()
    for (let turns = 0; turns < 20; turns++) await turn()
    expect([reads, failed]).toEqual([2, []])
    stuck.answer()
    await copying
    expect(failed).toEqual([new Error('too few shards')])
  })

  it('does not wait for the pace', async () => {
    bytesPerSecond = 1_000
    expect(
      await ended(
        signal => copy(open(store), 1, signal),
        () => timers.size === 1
      )
    ).toEqual(CANCELLED)
    expect(timers.size).toBe(0)
  })

  it('does not wait for shards', async () => {
    let reads = 0
    readData = () => (reads++, new Promise<never>(() => {}))
    expect(
      await ended(
        signal => copy(open(store), 1, signal),
        () => reads > 0
      )
    ).toEqual(CANCELLED)
  })

  it.each([
    ['list', 1],
    ['list', 3],
    ['get', 1],
    ['get', 3],
    ['delete', 1],
    ['stat', 1],
    ['delete', 3]
  ] as const)('does not wait for a home that never answers who cleans up: %s no. %i', async (operation, from) => {
    for (const epoch of [1, 2, 3]) {
      readData = () => Promise.resolve(new Uint8Array(CHUNK_BYTES).fill(epoch))
      await copy(open(store), epoch)
    }
    store.nowMs += GRACE_MS + 1
    const { over, stuck } = stuckStore(operation, from)
    const sweep = (signal: AbortSignal) => open(over).sweep(place, 1, { ...place, generation: 1, epoch: 3 }, signal)
    expect(await ended(sweep, () => stuck.is)).toEqual(CANCELLED)
    expect((await open(store).verify({ ...place, generation: 1, epoch: 3 }, true)).damaged).toEqual([])
  })
})

describe('a bucket whose server does not answer', () => {
  let server: Server
  let asked: number
  let closed: number
  let answer: (response: ServerResponse) => void
  let bucket: ObjectStore
  beforeEach(async () => {
    asked = 0
    closed = 0
    server = createServer((request, response) => {
      request.resume()
      response.on('close', () => closed++)
      asked++
      answer(response)
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    const keys = { accessKeyId: 'a', secretAccessKey: 's' }
    const limits = { requestMs: 60_000, pausesMs: [60_000] }
    bucket = openS3({ bucket: 'b', prefix: '', region: 'r', endpoint }, keys, limits)
  })
  afterEach(async () => {
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
  })

  const operations = {
    put: (signal: AbortSignal) => bucket.put('a/b', new Uint8Array(9), signal),
    get: (signal: AbortSignal) => bucket.get('a/b', signal),
    stat: (signal: AbortSignal) => bucket.stat('a/b', signal),
    list: async (signal: AbortSignal) => {
      for await (const { name } of bucket.list('a/', signal)) expect(name).toBe('nothing is listed')
    },
    delete: (signal: AbortSignal) => bucket.delete('a/b', signal)
  }

  it.each(Object.entries(operations))('is left at once by a %s that is ended, and not asked again', async (_, work) => {
    answer = () => {}
    const stop = new AbortController()
    const working = work(stop.signal)
    await expect.poll(() => asked).toBe(1)
    stop.abort()
    await expect(working).rejects.toEqual(CANCELLED)
    await expect.poll(() => closed).toBe(1)
    expect(asked).toBe(1)
    await expect(work(stop.signal)).rejects.toEqual(CANCELLED)
    expect(asked).toBe(1)
  })

  it('is not waited for between tries', async () => {
    answer = response => response.writeHead(503).end()
    const stop = new AbortController()
    const working = bucket.get('a/b', stop.signal)
    await expect.poll(() => closed).toBe(1)
    await new Promise(resolve => setTimeout(resolve, 20)) // its answer is read, and the pause begun
    stop.abort()
    await expect(working).rejects.toEqual(CANCELLED)
    expect(asked).toBe(1)
  })
})

describe('a directory', () => {
  it('loses what puts that died left when it is cleaned up, once that is a week old: until then it may be a put at work', async () => {
    const root = await mkdtemp(join(tmpdir(), 'home-'))
    try {
      const store = openDirectory(root)
      const home = createSecondHome({ store, wallMs: () => Date.now() } as Parameters<typeof createSecondHome>[0])
      expect(await home.sweep(place, 1)).toMatchObject({ objects: 0 }) // there is no folder for them yet
      await store.put('chunks/one', new Uint8Array(9))
      const ages = { old: GRACE_MS + 60_000, young: GRACE_MS - 60_000 }
      for (const [name, ageMs] of Object.entries(ages)) {
        const path = join(root, '.partial', name)
        await writeFile(path, 'half')
        await utimes(path, new Date(Date.now() - ageMs), new Date(Date.now() - ageMs))
      }
      const old = new Date(Date.now() - 2 * GRACE_MS)
      await utimes(join(root, 'chunks/one'), old, old)
      await home.sweep(place, 1)
      expect(await readdir(join(root, '.partial'))).toEqual(['young'])
      expect(await store.stat('chunks/one')).toMatchObject({ bytes: 9 })
    } finally {
      await rm(root, { recursive: true })
    }
  })
})
