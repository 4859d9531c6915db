/**
 * What survives when the power goes. A fake disk remembers of each segment what was written durably; at the "power loss" the store
 * is abandoned and its directory copied: segments with their durable bytes, and behind them some, all or none of what
 * was written after, partly overwritten with noise; the index as it is, older, damaged or gone.
 */
import { randomBytes } from 'node:crypto'
import { appendFile, cp, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import fc from 'fast-check'
import { Level } from 'level'
import { describe, expect, it } from 'vitest'
import { hasCode } from '../../node/errors.ts'
import type { ShardStore } from '../../node/ports.ts'
import { type Files, nodeFiles } from '../../node/store/files.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, memoryLog, withDirectory } from './store-support.ts'

interface Disk extends Files {
  /** Bytes of each segment that are on the disk for certain; only of files whose name is too. */
  durable: Map<string, number>
  writes: number
  /** Thrown by the next writes: before their bytes are there, or when the disk was to take them. */
  fail: { write?: Error | undefined; sync?: Error | undefined }
}

function disk(): Disk {
  const made = new Map<string, number>()
  const named = new Map<string, number>()
  const self: Disk = {
    durable: named,
    writes: 0,
    fail: {},
    room: nodeFiles.room,
    sizeOf: nodeFiles.sizeOf,
    async openSegment(path, fresh) {
      const file = await nodeFiles.openSegment(path, fresh)
      let end = fresh ? 0 : (await stat(path)).size
      /** Written behind `end` by those that were faster. */
      const behind = new Map<number, number>()
      return {
        async writeAll(parts, position) {
          self.writes++
          if (self.fail.write !== undefined) {
            // A full disk takes a part.
            await file.writeAll([(parts[0] ?? Buffer.alloc(0)).subarray(0, 20)], position)
            throw self.fail.write
          }
          await file.writeAll(parts, position)
          if (self.fail.sync !== undefined) throw self.fail.sync
          const upTo = parts.reduce((sum, part) => sum + part.length, position)
          if (position <= end) end = Math.max(end, upTo)
          else behind.set(position, upTo)
          for (const [from, to] of [...behind].sort(([a], [b]) => a - b)) if (from <= end) end = Math.max(end, to)
          made.set(path, end)
          if (named.has(path)) named.set(path, end)
        },
        async truncate(bytes) {
          await file.truncate(bytes)
          end = bytes
        },
        close: () => file.close()
      }
    },
    async syncDirectory(path) {
      await nodeFiles.syncDirectory(path)
      for (const [file, bytes] of made) named.set(file, bytes)
    }
  }
  return self
}

const code = (name: string): Error => Object.assign(new Error(name), { code: name })
const open = (dir: string, files?: Files, segmentBytes = 60_000): Promise<ShardStore> =>
  openShardStore(dir, { log: memoryLog(), clock, segmentBytes, ...(files !== undefined && { files }) })

/** What a machine finds after power came back: `dice` decides what of the unsynced bytes is there. */
async function afterPowerLoss(
  from: string,
  to: string,
  durable: Map<string, number>,
  dice: () => number
): Promise<void> {
  await mkdir(join(to, 'segments'), { recursive: true })
  await cp(join(from, 'format'), join(to, 'format'))
  await cp(join(from, 'manifests'), join(to, 'manifests'), { recursive: true })
  for (const name of await readdir(join(from, 'segments'))) {
    const bytes = await readFile(join(from, 'segments', name))
    const safe = [...durable].find(([path]) => basename(path) === name)?.[1] ?? 0
    const kept = bytes.subarray(0, safe + Math.floor((bytes.length - safe) * dice()))
    for (let at = safe; at < kept.length; at++) if (dice() < 0.0005) kept[at] = 0
    if (safe > 0 || dice() < 0.5) await writeFile(join(to, 'segments', name), kept)
  }
}

describe('after a power loss', () => {
  it('every acknowledged column is there, whatever became of the tail and the index', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 30_000 }), { minLength: 1, maxLength: 25 }),
        fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })),
        async (sizes, rolls) => {
          const dice = (): number => rolls.next().value ?? 0
          await withDirectory(async dir => {
            const files = disk()
            const store = await open(join(dir, 'a'), files)
            const acknowledged = new Map<number, Buffer>()
            // The power goes when so many puts are acknowledged; the others are written, half written or waiting.
            let enough = (): void => {}
            const powerLoss = new Promise<void>(resolve => {
              enough = resolve
            })
            const wanted = Math.ceil(dice() * sizes.length)
            const puts = sizes.map(async (size, grid) => {
              for (let turns = Math.floor(dice() * 4) * grid; turns > 0; turns--) {
                await new Promise(resolve => setImmediate(resolve))
              }
              const bytes = randomBytes(size)
              await store.putColumn(`g/v${grid % 2}/1/1`, grid, 2, bytes)
              acknowledged.set(grid, bytes)
              if (acknowledged.size >= wanted) enough()
            })
            await powerLoss
            const promised = new Map(acknowledged)
            const durable = new Map(files.durable)
            await afterPowerLoss(join(dir, 'a'), join(dir, 'b'), durable, dice)
            await Promise.all(puts)
            await store.close()
            if (dice() < 0.6) await cp(join(dir, 'a', 'index'), join(dir, 'b', 'index'), { recursive: true })
            const again = await open(join(dir, 'b'))
            for (const [grid, bytes] of promised) {
              const read = await again.readColumn(`g/v${grid % 2}/1/1`, grid, 2, 0, bytes.length)
              expect(Buffer.compare(read, bytes), `grid ${grid}`).toBe(0)
            }
            // And it goes on: what was not acknowledged is either missing, or can be put again.
            for (const [grid, size] of sizes.entries()) {
              if (!promised.has(grid))
                await again.putColumn(`g/v${grid % 2}/1/1`, grid, 2, acknowledged.get(grid) ?? randomBytes(size))
            }
            await again.close()
          })
        }
      ),
      { numRuns: 15 }
    )
  }, 60_000)

  it('a torn tail is cut off at any place, and everything before it is there', async () => {
    await withDirectory(async dir => {
      const store = await open(join(dir, 'a'))
      const columns = Array.from({ length: 6 }, () => randomBytes(5_000))
      const ends: number[] = []
      for (const [grid, bytes] of columns.entries()) {
        await store.putColumn('g/v/1/1', grid, 0, bytes)
        ends.push((await store.streams())[0]?.bytes ?? 0)
      }
      await store.close()
      const name = (await readdir(join(dir, 'a', 'segments')))[0] ?? ''
      for (let round = 0; round < 20; round++) {
        const b = join(dir, `b${round}`)
        await cp(join(dir, 'a'), b, { recursive: true })
        const cut = Math.floor(Math.random() * ((ends.at(-1) ?? 0) + 1))
        const path = join(b, 'segments', name)
        await truncate(path, cut)
        if (round % 3 === 0) await appendFile(path, randomBytes(Math.floor(Math.random() * 3_000)))
        if (round % 2 === 0) await rm(join(b, 'index'), { recursive: true })
        const again = await open(b)
        for (const [grid, bytes] of columns.entries()) {
          const read = await again.readColumn('g/v/1/1', grid, 0, 0, bytes.length).catch((error: unknown) => error)
          const right = read instanceof Uint8Array && Buffer.compare(read, bytes) === 0
          const refused = hasCode(read, 'SHARD_MISSING') || hasCode(read, 'SHARD_CORRUPT')
          expect((ends[grid] ?? 0) <= cut ? right : refused, `grid ${grid}, cut at ${cut}`).toBe(true)
        }
        await again.putColumn('g/v/1/1', 5, 0, columns[5] as Buffer)
        await again.close()
      }
    })
  })

  it('an index that is damaged anywhere is built again or does no harm', async () => {
    await withDirectory(async dir => {
      const store = await open(join(dir, 'a'))
      const columns = Array.from({ length: 30 }, () => randomBytes(3_000))
      await Promise.all(columns.map((bytes, grid) => store.putColumn('g/v/1/1', grid, 0, bytes)))
      await store.close()
      for (const [round, kind] of ['CURRENT', 'MANIFEST', 'log', 'every', 'missing'].entries()) {
        const b = join(dir, `b${round}`)
        await cp(join(dir, 'a'), b, { recursive: true })
        for (const name of await readdir(join(b, 'index'))) {
          if (kind === 'missing' && name.startsWith('MANIFEST')) await rm(join(b, 'index', name))
          if (kind !== 'every' && !name.includes(kind)) continue
          const path = join(b, 'index', name)
          const bytes = await readFile(path)
          for (let i = 0; i < 20 && bytes.length > 0; i++) bytes[Math.floor(Math.random() * bytes.length)] = 0xa5
          await writeFile(path, bytes)
        }
        const again = await open(b)
        for (const [grid, bytes] of columns.entries()) {
          expect(Buffer.compare(await again.readColumn('g/v/1/1', grid, 0, 0, 3_000), bytes), `${kind} ${grid}`).toBe(0)
        }
        await again.close()
      }
    })
  })

  it('an index that lost something in its middle, and does not know it, is found out', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      const columns = Array.from({ length: 9 }, () => randomBytes(300))
      for (const [grid, bytes] of columns.entries()) await store.putColumn('g/v/1/1', grid, 0, bytes)
      await store.close()
      const index = new Level(join(dir, 'index'))
      const keys = await index.keys({ gte: 'c/', lt: 'c0' }).all()
      await index.del(keys[4] ?? '')
      await index.close()
      const again = await open(dir)
      for (const [grid, bytes] of columns.entries()) {
        expect(await again.readColumn('g/v/1/1', grid, 0, 0, 300)).toEqual(bytes)
      }
      await again.close()
    })
  })

  it('an index that places columns in a segment that is nowhere is mended, and no segment gets that number', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      const columns = Array.from({ length: 9 }, () => randomBytes(300))
      for (const [grid, bytes] of columns.entries()) await store.putColumn('g/v/1/1', grid, 0, bytes)
      await store.close()
      const index = new Level<string, Uint8Array>(join(dir, 'index'), { valueEncoding: 'view' })
      const [[key, value]] = (await index.iterator({ gte: 'c/', lt: 'c0', limit: 1 }).all()) as [[string, Uint8Array]]
      const elsewhere = Buffer.from(value)
      elsewhere.writeUInt32LE(99, 0)
      await index.put(key, elsewhere)
      await index.put(`c/${'ab'.repeat(32)}/00000000/0000`, elsewhere) // of a stream that was dropped
      await index.close()
      const again = await open(dir)
      for (const [grid, bytes] of columns.entries()) {
        expect(await again.readColumn('g/v/1/1', grid, 0, 0, 300)).toEqual(bytes)
      }
      await again.putColumn('g/w/1/1', 0, 0, randomBytes(300))
      expect((await readdir(join(dir, 'segments'))).sort()).toEqual(['00000001.segment', '00000064.segment'])
      await again.close()
      const mended = new Level<string, Uint8Array>(join(dir, 'index'), { valueEncoding: 'view' })
      expect(await mended.keys({ gte: 'c/', lt: 'c0' }).all()).toHaveLength(10)
      await mended.close()
    })
  })

  it('an index that has lost what it knows of a segment, and not its columns, counts nothing twice', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      await store.putColumn('g/v/1/1', 0, 0, randomBytes(300))
      const bad = randomBytes(300)
      await store.putColumn('g/v/1/1', 1, 0, bad)
      await store.refuteColumn('g/v/1/1', 1, 0)
      await store.putColumn('g/v/1/1', 1, 0, randomBytes(300))
      const before = await store.space()
      expect(before.deadBytes).toBeGreaterThan(300)
      await store.close()
      const index = new Level(join(dir, 'index'))
      await index.del('s/00000001')
      await index.close()
      const again = await open(dir)
      expect((await again.space()).deadBytes).toBe(before.deadBytes)
      await again.close()
    })
  })
})

