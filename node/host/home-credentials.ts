/** Credentials for a bucket: of a file that only its owner may read, or of the environment, as Amazon's tools have them. */
import { readFile, stat } from 'node:fs/promises'
import { parse } from 'smol-toml'
import { z } from 'zod'
import { check, problemText } from '../../config/words.ts'
import { messageOf, UsageError } from '../errors.ts'

const text = z.string().min(1).max(4096).describe('a text')

export const credentialsSchema = z.strictObject({
  accessKeyId: text,
  secretAccessKey: text,
  sessionToken: text.optional()
})
export type HomeCredentials = z.output<typeof credentialsSchema>

/** UsageError HOME_CREDENTIALS. */
export async function readCredentials(file: string): Promise<HomeCredentials> {
  let raw: unknown
  try {
    if (((await stat(file)).mode & 0o077) !== 0) {
      throw new UsageError('HOME_CREDENTIALS', `others may read the credentials in ${file}: run chmod 600 ${file}`)
    }
    raw = parse(await readFile(file, 'utf8'))
  } catch (cause) {
    if (cause instanceof UsageError) throw cause
    throw new UsageError('HOME_CREDENTIALS', `cannot read the credentials in ${file}: ${messageOf(cause)}`, { cause })
  }
  const shape = check(credentialsSchema, raw)
  if (shape.ok) return shape.value
  const problems = shape.problems.map(problem => `  ${problemText(problem)}`)
  throw new UsageError('HOME_CREDENTIALS', `${file} does not hold credentials:\n${problems.join('\n')}`)
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
