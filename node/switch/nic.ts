/** One NIC of a VM: its link to QEMU, and the packets that are to go there in this turn of the event loop. */
import type { Clock } from '../ports.ts'
import type { OpenLink, VmLink } from './link.ts'
import { PacketBatch } from './packet-batch.ts'

export interface NicEvents {
  /** A packet of the VM: a view, valid during the call. */
  packet(packet: Uint8Array): void
  /** `writable` or `stuck` may have changed. */
  changed(): void
  /** `flush` is to be called at the end of this turn of the event loop. */
  dirty(): void
  /** Whether packets may go to the VM at this moment. */
  mayAct(): boolean
  /** The stream was beyond repair and has been closed. */
  broken(error: unknown): void
}

/** Packets are written at the end of the turn, or when there are this many bytes of them. */
const FLUSH_BYTES = 128 * 1024
/** A VM that could read and has not for so long has no driver for this NIC, or hangs. A guess. */
const STUCK_MS = 1_000

export class Nic {
  readonly index: number
  readonly #clock: Clock
  readonly #events: NicEvents
  #link: VmLink | undefined
  #writable = false
  #reading = false
  #stuck = false
  #cancelStuck: () => void = () => {}
  #out = new PacketBatch()

  constructor(index: number, clock: Clock, events: NicEvents) {
    this.index = index
    this.#clock = clock
    this.#events = events
  }

  /** QEMU is there and takes packets. */
  get writable(): boolean {
    return this.#writable
  }

  /** QEMU has taken nothing for long, though the VM was to run. */
  get stuck(): boolean {
    return this.#stuck
  }

  async listen(path: string, openLink: OpenLink): Promise<void> {
    this.#link = await openLink(path, this.#clock, {
      packet: packet => this.#events.packet(packet),
      writable: writable => this.#setWritable(writable),
      broken: error => this.#events.broken(error)
    })
  }

  /** Whether the VM is to read: that it does not says nothing of it before. */
  setReading(reading: boolean): void {
    if (reading === this.#reading) return
    this.#reading = reading
    this.#watch()
  }

  /** The packet is copied. `foreign`: no cut records it. */
  push(packet: Uint8Array, foreign: boolean): void {
    if (this.#out.length === 0) this.#events.dirty()
    this.#out.push(packet, foreign)
    if (this.#out.length >= FLUSH_BYTES) this.flush()
  }

  /** Writes what was pushed since the last time, or keeps it where this peer may not act. */
  flush(): void {
    if (this.#out.length === 0 || !this.#events.mayAct()) return
    const { packets, bytes, foreign, block } = this.#out.take()
    this.#link?.write(packets, bytes.length, bytes, foreign, block)
  }

  /** Something waits for this peer to act again. */
  get holds(): boolean {
    return this.#out.length > 0
  }

  /** Packets of the group that the VM may not have taken by `nowMs`, when it was last given any; oldest first. */
  untaken(nowMs: number): Uint8Array[] {
    const written = this.#link?.recent(nowMs) ?? []
    return [...written, ...this.#out.own].map(packet => this.#addressed(packet))
  }

  /** The VM was not to run between the two. */
  stoodStill(fromMs: number, toMs: number): void {
    this.#link?.stoodStill(fromMs, toMs)
  }

  async drained(): Promise<void> {
    await this.#link?.drained()
  }

  async close(): Promise<void> {
    this.#cancelStuck()
    this.#out = new PacketBatch()
    await this.#link?.close()
  }

  /** As packets of this NIC. The bytes may be on their way to QEMU, or to another VM, and must stay as they are. */
  #addressed(packet: Uint8Array): Uint8Array {
    if (packet[0] === this.index) return packet
    const copy = Uint8Array.from(packet)
    copy[0] = this.index
    return copy
  }

  #setWritable(writable: boolean): void {
    this.#writable = writable
    this.#watch()
    this.#events.changed()
  }

  #watch(): void {
    this.#stuck = false
    this.#cancelStuck()
    if (this.#writable || !this.#reading) return
    this.#cancelStuck = this.#clock.after(STUCK_MS, () => {
      this.#stuck = true
      this.#events.changed()
    })
  }
}
