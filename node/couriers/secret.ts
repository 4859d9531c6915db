/** A secret in a file of its own, of one line. Read each time, so that it can be changed without a restart. */
import { UsageError } from '../errors.ts'
import { readPrivateFile } from '../private-file.ts'

const FILE = { what: 'a secret', maxBytes: 8_192, unreadable: 'SECRET_FILE', exposed: 'SECRET_FILE' }

/** UsageError SECRET_FILE, whose message has nothing of what is in the file. */
export async function readSecret(file: string): Promise<string> {
  const text = (await readPrivateFile(file, FILE)).trim()
  if (/^[\x21-\x7e]+$/.test(text)) return text
  throw new UsageError('SECRET_FILE', `${file} should hold one line without spaces`)
}
