/**
 * The index of the segments, in level: where each column lies. It holds nothing that the segments do not hold, is written
 * without fsync after them, and may lag behind them or be lost; `recovery.ts` brings it up to date at the next start.
 *
 *   c/STREAMHASH/GRID/COLUMN → segment:u32 payloadOffset:u32 payloadBytes:u32 checksum:u32 × blocks
 *   s/SEGMENT                → {"stream", "bytes", "records"}: so many records, before `bytes`, are in the index
 *
 * Both are written in one batch. That alone is not enough: after a power loss LevelDB steps over what is missing in the
 * middle of its log and takes what follows. Hence `records`, which recovery compares with what is there; and what forgets
 * columns is fsynced before their segment is forgotten.
 */
import { Level } from 'level'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { Clock, Log } from '../ports.ts'
import { codesOf, storeError } from './files.ts'
import { blocksOf, MAX_PAYLOAD_BYTES } from './record.ts'
import { recordBytes } from './stream-state.ts'

export interface Location {
  readonly segment: number
  readonly payloadOffset: number
  readonly payloadBytes: number
  readonly checksums: Buffer
}

export interface IndexedSegment {
  readonly segment: number
  readonly stream: string
  readonly bytes: number
  readonly records: number
}

export interface ColumnEntry extends Location {
  readonly grid: number
  readonly column: number
}

export interface ListedColumn {
  readonly grid: number
  readonly column: number
  readonly segment: number
  readonly payloadBytes: number
}

/** What the index places in one segment. */
export interface IndexedUse {
  readonly columns: number
  /** Of their records. */
  readonly bytes: number
}

export interface Catalog {
  get(streamHex: string, grid: number, column: number): Promise<Location | undefined>
  /** Columns, and how far the segment is indexed with them. `get` knows them at once, level a little later. */
  add(streamHex: string, entries: readonly ColumnEntry[], upTo: IndexedSegment): void
  /** What was added is in level: STORE_FULL or STORE_IO where it cannot be, as all here, with `index: true` in their details. */
  flush(): Promise<void>
  /** Rejects as `flush` where the last entries could not be written: nothing more should be put. */
  writable(): Promise<void>
  /** Places and sizes of a stream's columns, by grid and column, behind `after`: some of them, none at the end. */
  page(streamHex: string, after?: { grid: number; column: number }): Promise<ListedColumn[]>
  segments(): Promise<IndexedSegment[]>
  /** By segment. Reads the whole index. */
  uses(): Promise<Map<number, IndexedUse>>
  /** Forgets the columns of a stream, or of all, that lie in one of `segments`, and those segments. */
  forget(streamHex: string | undefined, segments: ReadonlySet<number>): Promise<void>
  close(): Promise<void>
}

/** Entries go to level together, at the latest after this: a batch costs as much for one as for some. Both a guess. */
const FLUSH_ENTRIES = 64
const FLUSH_MS = 20
/** Entries that wait for level at most: some 200 KB. A guess. */
const MAX_PENDING = 1_000
/** Columns listed or forgotten at once: 100 KB of entries. A guess. */
const PAGE_COLUMNS = 512

export interface CatalogOptions {
  readonly clock: Clock
  readonly log: Log
  /** The disk has no room for the index: true where some was made. */
  makeRoom(): Promise<boolean>
}

type Entry = [key: string, value: Uint8Array]
type Database = Level<string, Uint8Array>

/** STORE_LOCKED where another process has it open, STORE_IO where it is damaged. */
export async function openCatalog(path: string, options: CatalogOptions): Promise<Catalog> {
  return new LevelCatalog(path, options, await openDatabase(path))
}

class LevelCatalog implements Catalog {
  readonly #path: string
  readonly #options: CatalogOptions
  #database: Database
  #reopening: Promise<void> | undefined
  /** Entries that level does not have yet: writing them is nothing that a put waits for. */
  readonly #pending = new Map<string, Uint8Array>()
  #flushing: Promise<void> | undefined
  #cancelFlush: (() => void) | undefined
  #failed = false
  #closed = false

  constructor(path: string, options: CatalogOptions, database: Database) {
    this.#path = path
    this.#options = options
    this.#database = database
  }

  async get(streamHex: string, grid: number, column: number): Promise<Location | undefined> {
    const key = columnKey(streamHex, grid, column)
    const bytes = this.#pending.get(key) ?? (await this.#attempt(() => this.#database.get(key)))
    return bytes === undefined ? undefined : parseLocation(bytes)
  }

