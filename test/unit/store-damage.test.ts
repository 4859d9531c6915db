/** What a sick disk does: bits that change, segments that end early or vanish, and the space that is lost by it. */
import { hash, randomBytes } from 'node:crypto'
import { readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { ColumnState, ShardStore } from '../../node/ports.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, memoryLog, withDirectory } from './store-support.ts'

const open = (dir: string, segmentBytes = 60_000): Promise<ShardStore> =>
  openShardStore(dir, { log: memoryLog(), clock, segmentBytes })

/** Turns one bit. */
async function spoil(path: string, at: number): Promise<void> {
  const bytes = await readFile(path)
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (at % 8))
  await writeFile(path, bytes)
}

describe('a damaged disk', () => {
  it('gives SHARD_CORRUPT for what is damaged and only for that, and a new put heals it', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      const columns = [randomBytes(40_000), randomBytes(40_000)]
      for (const [grid, bytes] of columns.entries()) await store.putColumn('g/v/1/1', grid, 0, bytes)
      const path = join(dir, 'segments', (await readdir(join(dir, 'segments')))[0] ?? '')
      const bytes = await readFile(path)
      const at = bytes.indexOf((columns[1] as Buffer).subarray(0, 100)) + 20_000
      bytes[at] = (bytes[at] ?? 0) ^ 1
      await writeFile(path, bytes)
      await expect(store.readColumn('g/v/1/1', 1, 0, 20_000, 1)).rejects.toMatchObject({ code: 'SHARD_CORRUPT' })
      await expect(store.readColumn('g/v/1/1', 1, 0, 0, 40_000)).rejects.toMatchObject({ code: 'SHARD_CORRUPT' })
      // Other blocks of the same column are checked for themselves.
      expect(await store.readColumn('g/v/1/1', 1, 0, 0, 16_384)).toEqual((columns[1] as Buffer).subarray(0, 16_384))
      expect(await store.readColumn('g/v/1/1', 0, 0, 0, 40_000)).toEqual(columns[0])
      expect(await store.columns('g/v/1/1')).toEqual([{ column: 0, grids: 1 }])
      await store.putColumn('g/v/1/1', 1, 0, columns[1] as Buffer)
      expect(await store.columns('g/v/1/1')).toEqual([{ column: 0, grids: 2 }])
      expect(await store.readColumn('g/v/1/1', 1, 0, 0, 40_000)).toEqual(columns[1])
      await store.close()
      // Also where the index is lost: of two records of one place the later counts.
      await rm(join(dir, 'index'), { recursive: true })
      const again = await open(dir)
      expect(await again.readColumn('g/v/1/1', 1, 0, 0, 40_000)).toEqual(columns[1])
      await again.close()
    })
  })

  it('does not come back at a start with a column that was refuted and put again: its checksums are right', async () => {
    await withDirectory(async dir => {
      const [wrong, right, other] = [randomBytes(9_000), randomBytes(9_000), randomBytes(9_000)]
      const first = await open(dir)
      await first.putColumn('g/v/1/1', 0, 0, wrong)
      await first.putColumn('g/v/1/1', 1, 0, other)
      await first.close()
      const second = await open(dir) // which begins a segment of its own
      await second.refuteColumn('g/v/1/1', 0, 0)
      await second.putColumn('g/v/1/1', 0, 0, right)
      await second.close()
      for (const said of [1, 0]) {
        const log = memoryLog()
        const later = await openShardStore(dir, { log, clock, segmentBytes: 60_000 })
        expect(await later.readColumn('g/v/1/1', 0, 0, 0, 9_000)).toEqual(right)
        expect(await later.readColumn('g/v/1/1', 1, 0, 0, 9_000)).toEqual(other)
        expect(await later.columns('g/v/1/1')).toEqual([{ column: 0, grids: 2 }])
        expect((await later.space()).deadBytes).toBeGreaterThan(9_000)
        // The segment is read again once, and not at each start.
        expect(log.lines.filter(({ message }) => message.includes('disagree'))).toHaveLength(said)
        await later.close()
      }
    })
  })

  it('is found by verifying, wherever in a record a bit has changed, and where a segment is cut short', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      const column = randomBytes(40_000)
      const verify = (): Promise<ColumnState> => store.verifyColumn('g/v/1/1', 0, 0)
      await store.putColumn('g/v/1/1', 0, 0, column)
      const path = join(dir, 'segments', (await readdir(join(dir, 'segments')))[0] ?? '')
      const right = await readFile(path)
      const record = right.indexOf('DREC')
      for (const at of [0, 5, 7, 9, 13, 17, 33, 37, 40, 47, 52, 20_000, right.length - record - 1]) {
        const bytes = Buffer.from(right)
        bytes[record + at] = (bytes[record + at] ?? 0) ^ (1 << (at % 8))
        await writeFile(path, bytes)
        expect(await verify(), `byte ${at} of the record`).toBe('damaged')
        expect(await store.columns('g/v/1/1')).toEqual([])
      }
      await writeFile(path, right.subarray(0, -1))
      expect(await verify()).toBe('damaged')
      await writeFile(path, right)
      await store.putColumn('g/v/1/1', 0, 0, column)
      expect(await verify()).toBe('whole')
      await store.close()
    })
  })

  it('whose trouble was over soon has lost nothing: what verifying finds whole is counted again', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      await store.putColumn('g/v/1/1', 0, 0, randomBytes(40_000))
      const path = join(dir, 'segments', (await readdir(join(dir, 'segments')))[0] ?? '')
      const at = (await readFile(path)).indexOf('DREC') + 20_000
      await spoil(path, at)
      await expect(store.readColumn('g/v/1/1', 0, 0, 0, 40_000)).rejects.toMatchObject({ code: 'SHARD_CORRUPT' })
      expect(await store.columns('g/v/1/1')).toEqual([])
      await spoil(path, at)
      expect(await store.verifyColumn('g/v/1/1', 0, 0)).toBe('whole')
      expect(await store.columns('g/v/1/1')).toEqual([{ column: 0, grids: 1 }])
      await store.close()
    })
  })

  it('has a manifest that is damaged count as missing, and takes it again', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      const bytes = randomBytes(100)
      const name = hash('sha256', bytes)
      await store.putManifest(name, bytes)
      await truncate(join(dir, 'manifests', name), 50)
      expect(await store.getManifest(name)).toBeUndefined()
      await store.putManifest(name, bytes)
      expect(await store.getManifest(name)).toEqual(bytes)
      await store.close()
    })
  })

  it('whose segment vanished makes its columns missing and no others', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      await store.putColumn('g/v/1/1', 0, 0, randomBytes(100))
      await store.putColumn('g/w/1/1', 0, 0, randomBytes(100))
      await store.close()
      await rm(join(dir, 'segments', (await readdir(join(dir, 'segments'))).sort()[0] ?? ''))
      const again = await open(dir)
      await expect(again.readColumn('g/v/1/1', 0, 0, 0, 1)).rejects.toMatchObject({ code: 'SHARD_MISSING' })
      expect(await again.readColumn('g/w/1/1', 0, 0, 0, 100)).toHaveLength(100)
      const bytes = randomBytes(100)
      await again.putColumn('g/v/1/1', 0, 0, bytes)
      expect(await again.readColumn('g/v/1/1', 0, 0, 0, 100)).toEqual(bytes)
      await again.close()
    })
  })

  it('that loses a segment under a running store has damaged its columns, and takes them again elsewhere', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      const columns = [randomBytes(500), randomBytes(500)]
      for (const [grid, bytes] of columns.entries()) await store.putColumn('g/v/1/1', grid, 0, bytes)
      await rm(join(dir, 'segments', (await readdir(join(dir, 'segments')))[0] ?? ''))
      expect(await store.verifyColumn('g/v/1/1', 0, 0)).toBe('damaged')
      await expect(store.readColumn('g/v/1/1', 1, 0, 0, 500)).rejects.toMatchObject({ code: 'SHARD_CORRUPT' })
      expect(await store.columns('g/v/1/1')).toEqual([])
      for (const [grid, bytes] of columns.entries()) await store.putColumn('g/v/1/1', grid, 0, bytes)
      expect(await store.columns('g/v/1/1')).toEqual([{ column: 0, grids: 2 }])
      for (const grid of columns.keys()) expect(await store.verifyColumn('g/v/1/1', grid, 0)).toBe('whole')
      await store.close()
      const again = await open(dir)
      for (const [grid, bytes] of columns.entries()) {
        expect(Buffer.compare(await again.readColumn('g/v/1/1', grid, 0, 0, 500), bytes)).toBe(0)
      }
      await again.close()
    })
  })

  it('has its segment mended by whoever verifies, where the header is damaged', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      const column = randomBytes(500)
      await store.putColumn('g/v/1/1', 0, 0, column)
      const path = join(dir, 'segments', (await readdir(join(dir, 'segments')))[0] ?? '')
      const right = await readFile(path)
      for (const at of [0, 7, 9, 12, right.indexOf('DREC') - 1]) {
        await spoil(path, at)
        expect(await store.verifyColumn('g/v/1/1', 0, 0)).toBe('whole')
        expect(await readFile(path)).toEqual(right)
      }
      await store.close()
    })
  })

  it('is healed by a put of the same bytes where only the head of a record was damaged', async () => {
    await withDirectory(async dir => {
      const store = await open(dir)
      const column = randomBytes(500)
      await store.putColumn('g/v/1/1', 0, 0, column)
      const path = join(dir, 'segments', (await readdir(join(dir, 'segments')))[0] ?? '')
      await spoil(path, (await readFile(path)).indexOf('DREC') + 9)
      expect(await store.verifyColumn('g/v/1/1', 0, 0)).toBe('damaged')
      await store.putColumn('g/v/1/1', 0, 0, column)
      expect(await store.verifyColumn('g/v/1/1', 0, 0)).toBe('whole')
      expect(await store.columns('g/v/1/1')).toEqual([{ column: 0, grids: 1 }])
      await store.close()
      await rm(join(dir, 'index'), { recursive: true })
      const again = await open(dir)
      expect(await again.readColumn('g/v/1/1', 0, 0, 0, 500)).toEqual(column)
      await again.close()
    })
  })
})

