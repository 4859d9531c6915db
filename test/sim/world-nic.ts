/** The socket between a simulated VM and its peer's switch, in the place of `node/switch/link.ts`. */
import type { Clock } from '../../node/ports.ts'
import type { LinkEvents, VmLink } from '../../node/switch/link.ts'
import { joinPackets, toPacket } from '../../node/switch/ethernet.ts'
import { PacketCutter } from '../../node/switch/packets.ts'
import { type Batch, Untaken } from '../../node/switch/untaken.ts'
import { frameId } from './world-bank.ts'
import type { Life } from './world-host.ts'

/** As `link.ts` has it. */
const QUIET_TURNS = 2
/** What a socket holds: a dozen of the bank's frames. */
const SOCKET_BYTES = 512
/** Places in a batch of one. */
const ALL = new Set([0])
/** How often the host has no time for a guest's QEMU, and for how long at most. */
const STARVES = 0.05
const STARVED_MS = 50

/** The VM's end. */
export interface Plug {
  /** Whether the VM takes frames now. */
  takes(): boolean
  take(frame: Uint8Array): void
}

export class SimLink implements VmLink {
  readonly path: string
  readonly #life: Life
  readonly #clock: Clock
  readonly #events: LinkEvents
  #plug: Plug | undefined
  #closed = false
  /** On their way from the VM. */
  #out: Uint8Array[] = []
  /** On their way to it. */
  #in: Batch[] = []
  /** Of them, those that the socket has: the first, so many bytes. */
  #socketBytes = 0
  #untaken = new Untaken(SOCKET_BYTES)
  /** Ids of what `recent` said last. */
  told: ReadonlySet<number> = new Set()
  #reading = false
  #giving = false

  constructor(path: string, life: Life, clock: Clock, events: LinkEvents) {
    this.path = path
    this.#life = life
    this.#clock = clock
    this.#events = events
    life.paths.set(path, this)
  }

  /** The VM connects. */
  connect(plug: Plug): void {
    this.#life.after(0.1, 'io', 'NIC connects', () => {
      if (this.#closed) return
      this.#plug = plug
      this.#events.writable(true)
    })
  }

  disconnect(plug: Plug): void {
    if (this.#plug !== plug) return
    this.#plug = undefined
    this.#empty()
    this.#life.enter('io', 'NIC gone', () => this.#events.writable(false))
  }

  /** A frame of the VM. */
  send(frame: Uint8Array): void {
    if (this.#closed) return
    this.#out.push(toPacket(frame))
    if (this.#reading) return
    this.#reading = true
    this.#life.after(this.#life.host.kernel.between(0.02, 0.4), 'io', 'NIC is read', () => this.#read())
  }

  #read(): void {
    this.#reading = false
    const packets = this.#out.splice(0)
    if (packets.length === 0 || this.#plug === undefined || this.#closed) return
    const chunk = joinPackets(
      packets,
      packets.reduce((sum, { length }) => sum + length, 0)
    )
    new PacketCutter().push(chunk, packet => this.#events.packet(packet))
  }

  // ------------------------------------------------------------------------------------------ the switch's end

  write(
    packets: readonly Uint8Array[],
    bytes: number,
    joined = joinPackets(packets, bytes),
    foreign?: ReadonlySet<number>
  ): void {
    if (this.#plug === undefined || this.#closed) return
    let place = 0
    new PacketCutter().push(joined, packet => {
      const written = this.#untaken.write(packet, this.#clock.now(), foreign?.has(place++) ? ALL : undefined)
      this.#in.push(written)
      this.#fill()
      if (written.flushedMs === undefined) this.#untaken.waits(written)
    })
    this.give()
  }

  /** The socket takes what there is room for. */
  #fill(): void {
    for (const written of this.#in) {
      if (written.flushedMs !== undefined) continue
      if (this.#socketBytes + written.bytes.length > SOCKET_BYTES) return
      this.#socketBytes += written.bytes.length
      this.#untaken.flushed(written, this.#clock.now())
    }
  }

  /** Lets the VM take what has come, a moment later. */
  give(): void {
    if (this.#giving || this.#in.length === 0) return
    this.#giving = true
    const { host } = this.#life
    const { kernel } = host
    host.hardware(
      kernel.chance(STARVES) ? kernel.between(1, STARVED_MS) : kernel.between(0.05, 0.6),
      () => `${host.name} guest takes frames`,
      () => {
        this.#giving = false
        const plug = this.#plug
        while (plug?.takes() && this.#in.length > 0) this.#take(plug)
      }
    )
  }

  #take(plug: Plug): void {
    const { bytes } = this.#in.shift() as Batch
    this.#socketBytes -= bytes.length
    this.#fill()
    plug.take(bytes.subarray(4))
  }

  recent(nowMs: number): Uint8Array[] {
    const packets = this.#untaken.packets(nowMs)
    this.told = new Set(packets.map(packet => frameId(packet.subarray(4))))
    return packets
  }

  stoodStill(fromMs: number, toMs: number): void {
    this.#untaken.stoodStill(fromMs, toMs)
  }

  async drained(): Promise<void> {
    for (let quiet = 0; quiet < QUIET_TURNS; ) {
      const before = this.#out.length
      await this.#life.wait(0.05, 'drains')
      if (this.#plug === undefined || this.#closed) return
      quiet = before === 0 && this.#out.length === 0 ? quiet + 1 : 0
      if (this.#out.length > 0) this.#read()
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#out = []
    this.#empty()
    if (this.#life.paths.get(this.path) === this) this.#life.paths.delete(this.path)
  }

  #empty(): void {
    this.#in = []
    this.#socketBytes = 0
    this.#untaken = new Untaken(SOCKET_BYTES)
  }
}
