/**
 * Records that go past libp2p on one of its connections. A Noise record says its length in two bytes first and is never
 * shorter than its tag of 16; so a length of 0 begins a record of ours among those of Noise, and both can be told apart:
 *
 *     u16 0 | u32 bytes that follow | ciphertext | tag of 16 bytes
 *
 * ChaCha20-Poly1305 (RFC 8439) under a key of the connection's own, that came through Noise; the nonce is the record's number,
 * 64 bits, and the length needs no authentication: with another one the tag does not fit. Why at all: `direct.ts`.
 */
import { DiapauseError } from '../node/errors.ts'
import { noiseCrypto, sealInto, TAG_BYTES } from './noise-crypto.ts'

export const KEY_BYTES = 32
export const RECORD_HEADER_BYTES = 6
/** What one record seals at most. Larger ones wait longer for their end before they can be opened. A guess. */
export const MAX_RECORD_BYTES = 64 * 1024
/** A record is so much longer than its text. */
export const RECORD_MORE_BYTES = RECORD_HEADER_BYTES + TAG_BYTES

const NOISE_LENGTH_BYTES = 2
const NO_AD = new Uint8Array(0)

/** 12 bytes: 4 of zero, then the number, as Noise has it (the Noise specification, section 12.3). */
class RecordNumber {
  readonly bytes = new Uint8Array(12)
  readonly #view = new DataView(this.bytes.buffer)
  #next = 0n

  /** `bytes` are of the next record from now on. */
  advance(): void {
    this.#view.setBigUint64(4, ++this.#next, true)
  }
}

export class RecordSealer {
  readonly #key: Uint8Array
  readonly #number = new RecordNumber()

  constructor(key: Uint8Array) {
    this.#key = key
  }

  /** A record of 1 to MAX_RECORD_BYTES of text, at the beginning of `into`: memory of its own, unless given. */
  seal(text: Uint8Array, into = Buffer.allocUnsafe(text.length + RECORD_MORE_BYTES)): Buffer {
    const end = text.length + RECORD_MORE_BYTES
    into.writeUInt16BE(0, 0)
    into.writeUInt32BE(text.length + TAG_BYTES, 2)
    sealInto(into.subarray(RECORD_HEADER_BYTES, end), text, this.#number.bytes, this.#key)
    this.#number.advance()
    return into.subarray(0, end)
  }
}

export class RecordOpener {
  readonly #key: Uint8Array
  readonly #number = new RecordNumber()

  constructor(key: Uint8Array) {
    this.#key = key
  }

  /** The text, perhaps in the memory of `sealed`. RECORD_FORGED: nothing after it can be read either. */
  open(sealed: Uint8Array): Uint8Array {
    try {
      const into = sealed.subarray(0, sealed.length - TAG_BYTES)
      const text = noiseCrypto.chaCha20Poly1305Decrypt(sealed, this.#number.bytes, NO_AD, this.#key, into)
      this.#number.advance()
      return text.subarray()
    } catch (cause) {
      throw new DiapauseError('RECORD_FORGED', 'a record was changed on its way, or is not of this connection', {
        cause
      })
    }
  }
}

export interface Cut {
  /** Sealed, without its header: a view, valid during the call. */
  record(sealed: Uint8Array): void
  /** Some bytes of Noise's, any number: a view, valid during the call. */
  noise(bytes: Uint8Array): void
}

/** Tells the two apart in what a connection reads, however it comes in pieces. */
export class RecordCutter {
  readonly #cut: Cut
  readonly #header = Buffer.alloc(RECORD_HEADER_BYTES)
  #headerBytes = 0
  /** Of a header that is not whole: what Noise has of it already. */
  #headerBytesPassed = 0
  /** Of a Noise record: what is still to come. */
  #noiseBytes = 0
  /** Of ours: where it is put together, a part of `#space`. */
  #body: Uint8Array | undefined
  #space: Uint8Array | undefined
  #bodyBytes = 0

  constructor(cut: Cut) {
    this.#cut = cut
  }

