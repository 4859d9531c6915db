/** What a client elsewhere is given as files: its token, which only its owner may read, and the certificate that it trusts. */
import { readFile } from 'node:fs/promises'
import { messageOf, UsageError } from '../errors.ts'
import { readPrivateFile } from '../private-file.ts'

/** Longer is no token. */
const MAX_CHARACTERS = 200
/** With a line's end, and blanks that nobody sees. */
const FILE = { what: 'the token', maxBytes: 1_024, unreadable: 'TOKEN_FILE', exposed: 'TOKEN_EXPOSED' }

/** UsageError TOKEN_FILE, TOKEN_EXPOSED; no message has anything of what is in the file. */
export async function readToken(file: string): Promise<string> {
  const text = (await readPrivateFile(file, FILE)).trim()
  if (text.length <= MAX_CHARACTERS && /^[A-Za-z0-9._~+/-]+$/.test(text)) return text
  throw new UsageError('TOKEN_FILE', `${file} must hold a token as \`diapause tokens new\` prints it, and nothing else`)
}

/** UsageError API_CA. */
export async function readCertificate(file: string): Promise<string> {
  try {
    const text = await readFile(file, 'utf8')
    if (text.includes('-----BEGIN CERTIFICATE-----')) return text
  } catch (cause) {
    throw new UsageError('API_CA', `cannot read the certificate ${file}: ${messageOf(cause)}`, { cause })
  }
  throw new UsageError('API_CA', `${file} holds no certificate (PEM)`)
}
