/** Files that hold a secret: they are read only where nobody but their owner may. */
import { open } from 'node:fs/promises'
import { messageOf, UsageError } from './errors.ts'

export interface PrivateFile {
  /** For messages, e.g. "the token". */
  readonly what: string
  /** A file with more is refused before it is read. */
  readonly maxBytes: number
  /** Code where it cannot be read, or is too large. */
  readonly unreadable: string
  /** Code where others may read it. */
  readonly exposed: string
  /** Its group may do what its mode says: a key that programs of several users share. */
  readonly groupToo?: boolean
}

/**
 * The text of `file`. Mode and text are of one open file: one that takes its name in between is not read unseen. UsageErrors
 * with the codes given, whose messages have nothing of what is in the file.
 */
export async function readPrivateFile(file: string, kind: PrivateFile): Promise<string> {
  const { what, maxBytes, unreadable, exposed, groupToo = false } = kind
  const found = await readIfPrivate(file, maxBytes, groupToo ? 0o007 : 0o077).catch((cause: unknown) => {
    throw new UsageError(unreadable, `cannot read ${what} in ${file}: ${messageOf(cause)}`, { cause })
  })
  if (found === 'exposed')
    throw new UsageError(exposed, `others may read ${what} in ${file}: run chmod ${groupToo ? 'o=' : '600'} ${file}`)
  if (found.length <= maxBytes) return found.toString('utf8')
  throw new UsageError(unreadable, `${file} has more than ${maxBytes} bytes, too many for ${what}`)
}

/** At most one byte more than `maxBytes`; of a pipe, too, whose size nobody knows. */
async function readIfPrivate(file: string, maxBytes: number, others: number): Promise<Buffer | 'exposed'> {
  const handle = await open(file)
  try {
    if (((await handle.stat()).mode & others) !== 0) return 'exposed'
    const bytes = Buffer.alloc(maxBytes + 1)
    for (let filled = 0; ; ) {
      const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled)
      filled += bytesRead
      if (bytesRead === 0 || filled === bytes.length) return bytes.subarray(0, filled)
    }
  } finally {
    await handle.close()
  }
}
