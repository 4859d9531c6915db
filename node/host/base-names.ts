/**
 * Names of bases: the hex SHA-256 of a file's format and bytes. A base may have gigabytes and never changes, so what was
 * hashed is kept in a small file and holds as long as the file is the same by what the file system says of it. Losing that
 * file costs hashing again.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, rename, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError } from '../errors.ts'

/** Hashed in one turn of the event loop: a quarter of a millisecond or less. */
const PIECE_BYTES = 256 << 10
/** Far more bases than a host has. */
const MAX_NAMES = 256

interface BaseFile {
  readonly path: string
  readonly format: 'raw' | 'qcow2'
}

export class BaseNames {
  readonly #file: string
  readonly #known: Map<string, string>
  readonly #underway = new Map<string, Promise<string>>()

  private constructor(file: string, known: Map<string, string>) {
    this.#file = file
    this.#known = known
  }

  static async open(dataDir: string): Promise<BaseNames> {
    const file = join(dataDir, 'bases.json')
    return new BaseNames(file, parse(await readFile(file, 'utf8').catch(() => '[]')))
  }

  /** BASE_CHANGED where it changes while it is read; and what reading it rejects with. */
  async of({ path, format }: BaseFile): Promise<string> {
    const identity = await identityOf(path, format)
    const known = this.#known.get(identity)
    if (known !== undefined) return known
    let hashing = this.#underway.get(identity)
    if (hashing === undefined) {
      hashing = this.#hash(path, format, identity).finally(() => this.#underway.delete(identity))
      this.#underway.set(identity, hashing)
    }
    return await hashing
  }

  async #hash(path: string, format: string, identity: string): Promise<string> {
    const hash = createHash('sha256').update(`${format}\n`)
    for await (const piece of createReadStream(path, { highWaterMark: PIECE_BYTES })) hash.update(piece as Buffer)
    if ((await identityOf(path, format)) !== identity) {
      throw new DiapauseError('BASE_CHANGED', `${path} has changed while it was read: a base may never be written`)
    }
    const name = hash.digest('hex')
    this.#known.set(identity, name)
    for (const [oldest] of this.#known) if (this.#known.size > MAX_NAMES) this.#known.delete(oldest)
    await writeFile(`${this.#file}.new`, JSON.stringify([...this.#known]), { mode: 0o600 })
    await rename(`${this.#file}.new`, this.#file)
    return name
  }
}

async function identityOf(path: string, format: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
  return [dev, ino, size, mtimeNs, ctimeNs, format].join(':')
}

/** Of anything else than what is written here: nothing. */
function parse(text: string): Map<string, string> {
  try {
    const entries = JSON.parse(text) as unknown
    const pairs = Array.isArray(entries) ? (entries as unknown[]) : []
    return new Map(pairs.filter(isPair))
  } catch {
    return new Map()
  }
}

const isPair = (entry: unknown): entry is [string, string] =>
  Array.isArray(entry) && typeof entry[0] === 'string' && /^[0-9a-f]{64}$/.test(String(entry[1]))
