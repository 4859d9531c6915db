/**
 * What was given to a VM's NIC and may not have been taken. Pure. A cut records it, so that nothing is lost; what the VM
 * had taken nevertheless comes twice after a restore, which Ethernet allows.
 *
 * Taken means: in the guest's RAM, and so in the image. Of a frame's way to the guest that is so from the virtio ring on,
 * also where the guest's vCPU is starved and looks there much later: ring, buffer and the interrupt that is due are RAM and
 * device state. Before the ring a frame lies in this process, then in the kernel's socket, then in QEMU's read buffer. Of
 * the first we know when it ends: the write is done. Of the others nobody tells: the kernel says how much of a unix socket
 * is unread by ioctl or netlink only, which Node has not, and QEMU not at all. What is known is
 *
 *   - how much they can hold: whatever was followed by more than that has been taken;
 *   - that QEMU reads a socket at once while the guest's ring has room and QEMU gets a CPU. So after `RECENT_MS` a frame counts as
 *     taken. The time runs from when the kernel got it: in this process it may have waited long;
 *   - that it does not read, or slowly, where the kernel takes a write later than it was asked to. Then age says nothing, and
 *     only what was followed by enough others counts as taken, until a reader of that pace must have come to the end.
 *
 * So what this cannot know is lost where the guest takes nothing for longer than RECENT_MS and less was sent to it than
 * fills a socket. (What QEMU has read and the ring has no room for, QEMU drops at every stop, as a network card does.)
 */
import type { Lent } from './packet-batch.ts'
import { PacketCutter } from './packets.ts'

/**
 * A guess: some time slices of a host that runs many times more than it has CPUs for. 10 ms was too little. Longer makes no
 * fast stream come twice: from 4 MB/s on, what the socket holds is the bound.
 */
const RECENT_MS = 100
/**
 * The kernel takes more when three quarters of its buffer have been read (unix_writable, net/unix/af_unix.c). It and QEMU
 * together hold up to 2.5 times as much, which the same reader needs so many times as long for.
 */
const TIMES_THE_WAIT = 3
/** A reader that was not there for long, as before a guest has a driver, is not a slow one when it comes. A guess. */
const SLOW_MS = 10_000

/** Packets end to end, written at once. */
export interface Batch {
  readonly bytes: Uint8Array
  /** Places of packets that no cut records. */
  readonly foreign: ReadonlySet<number> | undefined
  readonly writtenMs: number
  /** When the kernel had all of it. */
  flushedMs: number | undefined
  /** The kernel had no room for all of it at once. */
  waits: boolean
  /** Whose `bytes` are. */
  readonly block: Lent | undefined
}

export class Untaken {
  /** Of kernel and QEMU. */
  readonly #holdBytes: number
  #batches: Batch[] = []
  /** Of those that the kernel has. */
  #flushedBytes = 0
  /** Batches that the kernel has no room for. */
  #waiting = 0
  /** Until then, age says nothing. */
  #slowUntilMs = Number.NEGATIVE_INFINITY

  /** `holdBytes`: of what was written, so much can be under way between this process and the guest's RAM. */
  constructor(holdBytes: number) {
    this.#holdBytes = holdBytes
  }

  /** `bytes` are written now, and stay as they are; if of a `block`, until it is left, which is done here. */
  write(bytes: Uint8Array, nowMs: number, foreign: ReadonlySet<number> | undefined, block?: Lent): Batch {
    this.#forget(nowMs)
    const batch = { bytes, foreign, writtenMs: nowMs, flushedMs: undefined, waits: false, block }
    this.#batches.push(batch)
    return batch
  }

  /** The kernel has not taken all of it at once. */
  waits(batch: Batch): void {
    batch.waits = true
    this.#waiting++
  }

  /** The kernel has all of it: batches come in their order. */
  flushed(batch: Batch, nowMs: number): void {
    batch.flushedMs = nowMs
    this.#flushedBytes += batch.bytes.length
    if (!batch.waits) return
    this.#waiting--
    const readMs = TIMES_THE_WAIT * (nowMs - batch.writtenMs)
    this.#slowUntilMs = Math.max(this.#slowUntilMs, nowMs + Math.min(readMs, SLOW_MS))
  }

  /** Packets of the group that may not have been taken by `nowMs`, when the last was written; oldest first. Valid for now. */
  packets(nowMs: number): Uint8Array[] {
    this.#forget(nowMs)
    const packets: Uint8Array[] = []
    for (const { bytes, foreign } of this.#batches) {
      let place = 0
      new PacketCutter().push(bytes, packet => {
        if (foreign?.has(place++) !== true) packets.push(packet)
      })
    }
    return packets
  }

  /** The VM was not to run between the two: it has taken nothing meanwhile. */
  stoodStill(fromMs: number, toMs: number): void {
    for (const batch of this.#batches) {
      if (batch.flushedMs !== undefined) batch.flushedMs += toMs - Math.max(fromMs, batch.flushedMs)
    }
    this.#slowUntilMs += toMs - fromMs
  }

  #forget(nowMs: number): void {
    const slow = this.#waiting > 0 || nowMs <= this.#slowUntilMs
    for (let first = this.#batches[0]; first?.flushedMs !== undefined; first = this.#batches[0]) {
      const followed = this.#flushedBytes - first.bytes.length >= this.#holdBytes
      if (!followed && (slow || nowMs - first.flushedMs <= RECENT_MS)) return
      this.#batches.shift()
      this.#flushedBytes -= first.bytes.length
      first.block?.leave()
    }
  }
}
