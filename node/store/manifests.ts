/** Manifests: one small file each, named by the SHA-256 of its bytes, written beside and renamed. */
import { hash } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { DiapauseError, hasCode } from '../errors.ts'
import type { Log } from '../ports.ts'
import { type Files, storeError } from './files.ts'

const NAME = /^[0-9a-f]{64}$/
/** Hashes of a terabyte at 64 KiB symbols and 5/3 overhead are 400 MB; a manifest of one VM stays far below. */
export const MAX_MANIFEST_BYTES = 32 << 20

export interface Manifests {
  put(name: string, bytes: Uint8Array): Promise<void>
  get(name: string): Promise<Uint8Array | undefined>
  list(): Promise<string[]>
  drop(name: string): Promise<void>
}

export async function openManifests(directory: string, files: Files, log: Log): Promise<Manifests> {
  await mkdir(directory, { recursive: true })
  for (const name of await readdir(directory)) {
    // Left by a crash before the rename: was never acknowledged.
    if (name.endsWith('.part')) await rm(join(directory, name))
  }
  // Names that a crash came between and the disk: from now on what is there counts as stored.
  await files.syncDirectory(directory)
  let parts = 0
  /** Renamed, and not on disk yet as far as we know. */
  const unsynced = new Set<string>()

  async function get(name: string): Promise<Uint8Array | undefined> {
    if (!NAME.test(name)) return undefined
    try {
      const bytes = await readFile(join(directory, name))
      if (hash('sha256', bytes) === name) return bytes
      log.error({ manifest: name }, 'a manifest on disk is damaged and counts as missing')
      return undefined
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined
      throw storeError(`reading manifest ${name} failed`, error)
    }
  }

  async function sync(name: string): Promise<void> {
    await files.syncDirectory(directory).catch((error: unknown) => {
      throw storeError(`storing manifest ${name} failed`, error)
    })
    unsynced.delete(name)
  }

  return {
    get,

    async put(name, bytes) {
      if (!NAME.test(name) || bytes.length > MAX_MANIFEST_BYTES || hash('sha256', bytes) !== name) {
        throw new DiapauseError('MANIFEST_HASH', `these ${bytes.length} bytes are not manifest ${name.slice(0, 64)}`)
      }
      if ((await get(name)) !== undefined) {
        // Whoever put it first has not been told that it is stored, and nor may this one be.
        if (unsynced.has(name)) await sync(name)
        return
      }
      const part = join(directory, `${name}.${++parts}.part`)
      try {
        await writeSynced(part, bytes)
        await rename(part, join(directory, name))
        unsynced.add(name)
        await sync(name)
      } catch (error) {
        await rm(part, { force: true }).catch(() => {})
        throw storeError(`storing manifest ${name} failed`, error)
      }
    },

    list: async () => (await readdir(directory)).filter(name => NAME.test(name)).sort(),

    async drop(name) {
      if (!NAME.test(name)) return
      unsynced.delete(name)
      await rm(join(directory, name), { force: true })
      await files.syncDirectory(directory)
    }
  }
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'wx')
  try {
    await file.writeFile(bytes)
    await file.sync()
  } finally {
    await file.close()
  }
}
