/** A secret in a file of its own, of one line. Read each time, so that it can be changed without a restart. */
import { readFile, stat } from 'node:fs/promises'
import { DiapauseError, messageOf } from '../errors.ts'

const MAX_SECRET_BYTES = 8_192

/** SECRET_FILE, whose message has nothing of what is in the file. */
export async function readSecret(file: string): Promise<string> {
  const unreadable = (error: unknown): never => {
    throw wrong(`cannot read ${file}: ${messageOf(error)}`)
  }
  const { mode, size } = await stat(file).catch(unreadable)
  if ((mode & 0o077) !== 0) throw wrong(`others may read ${file}: run chmod 600 ${file}`)
  if (size > MAX_SECRET_BYTES) throw wrong(`${file} has more than ${MAX_SECRET_BYTES} bytes`)
  const text = (await readFile(file, 'utf8').catch(unreadable)).trim()
  if (/^[\x21-\x7e]+$/.test(text)) return text
  throw wrong(`${file} should hold one line without spaces`)
}

const wrong = (why: string): DiapauseError => new DiapauseError('SECRET_FILE', why)
