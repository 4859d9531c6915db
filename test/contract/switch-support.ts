/** Fake VMs (unix sockets that speak `-netdev stream`) and an in-memory transport, for tests of the switch. */
import { once } from 'node:events'
import net from 'node:net'
import { toPacket } from '../../node/switch/ethernet.ts'
import { PacketCutter } from '../../node/switch/packets.ts'
import type { Channel, FrameLog, MessageHandler, NicPort, Transport } from '../../node/ports.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'

export const macOf = (vm: string, nic = 0): string =>
  `52:54:00:00:0${nic}:${vm.charCodeAt(0).toString(16).padStart(2, '0')}`
export const BROADCAST = '*'
/** A VM by its letter, `b1` for the second NIC of VM b, or everybody. */
const macBytes = (name: string): Buffer =>
  name === BROADCAST
    ? Buffer.alloc(6, 0xff)
    : Buffer.from(macOf(name[0] as string, Number(name[1] ?? 0)).replaceAll(':', ''), 'hex')

/** An Ethernet frame from VM to VM that carries `id`. */
export function frameOf(from: string, to: string, id: number, bytes = 64): Uint8Array {
  const frame = Buffer.alloc(bytes)
  frame.set(macBytes(to), 0)
  frame.set(macBytes(from), 6)
  frame.writeUInt16BE(0x88b5, 12) // IEEE 802: local experimental
  frame.writeUInt32BE(id, 14)
  return frame
}

export const idOf = (frame: Uint8Array): number => Buffer.from(frame).readUInt32BE(14)

/**
 * `nics`: networks of the VMs that have more than one NIC, or another network than the default; `group`: its name;
 * `news`: what the record says of the group otherwise.
 */
export function recordOf(
  owners: Record<string, PeerId>,
  generation = 1,
  {
    nics = {},
    group = 'bank',
    news = {}
  }: { nics?: Record<string, readonly string[]>; group?: string; news?: Partial<GroupRecord> } = {}
): GroupRecord {
  const vms = Object.keys(owners).map(id => {
    const networks = nics[id]?.map((network, nic) => ({ mac: macOf(id, nic), network }))
    const cards = networks === undefined ? { mac: macOf(id) } : { nics: networks }
    return { id, ...cards, memoryMiB: 64, kernel: '', initrd: '', append: '' }
  })
  const version = generation
  const epochs = { lastEpoch: 0, open: null, committed: null, removed: false }
  return { id: group, version, generation, vms, owners, ...epochs, ...news }
}

/** The VM's end of a NIC. */
export class FakeVm {
  readonly id: string
  readonly received: Uint8Array[] = []
  readonly socket: net.Socket
  /** Called for every frame received. */
  onFrame: ((frame: Uint8Array) => void) | undefined

  private constructor(id: string, socket: net.Socket) {
    this.id = id
    this.socket = socket
    const cutter = new PacketCutter()
    socket.on('data', chunk =>
      cutter.push(chunk, packet => {
        const frame = packet.slice(4)
        this.received.push(frame)
        this.onFrame?.(frame)
      })
    )
    socket.on('error', () => {})
  }

  static async connect(id: string, nicPath: string): Promise<FakeVm> {
    const socket = net.connect(nicPath)
    await once(socket, 'connect')
    return new FakeVm(id, socket)
  }

  get ids(): number[] {
    return this.received.map(idOf)
  }

  send(frame: Uint8Array): void {
    this.socket.write(toPacket(frame))
  }

  close(): void {
    this.socket.destroy()
  }
}

const RARP = 0x8035
const isAnnouncement = (frame: Uint8Array): boolean => Buffer.from(frame).readUInt16BE(12) === RARP

/** Ids of what `vm` has got, announcements aside. */
export const heard = (vm: FakeVm | undefined): number[] =>
  (vm?.received ?? []).filter(frame => !isAnnouncement(frame)).map(idOf)

/** Addresses that were announced to `vm`. */
export const announcedTo = (vm: FakeVm): string[] =>
  vm.received
    .filter(isAnnouncement)
    .map(frame => (Buffer.from(frame).toString('hex', 6, 12).match(/../g) ?? []).join(':'))

/** Ids of the frames in a log, which is read by that. */
export async function idsIn(log: FrameLog): Promise<number[]> {
  const ids: number[] = []
  const cutter = new PacketCutter()
  for await (const piece of log.pieces()) cutter.push(piece, packet => ids.push(idOf(packet.subarray(4))))
  return ids
}

