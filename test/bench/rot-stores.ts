/** Five stores on this disk with the same streams, one column of each grid a store, and what they must hold. */
import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError, hasCode } from '../../node/errors.ts'
import { encodeStreamManifest } from '../../node/image/stream-manifest.ts'
import type { ShardStore, StreamManifest } from '../../node/ports.ts'
import { type Rebuild, rebuilding } from '../../node/shards/rebuild.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { cluster, codec, ship } from '../unit/shards-network.ts'

export const STORES = 5
export const K = 3
export const M = 2
const STREAMS = 3
/** With symbols of 4 KiB: 27 grids of a stream, of 20 KiB in each store. */
const STREAM_BYTES = 27 * STORES * K * 4096 - 1_000
const SYMBOL_BYTES = 4096
/** A truncation hits some columns, and not a tenth of all. */
const SEGMENT_BYTES = 200 << 10

export class RotStores {
  readonly dir: string
  readonly stores: ShardStore[]
  readonly manifests: readonly StreamManifest[]
  /** By store: what it must hold, by `STREAM GRID COLUMN`. */
  readonly columns: readonly ReadonlyMap<string, Uint8Array>[]
  /** By hash: all stores have them. */
  readonly documents: ReadonlyMap<string, Uint8Array>

  private constructor(
    dir: string,
    stores: ShardStore[],
    manifests: readonly StreamManifest[],
    columns: readonly ReadonlyMap<string, Uint8Array>[],
    documents: ReadonlyMap<string, Uint8Array>
  ) {
    this.dir = dir
    this.stores = stores
    this.manifests = manifests
    this.columns = columns
    this.documents = documents
  }

  static async make(dir: string): Promise<RotStores> {
    const stores = await Promise.all(Array.from({ length: STORES }, (_, i) => open(join(dir, `${i}`))))
    const { peers } = cluster(stores)
    const manifests: StreamManifest[] = []
    for (let i = 0; i < STREAMS; i++) {
      const shape = { k: K, m: M, symbolBytes: SYMBOL_BYTES, stream: `g/v${i}/1/1` }
      manifests.push(await ship(peers, randomBytes(STREAM_BYTES), shape))
    }
    const documents = new Map(manifests.map(encodeStreamManifest).map(({ hash, bytes }) => [hash, bytes]))
    const columns: Map<string, Uint8Array>[] = []
    for (const store of stores) {
      for (const [name, bytes] of documents) await store.putManifest(name, bytes)
      const held = new Map<string, Uint8Array>()
      for await (const { stream, grid, column, bytes } of store.eachColumn()) {
        held.set(`${stream} ${grid} ${column}`, await store.readColumn(stream, grid, column, 0, bytes))
      }
      columns.push(held)
    }
    return new RotStores(dir, stores, manifests, columns, documents)
  }

  dirOf(store: number): string {
    return join(this.dir, `${store}`)
  }

  store(i: number): ShardStore {
    const store = this.stores[i]
    if (store === undefined) throw new RangeError(`there is no store ${i}`)
    return store
  }

  async close(i: number): Promise<void> {
    await this.store(i).close()
  }

  async open(i: number, withIndex = true): Promise<void> {
    if (!withIndex) await rm(join(this.dirOf(i), 'index'), { recursive: true })
    this.stores[i] = await open(this.dirOf(i))
  }

  /** Rebuilds columns of a store from the other four, over the protocol of shards. */
  rebuilder(i: number): (stream: string, grid: number, column: number) => Promise<Uint8Array> {
    const peer = cluster(this.stores).peers[i]
    const rebuilds = new Map<string, Rebuild>()
    if (peer !== undefined) {
      for (const manifest of this.manifests) {
        rebuilds.set(
          manifest.stream,
          rebuilding(manifest, codec, (...range) => peer.shards.readData(...range))
        )
      }
    }
    return async (stream, grid, column) => {
      const rebuild = rebuilds.get(stream)
      if (rebuild === undefined) throw new RangeError(`there is no stream ${stream}`)
      return await rebuild(grid, column)
    }
  }

  /** Columns of a store that are read as they were, refused, or wrong. */
  async readAll(i: number): Promise<{ right: number; refused: string[]; wrong: string[] }> {
    const seen = { right: 0, refused: [] as string[], wrong: [] as string[] }
    for (const [key, bytes] of this.columns[i] ?? []) {
      const { stream, grid, column } = placeOf(key)
      const read = await this.store(i)
        .readColumn(stream, grid, column, 0, bytes.length)
        .catch((error: unknown) => error)
      if (read instanceof Uint8Array) {
        if (Buffer.compare(read, bytes) === 0) seen.right++
        else seen.wrong.push(key)
      } else if (hasCode(read, 'SHARD_CORRUPT') || hasCode(read, 'SHARD_MISSING')) seen.refused.push(key)
      else throw read
    }
    return seen
  }
}

export function placeOf(key: string): { stream: string; grid: number; column: number } {
  const [stream = '', grid, column] = key.split(' ')
  return { stream, grid: Number(grid), column: Number(column) }
}

async function open(dir: string): Promise<ShardStore> {
  const store = await openShardStore(dir, { log: quietLog, clock, segmentBytes: SEGMENT_BYTES })
  if ((await store.space()).freeBytes > 0) return store
  throw new DiapauseError('STORE_FULL', `there is no room for stores in ${dir}`)
}
