/**
 * A directory as a second home: on another disk, or on what another machine serves. An object is a file of its name. It is
 * written beside (in `.partial`), fsynced and renamed, and the folders that it made are fsynced, so that a file of its name is
 * whole, also after power loss. What a peer that was killed left beside is removed when the home is cleaned up.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'
import type { ObjectStore, StoredFacts } from '../ports.ts'
import { MAX_LISTED, MAX_OBJECT_BYTES, tooMany } from './layout.ts'
import { checkName, isName } from './names.ts'

/** No name begins with a dot. */
const PARTIAL = '.partial'

/** `root` is not made where it is not there: a disk that is not mounted would go unnoticed, and its copies lie beside it. */
export function openDirectory(root: string): ObjectStore {
  const url = `dir:${root}`
  const pathOf = (name: string): string => {
    checkName(name)
    return join(root, name)
  }
  return {
    url,

    put: (name, bytes) =>
      told(url, async () => {
        const path = pathOf(name)
        const aside = join(root, PARTIAL, randomUUID())
        await requireRoot(root)
        await makeFolders(root, dirname(aside))
        await makeFolders(root, dirname(path))
        try {
          await writeSynced(aside, bytes)
          await rename(aside, path)
        } catch (error) {
          await rm(aside, { force: true })
          throw error
        }
        await syncFolder(dirname(path))
      }),

    get: name =>
      told(url, async () => {
        const path = pathOf(name)
        if ((await stat(path)).size > MAX_OBJECT_BYTES)
          throw new DiapauseError('HOME_DAMAGED', `${name} in ${url} is larger than anything that was put there`)
        return new Uint8Array(await readFile(path))
      }),

    stat: name => told(url, () => factsAt(pathOf(name))),

    async *list(prefix) {
      await told(url, () => requireRoot(root))
      let seen = 0
      const folder = prefix.includes('/') ? dirname(`${prefix}.`) : '.'
      for await (const path of filesIn(join(root, folder), url)) {
        const name = relative(root, path)
        if (++seen > MAX_LISTED) throw tooMany(url, `${MAX_LISTED} files under ${prefix}`)
        if (!name.startsWith(prefix) || !isName(name)) continue
        const facts = await this.stat(name)
        if (facts !== undefined) yield { name, ...facts }
      }
    },

    delete: name => told(url, () => rm(pathOf(name), { force: true })),

    removePartial: beforeMs =>
      told(url, async () => {
        for await (const path of filesIn(join(root, PARTIAL), url)) {
          const facts = await factsAt(path) // another peer may have removed it
          if (facts !== undefined && facts.putMs < beforeMs) await rm(path, { force: true })
        }
      })
  }
}

/** HOME_MISSING. */
async function requireRoot(root: string): Promise<void> {
  try {
    if ((await stat(root)).isDirectory()) return
  } catch (error) {
    if (!hasCode(error, 'ENOENT') && !hasCode(error, 'ENOTDIR')) throw error
  }
  const message = `there is no folder ${root}: is its disk mounted? Make the folder once yourself, on the mounted disk`
  throw new DiapauseError('HOME_MISSING', message)
}

/** Undefined where there is no file. */
async function factsAt(path: string): Promise<StoredFacts | undefined> {
  try {
    const { size, mtimeMs } = await stat(path)
    return { bytes: size, putMs: mtimeMs }
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR')) return undefined
    throw error
  }
}

/** Those of `folder` that are not there, from the root on, and durable. */
async function makeFolders(root: string, folder: string): Promise<void> {
  const made = await mkdir(folder, { recursive: true, mode: 0o700 })
  if (made === undefined) return
  for (let path = folder; path.length >= root.length; path = dirname(path)) await syncFolder(path)
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'wx', 0o600)
  try {
    await file.writeFile(bytes)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

async function* filesIn(folder: string, url: string): AsyncGenerator<string> {
  const entries = await told(url, async () => {
    try {
      return await readdir(folder, { withFileTypes: true })
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return []
      throw error
    }
  })
  for (const entry of entries) {
    const path = join(folder, entry.name)
    if (!isName(entry.name)) continue
    if (entry.isDirectory()) yield* filesIn(path, url)
    else if (entry.isFile()) yield path
  }
}

/** Errors of the file system as those of the port. */
async function told<T>(url: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    if (cause instanceof DiapauseError || cause instanceof TypeError) throw cause
    if (hasCode(cause, 'ENOENT') || hasCode(cause, 'ENOTDIR'))
      throw new DiapauseError('HOME_MISSING', messageOf(cause), { cause })
    if (hasCode(cause, 'ENOSPC') || hasCode(cause, 'EDQUOT')) {
      throw new DiapauseError('HOME_FULL', `${url} is full: make room, or keep fewer epochs there`, { cause })
    }
    if (hasCode(cause, 'EACCES') || hasCode(cause, 'EPERM') || hasCode(cause, 'EROFS')) {
      throw new DiapauseError('HOME_REFUSED', `${url} may not be used: ${messageOf(cause)}`, { cause })
    }
    throw new DiapauseError('HOME_UNREACHABLE', `${url} cannot be used: ${messageOf(cause)}`, { cause })
  }
}
