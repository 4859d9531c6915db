/**
 * The delay of reads once more over real connections: libp2p on loopback in real time, six peers in this process, stores in
 * memory. The faulty holder's store gives what it is asked for LATE_MS later, or never. The numbers are this machine's, and
 * more of them its event loop's than its network's: what they say is that the rule holds outside of its model.
 */
import { randomFillSync } from 'node:crypto'
import { createCodec } from '../../node/erasure/codec.ts'
import { createShardCluster } from '../../node/shards/cluster.ts'
import { clock, quietLog } from '../contract/real-clock.ts'
import { cleanUp, type Host, hosts, transportOf, until } from '../contract/transport-support.ts'
import { generator } from '../sim/kernel.ts'
import { MemoryStore, ship } from '../unit/shards-network.ts'

const SHAPE = { k: 3, m: 2, symbolBytes: 65_536 }
const PEERS = 6
/** Two grids of five columns. */
const SYMBOLS = 30
const READ_BYTES = 16 << 10
const READERS = 4
/** Well above what a busy machine does to a read. */
export const LATE_MS = 200

export interface LinkCondition {
  readonly fault: 'none' | 'late' | 'hung'
  readonly forcedTimeoutMs: number
}

export interface LinkDelays {
  /** Sorted. */
  readonly allMs: readonly number[]
  readonly degraded: number
  /** The forced timeout at the end. */
  readonly forcedTimeoutMs: number
  readonly wrong: number
}

/** The first peer reads what the other five hold. */
export async function measureLinks({ fault, forcedTimeoutMs }: LinkCondition, reads: number): Promise<LinkDelays> {
  const members = await hosts(PEERS)
  const peers = await Promise.all(members.map(host => peerOf(host, members, forcedTimeoutMs)))
  try {
    const [reader, ...holders] = peers
    if (reader === undefined) throw new TypeError('somebody reads')
    await until(() =>
      peers.every(({ id, transport }) => members.every(to => to.id === id || transport.connected(to.id)))
    )
    const data = randomFillSync(Buffer.allocUnsafeSlow(SYMBOLS * SHAPE.symbolBytes))
    const manifest = await ship(holders, data, SHAPE)
    const read = async (random: () => number): Promise<{ ms: number; right: boolean }> => {
      const symbol = Math.floor(random() * SYMBOLS)
      const offset = symbol * SHAPE.symbolBytes + Math.floor(random() * (SHAPE.symbolBytes - READ_BYTES))
      const startedAt = clock.now()
      const bytes = await reader.shards.readData(manifest, offset, READ_BYTES)
      const ms = clock.now() - startedAt
      return { ms, right: Buffer.compare(bytes, data.subarray(offset, offset + READ_BYTES)) === 0 }
    }
    await readMany(400, read)
    const before = reader.shards.stats().degradedReads
    if (fault !== 'none') spoil(peers[3]?.store, fault)
    const all = await readMany(reads, read)
    const { degradedReads, forcedTimeoutMs: now } = reader.shards.stats()
    return {
      allMs: all.map(({ ms }) => ms).sort((a, b) => a - b),
      degraded: degradedReads - before,
      forcedTimeoutMs: now,
      wrong: all.filter(({ right }) => !right).length
    }
  } finally {
    await cleanUp()
  }
}

async function peerOf(host: Host, members: readonly Host[], forcedTimeoutMs: number) {
  const [transport, store] = [await transportOf(host, members), new MemoryStore()]
  const shards = createShardCluster({
    transport,
    store,
    codec: createCodec(),
    clock,
    log: quietLog,
    settings: { forcedTimeoutMs },
    peers: () => members.map(({ id }) => id)
  })
  await transport.start()
  return { id: host.id, transport, store, shards }
}

function spoil(store: MemoryStore | undefined, fault: 'late' | 'hung'): void {
  if (store === undefined) throw new TypeError('nobody to spoil')
  const read = store.readColumn.bind(store)
  store.readColumn = async (...where) => {
    await new Promise<void>(resolve => fault === 'late' && clock.after(LATE_MS, resolve))
    return await read(...where)
  }
}

async function readMany<T>(reads: number, read: (random: () => number) => Promise<T>): Promise<T[]> {
  const random = generator(1)
  const all: T[] = []
  let left = reads
  const readOn = async (): Promise<void> => {
    while (left-- > 0) all.push(await read(random))
  }
  await Promise.all(Array.from({ length: READERS }, readOn))
  return all
}
