/** Certificate and key of the API, as PEM files: read, checked, and read again when they have changed. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { messageOf, UsageError } from '../errors.ts'
import { readPrivateFile } from '../private-file.ts'

export interface TlsPaths {
  readonly certFile: string
  readonly keyFile: string
}

export interface TlsPair {
  readonly cert: string
  readonly key: string
  /** Whether the certificate is for a host of this name. */
  readonly names: (host: string) => boolean
  /** Wall clock. */
  readonly validToMs: number
  /** Another text when one of the files is another. */
  readonly version: string
}

const KEY_FILE = {
  what: 'the key of the API',
  /** Of an RSA key of 16,384 bits 13,000. */
  maxBytes: 65_536,
  unreadable: 'API_TLS',
  exposed: 'API_TLS_EXPOSED',
  /** As Debian's group ssl-cert has it. */
  groupToo: true
}

/** UsageError API_TLS, API_TLS_EXPOSED where others may read the key. */
export async function readTls({ certFile, keyFile }: TlsPaths): Promise<TlsPair> {
  const version = await tlsVersion({ certFile, keyFile })
  const cert = await readCertificate(certFile)
  const key = await readPrivateFile(keyFile, KEY_FILE)
  const first = parsed('api.tls.certFile', certFile, () => new X509Certificate(cert))
  const secret = parsed('api.tls.keyFile', keyFile, () => createPrivateKey(key))
  if (!first.checkPrivateKey(secret)) {
    throw new UsageError('API_TLS', `the key ${keyFile} is not that of the first certificate in ${certFile}`)
  }
  return {
    cert,
    key,
    version,
    names: host => first.checkHost(host) !== undefined,
    validToMs: first.validToDate.getTime()
  }
}

/** Cheap: by the times at which they were written. UsageError API_TLS. */
export async function tlsVersion({ certFile, keyFile }: TlsPaths): Promise<string> {
  try {
    const found = await Promise.all([stat(certFile), stat(keyFile)])
    return found.map(({ mtimeMs, ino, size }) => `${mtimeMs}/${ino}/${size}`).join(' ')
  } catch (cause) {
    throw new UsageError('API_TLS', `cannot read the certificate of the API: ${messageOf(cause)}`, { cause })
  }
}

async function readCertificate(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    throw new UsageError('API_TLS', `cannot read api.tls.certFile ${file}: ${messageOf(cause)}`, { cause })
  }
}

function parsed<T>(setting: string, file: string, parse: () => T): T {
  try {
    return parse()
  } catch (cause) {
    throw new UsageError('API_TLS', `${setting} ${file} is no such PEM file: ${messageOf(cause)}`, { cause })
  }
}
