/** Credentials for a bucket: of a file that only its owner may read, or of the environment, as Amazon's tools have them. */
import { readFile, stat } from 'node:fs/promises'
import { parse, TomlError } from 'smol-toml'
import { z } from 'zod'
import { check } from '../../config/words.ts'
import { messageOf, UsageError } from '../errors.ts'

const text = z.string().min(1).max(4096).describe('a text')

export const credentialsSchema = z.strictObject({
  accessKeyId: text,
  secretAccessKey: text,
  sessionToken: text.optional()
})
export type HomeCredentials = z.output<typeof credentialsSchema>

/** UsageError HOME_CREDENTIALS, whose message has nothing of what is in the file. */
export async function readCredentials(file: string): Promise<HomeCredentials> {
  const shape = check(credentialsSchema, parsed(file, await textIn(file)))
  if (shape.ok) return shape.value
  const problems = shape.problems.map(({ key, expected }) => `  ${key}: expected ${expected}`)
  throw new UsageError('HOME_CREDENTIALS', `${file} does not hold credentials:\n${problems.join('\n')}`)
}

async function textIn(file: string): Promise<string> {
  try {
    const { mode } = await stat(file)
    if ((mode & 0o077) === 0) return await readFile(file, 'utf8')
  } catch (cause) {
    throw new UsageError('HOME_CREDENTIALS', `cannot read the credentials in ${file}: ${messageOf(cause)}`, { cause })
  }
  throw new UsageError('HOME_CREDENTIALS', `others may read the credentials in ${file}: run chmod 600 ${file}`)
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
