/** Small files that must survive a power loss whole. */
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

/** Makes the names in a folder durable. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
