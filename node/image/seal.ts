/**
 * Sealing (AES-256-GCM) and packing (zstd) of what leaves this host. Every stream has a key of its own, HKDF-SHA256 of
 * the group's key under the stream's id and 16 random bytes, the stream's salt; within a stream each record has a kind
 * and a counter, and they are the nonce. So no nonce repeats under a key, also not where a host that lost its memory
 * writes a stream of the same name again. Stream id, kind and counter are authenticated too: a record that is put in
 * another's place does not open.
 */
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib'
import { DiapauseError } from '../errors.ts'
import type { StreamId } from '../ports.ts'

export const SALT_BYTES = 16
export const TAG_BYTES = 16
export const GROUP_KEY_BYTES = 32

const KIND = { extent: 1, machine: 2, index: 3, frames: 4, delta: 5, segments: 8, lengths: 9, boot: 10 }
export type RecordKind = keyof typeof KIND

export const newSalt = (): Uint8Array => randomBytes(SALT_BYTES)

/** Seals and opens the records of one stream. */
export class StreamSeal {
  readonly #key: Uint8Array
  readonly #context: Buffer
  readonly #nonce = Buffer.alloc(12)

  constructor(groupKey: Uint8Array, stream: StreamId, salt: Uint8Array) {
    if (groupKey.length !== GROUP_KEY_BYTES) throw new TypeError(`a group key has ${GROUP_KEY_BYTES} bytes`)
    const name = Buffer.from(stream)
    this.#key = new Uint8Array(hkdfSync('sha256', groupKey, Buffer.concat([name, salt]), 'diapause image 1', 32))
    this.#context = Buffer.concat([name, Buffer.alloc(5)])
  }

  /** Ciphertext and tag: TAG_BYTES longer than `plain`. */
  seal(kind: RecordKind, counter: number, plain: Uint8Array): Uint8Array {
    this.#address(kind, counter)
    const cipher = createCipheriv('aes-256-gcm', this.#key, this.#nonce, { authTagLength: TAG_BYTES })
    cipher.setAAD(this.#context)
    const body = cipher.update(plain)
    cipher.final()
    return Buffer.concat([body, cipher.getAuthTag()])
  }

  /** IMAGE_SEAL where the bytes are not what was sealed under this key and address. */
  open(kind: RecordKind, counter: number, sealed: Uint8Array): Uint8Array {
    if (sealed.length < TAG_BYTES) throw broken(kind, counter)
    this.#address(kind, counter)
    const decipher = createDecipheriv('aes-256-gcm', this.#key, this.#nonce, { authTagLength: TAG_BYTES })
    decipher.setAAD(this.#context)
    decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES))
    const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES))
    try {
      decipher.final()
    } catch (cause) {
      throw broken(kind, counter, cause)
    }
    return plain
  }

  #address(kind: RecordKind, counter: number): void {
    this.#nonce.writeUInt8(KIND[kind], 0)
    this.#nonce.writeUInt32BE(counter, 8)
    this.#context.writeUInt8(KIND[kind], this.#context.length - 5)
    this.#context.writeUInt32BE(counter, this.#context.length - 4)
  }
}

/** zstd level 1: the fastest that still halves RAM (LIBRARIES table: 0.47 GB/s in, 1 GB/s out, ratio 2.2). */
export function pack(bytes: Uint8Array): Uint8Array {
  return zstdCompressSync(bytes, {
    params: { [constants.ZSTD_c_compressionLevel]: 1 },
    pledgedSrcSize: bytes.length,
    chunkSize: Math.max(1024, Math.min(1 << 20, bytes.length + 1024))
  })
}

/** IMAGE_INVALID where it is not zstd or larger than `maxBytes`. */
export function unpack(bytes: Uint8Array, maxBytes: number): Uint8Array {
  try {
    return zstdDecompressSync(bytes, {
      maxOutputLength: maxBytes,
      chunkSize: Math.max(1024, Math.min(1 << 20, maxBytes))
    })
  } catch (cause) {
    throw new DiapauseError('IMAGE_INVALID', 'a record of the image does not unpack; restore another epoch', { cause })
  }
}

const broken = (kind: string, counter: number, cause?: unknown) =>
  new DiapauseError(
    'IMAGE_SEAL',
    `record ${kind} ${counter} of the image does not open: another cluster secret, or altered bytes`,
    { cause, details: { kind, counter } }
  )
