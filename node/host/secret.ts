/** The cluster's secret: 32 bytes in hex in a file that only its owner may read. Keys of snapshots come from it. */
import { UsageError } from '../errors.ts'
import { readPrivateFile } from '../private-file.ts'
import { writeDurably } from './files.ts'

const SECRET_BYTES = 32
const FILE = {
  what: 'cluster.secretFile',
  maxBytes: 1_024,
  unreadable: 'SECRET_UNREADABLE',
  exposed: 'SECRET_EXPOSED'
}

/** UsageError SECRET_UNREADABLE, SECRET_EXPOSED where others may read it, SECRET_INVALID. */
export async function readSecret(file: string): Promise<Uint8Array> {
  const text = (await readPrivateFile(file, FILE)).trim()
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
