/** The contract of `ShardStore` (node/ports.ts): every implementation passes it. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { hasCode } from '../../node/errors.ts'
import type { ColumnPlace, ShardStore } from '../../node/ports.ts'
import { byPlace } from '../../node/store/inventory.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { MemoryStore } from '../unit/memory-store.ts'
import { clock, memoryLog } from '../unit/store-support.ts'

/** Opened again, it is the one of that directory. */
const inMemory = new Map<string, MemoryStore>()

const implementations: [string, (dir: string) => Promise<ShardStore>][] = [
  ['segments and level', dir => openShardStore(dir, { log: memoryLog(), clock })],
  [
    'memory',
    async dir => {
      const store = inMemory.get(dir) ?? new MemoryStore()
      inMemory.set(dir, store)
      return store.reopen()
    }
  ]
]

const nameOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

describe.each(implementations)('a shard store of %s', (_, open) => {
  let dir: string
  let store: ShardStore
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-contract-'))
    store = await open(dir)
  })
  afterEach(async () => {
    await store.close()
    await rm(dir, { recursive: true })
  })

  it('gives back any range of a column', async () => {
    const bytes = randomBytes(100_000)
    await store.putColumn('g/v/1/1', 7, 3, bytes)
    for (const [offset, length] of [
      [0, 100_000],
      [0, 1],
      [99_999, 1],
      [16_384, 16_384],
      [16_383, 2],
      [5, 0],
      [100_000, 0]
    ] as const) {
      const read = await store.readColumn('g/v/1/1', 7, 3, offset, length)
      expect(Buffer.compare(read, bytes.subarray(offset, offset + length))).toBe(0)
    }
  })

  it('takes the same column twice and refuses other bytes in its place', async () => {
    const bytes = randomBytes(1_000)
    await Promise.all([store.putColumn('g/v/1/1', 0, 0, bytes), store.putColumn('g/v/1/1', 0, 0, Buffer.from(bytes))])
    await store.putColumn('g/v/1/1', 0, 0, bytes)
    for (const other of [randomBytes(1_000), bytes.subarray(1)]) {
      await expect(store.putColumn('g/v/1/1', 0, 0, other)).rejects.toMatchObject({ code: 'SHARD_CONFLICT' })
    }
    expect(Buffer.compare(await store.readColumn('g/v/1/1', 0, 0, 0, 1_000), bytes)).toBe(0)
  })

  it('takes one of two different columns that come at once', async () => {
    const puts = [randomBytes(500), randomBytes(500)].map(bytes => store.putColumn('g/v/1/1', 0, 0, bytes))
    const outcomes = await Promise.allSettled(puts)
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
  })

  it('says what is missing, and refuses what cannot be', async () => {
    await store.putColumn('g/v/1/1', 0, 0, randomBytes(10))
    for (const [stream, grid, column] of [
      ['g/v/1/2', 0, 0],
      ['g/v/1/1', 1, 0],
      ['g/v/1/1', 0, 1]
    ] as const) {
      await expect(store.readColumn(stream, grid, column, 0, 1)).rejects.toMatchObject({ code: 'SHARD_MISSING' })
    }
    await expect(store.readColumn('g/v/1/1', 0, 0, 5, 6)).rejects.toMatchObject({ code: 'SHARD_INVALID' })
    await expect(store.readColumn('g/v/1/1', 0, 0, -1, 1)).rejects.toMatchObject({ code: 'SHARD_INVALID' })
    const bad: [string, number, number, Uint8Array][] = [
      ['', 0, 0, randomBytes(1)],
      ['x'.repeat(256), 0, 0, randomBytes(1)],
      ['s', -1, 0, randomBytes(1)],
      ['s', 2 ** 32, 0, randomBytes(1)],
      ['s', 0, 65_536, randomBytes(1)],
      ['s', 0, 0.5, randomBytes(1)],
      ['s', 0, 0, new Uint8Array(0)]
    ]
    for (const put of bad) await expect(store.putColumn(...put)).rejects.toMatchObject({ code: 'SHARD_INVALID' })
  })

  it('counts the columns of a stream, and lists all in an order that stays', async () => {
    const places: ColumnPlace[] = []
    for (const stream of ['g/w/1/1', 'g/v/1/1', 'g/v/1/10']) {
      for (let grid = 0; grid < 300; grid += 1 + (grid % 3)) {
        for (const column of [4, 0].slice(grid % 2)) places.push({ stream, grid, column })
      }
    }
    await Promise.all(places.map(({ stream, grid, column }) => store.putColumn(stream, grid, column, randomBytes(9))))
    places.sort(byPlace)
    expect(await store.columns('g/v/1/1')).toEqual(
      [0, 4].map(column => ({
        column,
        grids: places.filter(place => place.stream === 'g/v/1/1' && place.column === column).length
      }))
    )
    expect(await store.columns('g/v/1/2')).toEqual([])
    const listed = await all(store.eachColumn())
    expect(listed).toEqual(places.map(place => ({ ...place, bytes: 9 })))
    for (const at of [0, 7, listed.length - 1]) {
      expect(await all(store.eachColumn(listed[at]))).toEqual(listed.slice(at + 1))
    }
    // Also behind what is not here.
    const behind = await all(store.eachColumn({ stream: 'g/v/1/100', grid: 5, column: 0 }))
    expect(behind.every(({ stream }) => stream === 'g/w/1/1')).toBe(true)
    await store.dropStream('g/v/1/1')
    expect(await store.columns('g/v/1/1')).toEqual([])
  })

  it('verifies what is here, and says what is not', async () => {
    await store.putColumn('g/v/1/1', 3, 1, randomBytes(70_000))
    expect(await store.verifyColumn('g/v/1/1', 3, 1)).toBe('whole')
    expect(await store.verifyColumn('g/v/1/1', 3, 2)).toBe('missing')
    expect(await store.verifyColumn('g/v/1/2', 3, 1)).toBe('missing')
  })

  it('has a column that is refuted count as damaged until it is put again, and takes other bytes then', async () => {
    await store.putColumn('g/v/1/1', 0, 1, randomBytes(70_000))
    await store.putColumn('g/v/1/1', 1, 1, randomBytes(70_000))
    await store.refuteColumn('g/v/1/1', 0, 1)
    await store.refuteColumn('g/v/1/1', 0, 2)
    expect(await store.verifyColumn('g/v/1/1', 0, 1)).toBe('damaged')
    expect(await store.verifyColumn('g/v/1/1', 0, 2)).toBe('missing')
    expect(await store.columns('g/v/1/1')).toEqual([{ column: 1, grids: 1 }])
    const right = randomBytes(70_000)
    await store.putColumn('g/v/1/1', 0, 1, right)
    expect(await store.verifyColumn('g/v/1/1', 0, 1)).toBe('whole')
    expect(await store.columns('g/v/1/1')).toEqual([{ column: 1, grids: 2 }])
    expect(Buffer.compare(await store.readColumn('g/v/1/1', 0, 1, 0, 70_000), right)).toBe(0)
    await expect(store.putColumn('g/v/1/1', 0, 1, randomBytes(70_000))).rejects.toMatchObject({
      code: 'SHARD_CONFLICT'
    })
  })

  it('counts its space', async () => {
    expect(await store.space()).toMatchObject({ liveBytes: 0, deadBytes: 0 })
    await store.putColumn('g/v/1/1', 0, 0, randomBytes(100_000))
    const { liveBytes, deadBytes, freeBytes } = await store.space()
    expect(liveBytes).toBeGreaterThanOrEqual(100_000)
    expect(liveBytes).toBeLessThan(101_000)
    expect(deadBytes).toBe(0)
    expect(freeBytes).toBeGreaterThan(0)
    await store.dropStream('g/v/1/1')
    expect(await store.space()).toMatchObject({ liveBytes: 0, deadBytes: 0 })
  })

  it('keeps everything when it is closed and opened again', async () => {
    const columns = Array.from({ length: 40 }, (_, i) => ({
      stream: `g/v${i % 3}/1/1`,
      grid: i,
      bytes: randomBytes(100 + i * 500)
    }))
    await Promise.all(columns.map(({ stream, grid, bytes }) => store.putColumn(stream, grid, 1, bytes)))
    const manifest = randomBytes(300)
    await store.putManifest(nameOf(manifest), manifest)
    const before = await store.streams()
    await store.close()
    store = await open(dir)
    for (const { stream, grid, bytes } of columns) {
      expect(Buffer.compare(await store.readColumn(stream, grid, 1, 0, bytes.length), bytes)).toBe(0)
    }
    expect(await store.getManifest(nameOf(manifest))).toEqual(manifest)
    expect((await store.streams()).sort(byName)).toEqual(before.sort(byName))
    const [again] = columns
    await store.putColumn(again?.stream ?? '', 0, 1, again?.bytes ?? new Uint8Array())
    const other = store.putColumn(again?.stream ?? '', 0, 1, randomBytes(100))
    await expect(other).rejects.toMatchObject({ code: 'SHARD_CONFLICT' })
  })

  it('names manifests by their hash and believes no other name', async () => {
    const bytes = randomBytes(64)
    const name = nameOf(bytes)
    await Promise.all([store.putManifest(name, bytes), store.putManifest(name, bytes)])
    expect(await store.getManifest(name)).toEqual(bytes)
    expect(await store.manifests()).toEqual([name])
    for (const wrong of [nameOf(randomBytes(1)), '../../etc/passwd', name.toUpperCase(), '']) {
      await expect(store.putManifest(wrong, bytes)).rejects.toMatchObject({ code: 'MANIFEST_HASH' })
      expect(await store.getManifest(wrong)).toBeUndefined()
      await store.dropManifest(wrong)
    }
    await store.dropManifest(name)
    expect(await store.getManifest(name)).toBeUndefined()
    expect(await store.manifests()).toEqual([])
  })

  it('drops a stream whole, and takes it again afterwards', async () => {
    await store.putColumn('g/v/1/1', 0, 0, randomBytes(10))
    await store.putColumn('g/v/1/2', 0, 0, randomBytes(10))
    await store.dropStream('g/v/1/1')
    await store.dropStream('g/v/1/1')
    await expect(store.readColumn('g/v/1/1', 0, 0, 0, 1)).rejects.toMatchObject({ code: 'SHARD_MISSING' })
    expect((await store.streams()).map(({ stream }) => stream)).toEqual(['g/v/1/2'])
    const other = randomBytes(10)
    await store.putColumn('g/v/1/1', 0, 0, other)
    expect(Buffer.compare(await store.readColumn('g/v/1/1', 0, 0, 0, 10), other)).toBe(0)
    expect((await store.streams()).every(({ bytes }) => bytes > 0)).toBe(true)
  })

  it('drops while puts and reads of the stream are under way, and never gives wrong bytes', async () => {
    const bytes = Array.from({ length: 30 }, () => randomBytes(20_000))
    const puts = bytes.map((column, grid) => store.putColumn('g/v/1/1', grid, 0, column))
    const reads = bytes.map(async (column, grid) => {
      const read = await store.readColumn('g/v/1/1', grid, 0, 0, 20_000).catch((error: unknown) => error)
      const right = read instanceof Uint8Array && Buffer.compare(read, column) === 0
      expect(right || hasCode(read, 'SHARD_MISSING')).toBe(true)
    })
    const drop = store.dropStream('g/v/1/1')
    const late = store.putColumn('g/v/1/1', 99, 0, randomBytes(5))
    await Promise.all([...puts, ...reads, drop, late])
    expect(await store.readColumn('g/v/1/1', 99, 0, 0, 5)).toHaveLength(5)
    await expect(store.readColumn('g/v/1/1', 0, 0, 0, 1)).rejects.toMatchObject({ code: 'SHARD_MISSING' })
  })

  it('finishes what was put before it was closed, and refuses what comes after', async () => {
    const put = store.putColumn('g/v/1/1', 0, 0, randomBytes(10))
    await Promise.all([put, store.close()])
    await expect(store.putColumn('g/v/1/1', 1, 0, randomBytes(10))).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    await expect(store.readColumn('g/v/1/1', 0, 0, 0, 1)).rejects.toMatchObject({ code: 'STORE_CLOSED' })
    store = await open(dir)
    expect(await store.readColumn('g/v/1/1', 0, 0, 0, 10)).toHaveLength(10)
  })
})

const byName = (a: { stream: string }, b: { stream: string }): number => (a.stream < b.stream ? -1 : 1)

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of items) list.push(item)
  return list
}
