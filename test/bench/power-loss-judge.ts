/** What a writer was promised, and whether a store that was opened again keeps it. */
import { hash } from 'node:crypto'
import { hasCode } from '../../node/errors.ts'
import type { ColumnPlace, ShardStore } from '../../node/ports.ts'
import { contentOf, manifestOf } from './shard-content.ts'

export interface Verdict {
  /** Promises that were looked at. */
  readonly checked: number
  readonly lost: readonly string[]
  /** Served with other bytes than were put. */
  readonly wrong: readonly string[]
  /** Columns that are whole although nobody was told: written, and not acknowledged in time. */
  readonly more: number
}

export class Promises {
  /** How many there have been, kept or dropped since. */
  acknowledged = 0
  readonly #columns = new Map<string, ColumnPlace>()
  readonly #manifests = new Map<string, Buffer>()
  readonly #dropped = new Set<string>()

  /** A line of `power-loss-writer.ts`. */
  hear(line: string): void {
    const [word, name = '', grid, column] = line.split(' ')
    if (word === 'put' && !this.#dropped.has(name)) {
      this.acknowledged++
      this.#columns.set(`${name} ${grid} ${column}`, { stream: name, grid: Number(grid), column: Number(column) })
    } else if (word === 'manifest') {
      this.acknowledged++
      const bytes = manifestOf(Number(name))
      this.#manifests.set(hash('sha256', bytes), bytes)
    } else if (word === 'forget') this.#manifests.delete(name)
    else if (word === 'drop') {
      this.#dropped.add(name)
      for (const [key, { stream }] of this.#columns) if (stream === name) this.#columns.delete(key)
    }
  }

  /** Reads all that is here, and all that must be. */
  async hold(store: ShardStore): Promise<Verdict> {
    const lost: string[] = []
    const wrong: string[] = []
    const missing = new Map(this.#columns)
    let more = 0
    for await (const place of store.eachColumn()) {
      const key = `${place.stream} ${place.grid} ${place.column}`
      const served = await this.#read(store, place, place.bytes)
      if (served === undefined) continue
      if (Buffer.compare(served, contentOf(place)) !== 0) wrong.push(key)
      else if (!missing.delete(key)) more++
    }
    lost.push(...missing.keys())
    for (const [name, bytes] of this.#manifests) {
      const served = await store.getManifest(name)
      if (served === undefined) lost.push(`manifest ${name}`)
      else if (Buffer.compare(served, bytes) !== 0) wrong.push(`manifest ${name}`)
    }
    return { checked: this.#columns.size + this.#manifests.size, lost, wrong, more }
  }

  /** Undefined where the store says that it is damaged: that is not served. */
  async #read(store: ShardStore, place: ColumnPlace, bytes: number): Promise<Uint8Array | undefined> {
    try {
      return await store.readColumn(place.stream, place.grid, place.column, 0, bytes)
    } catch (error) {
      if (hasCode(error, 'SHARD_CORRUPT') || hasCode(error, 'SHARD_MISSING')) return undefined
      throw error
    }
  }
}
