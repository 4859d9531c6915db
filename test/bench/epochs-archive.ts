/**
 * What all peers had on their disks when an epoch was committed, kept although they forget it soon: hard links to their
 * segments and manifests. A segment only grows, and what is in it never changes, so a link made at the commit has all
 * of the epoch whatever becomes of the peer's own name for it. Their indexes are not kept: a store makes its own anew.
 */
import { copyFileSync, existsSync, linkSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hasCode } from '../../node/errors.ts'
import { readManifest } from '../../node/image/manifest.ts'
import { isStreamManifest } from '../../node/image/stream-manifest.ts'
import type { ImageManifest, ShardStore } from '../../node/ports.ts'
import { segmentName } from '../../node/store/recovery.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, quietLog } from '../contract/real-clock.ts'

export interface ArchivedPeer {
  readonly id: string
  readonly dataDir: string
}

export interface Archived {
  /** By peer id. To be closed by the caller. */
  readonly stores: ReadonlyMap<string, ShardStore>
  /** Of every VM and epoch, of committed epochs and others. */
  readonly manifests: readonly ImageManifest[]
}

export class Archive {
  readonly dir: string
  /** Peer and inode of segments that are here. */
  readonly #kept = new Set<string>()
  #segments = 0

  constructor() {
    this.dir = mkdtempSync(join(tmpdir(), 'diapause-epochs-')) // beside the clusters: links do not cross file systems
  }

  /** Call it when an epoch has been committed, before the next one is. */
  keep(peers: readonly ArchivedPeer[]): void {
    for (const { id, dataDir } of peers) {
      const from = join(dataDir, 'shards')
      const to = join(this.dir, id)
      if (!['format', 'segments', 'manifests'].every(name => existsSync(join(from, name)))) continue // it has just joined
      for (const folder of ['segments', 'manifests']) mkdirSync(join(to, folder), { recursive: true })
      copyFileSync(join(from, 'format'), join(to, 'format'))
      for (const name of readdirSync(join(from, 'manifests'))) {
        if (!name.endsWith('.part')) linkUnlessGone(join(from, 'manifests', name), join(to, 'manifests', name))
      }
      for (const name of readdirSync(join(from, 'segments'))) this.#keepSegment(id, join(from, 'segments', name), to)
    }
  }

  /** A peer that restarts may use a number again, so segments get numbers of our own. */
  #keepSegment(id: string, path: string, to: string): void {
    const inode = statSync(path, { throwIfNoEntry: false })?.ino
    const key = `${id} ${inode}`
    if (inode === undefined || this.#kept.has(key)) return
    if (linkUnlessGone(path, join(to, 'segments', segmentName(++this.#segments)))) this.#kept.add(key)
  }

  /** When the peers have ended, because opening a store cuts off torn tails. */
  async open(): Promise<Archived> {
    const stores = new Map<string, ShardStore>()
    const objects = new Map<string, Uint8Array>()
    for (const id of readdirSync(this.dir)) {
      const store = await openShardStore(join(this.dir, id), { log: quietLog, clock })
      stores.set(id, store)
      for (const hash of await store.manifests()) {
        const bytes = objects.has(hash) ? undefined : await store.getManifest(hash)
        if (bytes !== undefined) objects.set(hash, bytes)
      }
    }
    const get = async (hash: string): Promise<Uint8Array> => {
      const bytes = objects.get(hash)
      if (bytes === undefined) throw new Error(`no peer kept manifest ${hash}`)
      return bytes
    }
    const images = [...objects].filter(([, bytes]) => !isStreamManifest(bytes))
    return { stores, manifests: await Promise.all(images.map(([hash]) => readManifest(hash, get))) }
  }

  remove(): void {
    rmSync(this.dir, { recursive: true, force: true })
  }
}

/** Whether it is there now: the peer may have removed it at this moment. */
function linkUnlessGone(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return true
    if (hasCode(error, 'ENOENT')) return false
    throw error
  }
}