  add(streamHex: string, entries: readonly ColumnEntry[], upTo: IndexedSegment): void {
    for (const entry of entries) {
      this.#pending.set(columnKey(streamHex, entry.grid, entry.column), encodeLocation(entry))
    }
    const { segment, ...facts } = upTo
    this.#pending.set(segmentKey(segment), Buffer.from(JSON.stringify(facts)))
    if (this.#pending.size >= FLUSH_ENTRIES) this.#flushLater()
    else this.#cancelFlush ??= this.#options.clock.after(FLUSH_MS, () => this.#flushLater())
  }

  /** A failure waits for `writable`: the segments have it all. */
  #flushLater(): void {
    this.flush().catch(() => {})
  }

  async writable(): Promise<void> {
    if (this.#failed || this.#pending.size > MAX_PENDING) await this.flush()
  }

  flush(): Promise<void> {
    this.#cancelFlush?.()
    this.#cancelFlush = undefined
    this.#flushing ??= this.#writePending().finally(() => {
      this.#flushing = undefined
    })
    return this.#flushing
  }

  async #writePending(): Promise<void> {
    while (this.#pending.size > 0) {
      // All there is, so that the count of a segment's records is never ahead of them.
      const entries = [...this.#pending]
      try {
        await this.#attempt(() => this.#database.batch(entries.map(([key, value]) => ({ type: 'put', key, value }))))
      } catch (error) {
        this.#failed = true
        throw error
      }
      this.#failed = false
      for (const [key, value] of entries) if (this.#pending.get(key) === value) this.#pending.delete(key)
    }
  }

  async page(streamHex: string, after?: { grid: number; column: number }): Promise<ListedColumn[]> {
    const behind = after === undefined ? `c/${streamHex}/` : columnKey(streamHex, after.grid, after.column)
    const range = { gt: behind, lt: `c/${streamHex}0`, limit: PAGE_COLUMNS }
    // What level does not take, as its disk is full or fails, is here all the same.
    const waiting = await this.flush().then(
      () => [],
      () => [...this.#pending]
    )
    const inLevel = await this.#attempt(() => this.#database.iterator(range).all())
    return joined(inLevel, waiting, range).map(([key, value]) => {
      const [grid = '', column = ''] = key.split('/').slice(2)
      const { segment = -1, payloadBytes = 0 } = parseLocation(value) ?? {}
      return { grid: Number.parseInt(grid, 16), column: Number.parseInt(column, 16), segment, payloadBytes }
    })
  }

  async segments(): Promise<IndexedSegment[]> {
    const all = await this.#attempt(() => this.#database.iterator({ gte: 's/', lt: 's0' }).all())
    return all.flatMap(([key, value]) => parseSegment(key, value) ?? [])
  }

  async uses(): Promise<Map<number, IndexedUse>> {
    const uses = new Map<number, IndexedUse>()
    const iterator = await this.#attempt(async () => this.#database.values({ gte: 'c/', lt: 'c0' }))
    try {
      for (let some = await iterator.nextv(1_000); some.length > 0; some = await iterator.nextv(1_000)) {
        for (const value of some) {
          const location = parseLocation(value)
          if (location === undefined) continue
          const { columns, bytes } = uses.get(location.segment) ?? { columns: 0, bytes: 0 }
          const all = bytes + recordBytes(location.payloadBytes)
          uses.set(location.segment, { columns: columns + 1, bytes: all })
        }
      }
    } catch (error) {
      throw storeError('the index of the shard store cannot be read', error)
    } finally {
      await iterator.close()
    }
    return uses
  }

  async forget(streamHex: string | undefined, segments: ReadonlySet<number>): Promise<void> {
    await this.flush()
    const of = streamHex === undefined ? 'c' : `c/${streamHex}`
    // Some at a time, as level works a batch up in one turn of the event loop. Each is durable before the segments are gone from here, as
    // level may lose one batch and keep a later one: columns would be left whose segment nobody knows. Where it breaks off before,
    // segments have fewer columns here than they say, and the next start reads them again.
    for (let behind: string | undefined = `${of}/`; behind !== undefined; ) {
      const range = { gt: behind, lt: `${of}0`, limit: PAGE_COLUMNS }
      const entries: Entry[] = await this.#attempt(() => this.#database.iterator(range).all())
      behind = entries.length < PAGE_COLUMNS ? undefined : entries.at(-1)?.[0]
      const places = entries.filter(([, value]) => {
        const location = parseLocation(value)
        return location === undefined || segments.has(location.segment)
      })
      if (places.length > 0)
        await this.#delete(
          places.map(([key]) => key),
          { sync: true }
        )
    }
    await this.#delete([...segments].map(segmentKey), {})
  }

  async #delete(keys: readonly string[], options: { readonly sync?: boolean }): Promise<void> {
    await this.#attempt(() =>
      this.#database.batch(
        keys.map(key => ({ type: 'del', key })),
        options
      )
    )
  }

  async close(): Promise<void> {
    // What cannot be written is found in the segments at the next start.
    await this.flush().catch(() => {})
    this.#closed = true
    await this.#reopening?.catch(() => {})
    await this.#database.close()
  }

  /** After an I/O error (a full disk) LevelDB refuses every write until it is opened again: once more, then give up. */
  async #attempt<T>(operation: () => Promise<T>): Promise<T> {
    try {
      await this.#reopening
      return await operation()
    } catch (first) {
      if (this.#closed) throw new DiapauseError('STORE_CLOSED', 'the shard store is closed', { cause: first })
      this.#options.log.warn({ error: messageOf(first) }, 'the index failed and is opened again')
      try {
        if (hasCode(storeError('', first), 'STORE_FULL')) await this.#options.makeRoom()
        await this.#reopen()
        return await operation()
      } catch (second) {
        const { code, message, cause } = storeError('the index of the shard store failed', second)
        throw new DiapauseError(code, message, { cause, details: { index: true } })
      }
    }
  }

  #reopen(): Promise<void> {
    this.#reopening ??= (async () => {
      await this.#database.close().catch(() => {})
      this.#database = await openDatabase(this.#path)
    })().finally(() => {
      this.#reopening = undefined
    })
    return this.#reopening
  }
}

