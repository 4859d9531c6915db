/**
 * `RegisterStore` over level: one directory, one batch with `sync: true` a turn. Each value is CRC-32 (4 bytes, little
 * endian) and the bytes; level checks its own blocks only on demand, and a wrong promise is worse than none.
 *
 * A voter that votes without its memory takes back what it promised, so a store that was there is never made anew, and
 * one that has lost writes is not opened: `level-log.ts` and `level-table.ts` look before level does, which would give a damaged
 * key as another key, and not the one that was written.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { Level } from 'level'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { RegisterStore } from '../ports.ts'
import { logDamage } from './level-log.ts'
import { liveTables, tableDamage } from './level-table.ts'

const FORMAT_KEY = 'format'
const FORMAT = 'diapause registers 1'
const ENTRY = 'entry/'
const utf8 = new TextEncoder()

const INSTEAD =
  'this peer must not vote without it; remove it from the cluster (diapause members remove) and join with a new data folder'

/**
 * Opens the store; makes it, unless one was `made` here before. REGISTER_STORE_LOST: it was, and is not there.
 * REGISTER_STORE_CORRUPT, REGISTER_STORE_UNREADABLE (the disk fails), REGISTER_STORE_OPEN (another process has it, or its disk is full), REGISTER_STORE_VERSION.
 */
export async function openRegisterStore(directory: string, { made }: { made: boolean }): Promise<RegisterStore> {
  await inspect(directory, made).catch((error: unknown) => {
    throw error instanceof DiapauseError ? error : unreadable(directory, error)
  })
  const db = new Level<string, Uint8Array>(directory, {
    keyEncoding: 'utf8',
    valueEncoding: 'view',
    createIfMissing: !made
  })
  try {
    await db.open()
  } catch (cause) {
    const found = cause instanceof Error ? cause.cause : undefined
    if (hasCode(found, 'LEVEL_CORRUPTION')) throw corrupt(directory, 'level cannot read it', found)
    const why = hasCode(found, 'LEVEL_LOCKED')
      ? 'another peer is using this data directory: end it first'
      : `${messageOf(found ?? cause)}: see whether its disk is full (df), read-only or failing (dmesg)`
    const message = `cannot open the register store in ${directory}: ${why}`
    throw new DiapauseError('REGISTER_STORE_OPEN', message, { cause, details: { directory } })
  }
  try {
    const format = await db.get(FORMAT_KEY)
    if (format === undefined && made) throw lost(directory)
    if (format === undefined) await db.put(FORMAT_KEY, utf8.encode(FORMAT), { sync: true })
    else if (new TextDecoder().decode(format) !== FORMAT) {
      throw new DiapauseError(
        'REGISTER_STORE_VERSION',
        `${directory} was written by another version of diapause: start that version, or use a new data directory`,
        { details: { directory, known: FORMAT } }
      )
    }
  } catch (error) {
    await db.close()
    throw error
  }
  return new LevelRegisterStore(db)
}

/** Before level opens it, for that changes what is there. */
async function inspect(directory: string, made: boolean): Promise<void> {
  const names = await readdir(directory).catch((error: unknown): string[] => {
    if (hasCode(error, 'ENOENT')) return []
    throw error
  })
  if (!names.includes('CURRENT')) {
    if (made) throw lost(directory)
    return
  }
  const logs = names.filter(name => name.endsWith('.log'))
  // Level has one from its first open on.
  if (logs.length === 0) throw corrupt(directory, 'its log is not there')
  for (const name of logs) {
    const at = logDamage(await readFile(join(directory, name)))
    if (at !== undefined) throw corrupt(directory, `${name} is damaged at byte ${at}`)
  }
  for (const { names: known, bytes } of await tablesIn(directory, names)) {
    const name = known.find(each => names.includes(each))
    if (name === undefined) throw corrupt(directory, `${known[0]} is not there`)
    const damage = tableDamage(await readFile(join(directory, name)), bytes)
    if (damage !== undefined) throw corrupt(directory, `${name}: ${damage}`)
  }
}

/** Those that count: a crash may leave others, half written. */
async function tablesIn(directory: string, names: readonly string[]) {
  const current = (await readFile(join(directory, 'CURRENT'), 'latin1')).trim()
  if (!names.includes(current)) throw corrupt(directory, 'CURRENT names no file that is there')
  return liveTables(await readFile(join(directory, current)))
}

function lost(directory: string): DiapauseError {
  const message = `this peer has had registers in ${directory}, and they are gone: put the folder back as it was, or else ${INSTEAD}`
  return new DiapauseError('REGISTER_STORE_LOST', message, { details: { directory } })
}

function corrupt(directory: string, what: string, cause?: unknown): DiapauseError {
  const message = `the register store in ${directory} has lost writes (${what}): ${INSTEAD}`
  return new DiapauseError('REGISTER_STORE_CORRUPT', message, { cause, details: { directory } })
}

/** It may be there still, and come back with its disk. */
function unreadable(directory: string, cause: unknown): DiapauseError {
  const message = `the register store in ${directory} cannot be read (${messageOf(cause)}): see what the kernel says of its disk (dmesg); where that does not come back, ${INSTEAD}`
  return new DiapauseError('REGISTER_STORE_UNREADABLE', message, { cause, details: { directory } })
}

class LevelRegisterStore implements RegisterStore {
  readonly #db: Level<string, Uint8Array>

  constructor(db: Level<string, Uint8Array>) {
    this.#db = db
  }

  async load(): Promise<(readonly [string, Uint8Array])[]> {
    const entries: [string, Uint8Array][] = []
    for await (const [key, value] of this.#db.iterator({ gte: ENTRY, lt: 'entry0' })) {
      entries.push([key.slice(ENTRY.length), open(key, value)])
    }
    return entries
  }

  async persist(entries: readonly (readonly [string, Uint8Array | null])[]): Promise<void> {
    const batch = entries.map(([name, bytes]) => {
      const key = ENTRY + name
      return bytes === null ? { type: 'del' as const, key } : { type: 'put' as const, key, value: seal(bytes) }
    })
    try {
      await this.#db.batch(batch, { sync: true })
    } catch (cause) {
      const message = 'cannot write registers to disk: is it full, or was the store closed?'
      throw new DiapauseError('REGISTER_STORE_WRITE', message, { cause })
    }
  }

  async close(): Promise<void> {
    await this.#db.close()
  }
}

function seal(bytes: Uint8Array): Uint8Array {
  const sealed = new Uint8Array(4 + bytes.byteLength)
  new DataView(sealed.buffer).setUint32(0, crc32(bytes), true)
  sealed.set(bytes, 4)
  return sealed
}

function open(key: string, sealed: Uint8Array): Uint8Array {
  const bytes = sealed.slice(4)
  const view = new DataView(sealed.buffer, sealed.byteOffset, sealed.byteLength)
  if (sealed.byteLength < 4 || view.getUint32(0, true) !== crc32(bytes)) {
    throw new DiapauseError(
      'REGISTER_STORE_CORRUPT',
      `${key} in the register store fails its checksum: this peer must not vote; give it a new data directory and let it join anew`,
      { details: { key } }
    )
  }
  return bytes
}
