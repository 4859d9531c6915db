/**
 * Kernels and initrds of VMs in a second home. They are no part of an image, and lie on hosts only, but no QEMU starts without
 * them. Each is copied as a stream of its own, sealed like the others under the group's newest data key, so that it is found,
 * checked and cleaned up as they are.
 *
 * It is to be there once, however many epochs and VMs need it, and who copies cannot open what was copied before. So key and
 * name are made of the file's content (HKDF-SHA256 of the group's key): the same content gives the same bytes. No nonce
 * repeats, since what is sealed under such a key is always the same. Whoever lacks the group's key learns how many bytes a
 * file has, and cannot look whether it is one that he knows. Pure but for reading.
 */
import { createCipheriv, createDecipheriv, createHash, hkdfSync } from 'node:crypto'
import { DiapauseError } from '../errors.ts'
import type { BootFile, HomeFile, StreamKeys } from '../ports.ts'
import type { HomeStream } from './stream-object.ts'

const TAG_BYTES = 16

/** Bytes that are copied to a second home in chunks. */
export interface Sent {
  readonly stream: string
  readonly dataBytes: number
  /** Number of the data key under which it is sealed. */
  readonly key: number
  /** A whole chunk: the offset is a multiple of a chunk's bytes. */
  read(offset: number, length: number): Promise<Uint8Array>
}

/** What an epoch says of a file, sealed. */
export interface FileNote {
  /** As the VMs' specifications name it. */
  readonly path: string
  /** Hex SHA-256 of its content. */
  readonly hash: string
  readonly bytes: number
  /** The stream that it is, as the epoch's header names it (`manifest`). */
  readonly stream: string
}

/** Each chunk but the last is full: what it holds of the file, and a tag. */
export function sealFile(
  { path, hash, bytes, read }: BootFile,
  { id, key }: StreamKeys,
  chunkBytes: number
): { readonly note: FileNote; readonly sent: Sent } {
  const plainBytes = chunkBytes - TAG_BYTES
  const stream = Buffer.from(derived(key, hash, 'name')).toString('hex')
  const sealKey = derived(key, hash, 'key')
  const sent: Sent = {
    stream: streamIdOf(stream),
    dataBytes: bytes + TAG_BYTES * Math.ceil(bytes / plainBytes),
    key: id,
    read: async offset => {
      const piece = offset / chunkBytes
      const at = piece * plainBytes
      const cipher = createCipheriv('aes-256-gcm', sealKey, nonceOf(piece), { authTagLength: TAG_BYTES })
      const body = cipher.update(await read(at, Math.min(plainBytes, bytes - at)))
      cipher.final()
      return Buffer.concat([body, cipher.getAuthTag()])
    }
  }
  return { note: { path, hash, bytes, stream }, sent }
}

/** `stream` is the one that `note` names; `read` gives its bytes. */
export function openFile(
  { path, hash: expected, bytes }: FileNote,
  { stream, chunkBytes, dataBytes, key: id }: HomeStream,
  keys: readonly StreamKeys[],
  read: (stream: string, offset: number, length: number) => Promise<Uint8Array>
): HomeFile {
  const damaged = (): DiapauseError =>
    new DiapauseError('HOME_DAMAGED', `${path} is not what was copied: restore another epoch`)
  async function* content(): AsyncGenerator<Uint8Array> {
    const group = keys.find(each => each.id === id)
    if (group === undefined) throw damaged()
    const sealKey = derived(group.key, expected, 'key')
    const whole = createHash('sha256')
    for (let offset = 0; offset < dataBytes; offset += chunkBytes) {
      const sealed = await read(stream, offset, Math.min(chunkBytes, dataBytes - offset))
      const plain = opened(sealKey, offset / chunkBytes, sealed)
      if (plain === undefined) throw damaged()
      whole.update(plain)
      yield plain
    }
    if (whole.digest('hex') !== expected) throw damaged()
  }
  return { path, hash: expected, bytes, content }
}

/** Undefined where it is not what was sealed. */
function opened(key: Uint8Array, piece: number, sealed: Uint8Array): Uint8Array | undefined {
  if (sealed.length < TAG_BYTES) return undefined
  const decipher = createDecipheriv('aes-256-gcm', key, nonceOf(piece), { authTagLength: TAG_BYTES })
  decipher.setAuthTag(sealed.subarray(-TAG_BYTES))
  const plain = decipher.update(sealed.subarray(0, -TAG_BYTES))
  try {
    decipher.final()
    return plain
  } catch {
    return undefined
  }
}

/** No stream of an image has such an id. */
const streamIdOf = (name: string): string => `file:${name}`

const derived = (groupKey: Uint8Array, hash: string, use: 'key' | 'name'): Uint8Array =>
  new Uint8Array(hkdfSync('sha256', groupKey, Buffer.from(hash, 'hex'), `diapause home file ${use} 1`, 32))

function nonceOf(piece: number): Uint8Array {
  const nonce = Buffer.alloc(12)
  nonce.writeUInt32BE(piece, 8)
  return nonce
}
