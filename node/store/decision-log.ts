/**
 * `DecisionStore` over level: one entry a fact, as JSON, named so that entries of a subject stand together in order.
 * Never fsynced: it is written beside takeovers, must not make anybody wait, and a crash may take its last second.
 */
import { Level } from 'level'
import type { Changes, DecisionStore } from '../../protocols/decisions/chronicle.ts'
import { type Entry, parseEntry } from '../../protocols/decisions/facts.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Log } from '../ports.ts'

const FORMAT_KEY = 'format'
const FORMAT = 'diapause decisions 1'
const ENTRY = 'entry/'

/** Undefined where it cannot be opened, which is logged: a peer without it is as good at everything else. */
export async function openDecisionStore(directory: string, log: Log): Promise<DecisionStore | undefined> {
  const db = new Level<string, string>(directory, { keyEncoding: 'utf8', valueEncoding: 'utf8' })
  try {
    await db.open()
    const format = await db.get(FORMAT_KEY)
    if (format === undefined) await db.put(FORMAT_KEY, FORMAT)
    else if (format !== FORMAT) throw new DiapauseError('DECISIONS_VERSION', `it is of the format "${format}"`)
    return new LevelDecisionStore(db, log)
  } catch (error) {
    const why = error instanceof Error && error.cause instanceof Error ? error.cause.message : messageOf(error)
    const message = 'the decision log cannot be opened: decisions are kept in memory only; if it is damaged, remove it'
    log.warn({ directory, error: why }, message)
    await db.close()
    return undefined
  }
}

/** Undefined where it is damaged, or of another version. */
export function entryOf(text: string): Entry | undefined {
  try {
    return parseEntry(JSON.parse(text))
  } catch {
    return undefined
  }
}

class LevelDecisionStore implements DecisionStore {
  readonly #db: Level<string, string>
  readonly #log: Log

  constructor(db: Level<string, string>, log: Log) {
    this.#db = db
    this.#log = log
  }

  async load(): Promise<Entry[]> {
    const entries: Entry[] = []
    const damaged: string[] = []
    for await (const [key, text] of this.#db.iterator({ gte: ENTRY, lt: 'entry0' })) {
      const entry = entryOf(text)
      if (entry === undefined) damaged.push(key)
      else entries.push(entry)
    }
    if (damaged.length > 0) {
      this.#log.warn({ damaged: damaged.length }, 'entries of the decision log cannot be read and are dropped')
      await this.#db.batch(damaged.map(key => ({ type: 'del' as const, key })))
    }
    return entries
  }

  async write({ put, drop }: Changes): Promise<void> {
    await this.#db.batch([
      ...drop.map(name => ({ type: 'del' as const, key: ENTRY + name })),
      ...put.map(([name, entry]) => ({ type: 'put' as const, key: ENTRY + name, value: JSON.stringify(entry) }))
    ])
  }

  async close(): Promise<void> {
    await this.#db.close()
  }
}
