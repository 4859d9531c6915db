/** The few file operations whose order decides what survives power loss. Tests replace them to fail or to forget. */
import { constants } from 'node:fs'
import { type FileHandle, open, stat, statfs } from 'node:fs/promises'
import { DiapauseError, hasCode, messageOf } from '../errors.ts'

export interface SegmentFile {
  /** Writes all parts end to end at `position`. They survive power loss when it resolves. */
  writeAll(parts: readonly Uint8Array[], position: number): Promise<void>
  truncate(bytes: number): Promise<void>
  close(): Promise<void>
}

export interface Files {
  /** A new file, or an existing one to write on. */
  openSegment(path: string, fresh: boolean): Promise<SegmentFile>
  /** Names made, renamed or removed in a directory survive power loss. */
  syncDirectory(path: string): Promise<void>
  /** Of the file system that `path` is on, for those who are not root. */
  room(path: string): Promise<{ freeBytes: number; totalBytes: number }>
  /** Undefined where there is no such file. */
  sizeOf(path: string): Promise<number | undefined>
}

export const nodeFiles: Files = {
  async openSegment(path, fresh) {
    const flags = fresh ? constants.O_CREAT | constants.O_EXCL : 0
    // Each write is its own fdatasync: that saves a way through Node's threads, a tenth of a small column's time.
    return segmentFile(await open(path, constants.O_RDWR | constants.O_DSYNC | flags, 0o666))
  },

  async syncDirectory(path) {
    const directory = await open(path, 'r')
    try {
      await directory.sync()
    } finally {
      await directory.close()
    }
  },

  async room(path) {
    const { bavail, blocks, bsize } = await statfs(path)
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
  },

  async sizeOf(path) {
    try {
      return (await stat(path)).size
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined
      throw error
    }
  }
}

/** What is written is as durable as `file` makes it. */
export const segmentFile = (file: FileHandle): SegmentFile => ({
  writeAll: (parts, position) => writeAll(file, parts, position),
  truncate: bytes => file.truncate(bytes),
  close: () => file.close()
})

/** writev may write less than asked for (a nearly full disk, very long lists): goes on until all is written. */
async function writeAll(file: FileHandle, parts: readonly Uint8Array[], position: number): Promise<void> {
  let left = parts.filter(part => part.length > 0)
  let at = position
  while (left.length > 0) {
    let { bytesWritten } = await file.writev(left, at)
    if (bytesWritten === 0) throw new DiapauseError('STORE_IO', 'a write to a segment made no progress')
    at += bytesWritten
    const rest: Uint8Array[] = []
    for (const part of left) {
      if (bytesWritten < part.length) rest.push(part.subarray(bytesWritten))
      bytesWritten = Math.max(0, bytesWritten - part.length)
    }
    left = rest
  }
}

/** STORE_FULL for a full disk or quota, STORE_IO for the rest. */
export function storeError(what: string, cause: unknown): DiapauseError {
  if (cause instanceof DiapauseError) return cause
  const full = codesOf(cause).some(code => code === 'ENOSPC' || code === 'EDQUOT')
  // LevelDB reports the system's text only.
  if (full || /No space left|Disk quota/.test(textOf(cause))) {
    return new DiapauseError('STORE_FULL', `${what}: the disk is full; free space, or drop old epochs`, { cause })
  }
  return new DiapauseError('STORE_IO', `${what}: ${messageOf(cause)}; look at the disk and the kernel log`, { cause })
}

/** The `code` of an error and of its causes. */
export function codesOf(error: unknown): string[] {
  const codes: string[] = []
  for (let e = error; e instanceof Error && codes.length < 5; e = e.cause) {
    const { code } = e as { code?: unknown }
    if (typeof code === 'string') codes.push(code)
  }
  return codes
}

const textOf = (error: unknown): string =>
  error instanceof Error ? `${error.message} ${error.cause instanceof Error ? error.cause.message : ''}` : ''
