/**
 * A shard store on a small ext4 that fills up, in a mount namespace of its own: `unshare --mount … full-disk-child.ts DIR`.
 * Says what became of each step, as JSON; `full-disk.test.ts` judges.
 */
import { execFileSync } from 'node:child_process'
import { hash } from 'node:crypto'
import { mkdirSync, statfsSync } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode, messageOf } from '../../node/errors.ts'
import type { ShardStore } from '../../node/ports.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { contentOf, manifestOf } from '../bench/shard-content.ts'
import { clock, quietLog } from './real-clock.ts'

const DISK_MIB = 96
const KEPT_FREE_BYTES = 10 << 20
const RESERVE_BYTES = 6 << 20

const dir = process.argv[2] ?? ''
const run = (program: string, ...args: string[]): void => void execFileSync(program, args, { stdio: 'pipe' })
const mounted = join(dir, 'mounted')
const streamOf = (grid: number): string => `g/v/1/${grid % 2}`

/** Code of the failure, or 'stored'. */
async function put(store: ShardStore, grid: number): Promise<string> {
  const place = { stream: streamOf(grid), grid, column: 0 }
  return await store.putColumn(place.stream, grid, 0, contentOf(place)).then(
    () => 'stored',
    (error: unknown) => (hasCode(error, 'STORE_FULL') ? `STORE_FULL ${messageOf(error)}` : messageOf(error))
  )
}

/** How many of the first `count` columns are read right. */
async function right(store: ShardStore, count: number): Promise<number> {
  let sum = 0
  for (let grid = 0; grid < count; grid++) {
    const content = contentOf({ stream: streamOf(grid), grid, column: 0 })
    const read = await store.readColumn(streamOf(grid), grid, 0, 0, content.length).catch(() => undefined)
    if (read !== undefined && Buffer.compare(read, content) === 0) sum++
  }
  return sum
}

/** Somebody else writes until nothing is left. */
async function fill(): Promise<void> {
  const file = await open(join(mounted, 'others'), 'w')
  for (let bytes = 1 << 20; bytes >= 512; ) {
    const written = await file.write(Buffer.alloc(bytes)).catch(() => undefined)
    if (written === undefined) bytes >>= 1
  }
  await file.sync().catch(() => {})
  await file.close()
}

async function main(): Promise<Record<string, unknown>> {
  run('mount', '-t', 'tmpfs', '-o', `size=${DISK_MIB + 8}m`, 'none', dir)
  mkdirSync(mounted)
  run('truncate', '-s', `${DISK_MIB}M`, join(dir, 'disk'))
  run('mkfs.ext4', '-q', '-m', '0', join(dir, 'disk'))
  run('mount', '-o', 'loop', join(dir, 'disk'), mounted)
  const path = join(mounted, 'store')
  const options = { log: quietLog, clock, keptFreeBytes: KEPT_FREE_BYTES, reserveBytes: RESERVE_BYTES }
  const seen: Record<string, unknown> = {}
  let store = await openShardStore(path, options)
  let stored = 0
  for (seen.refusal = await put(store, 0); seen.refusal === 'stored'; seen.refusal = await put(store, stored)) stored++
  seen.stored = stored
  seen.freeWhenRefused = statfsSync(mounted).bavail * statfsSync(mounted).bsize
  const manifest = manifestOf(1)
  seen.readWhenRefused = await right(store, stored)
  await fill()
  seen.freeWhenFilled = statfsSync(mounted).bavail * statfsSync(mounted).bsize
  seen.space = await store.space()
  seen.refusalWhenFilled = await put(store, stored)
  seen.manifestWhenFilled = await store.putManifest(hash('sha256', manifest), manifest).then(
    () => 'stored',
    (error: unknown) => (hasCode(error, 'STORE_FULL') ? 'STORE_FULL' : messageOf(error))
  )
  seen.readWhenFilled = await right(store, stored)
  await store.close()
  store = await openShardStore(path, options)
  seen.readWhenReopened = await right(store, stored)
  await fill()
  await store.dropStream(streamOf(1))
  seen.streams = (await store.streams()).map(({ stream }) => stream)
  seen.readWhenDropped = await right(store, stored)
  await rm(join(mounted, 'others'))
  seen.putAfterwards = await put(store, stored + (stored % 2))
  await store.close()
  store = await openShardStore(path, options)
  seen.readInTheEnd = await right(store, stored)
  await store.close()
  run('umount', mounted)
  return seen
}

process.stdout.write(JSON.stringify(await main()))
