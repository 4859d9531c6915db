/**
 * `EpochHistoryStore` in one file that is only appended to: a line an epoch, as JSON behind its CRC-32. Never fsynced when a line
 * is added: nobody waits for the history, and a crash may cost its last lines. A file and no database, because damage then costs
 * the lines that it hits and no others; it is small enough to be read whole when a peer starts.
 *
 *     diapause epoch history 1
 *     1c291ca3 {"group":"bank","generation":1,"epoch":1,"outcome":"committed",…}
 */
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { parseSeenEpoch } from '../../protocols/epoch/history.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { EpochHistoryStore, Log, SeenEpoch } from '../ports.ts'

const FORMAT = 'diapause epoch history 1'
const NEWLINE = 0x0a
const FILE = 'epochs.log'

/** What the store does to its file, so that tests can have it fail. */
export interface HistoryFiles {
  append(file: FileHandle, bytes: Uint8Array): Promise<void>
  syncDirectory(path: string): Promise<void>
}

const nodeFiles: HistoryFiles = {
  append: (file, bytes) => file.appendFile(bytes),
  syncDirectory
}

/** Undefined where it cannot be opened, which is logged: a peer without it remembers what it saw since it was started. */
export async function openEpochHistoryStore(
  directory: string,
  log: Log,
  files: Partial<HistoryFiles> = {}
): Promise<EpochHistoryStore | undefined> {
  const path = join(directory, FILE)
  try {
    await mkdir(directory, { recursive: true })
    await rm(`${path}.new`, { force: true })
    const file = await open(path, 'a+', 0o600)
    const lines = await wholeLines(file)
    const [format] = lines
    if (format === undefined) await file.appendFile(`${FORMAT}\n`)
    else if (format !== FORMAT) {
      await file.close()
      throw new DiapauseError('HISTORY_VERSION', `it is of the format "${format.slice(0, 60)}"`)
    }
    const own = { ...nodeFiles, ...files }
    return new FileEpochHistoryStore({ path, file, log, files: own, lines: lines.slice(1) })
  } catch (error) {
    const message = 'the history of epochs cannot be opened: it is kept in memory only; if it is damaged, remove it'
    log.warn({ path, error: messageOf(error) }, message)
    return undefined
  }
}

/** What was begun when the power went, or when the disk was full, is cut off: the next line must be one of its own. */
async function wholeLines(file: FileHandle): Promise<string[]> {
  const bytes = await file.readFile()
  const end = bytes.lastIndexOf(NEWLINE) + 1
  if (end < bytes.length) await file.truncate(end)
  return bytes.subarray(0, end).toString('utf8').split('\n').slice(0, -1)
}

export const lineOf = (epoch: SeenEpoch): string => {
  const json = JSON.stringify(epoch)
  return `${crc32(json).toString(16).padStart(8, '0')} ${json}\n`
}

/** Undefined where the line is damaged. */
export function epochOf(line: string): SeenEpoch | undefined {
  const json = line.slice(9)
  if (line[8] !== ' ' || crc32(json).toString(16).padStart(8, '0') !== line.slice(0, 8)) return undefined
  try {
    return parseSeenEpoch(JSON.parse(json))
  } catch {
    return undefined
  }
}

class FileEpochHistoryStore implements EpochHistoryStore {
  readonly #path: string
  readonly #log: Log
  readonly #files: HistoryFiles
  #file: FileHandle
  #lines: readonly string[]
  #bytes: number
  /** A write has failed, so the file may end within a line. */
  #torn = false

  constructor(parts: {
    readonly path: string
    readonly file: FileHandle
    readonly log: Log
    readonly files: HistoryFiles
    readonly lines: readonly string[]
  }) {
    this.#path = parts.path
    this.#file = parts.file
    this.#log = parts.log
    this.#files = parts.files
    this.#lines = parts.lines
    this.#bytes = parts.lines.reduce((sum, line) => sum + Buffer.byteLength(line) + 1, FORMAT.length + 1)
  }

  get bytes(): number {
    return this.#bytes
  }

  load(): Promise<SeenEpoch[]> {
    const epochs = this.#lines.filter(line => line !== '').map(epochOf)
    this.#lines = []
    const whole = epochs.filter(epoch => epoch !== undefined)
    const damaged = epochs.length - whole.length
    if (damaged > 0) this.#log.warn({ damaged }, 'epochs in the history cannot be read and are left out')
    return Promise.resolve(whole)
  }

  async append(epochs: readonly SeenEpoch[]): Promise<void> {
    const bytes = Buffer.from((this.#torn ? '\n' : '') + epochs.map(lineOf).join(''))
    try {
      await this.#files.append(this.#file, bytes)
      this.#torn = false
      this.#bytes += bytes.length
    } catch (cause) {
      this.#torn = true
      throw unwritten(cause)
    }
  }

  /** The new file is on the disk before it takes the old one's name: a crash leaves one of the two, whole. */
  async replace(epochs: readonly SeenEpoch[]): Promise<void> {
    const bytes = Buffer.from(`${FORMAT}\n${epochs.map(lineOf).join('')}`)
    let file: FileHandle | undefined
    try {
      file = await open(`${this.#path}.new`, 'ax', 0o600)
      await this.#files.append(file, bytes)
      await file.sync()
      await rename(`${this.#path}.new`, this.#path)
    } catch (cause) {
      await file?.close()
      await rm(`${this.#path}.new`, { force: true })
      throw unwritten(cause)
    }
    // The old one has no name any more: what is appended to it would be gone.
    const old = this.#file
    this.#file = file
    this.#torn = false
    this.#bytes = bytes.length
    await old.close()
    await this.#files.syncDirectory(dirname(this.#path)).catch((cause: unknown) => {
      throw unwritten(cause)
    })
  }

  close(): Promise<void> {
    return this.#file.close()
  }
}

const unwritten = (cause: unknown): DiapauseError =>
  new DiapauseError('HISTORY_WRITE', `the history of epochs cannot be written: ${messageOf(cause)}`, { cause })

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path)
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
