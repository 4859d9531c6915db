/** Open segment files for reading, the least recently used closed beyond a bound. A file in use is never closed. */
import { type FileHandle, open } from 'node:fs/promises'

/** File descriptors kept: well below the usual limit of 1,024 for a process: a guess. */
const MAX_OPEN = 128

interface Entry {
  readonly file: Promise<FileHandle>
  users: number
}

export class Readers {
  readonly #pathOf: (segment: number) => string
  /** In order of use, the oldest first. */
  readonly #entries = new Map<number, Entry>()

  constructor(pathOf: (segment: number) => string) {
    this.#pathOf = pathOf
  }

  /** Calls `use` with the segment's file. Rejects with ENOENT where it does not exist. */
  async with<T>(segment: number, use: (file: FileHandle) => Promise<T>): Promise<T> {
    const entry = this.#entries.get(segment) ?? { file: open(this.#pathOf(segment), 'r'), users: 0 }
    this.#entries.delete(segment)
    this.#entries.set(segment, entry)
    entry.users++
    try {
      return await use(await entry.file)
    } catch (error) {
      // A file that failed is opened anew by the next reader.
      if (this.#entries.get(segment) === entry) this.#entries.delete(segment)
      throw error
    } finally {
      entry.users--
      if (entry.users === 0 && this.#entries.get(segment) !== entry) await close(entry)
      await this.#evict()
    }
  }

  /** The file is about to be removed; readers under way finish. */
  async forget(segment: number): Promise<void> {
    const entry = this.#entries.get(segment)
    this.#entries.delete(segment)
    if (entry !== undefined && entry.users === 0) await close(entry)
  }

  async close(): Promise<void> {
    await Promise.all([...this.#entries.keys()].map(segment => this.forget(segment)))
  }

  async #evict(): Promise<void> {
    for (const [segment, entry] of this.#entries) {
      if (this.#entries.size <= MAX_OPEN) return
      if (entry.users === 0) await this.forget(segment)
    }
  }
}

async function close(entry: Entry): Promise<void> {
  const file = await entry.file.catch(() => undefined)
  await file?.close()
}
