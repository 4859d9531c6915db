/** Processes of this machine as /proc shows them: whose child is whose, who names a folder, and how to end them. */
import { readdirSync, readFileSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

export interface ProcessFacts {
  readonly pid: number
  readonly parent: number
  /** Arguments with spaces between. */
  readonly command: string
}

/** All processes that run (not those that have ended and wait for their parent to notice). */
export function processes(): ProcessFacts[] {
  return readdirSync('/proc').flatMap(name => {
    const pid = Number(name)
    if (!Number.isInteger(pid)) return []
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // the name before may hold anything
      if (state === 'Z' || state === 'X') return []
      return [
        {
          pid,
          parent: Number(parent),
          command: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
        }
      ]
    } catch {
      return [] // it ended while we looked
    }
  })
}

/** `pid` and all that descend from it, parents first. */
export function tree(pid: number, all: readonly ProcessFacts[] = processes()): number[] {
  const found = [pid]
  for (const each of found) for (const one of all) if (one.parent === each) found.push(one.pid)
  return found
}

/** Processes with `text` in their arguments, this one excepted. */
export function naming(text: string): ProcessFacts[] {
  return processes().filter(each => each.pid !== process.pid && each.command.includes(text))
}

/** Unix sockets below a folder: what a process that ended in good order has removed. */
export async function socketsIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true })
  return entries.filter(entry => entry.isSocket()).map(entry => join(entry.parentPath, entry.name))
}

/** kill -9, parents first so that none of them starts another child; those already gone do not matter. */
export function killAll(pids: readonly number[]): void {
  for (const pid of pids) signal(pid, 'SIGKILL')
}

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** True once `gone` says so, false after `limitMs`. */
export async function waitUntil(gone: () => boolean, limitMs: number): Promise<boolean> {
  for (let waited = 0; !gone(); waited += 20) {
    if (waited >= limitMs) return false
    await sleep(20)
  }
  return true
}
