/**
 * Shards and manifests on this peer's disk. Segment files hold the truth, level holds where things lie.
 *
 *   DIR/format                 "diapause shard store 1"
 *   DIR/segments/N.segment     records of one stream, append-only (`record.ts`, `writer.ts`)
 *   DIR/index/                 level (`catalog.ts`), rebuilt from the segments where it lags or is lost (`recovery.ts`)
 *   DIR/manifests/SHA256       (`manifests.ts`)
 *   DIR/reserve                nothing: space that is given up when the index has none (`space.ts`)
 *   DIR/trial                  nothing, for a moment: whether a disk that refused writes takes them again (`space.ts`)
 *
 * A put resolves when its segment has it durably (and the directory a new file). The index knows it then, and
 * writes it in the background.
 */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock, Log, ShardStore } from '../ports.ts'
import { DiskShardStore } from './disk-store.ts'
import { type Files, nodeFiles } from './files.ts'
import { openManifests } from './manifests.ts'
import { checkFormat, openIndex } from './opening.ts'
import { Space } from './space.ts'
import { SEGMENT_BYTES } from './writer.ts'

export interface ShardStoreOptions {
  readonly log: Log
  readonly clock: Clock
  /** For tests: a smaller segment size, file operations that fail, small file systems. */
  readonly segmentBytes?: number
  readonly files?: Files
  readonly keptFreeBytes?: number
  readonly reserveBytes?: number
}

/** Opens or makes the store in `dir`. STORE_VERSION, STORE_LOCKED, STORE_FULL, STORE_IO. */
export async function openShardStore(dir: string, options: ShardStoreOptions): Promise<ShardStore> {
  const { log, clock, files = nodeFiles, segmentBytes = SEGMENT_BYTES } = options
  const started = clock.now()
  const segmentsDir = join(dir, 'segments')
  await mkdir(segmentsDir, { recursive: true })
  await checkFormat(dir)
  const reservePath = join(dir, 'reserve')
  const { keptFreeBytes, reserveBytes } = options
  const space = new Space({ dir, reservePath, files, clock, log, keptFreeBytes, reserveBytes })
  const { catalog, recovered } = await openIndex(join(dir, 'index'), segmentsDir, { space, clock, log })
  try {
    const manifests = await openManifests(join(dir, 'manifests'), files, log)
    await files.syncDirectory(dir)
    const context = { files, catalog, log, segmentsDir, segmentBytes, space }
    const store = new DiskShardStore(context, manifests, recovered.nextSegment)
    for (const { segment, stream, bytes, deadBytes } of recovered.segments) {
      store.adopt(stream, segment, { bytes, deadBytes })
    }
    store.keepHouse()
    const facts = { dir, segments: recovered.segments.length, tookMs: Math.round(clock.now() - started) }
    log.info(facts, 'shard store is open')
    return store
  } catch (error) {
    await catalog.close()
    throw error
  }
}
