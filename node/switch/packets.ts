/**
 * Cuts the byte stream of QEMU's `-netdev stream` (QEMU 7.2, net/stream.c: u32 big-endian length, then the frame) into
 * packets. A packet that lies in one chunk is a view of that chunk; only one that is split over chunks is copied. Pure.
 */
import { MAX_FRAME_BYTES } from '../../protocols/frames/records.ts'
import { DiapauseError } from '../errors.ts'
import { PREFIX_BYTES } from './ethernet.ts'

export class PacketCutter {
  readonly #prefix = new Uint8Array(PREFIX_BYTES)
  #prefixFilled = 0
  /** The split packet, as long as it will be, or undefined. */
  #split: Uint8Array | undefined
  #splitFilled = 0

  /** True in the middle of a packet. */
  get partial(): boolean {
    return this.#prefixFilled > 0 || this.#split !== undefined
  }

  /** Calls `emit` for every whole packet. Throws NIC_FRAMING on an impossible length: the stream is then beyond repair. */
  push(chunk: Uint8Array, emit: (packet: Uint8Array) => void): void {
    let at = this.partial ? this.#fill(chunk, emit) : 0
    while (at < chunk.length) {
      const left = chunk.length - at
      if (left < PREFIX_BYTES) {
        this.#prefix.set(chunk.subarray(at))
        this.#prefixFilled = left
        return
      }
      const size = PREFIX_BYTES + frameLength(chunk, at)
      if (left < size) {
        this.#split = new Uint8Array(size)
        this.#split.set(chunk.subarray(at))
        this.#splitFilled = left
        return
      }
      emit(chunk.subarray(at, at + size))
      at += size
    }
  }

  /** Goes on with what an earlier chunk began; the result is how much of this one that took. */
  #fill(chunk: Uint8Array, emit: (packet: Uint8Array) => void): number {
    let at = 0
    if (this.#split === undefined) {
      at = Math.min(PREFIX_BYTES - this.#prefixFilled, chunk.length)
      this.#prefix.set(chunk.subarray(0, at), this.#prefixFilled)
      this.#prefixFilled += at
      if (this.#prefixFilled < PREFIX_BYTES) return at
      this.#split = new Uint8Array(PREFIX_BYTES + frameLength(this.#prefix, 0))
      this.#split.set(this.#prefix)
      this.#splitFilled = PREFIX_BYTES
      this.#prefixFilled = 0
    }
    const count = Math.min(this.#split.length - this.#splitFilled, chunk.length - at)
    this.#split.set(chunk.subarray(at, at + count), this.#splitFilled)
    this.#splitFilled += count
    if (this.#splitFilled === this.#split.length) {
      const packet = this.#split
      this.#split = undefined
      emit(packet)
    }
    return at + count
  }
}

function frameLength(bytes: Uint8Array, at: number): number {
  const length =
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  if (length === 0 || length > MAX_FRAME_BYTES) {
    throw new DiapauseError(
      'NIC_FRAMING',
      `the VM's NIC stream announces a frame of ${length} bytes (1 to ${MAX_FRAME_BYTES} are possible); the VM has to be restarted`
    )
  }
  return length
}
