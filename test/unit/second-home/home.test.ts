import { createHash, randomBytes } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import type { HomeWish, ImageManifest, SecondHome, StreamManifest } from '../../../node/ports.ts'
import { CHUNK_BYTES } from '../../../node/second-home/copy.ts'
import { createSecondHome } from '../../../node/second-home/home.ts'
import type { ImageHead } from '../../../node/second-home/read.ts'
import { GRACE_MS } from '../../../node/second-home/sweep-plan.ts'
import { recoveryPublic } from '../../../protocols/membership/recovery.ts'
import { MemoryHome } from './memory-home.ts'

const secret = new Uint8Array(randomBytes(32))
const cluster = { id: 'ab'.repeat(16), name: 'forest' }
const place = { cluster: cluster.id, group: 'shop' }
const never = new AbortController().signal
const quiet = { signal: never, progress: () => {} }

/** What the shards hold. */
const data = new Map<string, Uint8Array>()

function stream(epoch: number, bytes: number): StreamManifest {
  const id = `shop/till/1/${epoch}`
  if (data.get(id)?.length !== bytes) data.set(id, new Uint8Array(randomBytes(bytes)))
  return { stream: id, k: 3, m: 2, holders: ['a', 'b', 'c', 'd', 'e'], dataBytes: bytes, key: 4, grids: [] }
}

function wish(epoch: number, streams: readonly StreamManifest[]): HomeWish {
  const range = { offset: 0, length: 1 }
  const stats = {
    pages: 1,
    pagesNonZero: 1,
    pagesChanged: 1,
    bytesRaw: 1,
    bytesData: 1,
    bytesStored: 1,
    inFlightFrames: 0
  }
  const image: ImageManifest = {
    group: 'shop',
    vm: 'till',
    generation: 1,
    epoch,
    memoryMiB: 64,
    accel: 'tcg',
    streams,
    machine: range,
    index: range,
    frames: range,
    stats
  }
  return {
    cluster,
    group: 'shop',
    epoch,
    generation: 1,
    groupGeneration: 1,
    outputCommit: false,
    openFlow: false,
    retention: { keepLast: 3, hourly: 24, daily: 7, weekly: 0 },
    images: { till: image },
    vms: [{ id: 'till', memoryMiB: 64, mac: '52:54:00:00:00:01', kernel: '/k', initrd: '/i', append: '' }],
    keys: [{ id: 4, key: new Uint8Array(32).fill(4) }],
    recovery: recoveryPublic(secret)
  }
}

const nameOf = (each: StreamManifest): string => createHash('sha256').update(each.stream).digest('hex')

