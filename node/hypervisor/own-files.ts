/**
 * Which files this process's user may open without privilege, as QEMU is to: by the modes of the file and of the folders above it.
 * access(2) does not tell a root that has CAP_DAC_OVERRIDE. A list of who may (ACL) beside the modes is not looked at.
 */
import { realpathSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'

const READ = 4
const SEARCH = 1

/** A file for reading, a folder for what is in it. True of what is not there: QEMU says so itself. */
export function opensWithoutPrivilege(path: string): boolean {
  try {
    const there = nearest(resolve(path))
    return [there, realpathSync(there)].every(each => [each, ...foldersAbove(each)].every(allows))
  } catch {
    return false // a link to nowhere, or in circles
  }
}

function allows(path: string): boolean {
  const stat = statSync(path)
  const shift = stat.uid === process.geteuid?.() ? 6 : process.getgroups?.().includes(stat.gid) === true ? 3 : 0
  return ((stat.mode >> shift) & (stat.isDirectory() ? SEARCH : READ)) !== 0
}

/** Itself, or the first folder above it that is there. */
function nearest(path: string): string {
  const there = statSync(path, { throwIfNoEntry: false }) !== undefined
  return there || path === '/' ? path : nearest(dirname(path))
}

function foldersAbove(path: string): string[] {
  return path === '/' ? [] : [dirname(path), ...foldersAbove(dirname(path))]
}
