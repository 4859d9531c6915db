/**
 * A store in memory: it passes the contract (`test/contract/shard-store.test.ts`), and has ways to look at what it holds, to
 * spoil it and to make it slow. What a test spoils is served as it is, as by a peer that lies or whose disk does.
 */
import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { DiapauseError } from '../../node/errors.ts'
import type { ColumnPlace, ColumnState, ShardStore, StoreSpace } from '../../node/ports.ts'
import { byPlace, checkColumn, checkPlace, countGrids } from '../../node/store/inventory.ts'

export class MemoryStore implements ShardStore {
  /** By `STREAM GRID COLUMN`. */
  readonly held = new Map<string, Uint8Array>()
  readonly #checksums = new Map<string, number>()
  readonly #refuted = new Set<string>()
  readonly #manifests = new Map<string, Uint8Array>()
  /** By stream: puts and drops under way. */
  readonly #puts = new Map<string, Set<Promise<void>>>()
  readonly #drops = new Map<string, Promise<void>>()
  #closed = false
  reads = 0
  /** Called before every put is done. */
  beforePut: () => Promise<void> = async () => {}

  async putColumn(stream: string, grid: number, column: number, bytes: Uint8Array): Promise<void> {
    checkPlace(stream, grid, column)
    checkColumn(bytes)
    this.#checkOpen()
    while (this.#drops.has(stream)) await this.#drops.get(stream)
    const puts = this.#puts.get(stream) ?? new Set()
    this.#puts.set(stream, puts)
    const put = this.beforePut().then(() => this.#put(`${stream} ${grid} ${column}`, bytes))
    const settled = put.catch(() => {})
    puts.add(settled)
    await put.finally(() => puts.delete(settled))
  }

  #put(key: string, bytes: Uint8Array): void {
    const there = this.held.get(key)
    const refuted = this.#refuted.delete(key)
    const whole = !refuted && there !== undefined && this.#checksums.get(key) === crc32(there)
    if (whole && Buffer.compare(there, bytes) !== 0) {
      throw new DiapauseError('SHARD_CONFLICT', `${key} has other bytes here`)
    }
    this.held.set(key, Buffer.from(bytes))
    this.#checksums.set(key, crc32(bytes))
  }

  async readColumn(stream: string, grid: number, column: number, offset: number, length: number): Promise<Uint8Array> {
    this.#checkOpen()
    this.reads++
    const bytes = this.held.get(`${stream} ${grid} ${column}`)
    if (bytes === undefined) throw new DiapauseError('SHARD_MISSING', 'not here')
    if (offset < 0 || offset + length > bytes.length) throw new DiapauseError('SHARD_INVALID', 'not so long')
    return Buffer.from(bytes.subarray(offset, offset + length))
  }

  async columns(stream: string): Promise<{ column: number; grids: number }[]> {
    const whole = ({ grid, column }: ColumnPlace): boolean => !this.#refuted.has(`${stream} ${grid} ${column}`)
    return countGrids([...this.#places()].filter(place => place.stream === stream && whole(place)))
  }

  async *eachColumn(after?: ColumnPlace): AsyncGenerator<ColumnPlace & { bytes: number }> {
    const behind = [...this.#places()].sort(byPlace).filter(place => after === undefined || byPlace(place, after) > 0)
    for (const place of behind) {
      const bytes = this.held.get(`${place.stream} ${place.grid} ${place.column}`)?.length
      if (bytes !== undefined) yield { ...place, bytes }
    }
  }

  async verifyColumn(stream: string, grid: number, column: number): Promise<ColumnState> {
    const key = `${stream} ${grid} ${column}`
    if (!this.held.has(key)) return 'missing'
    return this.#refuted.has(key) ? 'damaged' : 'whole'
  }

  async refuteColumn(stream: string, grid: number, column: number): Promise<void> {
    const key = `${stream} ${grid} ${column}`
    if (this.held.has(key)) this.#refuted.add(key)
  }

  async space(): Promise<StoreSpace> {
    const liveBytes = [...this.held.values()].reduce((sum, { length }) => sum + length, 0)
    return { liveBytes, deadBytes: 0, freeBytes: Number.MAX_SAFE_INTEGER }
  }

  *#places(): Generator<ColumnPlace> {
    for (const key of this.held.keys()) {
      const [stream = '', grid, column] = key.split(' ')
      yield { stream, grid: Number(grid), column: Number(column) }
    }
  }

  async putManifest(name: string, bytes: Uint8Array): Promise<void> {
    this.#checkOpen()
    if (hash('sha256', bytes) !== name) throw new DiapauseError('MANIFEST_HASH', 'wrong')
    this.#manifests.set(name, Buffer.from(bytes))
  }

  async getManifest(name: string): Promise<Uint8Array | undefined> {
    return this.#manifests.get(name)
  }

  /** Other bytes than those whose name it is. */
  forgeManifest(name: string): void {
    this.#manifests.set(name, randomBytes(9))
  }

  async streams(): Promise<{ stream: string; bytes: number }[]> {
    const sums = new Map<string, number>()
    for (const [key, { length }] of this.held) {
      const stream = key.split(' ')[0] ?? ''
      sums.set(stream, (sums.get(stream) ?? 0) + length)
    }
    return [...sums].map(([stream, bytes]) => ({ stream, bytes }))
  }

  async manifests(): Promise<string[]> {
    return [...this.#manifests.keys()]
  }

  async dropStream(stream: string): Promise<void> {
    this.#checkOpen()
    const drop = this.#drops.get(stream) ?? this.#drop(stream)
    this.#drops.set(stream, drop)
    await drop
  }

  /** Puts that were begun before it end first. */
  async #drop(stream: string): Promise<void> {
    const puts = this.#puts.get(stream)
    if (puts !== undefined) await Promise.all(puts)
    for (const keys of [this.held, this.#refuted]) {
      for (const key of keys.keys()) if (key.startsWith(`${stream} `)) keys.delete(key)
    }
    this.#drops.delete(stream)
  }

  async dropManifest(name: string): Promise<void> {
    this.#manifests.delete(name)
  }

  async close(): Promise<void> {
    this.#closed = true
    await Promise.all([...this.#puts.values()].flatMap(puts => [...puts]))
  }

  /** As after a restart, with all that it held. */
  reopen(): this {
    this.#closed = false
    return this
  }

  #checkOpen(): void {
    if (this.#closed) throw new DiapauseError('STORE_CLOSED', 'the store is closed')
  }
}
