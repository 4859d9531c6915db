/** Small files that must survive a power loss whole, and the folders they are in. */
import { existsSync, mkdirSync } from 'node:fs'
import { open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { hasCode } from '../errors.ts'

export async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

/** Whole or not at all, also after power loss; readable by its owner only. */
export async function writeDurably(file: string, text: string): Promise<void> {
  const aside = `${file}.new`
  const handle = await open(aside, 'w', 0o600)
  try {
    await handle.writeFile(text)
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(aside, file)
  await syncFolder(dirname(file))
}

/**
 * A folder and those above it, for its owner only where they are new. Throws as mkdir(2) does. Not `recursive`: where the kernel says
 * that a folder's parent is not there although it is (/proc, a removed folder), Node 24 tries again for ever.
 */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return // what is no folder is found out by who opens a file in it
    if (!hasCode(error, 'ENOENT') || existsSync(dirname(path))) throw error
    makeFolder(dirname(path))
    mkdirSync(path, { mode: 0o700 })
  }
}

/** Makes the names in a folder durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
