/**
 * Durable puts of columns as a snapshot makes them (320 KiB: five symbols of 64 KiB), one after the other and eight at
 * once, compared with appending the same bytes to a plain file with one fdatasync for the same number of columns, in the
 * same directory and turn by turn. What the store adds is a checksum, an index and order; at least half of the plain
 * speed must be left. Reads are of
 * one symbol, from the page cache, with its checksum.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ShardStore } from '../../node/ports.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { atLeast, note } from '../measure.ts'
import type { Measured } from './list.ts'

const COLUMN_BYTES = 5 * 65_536
const COLUMNS = 160
const AT_ONCE = 8
const LEAST_SHARE = 0.5

const quiet = { debug() {}, info() {}, warn() {}, error() {} }
const clock = { now: () => performance.now(), after: () => () => {} }

export async function measureStore(progress: (line: string) => void): Promise<Measured> {
  const dir = await mkdtemp(join(tmpdir(), 'diapause-bench-'))
  try {
    const column = randomBytes(COLUMN_BYTES)
    const store = await openShardStore(join(dir, 'store'), { log: quiet, clock })
    progress(`putting ${COLUMNS} columns of ${COLUMN_BYTES} bytes, and appending the same bytes to a file, in turn`)
    const one = await compare(dir, store, column, 1)
    const many = await compare(dir, store, column, AT_ONCE)
    progress('reading symbols')
    const begin = performance.now()
    for (let grid = 0; grid < COLUMNS; grid++) await store.readColumn('bench/one/1/1', grid, 0, 65_536, 65_536)
    const readMs = performance.now() - begin
    await store.close()
    return {
      checks: [
        atLeast('one at a time: share of a plain append', one.store / one.plain, LEAST_SHARE, ''),
        atLeast(`${AT_ONCE} at once: share of a plain append`, many.store / many.plain, LEAST_SHARE, ''),
        note('one at a time', one.store, 'MB/s'),
        note('plain append + fdatasync', one.plain, 'MB/s'),
        note(`${AT_ONCE} at once`, many.store, 'MB/s'),
        note(`plain append of ${AT_ONCE} + fdatasync`, many.plain, 'MB/s'),
        note('puts, one at a time', (one.store * 1e6) / COLUMN_BYTES, '1/s'),
        note(`puts, ${AT_ONCE} at once`, (many.store * 1e6) / COLUMN_BYTES, '1/s'),
        note('reads of 64 KiB, one at a time', (COLUMNS / readMs) * 1e3, '1/s')
      ],
      details: { columns: COLUMNS, columnBytes: COLUMN_BYTES, atOnce: AT_ONCE }
    }
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

/** MB/s of the store and of the plain file, taking turns so that a busy moment of the machine meets both. */
async function compare(
  dir: string,
  store: ShardStore,
  column: Uint8Array,
  atOnce: number
): Promise<{ store: number; plain: number }> {
  const stream = `bench/${atOnce === 1 ? 'one' : 'many'}/1/1`
  const file = await open(join(dir, `plain-${atOnce}`), 'wx')
  const ms = { store: 0, plain: 0 }
  let at = 0
  for (let grid = 0; grid < COLUMNS; grid += atOnce) {
    const columns = Array.from({ length: atOnce }, () => column)
    const begin = performance.now()
    await Promise.all(columns.map((bytes, i) => store.putColumn(stream, grid + i, 0, bytes)))
    const between = performance.now()
    await file.writev(columns, at)
    await file.datasync()
    at += atOnce * column.length
    ms.store += between - begin
    ms.plain += performance.now() - between
  }
  await file.close()
  const megabytes = (COLUMNS * column.length) / 1e6
  return { store: megabytes / (ms.store / 1e3), plain: megabytes / (ms.plain / 1e3) }
}
