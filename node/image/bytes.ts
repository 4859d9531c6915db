/**
 * Fixed binary records: what manifests, indexes and machine parts are written with. One way to write each value, so
 * equal values give equal bytes and a hash of them is a name. Everything is little-endian. Pure.
 */

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export class ByteWriter {
  #bytes: Uint8Array
  #view: DataView
  #length = 0

  constructor(capacity = 4096) {
    this.#bytes = new Uint8Array(capacity)
    this.#view = new DataView(this.#bytes.buffer)
  }

  u8(value: number): this {
    const at = this.#room(1) // before the view is taken: making room may replace it
    this.#view.setUint8(at, value)
    return this
  }

  u32(value: number): this {
    const at = this.#room(4)
    this.#view.setUint32(at, value, true)
    return this
  }

  /** A whole number below 2^53. */
  u53(value: number): this {
    const at = this.#room(8)
    this.#view.setUint32(at, value % 0x1_0000_0000, true)
    this.#view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true)
    return this
  }

  /** At most 65,535 bytes of UTF-8 behind their length. */
  text(value: string): this {
    const bytes = Buffer.from(value)
    const at = this.#room(2)
    this.#view.setUint16(at, bytes.length, true)
    return this.raw(bytes)
  }

  /** Bytes behind their length. */
  blob(value: Uint8Array): this {
    return this.u32(value.length).raw(value)
  }

  raw(value: Uint8Array): this {
    const at = this.#room(value.length)
    this.#bytes.set(value, at)
    return this
  }

  /** What was written; a view. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length)
  }

  #room(count: number): number {
    const at = this.#length
    const needed = at + count
    if (needed > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(needed, 2 * this.#bytes.length))
      larger.set(this.#bytes.subarray(0, at))
      this.#bytes = larger
      this.#view = new DataView(larger.buffer)
    }
    this.#length = needed
    return at
  }
}

/** Reads what `ByteWriter` wrote. `fail` makes the error for bytes that are short or out of bounds. */
export class ByteReader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #fail: (what: string) => Error
  #at = 0

  constructor(bytes: Uint8Array, fail: (what: string) => Error) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#fail = fail
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1))
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true)
  }

  u53(): number {
    const at = this.#take(8)
    const high = this.#view.getUint32(at + 4, true)
    if (high > 0x1f_ffff) throw this.#fail('a number is too large')
    return high * 0x1_0000_0000 + this.#view.getUint32(at, true)
  }

  /** A number of things, each of at least `bytesEach` bytes: never more than the bytes that are left could hold. */
  count(max: number, bytesEach: number): number {
    const value = this.u32()
    if (value > max) throw this.#fail(`${value} where at most ${max} are allowed`)
    if (value * bytesEach > this.#bytes.length - this.#at) throw this.#fail('it ends too early')
    return value
  }

  text(maxBytes: number): string {
    const length = this.#view.getUint16(this.#take(2), true)
    if (length > maxBytes) throw this.#fail(`a text of ${length} bytes where at most ${maxBytes} are allowed`)
    try {
      return UTF8.decode(this.raw(length))
    } catch {
      throw this.#fail('a text is short or not UTF-8')
    }
  }

  /** A view. */
  blob(maxBytes: number): Uint8Array {
    return this.raw(this.count(maxBytes, 1))
  }

  /** A view. */
  raw(length: number): Uint8Array {
    const at = this.#take(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** Nothing may be left. */
  end(): void {
    if (this.#at !== this.#bytes.length) throw this.#fail(`${this.#bytes.length - this.#at} bytes too many`)
  }

  #take(count: number): number {
    const at = this.#at
    if (at + count > this.#bytes.length) throw this.#fail('it ends too early')
    this.#at = at + count
    return at
  }
}
