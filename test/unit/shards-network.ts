/** An in-memory network of `Transport`s, with peers that die, fall silent, are slow or lose messages; and a cluster on it. */
import type { Channel, Codec, MessageHandler, ShardStore, StreamManifest, Transport } from '../../node/ports.ts'
import { createCodec } from '../../node/erasure/codec.ts'
import { encodeGrid } from '../../node/erasure/encode.ts'
import { gridDataBytes, gridShape, gridSymbolSizes } from '../../node/erasure/grid.ts'
import { type ClusterShards, createShardCluster, type ShardClusterOptions } from '../../node/shards/cluster.ts'
import { DiapauseError } from '../../node/errors.ts'
import { clock, type MemoryLog, memoryLog } from './store-support.ts'

export { MemoryStore } from './memory-store.ts'

export class Network {
  readonly #transports = new Map<string, FakeTransport>()
  readonly #dead = new Set<string>()
  /** Messages from these peers are kept back until `release`. */
  readonly #silent = new Map<string, (() => void)[]>()
  /** Milliseconds, or 'lose', for a message. */
  fate: (from: string, to: string) => number | 'lose' = () => 0

  transport(peer: string): FakeTransport {
    const transport = new FakeTransport(peer, this)
    this.#transports.set(peer, transport)
    return transport
  }

  connected(a: string, b: string): boolean {
    return a !== b && this.#transports.has(b) && !this.#dead.has(a) && !this.#dead.has(b)
  }

  kill(peer: string): void {
    this.#dead.add(peer)
    for (const other of this.#transports.values()) if (other.self !== peer) other.connection?.(peer, false)
  }

  revive(peer: string): void {
    this.#dead.delete(peer)
    for (const other of this.#transports.values()) if (other.self !== peer) other.connection?.(peer, true)
  }

  silence(peer: string): void {
    this.#silent.set(peer, [])
  }

  release(peer: string): void {
    const kept = this.#silent.get(peer) ?? []
    this.#silent.delete(peer)
    for (const deliver of kept) deliver()
  }

  deliver(from: string, to: string, message: Uint8Array): void {
    const fate = this.fate(from, to)
    if (fate === 'lose') return
    const arrive = (): void => {
      if (this.connected(from, to)) void this.#transports.get(to)?.handler?.(from, message)
    }
    const kept = this.#silent.get(from)
    if (kept !== undefined) kept.push(arrive)
    else if (fate === 0) setImmediate(arrive)
    else setTimeout(arrive, fate)
  }
}

export class FakeTransport implements Transport {
  readonly self: string
  readonly #network: Network
  handler: MessageHandler | undefined
  connection: ((peer: string, connected: boolean) => void) | undefined
  /** Messages and bytes sent, by receiver. */
  readonly sent = new Map<string, number>()

  constructor(self: string, network: Network) {
    this.self = self
    this.#network = network
  }

  connected(peer: string): boolean {
    return this.#network.connected(this.self, peer)
  }

  send(to: string, _channel: Channel, parts: readonly Uint8Array[]): boolean {
    if (!this.connected(to)) return false
    this.sent.set(to, (this.sent.get(to) ?? 0) + 1)
    this.#network.deliver(this.self, to, Buffer.concat(parts))
    return true
  }

  async write(to: string, channel: Channel, parts: readonly Uint8Array[]): Promise<void> {
    if (!this.send(to, channel, parts)) throw new DiapauseError('TRANSPORT_DISCONNECTED', `${to} is not connected`)
  }

  handle(_channel: Channel, handler: MessageHandler): void {
    this.handler = handler
  }

  onConnection(handler: (peer: string, connected: boolean) => void): void {
    this.connection = handler
  }

  async start(): Promise<void> {}
  async stop(): Promise<void> {}
}

export interface Peer {
  readonly id: string
  readonly transport: FakeTransport
  readonly store: ShardStore
  readonly shards: ClusterShards
  readonly log: MemoryLog
}

export const codec: Codec = createCodec()

/** A cluster of peers p0, p1, … */
export function cluster(
  stores: readonly ShardStore[],
  more: Partial<Pick<ShardClusterOptions, 'settings' | 'detector' | 'requestTimeoutMs' | 'repair'>> = {}
): { network: Network; peers: Peer[] } {
  const network = new Network()
  const ids = stores.map((_, i) => `p${i}`)
  const settings = { forcedTimeoutMs: 2_000 }
  const peers = stores.map((store, i) => {
    const log = memoryLog()
    const transport = network.transport(`p${i}`)
    const shards = createShardCluster({ transport, store, codec, clock, log, settings, peers: () => ids, ...more })
    return { id: `p${i}`, transport, store, shards, log }
  })
  return { network, peers }
}

/** Codes `data` and puts it from `peers[0]`. */
export async function ship(
  peers: readonly Pick<Peer, 'id' | 'shards'>[],
  data: Uint8Array,
  { k = 3, m = 2, symbolBytes = 256, stream = 'g/v/1/1' } = {}
): Promise<StreamManifest> {
  const holders = peers.map(({ id }) => id)
  const shape = gridShape({ columns: holders.length, k, m, symbolBytes })
  const grids: { symbolBytes: number; hashes: Uint8Array }[] = []
  let at = 0
  for (const [grid, size] of gridSymbolSizes(shape, data.length).entries()) {
    const own = gridShape({ ...shape, symbolBytes: size })
    const { columns, hashes } = await encodeGrid(codec, own, data.subarray(at, at + gridDataBytes(own)))
    at += gridDataBytes(own)
    grids.push({ symbolBytes: size, hashes })
    await Promise.all(
      columns.map(async (bytes, c) => await peers[0]?.shards.putColumn({ stream, holders }, grid, c, bytes))
    )
  }
  return { stream, k, m, holders, dataBytes: data.length, grids }
}
