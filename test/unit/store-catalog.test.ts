/** The index: what it lists where its own disk takes nothing, what it forgets, and what it is asked while it is built again. */
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Level } from 'level'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { openCatalog } from '../../node/store/catalog.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, memoryLog, withDirectory } from './store-support.ts'

const STREAM = 'ab'.repeat(32)

afterEach(() => void vi.restoreAllMocks())

describe('the index of a store whose disk takes no more of it', () => {
  it('lists what it has and what waits, in order, each once, page by page', async () => {
    await withDirectory(async dir => {
      const catalog = await openCatalog(join(dir, 'index'), { clock, log: memoryLog(), makeRoom: async () => false })
      const add = (stream: string, grids: readonly number[], segment: number): void => {
        const where = { segment, column: 2, payloadOffset: 100, payloadBytes: 10, checksums: Buffer.alloc(4) }
        const entries = grids.map(grid => ({ ...where, grid }))
        catalog.add(stream, entries, { segment, stream, bytes: 1_000, records: grids.length })
      }
      const even = Array.from({ length: 600 }, (_, i) => 2 * i)
      add(STREAM, even, 1)
      await catalog.flush()
      vi.spyOn(Level.prototype, 'batch').mockRejectedValue(new Error('no space'))
      add(STREAM, [0, 7, 1_001, 1_301], 2)
      add('cd'.repeat(32), [3], 3)
      const listed: { grid: number; segment: number }[] = []
      for (let last: { grid: number; column: number } | undefined; ; ) {
        const page = await catalog.page(STREAM, last)
        listed.push(...page.map(({ grid, segment }) => ({ grid, segment })))
        last = page.at(-1)
        if (last === undefined) break
      }
      const waiting = new Set([0, 7, 1_001, 1_301])
      const grids = [...new Set([...even, ...waiting])].sort((a, b) => a - b)
      expect(listed).toEqual(grids.map(grid => ({ grid, segment: waiting.has(grid) ? 2 : 1 })))
      vi.restoreAllMocks()
      await catalog.close()
    })
  })

  it('forgets what lies in a segment, however much that is, and nothing else, some at a time', async () => {
    await withDirectory(async dir => {
      const catalog = await openCatalog(join(dir, 'index'), { clock, log: memoryLog(), makeRoom: async () => false })
      for (const segment of [1, 2]) {
        const where = { segment, column: segment, payloadOffset: 100, payloadBytes: 10, checksums: Buffer.alloc(4) }
        const entries = Array.from({ length: 1_300 }, (_, grid) => ({ ...where, grid }))
        catalog.add(STREAM, entries, { segment, stream: 's', bytes: 1_000, records: entries.length })
      }
      await catalog.flush()
      const batches = vi.spyOn(Level.prototype, 'batch')
      await catalog.forget(STREAM, new Set([1]))
      const sizes = (batches.mock.calls as unknown[][][]).map(([operations]) => operations?.length ?? 0)
      expect(Math.max(...sizes)).toBeLessThanOrEqual(513)
      vi.restoreAllMocks()
      expect(await catalog.uses()).toEqual(new Map([[2, expect.objectContaining({ columns: 1_300 })]]))
      expect((await catalog.segments()).map(({ segment }) => segment)).toEqual([2])
      await catalog.close()
    })
  })

  it('knows no column of a segment that it does not know, whichever write a power loss takes while one is forgotten', async () => {
    await withDirectory(async dir => {
      const catalog = await openCatalog(join(dir, 'index'), { clock, log: memoryLog(), makeRoom: async () => false })
      const where = { segment: 1, column: 1, payloadOffset: 100, payloadBytes: 10, checksums: Buffer.alloc(4) }
      const entries = Array.from({ length: 1_300 }, (_, grid) => ({ ...where, grid }))
      catalog.add(STREAM, entries, { segment: 1, stream: 's', bytes: 1_000, records: entries.length })
      await catalog.flush()
      const batches = vi.spyOn(Level.prototype, 'batch')
      await catalog.forget(STREAM, new Set([1]))
      const writes = (batches.mock.calls as unknown[][]).map(([operations, options]) => ({
        keys: (operations as { key: string }[]).map(({ key }) => key),
        sync: (options as { sync?: boolean } | undefined)?.sync === true
      }))
      vi.restoreAllMocks()
      await catalog.close()
      expect(writes.flatMap(({ keys }) => keys)).toHaveLength(1_301)
      for (const lost of writes.filter(({ sync }) => !sync)) {
        const gone = new Set(writes.flatMap(each => (each === lost ? [] : each.keys)))
        const left = 1_300 - [...gone].filter(key => key.startsWith('c/')).length
        expect(gone.has('s/00000001') ? left : 0).toBe(0)
      }
    })
  })
})

describe('an index that is built again', () => {
  it('is asked for a record only where a later segment was in it already: of a lost one for none', async () => {
    await withDirectory(async dir => {
      const open = () => openShardStore(dir, { log: memoryLog(), clock })
      for (const segment of [1, 2]) {
        const store = await open()
        for (let grid = 0; grid < 5; grid++) await store.putColumn('g/v/1/1', 10 * segment + grid, 0, randomBytes(300))
        await store.close()
      }
      const lookUps = vi.spyOn(Level.prototype, 'get')
      const openedAgain = async (): Promise<number> => {
        lookUps.mockClear()
        const store = await open()
        const asked = lookUps.mock.calls.length
        expect(await store.columns('g/v/1/1')).toEqual([{ column: 0, grids: 10 }])
        await store.close()
        return asked
      }
      expect(await openedAgain()).toBe(0)
      await rm(join(dir, 'index'), { recursive: true })
      expect(await openedAgain()).toBe(0)
      for (const [lost, asked] of [
        ['s/00000001', 5],
        ['s/00000002', 0]
      ] as const) {
        const index = new Level(join(dir, 'index'))
        await index.del(lost)
        await index.close()
        expect(await openedAgain(), lost).toBe(asked)
      }
    })
  })
})
