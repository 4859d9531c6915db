/**
 * Peers with real shard clusters (service, fetcher, reader, holders) on a network and a clock of this process: time passes only
 * when nothing is left to do, so that delays are those of the model below and not of this machine, and runs repeat.
 */
import { createCodec } from '../../node/erasure/codec.ts'
import type { Clock, Codec, StreamManifest } from '../../node/ports.ts'
import { createShardCluster } from '../../node/shards/cluster.ts'
import type { Random } from '../../protocols/core.ts'
import { EventQueue } from '../sim/swim-queue.ts'
import { type FakeTransport, MemoryStore, Network, type Peer, ship } from '../unit/shards-network.ts'
import { memoryLog } from '../unit/store-support.ts'

/**
 * What a message takes: a fixed part, a random one (exponential, with this mean), and its bytes at this rate. A read of a symbol of
 * 64 KiB takes 2.3 ms on average then, the slowest of a hundred 6 ms. Guesses: a LAN of 1 Gbit/s and disks without seeks.
 */
const FIXED_MS = 0.25
const RANDOM_MS = 0.6
const BYTES_A_MS = 125_000
const SLOW = 10

export type Fault = 'slow' | 'hung' | 'gone'

/** Virtual time, and codecs whose real work it waits for. */
export class VirtualTime implements Clock {
  readonly #queue = new EventQueue()
  #nowMs = 0
  #coding = 0

  now(): number {
    return this.#nowMs
  }

  after(ms: number, fn: () => void): () => void {
    let due = true
    if (ms !== Infinity) this.#queue.push(this.#nowMs + ms, () => due && fn())
    return () => {
      due = false
    }
  }

  codec(): Codec {
    const codec = createCodec()
    // One after the other: which of two threads is done first is chance.
    let last = Promise.resolve()
    const counted = async (work: () => Promise<void>): Promise<void> => {
      this.#coding++
      const mine = last.then(work)
      last = mine.catch(() => {})
      try {
        await mine
      } finally {
        this.#coding--
      }
    }
    return {
      encode: (...args) => counted(() => codec.encode(...args)),
      decode: (...args) => counted(() => codec.decode(...args))
    }
  }

  /** Lets time pass until it settles. */
  async passUntil<T>(work: Promise<T>): Promise<T> {
    let settled = false
    const end = (): void => {
      settled = true
    }
    work.then(end, end)
    for (;;) {
      // Ticks come when no microtask is left.
      await new Promise<void>(resolve => process.nextTick(resolve))
      if (settled) return await work
      const event = this.#coding > 0 ? undefined : this.#queue.pop()
      if (event === undefined) {
        await new Promise(setImmediate)
        continue
      }
      this.#nowMs = event.atMs
      event.run()
    }
  }
}

/** A network whose messages take time, and more of it from a faulty peer. */
class DelayingNetwork extends Network {
  readonly #ends = new Map<string, FakeTransport>()
  readonly #time: VirtualTime
  readonly #random: Random
  readonly #faults = new Map<string, Fault>()
  messages = 0

  constructor(time: VirtualTime, random: Random) {
    super()
    this.#time = time
    this.#random = random
  }

  override transport(peer: string): FakeTransport {
    const end = super.transport(peer)
    this.#ends.set(peer, end)
    return end
  }

  break(peer: string, fault: Fault): void {
    this.#faults.set(peer, fault)
    if (fault === 'gone') this.kill(peer)
  }

  override deliver(from: string, to: string, message: Uint8Array): void {
    this.messages++
    const fault = this.#faults.get(from)
    if (fault === 'hung') return
    const ms = FIXED_MS - RANDOM_MS * Math.log(1 - this.#random()) + message.length / BYTES_A_MS
    this.#time.after(fault === 'slow' ? ms * SLOW : ms, () => {
      if (this.connected(from, to)) void this.#ends.get(to)?.handler?.(from, message)
    })
  }
}

export interface Rig {
  readonly time: VirtualTime
  readonly network: DelayingNetwork
  /** Holds nothing: a peer that restores what others hold. */
  readonly reader: Peer
  readonly manifest: StreamManifest
}

export interface RigOptions {
  readonly random: Random
  readonly k: number
  readonly m: number
  readonly symbolBytes: number
  readonly data: Uint8Array
  /** Column by column. */
  readonly holders: readonly string[]
  /** Infinity: no forced timeout. */
  readonly forcedTimeoutMs: number
}

/** A stream that lies with its holders, all well, and a peer that can read it. */
export async function openRig(options: RigOptions): Promise<Rig> {
  const { random, k, m, symbolBytes, data, holders, forcedTimeoutMs } = options
  const time = new VirtualTime()
  const network = new DelayingNetwork(time, random)
  const codec = time.codec()
  const ids = ['reader', ...holders]
  const peers = ids.map(id => {
    const [transport, store, log] = [network.transport(id), new MemoryStore(), memoryLog()]
    const settings = { forcedTimeoutMs }
    const shards = createShardCluster({ transport, store, codec, clock: time, log, settings, peers: () => ids })
    return { id, transport, store, shards, log }
  })
  const [reader, ...others] = peers
  if (reader === undefined) throw new TypeError('a rig has a reader')
  const manifest = await time.passUntil(ship(others, data, { k, m, symbolBytes }))
  return { time, network, reader, manifest }
}