/** Frames as a log gives them. */
export async function* pieceOf(...frames: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(Buffer.concat(frames.map(toPacket)))
}

export async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise(resolve => setTimeout(resolve, 1))
}

/** Lets everything that was written travel: for statements that something does not come. */
export async function quiet(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise(resolve => setImmediate(resolve))
}

/** Transports of peers in one process: in order, whole, a turn of the event loop (or `delay` of them) later. */
export class MemoryNetwork {
  readonly #peers = new Map<PeerId, MemoryTransport>()
  readonly #broken = new Set<string>()
  /** Turns of the event loop that a message is under way. */
  delayTurns: () => number = () => 1
  /** Messages stay where they are. */
  stopped = false
  /** Asked for each message; false: no room. */
  hasRoom: (from: PeerId, to: PeerId) => boolean = () => true

  transport(self: PeerId): Transport {
    const transport = new MemoryTransport(self, this)
    this.#peers.set(self, transport)
    return transport
  }

  connected(from: PeerId, to: PeerId): boolean {
    return from !== to && this.#peers.has(to) && !this.#broken.has([from, to].sort().join())
  }

  /** What is under way between the two is lost. */
  setConnected(a: PeerId, b: PeerId, connected: boolean): void {
    const pair = [a, b].sort().join()
    if (connected) this.#broken.delete(pair)
    else this.#broken.add(pair)
    this.#peers.get(a)?.change(b, connected)
    this.#peers.get(b)?.change(a, connected)
  }

  deliver(from: PeerId, to: PeerId, channel: Channel, message: Uint8Array): void {
    this.#peers.get(to)?.receive(from, channel, message)
  }
}

interface Wire {
  readonly queue: { readonly channel: Channel; readonly message: Uint8Array; readonly leaves: () => boolean }[]
  busy: boolean
}

class MemoryTransport implements Transport {
  readonly self: PeerId
  readonly #network: MemoryNetwork
  readonly #handlers = new Map<Channel, MessageHandler>()
  readonly #onConnection: ((peer: PeerId, connected: boolean) => void)[] = []
  readonly #links = new Map<PeerId, Wire>()

  constructor(self: PeerId, network: MemoryNetwork) {
    this.self = self
    this.#network = network
  }

  connected(peer: PeerId): boolean {
    return this.#network.connected(this.self, peer)
  }

  send(to: PeerId, channel: Channel, parts: readonly Uint8Array[], leaves = (): boolean => true): boolean {
    if (!this.connected(to) || !this.#network.hasRoom(this.self, to)) return false
    const link = this.#link(to)
    link.queue.push({ channel, message: Buffer.concat(parts), leaves })
    if (!link.busy) void this.#run(to, link)
    return true
  }

  async write(to: PeerId, channel: Channel, parts: readonly Uint8Array[]): Promise<void> {
    if (!this.send(to, channel, parts)) throw new Error('TRANSPORT_DISCONNECTED')
  }

  handle(channel: Channel, handler: MessageHandler): void {
    this.#handlers.set(channel, handler)
  }

  onConnection(handler: (peer: PeerId, connected: boolean) => void): void {
    this.#onConnection.push(handler)
  }

  async start(): Promise<void> {}
  async stop(): Promise<void> {}

  receive(from: PeerId, channel: Channel, message: Uint8Array): void {
    void this.#handlers.get(channel)?.(from, message)
  }

  change(peer: PeerId, connected: boolean): void {
    if (!connected) this.#link(peer).queue.length = 0
    for (const handler of this.#onConnection) handler(peer, connected)
  }

  #link(to: PeerId): Wire {
    let link = this.#links.get(to)
    if (link === undefined) {
      link = { queue: [], busy: false }
      this.#links.set(to, link)
    }
    return link
  }

  async #run(to: PeerId, link: Wire): Promise<void> {
    link.busy = true
    while (link.queue.length > 0) {
      for (let turn = this.#network.delayTurns(); turn > 0 || this.#network.stopped; turn--) {
        await new Promise(resolve => setImmediate(resolve))
      }
      const next = link.queue.shift()
      if (next === undefined || !this.connected(to) || !next.leaves()) continue
      this.#network.deliver(this.self, to, next.channel, next.message)
    }
    link.busy = false
  }
}

/** Stop, drain, turn, as the snapshot agent does; a fake VM "stands still" by sending nothing meanwhile. */
export async function cut(nic: NicPort, epoch: number): Promise<Readonly<Record<string, number>>> {
  await nic.hold()
  await nic.drained()
  const counts = await nic.turn(epoch)
  await nic.release()
  return counts
}
