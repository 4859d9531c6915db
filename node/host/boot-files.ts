/**
 * Kernels and initrds on this host: at the paths that specifications of VMs name, and in the peer's data folder those that
 * the cluster keeps itself, each under the SHA-256 of its content. A kept file is written beside, fsynced and renamed: it is whole.
 */
import { createHash, randomUUID } from 'node:crypto'
import { constants, createReadStream } from 'node:fs'
import { access, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { MAX_ALL_KEPT_BYTES, PIECE_BYTES } from '../../protocols/boot-files.ts'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { BootFile, BootFiles } from '../ports.ts'
import { syncFolder } from './files.ts'

/** Hashed in one turn of the event loop: a quarter of a millisecond or less. */
const HASHED_BYTES = 256 << 10
/** Far more kernels than a host has. */
const MAX_HASHES = 256

const NAME = /^[0-9a-f]{64}$/

/**
 * `folder` is made; what an earlier run did not finish there is removed. `nowMs`: wall clock, as the file system has it. `maxBytes`: of all
 * that is kept. `sync`: names in a folder are on the disk when it resolves.
 */
export async function openBootFiles(
  folder: string,
  nowMs: () => number,
  maxBytes = MAX_ALL_KEPT_BYTES,
  sync = syncFolder
): Promise<BootFiles> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  for (const name of await readdir(folder)) if (name.endsWith('.new')) await rm(join(folder, name), { force: true })
  await sync(folder) // what is there counts as kept
  const hashes = new Hashes()
  const names = new SyncedNames(() => sync(folder))
  /** Of files that are kept or being written. */
  let takenBytes = await bytesIn(folder)
  const keepIn = async (hash: string, aside: string, content: AsyncIterable<Uint8Array>): Promise<void> => {
    let own = 0
    const counted = async function* (): AsyncGenerator<Uint8Array> {
      for await (const piece of content) {
        own += piece.length
        takenBytes += piece.length
        if (takenBytes > maxBytes) throw full(folder, maxBytes)
        yield piece
      }
    }
    try {
      const found = await writeSynced(aside, counted())
      if (found !== hash) throw new DiapauseError('FILE_DAMAGED', `a file has content ${found} instead of ${hash}`)
      const before = await bytesOf(pathOf(hash))
      await rename(aside, pathOf(hash))
      names.add(hash)
      takenBytes -= before
    } catch (error) {
      takenBytes -= own
      throw error
    }
  }
  const pathOf = (hash: string): string => {
    if (NAME.test(hash)) return join(folder, hash)
    throw new TypeError(`${hash} is no SHA-256`)
  }
  return {
    open: path => hashes.open(path),
    at: async paths => Uint8Array.from(await Promise.all(paths.map(async path => ((await isFile(path)) ? 1 : 0)))),
    pathOf,
    has: async hash => (await isFile(pathOf(hash))) && (await names.synced(hash)),
    async piece(hash, offset) {
      return await readRange(pathOf(hash), offset, PIECE_BYTES).catch((cause: unknown) => {
        throw missing(`the file of content ${hash}`, cause)
      })
    },

    async keep(hash, content) {
      const aside = join(folder, `${randomUUID()}.new`)
      try {
        await keepIn(hash, aside, content)
      } finally {
        await rm(aside, { force: true })
      }
      await names.sync(hash)
    },

    async removeOthers(wanted, ageMs) {
      for await (const { path, bytes } of keptBefore(folder, wanted, nowMs() - ageMs)) {
        await rm(path)
        takenBytes -= bytes
      }
    }
  }
}

/** What is kept in `folder`, but not of `wanted`, since before `beforeMs`. */
async function* keptBefore(folder: string, wanted: ReadonlySet<string>, beforeMs: number) {
  for (const name of await readdir(folder)) {
    if (!NAME.test(name) || wanted.has(name)) continue
    const path = join(folder, name)
    const { ctimeMs, size: bytes } = await stat(path)
    if (ctimeMs < beforeMs) yield { path, bytes }
  }
}

