import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { StreamManifest } from '../../node/ports.ts'
import { rebuilding } from '../../node/shards/rebuild.ts'
import { cluster, codec, MemoryStore, type Peer, ship } from './shards-network.ts'

const stores = (count: number): MemoryStore[] => Array.from({ length: count }, () => new MemoryStore())

async function rebuilt(peer: Peer | undefined, manifest: StreamManifest, grid: number, column: number) {
  return await rebuilding(manifest, codec, async (...range) => {
    if (peer === undefined) throw new Error('no such peer')
    return await peer.shards.readData(...range)
  })(grid, column)
}

describe('a column that is rebuilt', () => {
  it('is byte for byte what was lost, whatever the shape, the grid and the m that are gone', async () => {
    const shapes = fc.record({
      k: fc.integer({ min: 1, max: 4 }),
      m: fc.integer({ min: 1, max: 3 }),
      extra: fc.integer({ min: 0, max: 3 }),
      bytes: fc.integer({ min: 1, max: 12_000 }),
      first: fc.nat({ max: 20 })
    })
    await fc.assert(
      fc.asyncProperty(shapes, async ({ k, m, extra, bytes, first }) => {
        const count = k + m + extra
        const held = stores(count)
        const { peers } = cluster(held)
        const manifest = await ship(peers, randomBytes(bytes), { k, m, symbolBytes: 128 })
        const lost = Array.from({ length: m }, (_, i) => (first + i) % count)
        const kept = new Map<string, Uint8Array>()
        for (const column of lost) {
          for (const [key, value] of held[column]?.held ?? []) kept.set(key, value)
          held[column]?.held.clear()
        }
        const reader = peers[(first + m) % count]
        for (const column of lost) {
          for (const grid of manifest.grids.keys()) {
            const wanted = kept.get(`${manifest.stream} ${grid} ${column}`) ?? new Uint8Array()
            expect(Buffer.compare(await rebuilt(reader, manifest, grid, column), wanted)).toBe(0)
          }
        }
      }),
      { numRuns: 30 }
    )
  })

  it('is refused where fewer than k others are left, and where it is not what the manifest says', async () => {
    const held = stores(5)
    const { network, peers } = cluster(held)
    const manifest = await ship(peers, randomBytes(9_000))
    const spoiled = manifest.grids.map(({ hashes, ...rest }) => {
      const other = Buffer.from(hashes)
      other.fill(0, 2 * 5 * 16, 3 * 5 * 16)
      return { ...rest, hashes: other }
    })
    held[2]?.held.clear()
    const wrong = rebuilt(peers[0], { ...manifest, grids: spoiled }, 0, 2)
    await expect(wrong).rejects.toMatchObject({ code: 'REBUILD_WRONG' })
    for (const peer of ['p3', 'p4']) network.kill(peer)
    await expect(rebuilt(peers[0], manifest, 0, 2)).rejects.toMatchObject({ code: 'SHARD_LOST' })
  })
})
