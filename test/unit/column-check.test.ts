/** A column whose checksums are right and whose bytes are not: found by who compares it with its manifest, and mended. */
import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { ColumnCheck } from '../../node/agents/column-check.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { ShardStore, StreamManifest } from '../../node/ports.ts'
import { columnMatches } from '../../node/shards/damage.ts'
import { rebuilding } from '../../node/shards/rebuild.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { cluster, codec, MemoryStore, ship } from './shards-network.ts'
import { clock, memoryLog, withDirectory } from './store-support.ts'

/** Five peers, of which the third has its column of the second grid wrongly, as far as its disk knows rightly. */
async function wrong(store: ShardStore, bytes: (right: Uint8Array) => Uint8Array) {
  const stores = Array.from({ length: 5 }, () => new MemoryStore())
  const { peers } = cluster(stores)
  const manifest = await ship(peers, randomBytes(9_000))
  for (const grid of manifest.grids.keys()) {
    const right = stores[2]?.held.get(`g/v/1/1 ${grid} 2`) ?? new Uint8Array()
    await store.putColumn('g/v/1/1', grid, 2, grid === 1 ? bytes(right) : right)
    stores[2]?.held.delete(`g/v/1/1 ${grid} 2`)
  }
  const rebuild = rebuilding(
    manifest,
    codec,
    async (...range) => (await peers[0]?.shards.readData(...range)) ?? Buffer.of()
  )
  return { manifest, rebuild }
}

const keptOf = (manifest: () => Promise<StreamManifest>) => ({
  find: (stream: string) =>
    stream === 'g/v/1/1' ? { stream, k: 3, m: 2, holders: [], grids: 3, manifest: 'its hash' } : undefined,
  manifest
})

describe('the check of a column that somebody doubts', () => {
  it.each([
    ['has one wrong bit', (right: Uint8Array) => right.map((byte, i) => (i === 700 ? byte ^ 1 : byte))],
    ['has one wrong bit in its parity', (right: Uint8Array) => right.map((byte, i) => (i === 1_000 ? byte ^ 1 : byte))],
    ['is too short', (right: Uint8Array) => right.slice(0, -1)]
  ])('finds what %s though its checksums are right, and a put of what was rebuilt mends it', async (_, spoil) => {
    await withDirectory(async dir => {
      const store = await openShardStore(dir, { log: memoryLog(), clock })
      const { manifest, rebuild } = await wrong(store, spoil)
      expect(manifest.grids).toHaveLength(3)
      const check = new ColumnCheck({
        store,
        kept: keptOf(async () => manifest),
        log: memoryLog(),
        matches: columnMatches
      })
      const verify = () => Promise.all([0, 1, 2, 3].map(grid => check.verify('g/v/1/1', grid, 2)))
      expect(await store.verifyColumn('g/v/1/1', 1, 2)).toBe('whole')
      expect(await verify()).toEqual(['whole', 'damaged', 'whole', 'missing'])
      // For all that ask the store, too, among them who plans and who repairs.
      expect(await store.verifyColumn('g/v/1/1', 1, 2)).toBe('damaged')
      expect(await store.columns('g/v/1/1')).toEqual([{ column: 2, grids: 2 }])
      await store.putColumn('g/v/1/1', 1, 2, await rebuild(1, 2))
      expect(await verify()).toEqual(['whole', 'whole', 'whole', 'missing'])
      expect(await store.columns('g/v/1/1')).toEqual([{ column: 2, grids: 3 }])
      await store.close()
    })
  })

  it('believes the checksums where it has no manifest, or none that says more', async () => {
    const store = new MemoryStore()
    const { manifest } = await wrong(store, right => right.map(byte => byte ^ 1))
    const bare = { ...manifest, grids: manifest.grids.map(grid => ({ ...grid, hashes: new Uint8Array() })) }
    const missing = async (): Promise<StreamManifest> => {
      throw new DiapauseError('MANIFEST_MISSING', 'out of reach')
    }
    for (const of of [missing, async () => bare]) {
      const check = new ColumnCheck({ store, kept: keptOf(of), log: memoryLog(), matches: columnMatches })
      expect(await check.verify('g/v/1/1', 1, 2)).toBe('whole')
    }
    await store.putColumn('g/w/1/1', 0, 0, randomBytes(9))
    const check = new ColumnCheck({ store, kept: keptOf(missing), log: memoryLog(), matches: columnMatches })
    expect(await check.verify('g/w/1/1', 0, 0)).toBe('whole')
  })
})
