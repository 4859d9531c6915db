/** Credentials for a bucket: of a file that only its owner may read, or of the environment, as Amazon's tools have them. */
import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import { check } from '../../config/words.ts'
import { UsageError } from '../errors.ts'
import { readPrivateFile } from '../private-file.ts'

const FILE = {
  what: 'the credentials',
  /** Three texts of 4,096 bytes, and some comments. */
  maxBytes: 65_536,
  unreadable: 'HOME_CREDENTIALS',
  exposed: 'HOME_CREDENTIALS'
}

const text = z.string().min(1).max(4096).describe('a text')

export const credentialsSchema = z.strictObject({
  accessKeyId: text,
  secretAccessKey: text,
  sessionToken: text.optional()
})
export type HomeCredentials = z.output<typeof credentialsSchema>

/** UsageError HOME_CREDENTIALS, whose message has nothing of what is in the file. */
export async function readCredentials(file: string): Promise<HomeCredentials> {
  const shape = check(credentialsSchema, parsed(file, await readPrivateFile(file, FILE)))
  if (shape.ok) return shape.value
  const problems = shape.problems.map(({ key, expected }) => `  ${key}: expected ${expected}`)
  throw new UsageError('HOME_CREDENTIALS', `${file} does not hold credentials:\n${problems.join('\n')}`)
}

function parsed(file: string, content: string): unknown {
  try {
    return parse(content)
  } catch (error) {
    const where = error instanceof TomlError ? ` (line ${error.line})` : ''
    throw new UsageError('HOME_CREDENTIALS', `${file} is no TOML${where}: accessKeyId = "…", secretAccessKey = "…"`)
  }
}

/** Undefined where it has none. */
export function credentialsIn(environment: Readonly<Record<string, string | undefined>>): HomeCredentials | undefined {
  const {
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_SESSION_TOKEN: sessionToken
  } = environment
  if (!accessKeyId || !secretAccessKey) return undefined
  return { accessKeyId, secretAccessKey, ...(sessionToken ? { sessionToken } : {}) }
}