describe('a second home', () => {
  let store: MemoryHome
  let home: SecondHome
  let reads: string[]
  /** Before a stream is read. */
  let meanwhile: (stream: string) => Promise<void>
  beforeEach(() => {
    store = new MemoryHome()
    reads = []
    meanwhile = () => Promise.resolve()
    home = createSecondHome({
      store,
      clock: { now: () => store.nowMs, after: (_, fn) => (queueMicrotask(fn), () => {}) },
      bytesPerSecond: 1e12,
      wallMs: () => store.nowMs,
      randomBytes: count => new Uint8Array(randomBytes(count)),
      readData: async ({ stream: id }, offset, length) => {
        reads.push(id)
        await meanwhile(id)
        return (data.get(id) ?? new Uint8Array()).slice(offset, offset + length)
      },
      nameOf,
      encodeImage: ({ streams, ...rest }) =>
        Buffer.from(
          JSON.stringify({ ...rest, streams: streams.map(each => ({ stream: each.stream, manifest: nameOf(each) })) })
        ),
      decodeImage: bytes => JSON.parse(Buffer.from(bytes).toString()) as ImageHead
    })
  })

  const first = stream(1, 2 * CHUNK_BYTES + 100)
  const second = stream(2, 1_000)
  const nameIn = (epoch: number) => ({ ...place, generation: 1, epoch })

  async function expectReadable(epoch: number, streams: readonly StreamManifest[]): Promise<void> {
    const opened = await home.open(nameIn(epoch), secret)
    expect(opened.images['till']?.streams.map(({ stream: id, key }) => [id, key])).toEqual(
      streams.map(each => [each.stream, 4])
    )
    for (const [i, each] of (opened.images['till']?.streams ?? []).entries()) {
      const bytes = data.get(streams[i]?.stream ?? '') ?? new Uint8Array()
      expect(Buffer.compare(await opened.readData(each, 0, each.dataBytes), bytes)).toBe(0)
    }
  }

  it('gives back what was copied, any part of it', async () => {
    await home.copy(wish(1, [first, second]), quiet)
    await expectReadable(1, [first, second])
    const opened = await home.open(nameIn(1), secret)
    const { vms, keys, retention } = wish(1, [])
    expect(opened).toMatchObject({ vms, keys, retention, outputCommit: false, about: { clusterName: 'forest' } })
    const bytes = data.get(first.stream) ?? new Uint8Array()
    for (const [offset, length] of [
      [0, 1],
      [CHUNK_BYTES - 1, 2],
      [CHUNK_BYTES, CHUNK_BYTES],
      [first.dataBytes - 1, 1],
      [5, 0]
    ] as const)
      expect(
        Buffer.compare(await opened.readData(first, offset, length), bytes.subarray(offset, offset + length))
      ).toBe(0)
  })

  it('lists what is there', async () => {
    await home.copy(wish(2, [first, second]), quiet)
    await home.copy(wish(10, [first]), quiet)
    await home.copy({ ...wish(3, [second]), group: 'other' }, quiet)
    const { epochs, damaged } = await home.epochs()
    expect(damaged).toEqual([])
    expect(epochs.map(({ group, epoch, bytes }) => [group, epoch, bytes])).toEqual([
      ['other', 3, 1_000],
      ['shop', 2, first.dataBytes + 1_000],
      ['shop', 10, first.dataBytes]
    ])
    expect((await home.epochs(place)).epochs).toHaveLength(2)
  })

  it('takes an unchanged stream once: it is neither sent nor read again', async () => {
    expect(await home.copy(wish(1, [first]), quiet)).toMatchObject({ streamsCopied: 1, bytesSent: first.dataBytes })
    reads = []
    expect(await home.copy(wish(2, [first, second]), quiet)).toEqual({
      generation: 1,
      streams: 2,
      streamsCopied: 1,
      bytesSent: 1_000
    })
    expect(new Set(reads)).toEqual(new Set([second.stream]))
    await expectReadable(2, [first, second])
  })

  it('has no epoch whose copy died, whenever, and the next copy goes on from there', async () => {
    for (let puts = 0; ; puts++) {
      store.objects.clear()
      store.putsLeft = puts
      const died = await home.copy(wish(1, [first, second]), quiet).then(
        () => false,
        () => true
      )
      if (!died) break
      expect((await home.epochs()).epochs, `${puts} puts`).toEqual([])
      const chunks = store.names('chunks/').length
      store.putsLeft = Number.POSITIVE_INFINITY
      const { bytesSent } = await home.copy(wish(1, [first, second]), quiet)
      expect(bytesSent, `${puts} puts`).toBeLessThanOrEqual(first.dataBytes + second.dataBytes - chunks * 100)
      await expectReadable(1, [first, second])
    }
    expect(store.names('').length).toBe(8) // what it is, three chunks and one, two streams, one epoch
  })

  it('ends a copy that is not wanted any more', async () => {
    const stop = new AbortController()
    const copying = home.copy(wish(1, [first]), { signal: stop.signal, progress: () => stop.abort() })
    await expect(copying).rejects.toMatchObject({ code: 'HOME_CANCELLED' })
    expect(store.names('epochs/')).toEqual([])
  })

  it('keeps the newest epochs, and removes what none of them needs when it is a week old', async () => {
    for (const epoch of [1, 2, 3]) await home.copy(wish(epoch, [first, stream(epoch + 10, 500)]), quiet)
    expect(await home.sweep(place, 2)).toEqual({ epochs: 1, objects: 0, damaged: [] })
    expect((await home.epochs()).epochs.map(({ epoch }) => epoch)).toEqual([2, 3])
    store.nowMs += GRACE_MS + 1
    expect(await home.sweep(place, 2)).toEqual({ epochs: 0, objects: 2, damaged: [] }) // a chunk and its stream
    for (const epoch of [2, 3]) await expectReadable(epoch, [first, stream(epoch + 10, 500)])
    expect(await home.sweep(place, 0)).toMatchObject({ epochs: 1 }) // the newest stays
    await expectReadable(3, [first, stream(13, 500)])
  })

  it('leaves what another copier is just putting, and what another group has', async () => {
    await home.copy({ ...wish(1, [second]), group: 'other' }, quiet)
    await home.copy(wish(1, [second]), quiet)
    store.nowMs += GRACE_MS + 1
    store.putsLeft = 2
    await expect(home.copy(wish(2, [first, second]), quiet)).rejects.toMatchObject({ code: 'HOME_UNREACHABLE' })
    expect(await home.sweep(place, 1)).toEqual({ epochs: 0, objects: 0, damaged: [] })
    store.nowMs += GRACE_MS + 1
    expect(await home.sweep(place, 1)).toEqual({ epochs: 0, objects: 2, damaged: [] })
    await expectReadable(1, [second])
    expect((await home.verify({ ...nameIn(1), group: 'other' }, true)).damaged).toEqual([])
  })

  it('takes the epochs of a group that was made anew under an old name for the newer ones', async () => {
    for (const epoch of [9, 10]) await home.copy(wish(epoch, [stream(epoch, 500)]), quiet)
    const again = { ...wish(1, [first]), generation: 12 }
    await home.copy(again, quiet)
    expect(await home.sweep(place, 2, { ...nameIn(1), generation: 12 })).toMatchObject({ epochs: 1 })
    const { epochs } = await home.epochs()
    expect(epochs.map(({ generation, epoch }) => [generation, epoch])).toEqual([
      [1, 10],
      [12, 1]
    ])
    reads = []
    await home.copy({ ...again, epoch: 2 }, quiet)
    expect(reads).toEqual([]) // it leans on the newest
  })

  it('takes an epoch that the group has gone back to for the newest, not those that were given up', async () => {
    for (const epoch of [8, 9, 10]) await home.copy(wish(epoch, [first, stream(epoch, 500)]), quiet)
    const back = { ...wish(8, [first, stream(8, 500)]), groupGeneration: 2 }
    expect(await home.copy(back, quiet)).toMatchObject({ generation: 2, bytesSent: 0 })
    expect(await home.copy(back, quiet)).toMatchObject({ generation: 2 }) // once more
    expect(await home.sweep(place, 2, { ...nameIn(8), generation: 2 })).toMatchObject({ epochs: 2 })
    const { epochs } = await home.epochs()
    expect(epochs.map(({ generation, epoch }) => [generation, epoch])).toEqual([
      [1, 10],
      [2, 8]
    ])
    const next = { ...wish(11, [first]), generation: 2, groupGeneration: 2 }
    expect(await home.copy(next, quiet)).toMatchObject({ generation: 2 })
    expect((await home.epochs()).epochs.at(-1)).toMatchObject({ generation: 2, epoch: 11 })
  })

  it('keeps the epoch that was just copied, however old it is', async () => {
    for (const epoch of [9, 10, 5]) await home.copy(wish(epoch, [second]), quiet)
    expect(await home.sweep(place, 1, nameIn(5))).toMatchObject({ epochs: 1 })
    expect((await home.epochs()).epochs.map(({ epoch }) => epoch)).toEqual([5, 10])
  })

  it('is not held up by what others have put there', async () => {
    await home.copy(wish(1, [second]), quiet)
    for (const prefix of ['epochs/', `epochs/${place.cluster}/shop/`, `chunks/${place.cluster}/shop/`]) {
      for (const name of ['desktop.ini', '999999999999999', '.DS_Store', ''])
        store.objects.set(`${prefix}${name}`, { bytes: new Uint8Array(1), putMs: 0 })
    }
    const others = expect.arrayContaining(['epochs/desktop.ini']) as string[]
    expect(await home.epochs()).toMatchObject({ damaged: [], epochs: [{ epoch: 1 }], others })
    await home.copy(wish(2, [second]), quiet)
    expect(await home.sweep(place, 1)).toEqual({ epochs: 1, objects: 0, damaged: [] })
    await expectReadable(2, [second])
  })

  it('lists no more epochs than it could read', async () => {
    store.list = async function* (prefix) {
      for (let i = 0; ; i++) {
        if (i % 1_000 === 0) await Promise.resolve()
        const name = `${prefix}${place.cluster}/shop/000000000000001-${String(i).padStart(15, '0')}`
        yield { name, bytes: 1, putMs: 0 }
      }
    }
    await expect(home.epochs()).rejects.toMatchObject({ code: 'HOME_TOO_MANY' })
  })

  it('does not remove what a copier has put anew since it was listed', async () => {
    store.putsLeft = 3 // what it is, and two chunks
    await expect(home.copy(wish(2, [first]), quiet)).rejects.toMatchObject({ code: 'HOME_UNREACHABLE' })
    store.putsLeft = Number.POSITIVE_INFINITY
    store.nowMs += GRACE_MS + 1
    await home.copy(wish(1, [second]), quiet)
    const stale = store.names('chunks/')
    const get = store.get.bind(store)
    store.get = name => {
      // Chunks were listed before the epoch is read.
      for (const chunk of stale) store.objects.set(chunk, { bytes: new Uint8Array(1), putMs: store.nowMs })
      return get(name)
    }
    await home.sweep(place, 1)
    expect(store.names('chunks/')).toEqual(expect.arrayContaining(stale))
  })

  it('sends again what was there when it looked, and is gone when the epoch is put', async () => {
    store.putsLeft = 3 // what it is, and two chunks
    await expect(home.copy(wish(1, [first]), quiet)).rejects.toMatchObject({ code: 'HOME_UNREACHABLE' })
    store.putsLeft = Number.POSITIVE_INFINITY
    const found = store.names('chunks/')
    meanwhile = id => {
      if (id === second.stream) for (const name of found) store.objects.delete(name)
      return Promise.resolve()
    }
    await home.copy(wish(1, [first, second]), quiet)
    await expectReadable(1, [first, second])
  })

  it('puts a chunk again that is about to be removed', async () => {
    store.putsLeft = 3 // what it is, and two chunks
    await expect(home.copy(wish(1, [first]), quiet)).rejects.toMatchObject({ code: 'HOME_UNREACHABLE' })
    store.putsLeft = Number.POSITIVE_INFINITY
    store.nowMs += GRACE_MS - 1_000
    const swept: unknown[] = []
    meanwhile = async id => {
      if (id !== second.stream) return
      store.nowMs += 2_000
      swept.push(await home.sweep(place, 1)) // by the peer that was the group's copier until now
    }
    await home.copy(wish(1, [first, second]), quiet)
    expect(swept).toEqual([{ epochs: 0, objects: 0, damaged: [] }])
    await expectReadable(1, [first, second])
  })

  it('has whole epochs where two peers copy and clean up at the same time: the same epoch, or one behind the other', async () => {
    const third = stream(3, 2_000)
    meanwhile = () => new Promise(resolve => setImmediate(resolve))
    const copyAndSweep = async (epoch: number, streams: readonly StreamManifest[]) => {
      await home.copy(wish(epoch, streams), quiet)
      await home.sweep(place, 2, nameIn(epoch))
    }
    await Promise.all([copyAndSweep(1, [first, second]), copyAndSweep(1, [first, second])])
    await Promise.all([copyAndSweep(3, [first, third]), copyAndSweep(2, [first, second])])
    expect((await home.epochs()).epochs.map(({ epoch }) => epoch)).toEqual([2, 3])
    await expectReadable(2, [first, second])
    await expectReadable(3, [first, third])
  })

  it('removes nothing but epochs while one cannot be read: it does not know what that one needs', async () => {
    for (const epoch of [1, 2]) await home.copy(wish(epoch, [stream(epoch + 20, 500)]), quiet)
    const [name = ''] = store.names('epochs/')
    store.objects.get(name)?.bytes.fill(0, 40, 50)
    store.nowMs += GRACE_MS + 1
    expect(await home.sweep(place, 1)).toEqual({ epochs: 0, objects: 0, damaged: [name] })
    expect(await home.epochs()).toMatchObject({ damaged: [{ name, ...nameIn(1) }], epochs: [{ epoch: 2 }] })
  })

  it('finds what is missing, and with a deep look what was altered', async () => {
    await home.copy(wish(1, [first, second]), quiet)
    expect(await home.verify(nameIn(1), true)).toEqual({
      streams: 2,
      chunks: 4,
      bytes: first.dataBytes + 1_000,
      damaged: []
    })
    const [altered = '', missing = ''] = store.names('chunks/')
    const chunk = store.objects.get(altered)
    if (chunk !== undefined) chunk.bytes[7] = 1 ^ (chunk.bytes[7] ?? 0)
    expect((await home.verify(nameIn(1), false)).damaged).toEqual([])
    expect((await home.verify(nameIn(1), true)).damaged).toEqual([altered])
    store.objects.delete(missing)
    expect((await home.verify(nameIn(1), false)).damaged).toEqual([missing])
    const opened = await home.open(nameIn(1), secret)
    const read = async () => {
      for (const each of [first, second]) await opened.readData(each, 0, each.dataBytes)
    }
    await expect(read()).rejects.toMatchObject({ code: expect.stringMatching(/^HOME_(DAMAGED|MISSING)$/) as string })
  })

  it('sends again what went astray there: a stream at once, a chunk when all of it is looked for', async () => {
    await home.copy(wish(1, [first, second]), quiet)
    for (const name of store.names('streams/')) store.objects.delete(name)
    expect(await home.copy(wish(1, [first, second]), quiet)).toMatchObject({ streamsCopied: 2, bytesSent: 0 })
    await expectReadable(1, [first, second])
    const [chunk = ''] = store.names('chunks/')
    store.objects.delete(chunk)
    expect(await home.copy(wish(1, [first, second]), quiet)).toMatchObject({ streamsCopied: 0 })
    expect((await home.verify(nameIn(1), false)).damaged).toEqual([chunk])
    const { bytesSent } = await home.copy(wish(1, [first, second]), { ...quiet, all: true })
    expect(bytesSent).toBe(store.objects.get(chunk)?.bytes.length)
    await expectReadable(1, [first, second])
  })

  it('does not open an epoch that was put in the place of another', async () => {
    await home.copy(wish(1, [second]), quiet)
    const [name = ''] = store.names('epochs/')
    store.objects.set(name.replace(/1$/, '2'), store.objects.get(name) ?? { bytes: new Uint8Array(), putMs: 0 })
    await expect(home.open(nameIn(2), secret)).rejects.toMatchObject({ code: 'HOME_INVALID' })
    expect((await home.epochs()).epochs).toHaveLength(1)
  })
})
