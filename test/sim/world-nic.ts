/** The socket between a simulated VM and its peer's switch, in the place of `node/switch/link.ts`. */
import type { Clock } from '../../node/ports.ts'
import type { LinkEvents, VmLink } from '../../node/switch/link.ts'
import { joinPackets, toPacket } from '../../node/switch/ethernet.ts'
import { PacketCutter } from '../../node/switch/packets.ts'
import { frameId } from './world-bank.ts'
import type { Life } from './world-host.ts'

/** As `link.ts` has them. */
const RECENT_MS = 10
const QUIET_TURNS = 2

/** The VM's end. */
export interface Plug {
  /** Whether the VM takes frames now. */
  takes(): boolean
  take(frame: Uint8Array): void
}

interface Written {
  readonly atMs: number
  readonly packet: Uint8Array
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
  #in: Uint8Array[] = []
  #recent: Written[] = []
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
    this.#in = []
    this.#recent = []
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

  write(packets: readonly Uint8Array[], bytes: number): void {
    if (this.#plug === undefined || this.#closed) return
    const atMs = this.#clock.now()
    // One buffer, as on a socket: the packets of a batch are views of memory that goes away.
    new PacketCutter().push(joinPackets(packets, bytes), packet => {
      this.#in.push(packet.subarray(4))
      this.#recent.push({ atMs, packet })
    })
    this.give()
  }

  /** Lets the VM take what has come, a moment later. */
  give(): void {
    if (this.#giving || this.#in.length === 0) return
    this.#giving = true
    const { host } = this.#life
    host.hardware(
      host.kernel.between(0.05, 0.6),
      () => `${host.name} guest takes frames`,
      () => {
        this.#giving = false
        const plug = this.#plug
        while (plug?.takes() && this.#in.length > 0) plug.take(this.#in.shift() as Uint8Array)
      }
    )
  }

  recent(nowMs: number): Uint8Array[] {
    this.#recent = this.#recent.filter(({ atMs }) => nowMs - atMs <= RECENT_MS)
    this.told = new Set(this.#recent.map(({ packet }) => frameId(packet.subarray(4))))
    return this.#recent.map(({ packet }) => packet)
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
    this.#in = []
    this.#recent = []
    if (this.#life.paths.get(this.path) === this) this.#life.paths.delete(this.path)
  }
}
