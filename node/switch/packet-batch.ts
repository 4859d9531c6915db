/**
 * Packets that are to leave together, copied end to end as they come: what a NIC is read into is used again at once, and
 * what is written must stay as it is until the VM surely has it. One block holds many batches, one after the other, so
 * that a batch costs no memory of its own. Pure.
 */

/** A few writes of the largest size (nic.ts); a NIC that had traffic keeps one block. */
const BLOCK_BYTES = 256 * 1024

export class PacketBatch {
  #block: Uint8Array = new Uint8Array(0)
  #begin = 0
  #end = 0
  #packets: Uint8Array[] = []
  /** Places of foreign ones among the packets; undefined: there are none. */
  #foreign: Set<number> | undefined

  /** Those that a cut records. Each is a view of `bytes`. */
  get own(): readonly Uint8Array[] {
    return this.#packets.filter((_, place) => this.#foreign?.has(place) !== true)
  }

  /** Of all packets. */
  get length(): number {
    return this.#end - this.#begin
  }

  /** Appends a copy of `packet`, with 0 in its first byte, as QEMU has it. `foreign`: no cut records it. */
  push(packet: Uint8Array, foreign: boolean): void {
    if (this.#end + packet.length > this.#block.length) this.#makeRoom(packet.length)
    const at = this.#end
    this.#block.set(packet, at)
    this.#block[at] = 0
    this.#end += packet.length
    if (foreign) this.#foreign = (this.#foreign ?? new Set()).add(this.#packets.length)
    this.#packets.push(this.#block.subarray(at, this.#end))
  }

  /** Takes what is there; nothing changes it any more. */
  take(): {
    readonly packets: readonly Uint8Array[]
    readonly bytes: Uint8Array
    readonly foreign: ReadonlySet<number> | undefined
  } {
    const bytes = this.#block.subarray(this.#begin, this.#end)
    const taken = { packets: this.#packets, bytes, foreign: this.#foreign }
    this.#packets = []
    this.#foreign = undefined
    this.#begin = this.#end
    return taken
  }

  /** A new block, that begins with what is there. */
  #makeRoom(more: number): void {
    const [old, foreign] = [this.#packets, this.#foreign]
    const length = this.length
    this.#block = new Uint8Array(Buffer.allocUnsafeSlow(Math.max(BLOCK_BYTES, 2 * (length + more))).buffer)
    this.#begin = 0
    this.#end = 0
    this.#packets = []
    for (const packet of old) this.push(packet, false)
    this.#foreign = foreign
  }
}
