/**
 * Packets that are to leave together, copied end to end as they come: what a NIC is read into is used again at once, and
 * what is written must stay as it is until the VM surely has it. One block holds many batches, one after the other, so
 * that a batch costs no memory of its own; and a block is used again when nobody needs its batches any more. With new blocks
 * as fast as data comes, two thirds of a busy peer's time went to collecting old ones. Pure.
 */

/** A few writes of the largest size (nic.ts); a NIC that had traffic keeps some blocks. */
const BLOCK_BYTES = 256 * 1024
/** Kept for another time. What is under way to a VM at most (untaken.ts) takes two. */
const SPARE_BLOCKS = 3

/** Memory that is lent. */
export interface Lent {
  /** One batch in it is not needed any more: to be called once for each. Its bytes may change from now on. */
  leave(): void
}

class Block implements Lent {
  readonly bytes: Uint8Array
  readonly #spare: Block[]
  #batches = 0
  #filled = false

  constructor(length: number, spare: Block[]) {
    this.bytes = new Uint8Array(Buffer.allocUnsafeSlow(length).buffer)
    this.#spare = spare
  }

  lend(): void {
    this.#batches++
  }

  leave(): void {
    this.#batches--
    this.#spareIfUnused()
  }

  /** No more comes into it. */
  fill(): void {
    this.#filled = true
    this.#spareIfUnused()
  }

  reuse(): void {
    this.#filled = false
  }

  #spareIfUnused(): void {
    const isOfUse = this.bytes.length === BLOCK_BYTES && this.#spare.length < SPARE_BLOCKS
    if (this.#filled && this.#batches === 0 && isOfUse) this.#spare.push(this)
  }
}

export class PacketBatch {
  readonly #spare: Block[] = []
  #block = new Block(0, this.#spare)
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
    if (this.#end + packet.length > this.#block.bytes.length) this.#makeRoom(packet.length)
    const at = this.#end
    const { bytes } = this.#block
    bytes.set(packet, at)
    bytes[at] = 0
    this.#end += packet.length
    if (foreign) this.#foreign = (this.#foreign ?? new Set()).add(this.#packets.length)
    this.#packets.push(bytes.subarray(at, this.#end))
  }

  /** Takes what is there; nothing changes it until `block` is left. */
  take(): {
    readonly packets: readonly Uint8Array[]
    readonly bytes: Uint8Array
    readonly foreign: ReadonlySet<number> | undefined
    readonly block: Lent
  } {
    const block = this.#block
    block.lend()
    const bytes = block.bytes.subarray(this.#begin, this.#end)
    const taken = { packets: this.#packets, bytes, foreign: this.#foreign, block }
    this.#packets = []
    this.#foreign = undefined
    this.#begin = this.#end
    return taken
  }

  /** Another block, that begins with what is there. */
  #makeRoom(more: number): void {
    const [old, packets, foreign] = [this.#block, this.#packets, this.#foreign]
    const length = Math.max(BLOCK_BYTES, 2 * (this.length + more))
    const spare = length === BLOCK_BYTES ? this.#spare.pop() : undefined
    spare?.reuse()
    this.#block = spare ?? new Block(length, this.#spare)
    this.#begin = 0
    this.#end = 0
    this.#packets = []
    for (const packet of packets) this.push(packet, false)
    this.#foreign = foreign
    old.fill()
  }
}
