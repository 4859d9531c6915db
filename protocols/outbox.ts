import { FRAME_HEADER_BYTES, frameHeader } from './stream.ts'

/** Asked when the first byte of a message is to leave; where it says no the message is taken out and never leaves. */
export type Leaves = () => boolean

interface Guarded {
  /** Of the message: its first piece. */
  readonly header: Uint8Array
  readonly pieces: number
  readonly leaves: Leaves
}

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
  /** The messages that somebody is to be asked about, in order. */
  #guarded: Guarded[] = []
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
  push(parts: readonly Uint8Array[], length: number, leaves?: Leaves): void {
    const header = frameHeader(length)
    const before = this.#pieces.length
    this.#pieces.push(header)
    for (const part of parts) if (part.length > 0) this.#pieces.push(part)
    if (leaves !== undefined) this.#guarded.push({ header, pieces: this.#pieces.length - before, leaves })
    this.#bytes += FRAME_HEADER_BYTES + length
  }

  /** As `push`, as soon as there is room. */
  enqueue(parts: readonly Uint8Array[], length: number): Promise<void> {
    if (this.full) return new Promise((resolve, reject) => this.#outside.push({ parts, length, resolve, reject }))
    this.push(parts, length)
    return Promise.resolve()
  }

  /** The next bytes, at most `maxBytes`, or none where no message may leave: a view where one piece is enough, else one copy. */
  take(maxBytes: number): Uint8Array {
    const views: Uint8Array[] = []
    let bytes = 0
    while (bytes < maxBytes) {
      const piece = this.#pieces[this.#first]
      if (piece === undefined) break
      if (piece === this.#guarded[0]?.header && this.#refused()) continue
      const count = Math.min(piece.length - this.#offset, maxBytes - bytes)
      views.push(piece.subarray(this.#offset, this.#offset + count))
      bytes += count
      this.#advance(piece, count)
    }
    while (this.#bytes < this.#limitBytes && this.#outside.length > 0) {
      const next = this.#outside.shift() as Outsider
      this.push(next.parts, next.length)
      next.resolve()
    }
    return views.length === 1 ? (views[0] as Uint8Array) : Buffer.concat(views, bytes)
  }

  /** Rejects all who wait; the outbox is not used again. */
  close(error: Error): void {
    this.#pieces = []
    this.#bytes = 0
    this.#first = 0
    this.#offset = 0
    this.#guarded = []
    for (const waiter of this.#outside.splice(0)) waiter.reject(error)
  }

  /** Asks about the message that is next; true: it is gone. */
  #refused(): boolean {
    const next = this.#guarded.shift()
    if (next === undefined || next.leaves()) return false
    for (let left = next.pieces; left > 0; left--) {
      const piece = this.#pieces[this.#first] as Uint8Array
      this.#advance(piece, piece.length)
    }
    return true
  }

  #advance(piece: Uint8Array, count: number): void {
    this.#bytes -= count
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