/** Which names of a folder have come to its disk. */
class SyncedNames {
  readonly #syncFolder: () => Promise<void>
  readonly #unsynced = new Set<string>()

  constructor(syncFolder: () => Promise<void>) {
    this.#syncFolder = syncFolder
  }

  add(name: string): void {
    this.#unsynced.add(name)
  }

  async sync(name: string): Promise<void> {
    await this.#syncFolder()
    this.#unsynced.delete(name)
  }

  /** It is tried where it is not. */
  async synced(name: string): Promise<boolean> {
    if (this.#unsynced.has(name)) await this.sync(name).catch(() => {})
    return !this.#unsynced.has(name)
  }
}

/** Hashes of files that have not changed since by what the file system says of them. */
class Hashes {
  readonly #known = new Map<string, string>()

  async open(path: string): Promise<BootFile> {
    try {
      const { identity, bytes } = await identityOf(path)
      const hash = this.#known.get(identity) ?? (await hashOf(path))
      await requireSame(path, identity)
      this.#known.set(identity, hash)
      const [oldest = ''] = this.#known.keys()
      if (this.#known.size > MAX_HASHES) this.#known.delete(oldest)
      const read = async (offset: number, length: number): Promise<Uint8Array> => {
        const piece = await readRange(path, offset, length)
        await requireSame(path, identity)
        return piece
      }
      return { path, hash, bytes, read }
    } catch (cause) {
      throw cause instanceof DiapauseError ? cause : missing(path, cause)
    }
  }
}

async function identityOf(path: string): Promise<{ readonly identity: string; readonly bytes: number }> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true })
  return { identity: [path, dev, ino, size, mtimeNs, ctimeNs].join(' '), bytes: Number(size) }
}

async function requireSame(path: string, identity: string): Promise<void> {
  if ((await identityOf(path)).identity === identity) return
  throw new DiapauseError('FILE_CHANGED', `${path} has changed while it was read`)
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const piece of createReadStream(path, { highWaterMark: HASHED_BYTES })) hash.update(piece as Buffer)
  return hash.digest('hex')
}

/** Up to `length` bytes. */
async function readRange(path: string, offset: number, length: number): Promise<Uint8Array> {
  const file = await open(path, 'r')
  try {
    const bytes = new Uint8Array(length)
    let at = 0
    while (at < length) {
      const { bytesRead } = await file.read(bytes, at, length - at, offset + at)
      if (bytesRead === 0) break
      at += bytesRead
    }
    return bytes.subarray(0, at)
  } finally {
    await file.close()
  }
}

/** The hash of what was written. */
async function writeSynced(path: string, content: AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256')
  const file = await open(path, 'wx', 0o600)
  try {
    for await (const piece of content) {
      hash.update(piece)
      await file.writeFile(piece)
    }
    await file.sync()
  } finally {
    await file.close()
  }
  return hash.digest('hex')
}

async function isFile(path: string): Promise<boolean> {
  try {
    if (!(await stat(path)).isFile()) return false
    await access(path, constants.R_OK)
    return true
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].some(code => hasCode(error, code))) return false
    throw error
  }
}

async function bytesIn(folder: string): Promise<number> {
  const sizes = await Promise.all((await readdir(folder)).map(name => bytesOf(join(folder, name))))
  return sizes.reduce((sum, bytes) => sum + bytes, 0)
}

const bytesOf = async (path: string): Promise<number> => (await stat(path).catch(() => ({ size: 0 }))).size

const full = (folder: string, maxBytes: number) =>
  new DiapauseError(
    'FILES_FULL',
    `files that VMs boot from have all of the ${maxBytes} bytes that they may have in ${folder}: remove groups that name some, or ` +
      'name files by their path. What no group names goes after a day'
  )

const missing = (what: string, cause: unknown) =>
  new DiapauseError('FILE_MISSING', `${what} cannot be read here: ${messageOf(cause)}`, { cause })