async function openDatabase(path: string): Promise<Database> {
  const database: Database = new Level(path, { keyEncoding: 'utf8', valueEncoding: 'view' })
  try {
    await database.open()
    return database
  } catch (cause) {
    if (!codesOf(cause).includes('LEVEL_LOCKED')) throw storeError(`the index at ${path} cannot be opened`, cause)
    throw new DiapauseError('STORE_LOCKED', `another process has the shard store at ${path} open; stop it first`, {
      cause
    })
  }
}

/** A page of level with what waits for level, in order. Where more follows in level the page ends with the same key. */
function joined(inLevel: Entry[], waiting: Entry[], range: { gt: string; lt: string; limit: number }): Entry[] {
  const end = inLevel.length < range.limit ? undefined : inLevel.at(-1)?.[0]
  const inside = waiting.filter(([key]) => key > range.gt && key < range.lt && (end === undefined || key <= end))
  return inside.length === 0 ? inLevel : [...new Map([...inLevel, ...inside])].sort(([a], [b]) => (a < b ? -1 : 1))
}

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')
const columnKey = (streamHex: string, grid: number, column: number): string =>
  `c/${streamHex}/${hex(grid, 8)}/${hex(column, 4)}`
const segmentKey = (segment: number): string => `s/${hex(segment, 8)}`

function encodeLocation(location: Location): Uint8Array {
  const bytes = Buffer.alloc(12 + location.checksums.length)
  bytes.writeUInt32LE(location.segment, 0)
  bytes.writeUInt32LE(location.payloadOffset, 4)
  bytes.writeUInt32LE(location.payloadBytes, 8)
  bytes.set(location.checksums, 12)
  return bytes
}

/** undefined for anything that this version did not write: the column then counts as missing and may be put again. */
export function parseLocation(value: Uint8Array): Location | undefined {
  if (value.length < 16) return undefined
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.length)
  const payloadBytes = bytes.readUInt32LE(8)
  if (payloadBytes === 0 || payloadBytes > MAX_PAYLOAD_BYTES) return undefined
  if (bytes.length !== 12 + 4 * blocksOf(payloadBytes)) return undefined
  const [segment, payloadOffset] = [bytes.readUInt32LE(0), bytes.readUInt32LE(4)]
  return { segment, payloadOffset, payloadBytes, checksums: bytes.subarray(12) }
}

/** Likewise: what is in that segment is then found by reading it. */
export function parseSegment(key: string, value: Uint8Array): IndexedSegment | undefined {
  try {
    const { stream, bytes, records } = JSON.parse(Buffer.from(value).toString()) as Record<string, unknown>
    const segment = Number.parseInt(key.slice(2), 16)
    if (typeof stream !== 'string' || ![segment, bytes, records].every(Number.isSafeInteger)) return undefined
    return { segment, stream, bytes: Number(bytes), records: Number(records) }
  } catch {
    return undefined
  }
}
