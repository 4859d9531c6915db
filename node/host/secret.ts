/** The cluster's secret: 32 bytes in hex in a file that only its owner may read. Keys of snapshots come from it. */
import { readFile, stat } from 'node:fs/promises'
import { UsageError, messageOf } from '../errors.ts'
import { writeDurably } from './files.ts'

const SECRET_BYTES = 32

/** UsageError SECRET_UNREADABLE, SECRET_EXPOSED where others may read it, SECRET_INVALID. */
export async function readSecret(file: string): Promise<Uint8Array> {
  let text: string
  let mode: number
  try {
    mode = (await stat(file)).mode
    text = (await readFile(file, 'utf8')).trim()
  } catch (cause) {
    throw new UsageError('SECRET_UNREADABLE', `cannot read cluster.secretFile ${file}: ${messageOf(cause)}`, { cause })
  }
  if ((mode & 0o077) !== 0) {
    throw new UsageError('SECRET_EXPOSED', `others may read the cluster's secret ${file}: run chmod 600 ${file}`)
  }
  if (!/^[0-9a-fA-F]{64}$/.test(text)) {
    throw new UsageError(
      'SECRET_INVALID',
      `${file} must hold 32 bytes in hex (64 digits); make one: openssl rand -hex 32`
    )
  }
  return new Uint8Array(Buffer.from(text, 'hex'))
}

export async function writeSecret(file: string, secret: Uint8Array): Promise<void> {
  if (secret.length !== SECRET_BYTES) throw new TypeError(`a secret of ${secret.length} bytes`)
  await writeDurably(file, `${Buffer.from(secret).toString('hex')}\n`)
}