describe('space that damage has taken', () => {
  const columns = Array.from({ length: 8 }, () => randomBytes(10_000))
  /** Five columns in the first segment, three in the second; of the first, the columns in `grids` are damaged and put again. */
  async function damaged(dir: string, grids: readonly number[]): Promise<ShardStore> {
    const store = await open(dir, 50_000)
    for (const [grid, bytes] of columns.entries()) await store.putColumn('g/v/1/1', grid, 0, bytes)
    const path = join(dir, 'segments', '00000001.segment')
    const bytes = await readFile(path)
    for (const grid of grids) await spoil(path, bytes.indexOf(columns[grid] ?? '') + 77)
    for (const grid of grids) {
      expect(await store.verifyColumn('g/v/1/1', grid, 0)).toBe('damaged')
      await store.putColumn('g/v/1/1', grid, 0, columns[grid] ?? Buffer.alloc(0))
    }
    return store
  }
  const read = async (store: ShardStore): Promise<void> => {
    for (const [grid, bytes] of columns.entries()) {
      expect(Buffer.compare(await store.readColumn('g/v/1/1', grid, 0, 0, 10_000), bytes), `grid ${grid}`).toBe(0)
    }
  }

  it('is counted, and given back when it is half of a segment: the rest is moved, and nothing is lost', async () => {
    await withDirectory(async dir => {
      const store = await damaged(dir, [1, 2, 3])
      await expect.poll(() => readdir(join(dir, 'segments'))).not.toContain('00000001.segment')
      expect(await store.space()).toMatchObject({ deadBytes: 0 })
      await read(store)
      await store.close()
      await rm(join(dir, 'index'), { recursive: true })
      const again = await open(dir)
      await read(again)
      expect(await again.columns('g/v/1/1')).toEqual([{ column: 0, grids: 8 }])
      await again.close()
    })
  })

  it('of less is kept until the stream is dropped', async () => {
    await withDirectory(async dir => {
      const store = await damaged(dir, [2])
      const before = await store.space()
      expect(before.deadBytes).toBeGreaterThan(10_000)
      expect(before.deadBytes).toBeLessThan(10_100)
      await store.close()
      const again = await open(dir)
      expect(await again.space()).toMatchObject({ liveBytes: before.liveBytes, deadBytes: before.deadBytes })
      await read(again)
      await again.dropStream('g/v/1/1')
      expect(await again.space()).toMatchObject({ liveBytes: 0, deadBytes: 0 })
      await again.close()
    })
  })

  it('stays where a column of the segment is damaged and nobody has put it again', async () => {
    await withDirectory(async dir => {
      const store = await damaged(dir, [0, 1])
      const path = join(dir, 'segments', '00000001.segment')
      const bytes = await readFile(path)
      for (const grid of [2, 3]) await spoil(path, bytes.indexOf(columns[grid] ?? '') + 77)
      expect(await store.verifyColumn('g/v/1/1', 2, 0)).toBe('damaged')
      await store.putColumn('g/v/1/1', 2, 0, columns[2] ?? Buffer.alloc(0))
      // The last whole one has moved, a damaged one is left.
      await expect.poll(async () => (await store.space()).deadBytes).toBeGreaterThan(40_000)
      expect(await store.verifyColumn('g/v/1/1', 3, 0)).toBe('damaged')
      expect(await readdir(join(dir, 'segments'))).toContain('00000001.segment')
      await store.putColumn('g/v/1/1', 3, 0, columns[3] ?? Buffer.alloc(0))
      await expect.poll(() => readdir(join(dir, 'segments'))).not.toContain('00000001.segment')
      await read(store)
      await store.close()
    })
  })
})