describe('a disk that fails', () => {
  it('when full gives STORE_FULL, keeps what it had, and goes on when there is room', async () => {
    await withDirectory(async dir => {
      const files = disk()
      const store = await open(dir, files)
      const first = randomBytes(1_000)
      await store.putColumn('g/v/1/1', 0, 0, first)
      const before = await store.streams()
      for (const name of ['ENOSPC', 'EDQUOT']) {
        files.fail.write = code(name)
        const puts = [1, 2, 3].map(grid => store.putColumn('g/v/1/1', grid, 0, randomBytes(500)))
        for (const put of await Promise.allSettled(puts)) {
          expect(put).toMatchObject({ status: 'rejected', reason: { code: 'STORE_FULL' } })
        }
        await expect(store.readColumn('g/v/1/1', 1, 0, 0, 1)).rejects.toMatchObject({ code: 'SHARD_MISSING' })
        expect(await store.streams()).toEqual(before)
      }
      files.fail = {}
      const second = randomBytes(800)
      await store.putColumn('g/v/1/1', 1, 0, second)
      await store.close()
      await rm(join(dir, 'index'), { recursive: true })
      const again = await open(dir)
      expect(await again.readColumn('g/v/1/1', 0, 0, 0, 1_000)).toEqual(first)
      expect(await again.readColumn('g/v/1/1', 1, 0, 0, 800)).toEqual(second)
      await again.close()
    })
  })

  it('offers no room, whatever it says to have, until it takes something: which is tried', async () => {
    await withDirectory(async dir => {
      const files = disk()
      const store = await open(dir, files)
      const freeBytes = async (): Promise<number> => (await store.space()).freeBytes
      expect(await freeBytes()).toBeGreaterThan(0)
      for (const name of ['EIO', 'EDQUOT']) {
        files.fail.write = code(name)
        await expect(store.putColumn('g/v/1/1', 0, 0, randomBytes(500))).rejects.toThrow()
        expect(await freeBytes()).toBe(0)
        expect(await freeBytes()).toBe(0)
        files.fail = {}
        expect(await freeBytes()).toBeGreaterThan(0)
      }
      // What is wrong with a request says nothing of the disk.
      await expect(store.putManifest('0'.repeat(64), randomBytes(9))).rejects.toMatchObject({ code: 'MANIFEST_HASH' })
      expect(await freeBytes()).toBeGreaterThan(0)
      expect(await readdir(dir)).not.toContain('trial')
      await store.close()
    })
  })

  it('when it is to keep what was written acknowledges nothing, and never writes behind what may not be on the disk', async () => {
    await withDirectory(async dir => {
      const files = disk()
      const store = await open(dir, files)
      await store.putColumn('g/v/1/1', 0, 0, randomBytes(100))
      files.fail.sync = code('EIO')
      await expect(store.putColumn('g/v/1/1', 1, 0, randomBytes(100))).rejects.toMatchObject({ code: 'STORE_IO' })
      files.fail = {}
      await store.putColumn('g/v/1/1', 1, 0, randomBytes(100))
      expect(await readdir(join(dir, 'segments'))).toHaveLength(2)
      await store.close()
    })
  })
})

