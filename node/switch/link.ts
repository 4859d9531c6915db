/**
 * One VM's NIC as a socket: QEMU (`-netdev stream,server=off,addr.type=unix`) connects, packets go both ways.
 *
 * Reading never pauses. When QEMU cannot write a whole packet and the VM is then stopped, QEMU 7.2 drops the rest of that
 * packet but not the memory of having written its beginning, and the stream is out of step for good (net/stream.c,
 * send_index; net/net.c, net_vm_change_state_handler). What cannot be sent on is dropped behind the reader instead.
 */
import { readFile, rm } from 'node:fs/promises'
import net from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError, hasCode } from '../errors.ts'
import { MAX_FRAME_BYTES } from '../../protocols/frames/records.ts'
import { readInto } from '../../protocols/read-into.ts'
import type { Clock } from '../ports.ts'
import { joinPackets } from './ethernet.ts'
import type { Lent } from './packet-batch.ts'
import { PacketCutter } from './packets.ts'
import { Untaken } from './untaken.ts'
import type { WaitingNic } from './waiting-nics.ts'

export interface LinkEvents {
  /** A packet from the VM: a view, valid during the call, whose bytes may be changed. */
  packet(packet: Uint8Array): void
  /** Whether QEMU is there and takes packets. Starts false. */
  writable(writable: boolean): void
  /** The stream was beyond repair and has been closed. */
  broken(error: unknown): void
  /** To call `cut`, in which the packets of one read come. */
  burst(cut: () => void): void
}

/** Bytes that may wait in this process for QEMU to read; beyond it `writable(false)`. A guess: a millisecond at 2 Gb/s. */
const WRITE_QUEUE_BYTES = 256 * 1024
/** One buffer of the kernel, which a unix socket takes beyond its limit (unix_stream_sendmsg: 32 KiB and a page). */
const SOCKET_EXCESS_BYTES = 36 * 1024
/** net.core.wmem_default, where it cannot be read: that of Linux on 64 bits. */
const USUAL_SOCKET_BYTES = 212_992
/** What QEMU 7.2 reads at once (net/net.h, NET_BUFSIZE); the frame before it may not be whole (SocketReadState). */
const QEMU_READ_BYTES = 4096 + 65_536
/** What one read may take: more than a unix socket holds (above). */
const READ_BYTES = 256 * 1024
/** How long the rest of a split packet may take after `stop`. QEMU has it in hand; a guess. */
const PARTIAL_MS = 20
/** Turns of the event loop without data that mean an empty socket: the first may be half over, the second polls once more. */
const QUIET_TURNS = 2

/** What a port asks of its NIC: `NicLink` in a peer, something simpler in a simulator. */
export type VmLink = Pick<NicLink, 'write' | 'recent' | 'stoodStill' | 'drained' | 'close'>
export type OpenSocket = (path: string, clock: Clock, events: LinkEvents, waiting?: WaitingNic) => Promise<VmLink>
/** As NICs open one: what ends a burst is the same for all. */
export type OpenLink = (path: string, clock: Clock, events: Omit<LinkEvents, 'burst'>) => Promise<VmLink>

export class NicLink {
  readonly path: string
  readonly #clock: Clock
  readonly #events: LinkEvents
  readonly #server: net.Server
  #socket: net.Socket | undefined
  #cutter = new PacketCutter()
  #chunks = 0
  readonly #holdBytes: number
  #untaken: Untaken

  private constructor(
    path: string,
    clock: Clock,
    events: LinkEvents,
    { holdBytes, server }: { holdBytes: number; server: net.Server }
  ) {
    this.path = path
    this.#clock = clock
    this.#holdBytes = holdBytes
    this.#untaken = new Untaken(holdBytes)
    this.#events = events
    this.#server = server.on('connection', socket => this.#accept(socket))
  }

