/**
 * One VM's NIC as a socket: QEMU (`-netdev stream,server=off,addr.type=unix`) connects, packets go both ways.
 *
 * Reading never pauses. When QEMU cannot write a whole packet and the VM is then stopped, QEMU 7.2 drops the rest of that
 * packet but not the memory of having written its beginning, and the stream is out of step for good (net/stream.c,
 * send_index; net/net.c, net_vm_change_state_handler). What cannot be sent on is dropped behind the reader instead.
 */
import { rm } from 'node:fs/promises'
import net from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { DiapauseError } from '../errors.ts'
import { readInto } from '../../protocols/read-into.ts'
import type { Clock } from '../ports.ts'
import { joinPackets } from './ethernet.ts'
import { PacketCutter } from './packets.ts'

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
/**
 * What was written so recently counts as perhaps not taken by the VM. 10 ms: a guess, longer than an inbound frame waits
 * for a running guest's vCPU.
 */
const RECENT_MS = 10
/** More than this cannot be under way: a unix socket holds 208 KiB (net.core.wmem_default), QEMU reads one frame at a time. */
const RECENT_BYTES = 256 * 1024
/** What one read may take: more than a unix socket holds (above). */
const READ_BYTES = 256 * 1024
/** How long the rest of a split packet may take after `stop`. QEMU has it in hand; a guess. */
const PARTIAL_MS = 20
/** Turns of the event loop without data that mean an empty socket: the first may be half over, the second polls once more. */
const QUIET_TURNS = 2

/** What a port asks of its NIC: `NicLink` in a peer, something simpler in a simulator. */
export type VmLink = Pick<NicLink, 'write' | 'recent' | 'drained' | 'close'>
export type OpenSocket = (path: string, clock: Clock, events: LinkEvents) => Promise<VmLink>
/** As NICs open one: what ends a burst is the same for all. */
export type OpenLink = (path: string, clock: Clock, events: Omit<LinkEvents, 'burst'>) => Promise<VmLink>

interface Written {
  readonly atMs: number
  /** Packets end to end. */
  readonly bytes: Uint8Array
  /** The kernel has it. */
  flushed: boolean
}

export class NicLink {
  readonly path: string
  readonly #clock: Clock
  readonly #events: LinkEvents
  readonly #server: net.Server
  #socket: net.Socket | undefined
  #cutter = new PacketCutter()
  #chunks = 0
  #recent: Written[] = []
  #recentBytes = 0

  private constructor(path: string, clock: Clock, events: LinkEvents) {
    this.path = path
    this.#clock = clock
    this.#events = events
    this.#server = net.createServer({ pauseOnConnect: true }, socket => this.#accept(socket))
  }

  /** Resolves when QEMU can connect to `path`; a stale socket file there is removed. NIC_LISTEN. */
  static async listen(path: string, clock: Clock, events: LinkEvents): Promise<NicLink> {
    const link = new NicLink(path, clock, events)
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
   * memory that stays as it is. Without a connection they are dropped.
   */
  write(packets: readonly Uint8Array[], bytes: number, joined = joinPackets(packets, bytes)): void {
    const socket = this.#socket
    if (socket === undefined) return
    const written: Written = { atMs: this.#clock.now(), bytes: joined, flushed: false }
    this.#forget(written.atMs)
    this.#recent.push(written)
    this.#recentBytes += bytes
    const takesMore = socket.write(joined, () => {
      written.flushed = true
    })
    if (!takesMore) this.#events.writable(false)
  }

  /** Packets that the VM may not have taken by `nowMs`, when it was last given any; oldest first. */
  recent(nowMs: number): Uint8Array[] {
    this.#forget(nowMs)
    const packets: Uint8Array[] = []
    for (const { bytes } of this.#recent) new PacketCutter().push(bytes, packet => packets.push(packet))
    return packets
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
      this.#recent = []
      this.#recentBytes = 0
      this.#events.writable(false)
    })
    this.#events.writable(true)
  }

  #forget(nowMs: number): void {
    for (let first = this.#recent[0]; first?.flushed; first = this.#recent[0]) {
      const tooMany = this.#recentBytes - first.bytes.length >= RECENT_BYTES
      if (!tooMany && nowMs - first.atMs <= RECENT_MS) return
      this.#recent.shift()
      this.#recentBytes -= first.bytes.length
    }
  }
}

/** Of all NICs: what was read is put away before anything else is read. */
const readBuffer = new Uint8Array(READ_BYTES)