  /** Noise has had these already, of a record that is not whole. To be called first. */
  began(bytes: Uint8Array): void {
    this.#push(bytes, { record: () => {}, noise: () => {} })
    this.#headerBytesPassed = this.#headerBytes
  }

  /** RECORD_LENGTH where a record is larger than any, or than nothing. */
  push(chunk: Uint8Array): void {
    this.#push(chunk, this.#cut)
  }

  #push(chunk: Uint8Array, cut: Cut): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#noiseBytes > 0) at += this.#passNoise(chunk, at, cut)
      else if (this.#body !== undefined) at += this.#fill(this.#body, chunk, at, cut)
      else at += this.#whole(chunk, at, cut) || this.#begin(chunk, at, cut)
    }
  }

  #passNoise(chunk: Uint8Array, at: number, cut: Cut): number {
    const count = Math.min(this.#noiseBytes, chunk.length - at)
    this.#noiseBytes -= count
    cut.noise(chunk.subarray(at, at + count))
    return count
  }

  #fill(body: Uint8Array, chunk: Uint8Array, at: number, cut: Cut): number {
    const count = Math.min(body.length - this.#bodyBytes, chunk.length - at)
    body.set(chunk.subarray(at, at + count), this.#bodyBytes)
    this.#bodyBytes += count
    if (this.#bodyBytes === body.length) {
      this.#body = undefined
      cut.record(body)
    }
    return count
  }

  /** The usual case, quickly: a record of ours that came with nothing missing. Returns its bytes; 0: it is another case. */
  #whole(chunk: Uint8Array, at: number, cut: Cut): number {
    const start = at + RECORD_HEADER_BYTES
    if (this.#headerBytes > 0 || start > chunk.length || chunk[at] !== 0 || chunk[at + 1] !== 0) return 0
    if (chunk[at + 2] !== 0) return 0
    const length = ((chunk[at + 3] as number) << 16) | ((chunk[at + 4] as number) << 8) | (chunk[at + 5] as number)
    if (length <= TAG_BYTES || length > MAX_RECORD_BYTES + TAG_BYTES || start + length > chunk.length) return 0
    cut.record(chunk.subarray(start, start + length))
    return RECORD_HEADER_BYTES + length
  }

  /** Takes of a header what is there; of a whole record of ours, all of it. Returns the bytes used. */
  #begin(chunk: Uint8Array, at: number, cut: Cut): number {
    const header = this.#header
    let used = 0
    const upTo = (length: number): boolean => {
      const count = Math.min(length - this.#headerBytes, chunk.length - at - used)
      if (count > 0) {
        header.set(chunk.subarray(at + used, at + used + count), this.#headerBytes)
        this.#headerBytes += count
        used += count
      }
      return this.#headerBytes >= length
    }
    if (!upTo(NOISE_LENGTH_BYTES)) return used
    const noiseBytes = header.readUInt16BE()
    if (noiseBytes > 0) {
      this.#headerBytes = 0
      this.#noiseBytes = noiseBytes
      cut.noise(header.subarray(this.#headerBytesPassed, NOISE_LENGTH_BYTES))
      this.#headerBytesPassed = 0
      return used
    }
    if (!upTo(RECORD_HEADER_BYTES)) return used
    this.#headerBytes = 0
    const length = header.readUInt32BE(NOISE_LENGTH_BYTES)
    if (length <= TAG_BYTES || length > MAX_RECORD_BYTES + TAG_BYTES) {
      throw new DiapauseError('RECORD_LENGTH', `a record of ${length} bytes; at most ${MAX_RECORD_BYTES + TAG_BYTES}`)
    }
    const start = at + used
    if (chunk.length - start >= length) {
      cut.record(chunk.subarray(start, start + length))
      return used + length
    }
    this.#space ??= new Uint8Array(MAX_RECORD_BYTES + TAG_BYTES)
    this.#body = this.#space.subarray(0, length)
    this.#bodyBytes = 0
    return used
  }
}
