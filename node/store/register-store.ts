/**
 * `RegisterStore` over level: one directory, one batch with `sync: true` a turn. Each value is CRC-32 (4 bytes, little
 * endian) and the bytes; level checks its own blocks only on demand, and a wrong promise is worse than none.
 */
import { crc32 } from 'node:zlib'
import { Level } from 'level'
import { DiapauseError } from '../errors.ts'
import type { RegisterStore } from '../ports.ts'

const FORMAT_KEY = 'format'
const FORMAT = 'diapause registers 1'
const ENTRY = 'entry/'
const utf8 = new TextEncoder()

/** Opens or makes the store. REGISTER_STORE_OPEN (e.g. another process has it), REGISTER_STORE_VERSION. */
export async function openRegisterStore(directory: string): Promise<RegisterStore> {
  const db = new Level<string, Uint8Array>(directory, { keyEncoding: 'utf8', valueEncoding: 'view' })
  try {
    await db.open()
  } catch (cause) {
    const message = `cannot open the register store in ${directory}: is another peer using this data directory?`
    throw new DiapauseError('REGISTER_STORE_OPEN', message, { cause, details: { directory } })
  }
  try {
    const format = await db.get(FORMAT_KEY)
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
