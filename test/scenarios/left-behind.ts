/** What a peer leaves where others may look: modes of its files, and texts in its log and in the kernel's account of its processes. */
import { readFileSync } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { tree } from '../demo/processes.ts'

/** All below these folders, and they themselves, that another user has any right to: `MODE PATH`. */
export async function openToOthers(folders: readonly string[]): Promise<string[]> {
  const found: string[] = []
  const look = async (path: string): Promise<void> => {
    const entry = await lstat(path).catch(() => undefined) // it may have gone meanwhile
    if (entry === undefined || entry.isSymbolicLink()) return
    if ((entry.mode & 0o077) !== 0) found.push(`${(entry.mode & 0o777).toString(8)} ${path}`)
    if (entry.isDirectory()) for (const name of await readdir(path)) await look(join(path, name))
  }
  for (const folder of folders) await look(folder)
  return found
}

/** The texts of log files, and the arguments and environments of a process and all that it has started. */
export function told(logs: readonly string[], pids: readonly number[]): string {
  const files = pids.flatMap(pid => tree(pid)).flatMap(pid => [`/proc/${pid}/cmdline`, `/proc/${pid}/environ`])
  const read = (path: string): string => {
    try {
      return readFileSync(path, 'latin1')
    } catch {
      return '' // it has ended
    }
  }
  return [...logs, ...files].map(read).join('\n')
}

/** As people and programs write bytes. */
export const spellings = (secret: Uint8Array): string[] => {
  const bytes = Buffer.from(secret)
  return [bytes.toString('hex'), bytes.toString('base64').replace(/=+$/, ''), bytes.toString('base64url')]
}
