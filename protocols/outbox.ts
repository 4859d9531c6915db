import { FRAME_HEADER_BYTES, frameHeader } from './stream.ts'

interface Outsider {
  readonly parts: readonly Uint8Array[]
  readonly length: number
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

/**
 * Messages that wait for one stream, as the bytes they will be on it. Bounded: above `limitBytes` the box is `full`, and
 * whoever must not lose a message queues up outside (`enqueue`), in order, so that no message overtakes an earlier one.
 */
export class Outbox {
  readonly #limitBytes: number
  #pieces: Uint8Array[] = []
  #first = 0
  #offset = 0
  #bytes = 0
  #outside: Outsider[] = []

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  get full(): boolean {
    return this.#bytes >= this.#limitBytes || this.#outside.length > 0
  }

  /** `parts` together are one message of `length` bytes; they must not change any more. */
  push(parts: readonly Uint8Array[], length: number): void {
    this.#pieces.push(frameHeader(length))
    for (const part of parts) if (part.length > 0) this.#pieces.push(part)
    this.#bytes += FRAME_HEADER_BYTES + length
  }

  /** As `push`, as soon as there is room. */
  enqueue(parts: readonly Uint8Array[], length: number): Promise<void> {
    if (this.full) return new Promise((resolve, reject) => this.#outside.push({ parts, length, resolve, reject }))
    this.push(parts, length)
    return Promise.resolve()
  }

  /** The next bytes, at most `maxBytes`: a view where one piece is enough, else one copy. Lets in who waits. */
  take(maxBytes: number): Uint8Array {
    const want = Math.min(maxBytes, this.#bytes)
    const head = this.#pieces[this.#first]
    let taken: Uint8Array
    if (head !== undefined && head.length - this.#offset >= want) {
      taken = head.subarray(this.#offset, this.#offset + want)
      this.#advance(head, want)
    } else {
      const joined = Buffer.allocUnsafe(want)
      let at = 0
      while (at < want) {
        const piece = this.#pieces[this.#first] as Uint8Array
        const count = Math.min(piece.length - this.#offset, want - at)
        joined.set(piece.subarray(this.#offset, this.#offset + count), at)
        at += count
        this.#advance(piece, count)
      }
      taken = joined
    }
    this.#bytes -= want
    while (this.#bytes < this.#limitBytes && this.#outside.length > 0) {
      const next = this.#outside.shift() as Outsider
      this.push(next.parts, next.length)
      next.resolve()
    }
    return taken
  }

  /** Rejects all who wait; the outbox is not used again. */
  close(error: Error): void {
    this.#pieces = []
    this.#bytes = 0
    this.#first = 0
    this.#offset = 0
    for (const waiter of this.#outside.splice(0)) waiter.reject(error)
  }

  #advance(piece: Uint8Array, count: number): void {
    this.#offset += count
    if (this.#offset < piece.length) return
    this.#pieces[this.#first] = EMPTY
    this.#first++
    this.#offset = 0
    if (this.#first >= 1024 || this.#first === this.#pieces.length) {
      this.#pieces = this.#pieces.slice(this.#first)
      this.#first = 0
    }
  }
}

const EMPTY = new Uint8Array(0)
