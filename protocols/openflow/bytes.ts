/** Writing and reading big-endian words. A reader checks every length before it takes a byte. */
import { DiapauseError } from '../../node/errors.ts'

export const malformed = (what: string): DiapauseError =>
  new DiapauseError('OPENFLOW_MALFORMED', `an OpenFlow message is malformed: ${what}`)

/** A small message; larger ones grow. */
const FIRST_BYTES = 256

export class ByteWriter {
  #bytes = Buffer.alloc(FIRST_BYTES)
  #length = 0

  get length(): number {
    return this.#length
  }

  u8(value: number): this {
    this.#room(1).writeUInt8(value, this.#length - 1)
    return this
  }

  u16(value: number): this {
    this.#room(2).writeUInt16BE(value, this.#length - 2)
    return this
  }

  u32(value: number): this {
    this.#room(4).writeUInt32BE(value, this.#length - 4)
    return this
  }

  u48(value: number): this {
    this.#room(6).writeUIntBE(value, this.#length - 6, 6)
    return this
  }

  u64(value: bigint): this {
    this.#room(8).writeBigUInt64BE(value, this.#length - 8)
    return this
  }

  zeros(count: number): this {
    this.#room(count)
    return this
  }

  raw(bytes: Uint8Array): this {
    this.#room(bytes.length).set(bytes, this.#length - bytes.length)
    return this
  }

  /** Zeros until what was written since `start` is a multiple of eight. */
  pad8(start: number): this {
    return this.zeros((8 - ((this.#length - start) % 8)) % 8)
  }

  /** Puts the number of bytes written since `start` into the u16 at `at`. */
  lengthAt(at: number, start: number): void {
    this.#bytes.writeUInt16BE(this.#length - start, at)
  }

  /** The bytes, the caller's now. */
  take(): Buffer {
    return this.#bytes.subarray(0, this.#length)
  }

  /** The buffer, of which `count` more bytes, at the end, are in use: zeros until they are written to. */
  #room(count: number): Buffer {
    const at = this.#length
    this.#length += count
    if (this.#length > this.#bytes.length) {
      const grown = Buffer.alloc(Math.max(this.#length, this.#bytes.length * 2))
      grown.set(this.#bytes.subarray(0, at))
      this.#bytes = grown
    }
    return this.#bytes
  }
}

/** What it gives are views. Throws OPENFLOW_MALFORMED where there is less than asked for. */
export class ByteReader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  /** Bytes read so far. */
  get read(): number {
    return this.#at
  }

  u8(): number {
    return this.#bytes.readUInt8(this.#take(1))
  }

  u16(): number {
    return this.#bytes.readUInt16BE(this.#take(2))
  }

  u32(): number {
    return this.#bytes.readUInt32BE(this.#take(4))
  }

  u48(): number {
    return this.#bytes.readUIntBE(this.#take(6), 6)
  }

  u64(): bigint {
    return this.#bytes.readBigUInt64BE(this.#take(8))
  }

  skip(count: number): void {
    this.#take(count)
  }

  raw(count: number): Buffer {
    const at = this.#take(count)
    return this.#bytes.subarray(at, at + count)
  }

  /** A reader of the next `count` bytes, which this one passes. */
  part(count: number): ByteReader {
    return new ByteReader(this.raw(count))
  }

  #take(count: number): number {
    if (count < 0 || count > this.left) throw malformed('it ends in the middle')
    const at = this.#at
    this.#at += count
    return at
  }
}
