/**
 * The shard store against the same bytes in a plain file: puts of columns, durable, against write and fdatasync; gets
 * against the same, and beside plain reads; and what the store takes of the disk for each byte. Both sides lie in the same directory, have as many
 * columns under way at once, and take turns, so that a busy moment of the machine meets both; each side's speed is the
 * median of the faster half of its turns, because other work disturbs. What the store adds is checksums, an index and
 * order: at least 0.7 of the plain speed must be left.
 */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdtemp, open, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { UsageError } from '../../node/errors.ts'
import type { ShardStore } from '../../node/ports.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { atLeast, atMost, type Check, note } from '../measure.ts'
import type { Measured, OptionValues } from './list.ts'

const KIB = 1024
const COLUMN_BYTES = [256 * KIB, 1024 * KIB]
const AT_ONCE = [1, 8]
const LEAST_SHARE = 0.7
const MOST_ON_DISK = 1.05
/** MiB of each measurement, unless told, and of a turn of one side: long enough that a turn is not noise. */
const TOTAL_MIB = 384
const TURN_MIB = 8
const TURN_BYTES = TURN_MIB << 20

interface Sides {
  readonly store: ShardStore
  readonly file: FileHandle
  readonly stream: string
  readonly columnBytes: number
  readonly atOnce: number
}

/** What is measured. */
interface Shape {
  readonly columnBytes: number
  readonly atOnce: number
  readonly totalBytes: number
}

/** MB/s. */
interface Speeds {
  readonly store: number
  readonly plain: number
}

export async function measureStore(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const totalBytes = readMebibytes(options) << 20
  const dir = await mkdtemp(join(tmpdir(), 'diapause-bench-'))
  try {
    const checks: Check[] = []
    for (const columnBytes of COLUMN_BYTES) {
      for (const atOnce of AT_ONCE) {
        const what = `${columnBytes / KIB} KiB, ${atOnce === 1 ? 'one after the other' : `${atOnce} at once`}`
        progress(what)
        checks.push(...(await measure(dir, what, { columnBytes, atOnce, totalBytes })))
      }
    }
    return { checks, details: { totalBytes, turnBytes: TURN_BYTES } }
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

function readMebibytes({ mebibytes = `${TOTAL_MIB}` }: OptionValues): number {
  const read = Number(mebibytes)
  if (/^\d{1,3}$/.test(mebibytes) && read > 0 && read % TURN_MIB === 0) return read
  throw new UsageError(
    'BENCH_USAGE',
    `--mebibytes takes a multiple of ${TURN_MIB} below 1000, not ${JSON.stringify(mebibytes)}`
  )
}

async function measure(parent: string, what: string, shape: Shape): Promise<Check[]> {
  const { columnBytes, atOnce, totalBytes } = shape
  const dir = await mkdtemp(join(parent, 'store-'))
  const plain = join(parent, `plain-${columnBytes}-${atOnce}`)
  const file = await open(plain, 'wx+')
  let store = await openShardStore(dir, { log: quietLog, clock })
  const stream = 'bench/vm/1/1'
  const puts = await compare(await putsOf({ store, file, stream, columnBytes, atOnce }), shape)
  // Closed, so that the index is on the disk as it will stay, and opened again.
  await store.close()
  const onDisk = (await bytesOnDisk(dir)) / totalBytes
  store = await openShardStore(dir, { log: quietLog, clock })
  await forgetCached([plain, ...(await readdir(join(dir, 'segments'))).map(name => join(dir, 'segments', name))])
  const gets = await compare(getsOf({ store, file, stream, columnBytes, atOnce }), shape)
  await store.close()
  await file.close()
  await rm(dir, { recursive: true })
  await rm(plain)
  return [
    atLeast(`put ${what}: share of write and fdatasync`, puts.store / puts.plain, LEAST_SHARE, ''),
    note(`put ${what}`, puts.store, 'MB/s'),
    note(`write and fdatasync of ${what}`, puts.plain, 'MB/s'),
    atLeast(`get ${what}: share of write and fdatasync`, gets.store / puts.plain, LEAST_SHARE, ''),
    note(`get ${what}`, gets.store, 'MB/s'),
    note(`read of ${what}, unchecked`, gets.plain, 'MB/s'),
    atMost(`bytes on disk for a byte stored, ${what}`, onDisk, MOST_ON_DISK, '')
  ]
}

type Side = (first: number) => Promise<unknown>

/** `atOnce` columns from number `first` on, of either side. */
async function putsOf(sides: Sides): Promise<{ store: Side; plain: Side }> {
  const { store, file, stream, columnBytes, atOnce } = sides
  const columns = Array.from({ length: atOnce }, () => randomBytes(columnBytes))
  return {
    store: first => Promise.all(columns.map((bytes, i) => store.putColumn(stream, first + i, 0, bytes))),
    plain: async first => {
      await file.writev(columns, first * columnBytes)
      await file.datasync()
    }
  }
}

function getsOf(sides: Sides): { store: Side; plain: Side } {
  const { store, file, stream, columnBytes, atOnce } = sides
  const each = (get: (grid: number) => Promise<unknown>, first: number): Promise<unknown> =>
    Promise.all(Array.from({ length: atOnce }, (_, i) => get(first + i)))
  return {
    store: first => each(grid => store.readColumn(stream, grid, 0, 0, columnBytes), first),
    plain: first =>
      each(grid => file.read(Buffer.allocUnsafeSlow(columnBytes), 0, columnBytes, grid * columnBytes), first)
  }
}

async function compare(
  sides: { store: Side; plain: Side },
  { columnBytes, atOnce, totalBytes }: Shape
): Promise<Speeds> {
  const turn = TURN_BYTES / columnBytes
  const turns: { store: number; plain: number }[] = []
  for (let first = 0; first < totalBytes / columnBytes; first += turn) {
    const ms = { store: 0, plain: 0 }
    // Who begins changes from turn to turn.
    for (const side of turns.length % 2 === 0 ? (['store', 'plain'] as const) : (['plain', 'store'] as const)) {
      const begin = performance.now()
      for (let at = first; at < first + turn; at += atOnce) await sides[side](at)
      ms[side] = performance.now() - begin
    }
    turns.push(ms)
  }
  const speed = (side: 'store' | 'plain'): number => TURN_BYTES / 1e3 / fasterMedian(turns.map(ms => ms[side]))
  return { store: speed('store'), plain: speed('plain') }
}

const fasterMedian = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 2] ?? 0

/** As the file system counts them, of all files below. */
async function bytesOnDisk(dir: string): Promise<number> {
  let bytes = 0
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    bytes += (await stat(join(entry.parentPath, entry.name))).blocks * 512
  }
  return bytes
}

/** Reads begin at the disk: no call of Node's tells the kernel to drop a file's pages, dd does. */
async function forgetCached(paths: readonly string[]): Promise<void> {
  for (const path of paths) await promisify(execFile)('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none'])
}