  /** Resolves when QEMU can connect to `path`; a stale socket file there is removed. It may be `waiting` there. NIC_LISTEN. */
  static async listen(path: string, clock: Clock, events: LinkEvents, waiting?: WaitingNic): Promise<NicLink> {
    const holdBytes = (await socketBytes()) + QEMU_READ_BYTES + MAX_FRAME_BYTES
    const server = waiting?.server ?? net.createServer({ pauseOnConnect: true })
    const link = new NicLink(path, clock, events, { holdBytes, server })
    if (waiting !== undefined) {
      server.on('error', error => events.broken(error))
      if (waiting.socket?.destroyed === false) link.#accept(waiting.socket)
      return link
    }
    try {
      await rm(path, { force: true })
      await new Promise<void>((resolve, reject) => {
        link.#server.once('error', reject)
        link.#server.listen(path, () => {
          link.#server.off('error', reject)
          link.#server.on('error', error => events.broken(error))
          resolve()
        })
      })
    } catch (cause) {
      throw new DiapauseError('NIC_LISTEN', `cannot listen for a VM's NIC on ${path}: is the run directory there?`, {
        cause
      })
    }
    return link
  }

  /**
   * Writes packets, `bytes` in all, with one system call, and without a copy where they come `joined`, too: end to end in
   * memory that stays as it is, until its `block` is left. Without a connection they are dropped. `foreign`: places of those
   * that no cut records.
   */
  write(
    packets: readonly Uint8Array[],
    bytes: number,
    joined = joinPackets(packets, bytes),
    foreign?: ReadonlySet<number>,
    block?: Lent
  ): void {
    const socket = this.#socket
    if (socket === undefined) {
      block?.leave()
      return
    }
    const untaken = this.#untaken
    const batch = untaken.write(joined, this.#clock.now(), foreign, block)
    const takesMore = socket.write(joined, () => untaken.flushed(batch, this.#clock.now()))
    if (socket.writableLength > 0) untaken.waits(batch)
    if (!takesMore) this.#events.writable(false)
  }

  /** Packets of the group that the VM may not have taken by `nowMs`, when it was last given any; oldest first. */
  recent(nowMs: number): Uint8Array[] {
    return this.#untaken.packets(nowMs)
  }

  /** The VM was not to run between the two. */
  stoodStill(fromMs: number, toMs: number): void {
    this.#untaken.stoodStill(fromMs, toMs)
  }

  /** Settles when all that the stopped VM has sent was emitted. NIC_NOT_DRAINED where a packet's end does not come. */
  async drained(): Promise<void> {
    const deadlineMs = this.#clock.now() + PARTIAL_MS
    for (let quietTurns = 0; quietTurns < QUIET_TURNS; ) {
      const before = this.#chunks
      await nextTurn()
      if (this.#socket === undefined) return
      if (this.#chunks !== before) quietTurns = 0
      else if (!this.#cutter.partial) quietTurns++
      else {
        if (this.#clock.now() > deadlineMs) {
          throw new DiapauseError(
            'NIC_NOT_DRAINED',
            `the VM's NIC stopped in the middle of a frame (${this.path}); try the cut again`
          )
        }
        quietTurns = 0
        await new Promise<void>(resolve => this.#clock.after(1, resolve))
      }
    }
  }

  async close(): Promise<void> {
    this.#socket?.destroy()
    if (!this.#server.listening) return
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
  }

  #accept(accepted: net.Socket): void {
    if (this.#socket !== undefined) {
      accepted.destroy() // a NIC has one owner
      return
    }
    const cutter = new PacketCutter()
    const emit = (packet: Uint8Array): void => this.#events.packet(packet)
    const socket = readInto(readBuffer, accepted, WRITE_QUEUE_BYTES, chunk => {
      this.#chunks++
      try {
        this.#events.burst(() => cutter.push(chunk, emit))
      } catch (error) {
        if (!hasCode(error, 'NIC_FRAMING')) throw error // a mistake of ours, for which this VM is not to lose its NIC
        socket.destroy()
        this.#events.broken(error)
      }
    })
    socket.resume() // so that it sees the end
    this.#socket = socket
    this.#cutter = cutter
    socket.on('drain', () => this.#events.writable(true))
    socket.on('error', () => {}) // 'close' follows
    socket.on('close', () => {
      if (this.#socket !== socket) return
      this.#socket = undefined
      this.#untaken = new Untaken(this.#holdBytes)
      this.#events.writable(false)
    })
    this.#events.writable(true)
  }
}

/** Of all NICs: what was read is put away before anything else is read. */
const readBuffer = new Uint8Array(READ_BYTES)

/** What the kernel holds at most of what was written to a unix socket: measured, 18 KiB in frames of 64 bytes to 235 in large writes. */
async function socketBytes(): Promise<number> {
  const limit = await readFile('/proc/sys/net/core/wmem_default', 'utf8').catch(() => '')
  return (Number.parseInt(limit, 10) || USUAL_SOCKET_BYTES) + SOCKET_EXCESS_BYTES
}
