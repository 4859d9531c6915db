/**
 * Which generation of each group this peer has started VMs of: a small JSON file, replaced whole. It must outlive the
 * process, because a peer that is restarted within the detection time still owns its VMs by the record, and only this
 * file tells it that they ran already and are gone.
 */
import { open, readFile, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'

export class StartedFile {
  readonly #file: string
  readonly #generations: Map<string, number>
  #writing: Promise<void> = Promise.resolve()

  private constructor(file: string, generations: Map<string, number>) {
    this.#file = file
    this.#generations = generations
  }

  /** STARTED_CORRUPT where the file is not what this program writes. */
  static async open(dataDir: string): Promise<StartedFile> {
    const file = join(dataDir, 'started.json')
    let text = '{}'
    try {
      text = await readFile(file, 'utf8')
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error
    }
    return new StartedFile(file, parse(file, text))
  }

  of(group: string): number {
    return this.#generations.get(group) ?? 0
  }

  /** Durable when it resolves; one write after the other. STARTED_WRITE. */
  note(group: string, generation: number): Promise<void> {
    if (this.of(group) < generation) this.#generations.set(group, generation)
    const written = this.#writing.then(() => this.#write())
    this.#writing = written.catch(() => {})
    return written
  }

  async #write(): Promise<void> {
    const text = `${JSON.stringify(Object.fromEntries(this.#generations), null, 2)}\n`
    try {
      const handle = await open(`${this.#file}.new`, 'w', 0o600)
      try {
        await handle.writeFile(text)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await rename(`${this.#file}.new`, this.#file)
      const folder = await open(dirname(this.#file), 'r')
      try {
        await folder.sync()
      } finally {
        await folder.close()
      }
    } catch (cause) {
      throw new DiapauseError('STARTED_WRITE', `cannot write ${this.#file}: ${messageOf(cause)}; no VM is started`, {
        cause
      })
    }
  }
}

function parse(file: string, text: string): Map<string, number> {
  try {
    const entries = Object.entries(JSON.parse(text) as Record<string, unknown>)
    if (!entries.every(([, value]) => Number.isSafeInteger(value))) throw new TypeError('a value is not a whole number')
    return new Map(entries as [string, number][])
  } catch (cause) {
    throw new DiapauseError(
      'STARTED_CORRUPT',
      `${file} is damaged: ${messageOf(cause)}. Stop this peer, see that none of its VMs runs, and delete the file`,
      { cause }
    )
  }
}