describe('the store', () => {
  it('shares a write among puts that come together', async () => {
    await withDirectory(async dir => {
      const files = disk()
      const store = await open(dir, files, 1 << 28)
      await Promise.all(
        Array.from({ length: 200 }, (_, grid) => store.putColumn('g/v/1/1', grid, 0, randomBytes(1_000)))
      )
      expect(files.writes).toBeLessThan(20)
      await store.close()
    })
  })

  it('rolls segments at their size, and keeps many streams with few open files', async () => {
    await withDirectory(async dir => {
      const store = await open(dir, undefined, 10_000)
      for (let grid = 0; grid < 12; grid++) await store.putColumn('g/v/1/1', grid, 0, randomBytes(4_000))
      expect(await readdir(join(dir, 'segments'))).toHaveLength(4)
      const bytes = randomBytes(50)
      for (let epoch = 1; epoch <= 150; epoch++) await store.putColumn(`g/w/1/${epoch}`, 0, 0, bytes)
      for (let epoch = 1; epoch <= 150; epoch++) {
        expect(await store.readColumn(`g/w/1/${epoch}`, 0, 0, 0, 50)).toEqual(bytes)
        await store.putColumn(`g/w/1/${epoch}`, 1, 0, bytes)
      }
      expect(await readdir(join(dir, 'segments'))).toHaveLength(154)
      const descriptors = (await readdir('/proc/self/fd')).length
      expect(descriptors).toBeLessThan(300)
      await store.close()
    })
  })

  it('refuses a second opener, and a directory of another version', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      await expect(open(dir)).rejects.toMatchObject({ code: 'STORE_LOCKED' })
      await store.close()
      await writeFile(join(dir, 'format'), 'diapause shard store 2\n')
      await expect(open(dir)).rejects.toMatchObject({ code: 'STORE_VERSION' })
      // A first start that was cut off while it wrote that file.
      await writeFile(join(dir, 'format'), 'diapause sh')
      await (await open(dir)).close()
    })
  })
})
