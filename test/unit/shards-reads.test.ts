import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import type { FailureDetector } from '../../node/ports.ts'
import type { RepairHooks } from '../../node/shards/cluster.ts'
import { DiagonalRead } from '../../node/shards/diagonal-read.ts'
import { ShardService } from '../../protocols/shards/service.ts'
import { cluster, MemoryStore, Network, type Peer, ship } from './shards-network.ts'
import { clock, memoryLog } from './store-support.ts'

const five = (): MemoryStore[] => Array.from({ length: 5 }, () => new MemoryStore())
const peerOf = (peers: readonly Peer[], i: number): Peer => peers[i] as Peer
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0
const turn = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 5))
/** Nobody is late. */
const patient = { settings: { forcedTimeoutMs: 600_000 } }

describe('a hedged read of a diagonal', () => {
  function read(hedge: number, wanted: readonly number[]) {
    const asked: number[] = []
    const ends: { degraded: boolean; rows: number[] }[] = []
    const machine = new DiagonalRead({
      k: 3,
      rows: 6,
      wanted,
      hedge,
      standing: row => (row === 4 ? 'doubtful' : 'good'),
      ask: row => asked.push(row),
      done: (symbols, degraded) => ends.push({ degraded, rows: [...symbols.keys()].filter(row => symbols[row]) }),
      lost: () => ends.push({ degraded: false, rows: [] })
    })
    machine.start()
    return { machine, asked, ends }
  }

  it('asks for k + d symbols at once, those wanted first, and nobody doubtful', () => {
    expect(read(0, [1]).asked).toEqual([1])
    expect(read(1, [1]).asked).toEqual([1, 0, 2, 3])
    expect(read(2, [0, 1, 2]).asked).toEqual([0, 1, 2, 3, 5])
    expect(read(3, [0, 1, 2]).asked).toEqual([0, 1, 2, 3, 5])
  })

  it('ends with the first k, and decodes only where a wanted one is not among them', () => {
    const { machine, ends } = read(2, [0, 1, 2])
    for (const row of [5, 0, 3]) machine.arrived(row, new Uint8Array(1))
    expect(ends).toEqual([{ degraded: true, rows: [0, 3, 5] }])
    machine.arrived(1, new Uint8Array(1))
    expect(ends).toHaveLength(1)
    const direct = read(1, [1])
    direct.machine.arrived(1, new Uint8Array(1))
    expect(direct.ends).toEqual([{ degraded: false, rows: [1] }])
  })

  it('asks for more where some of those are lost', () => {
    const { machine, asked } = read(1, [0, 1, 2])
    for (const row of [0, 3]) machine.arrived(row, 'lost')
    expect(asked).toEqual([0, 1, 2, 3, 5])
  })
})

describe('a hedged read of the cluster', () => {
  it('does not wait for a holder that is silent, and cancels what it asked of it', async () => {
    const { network, peers } = cluster(five(), patient)
    const data = randomBytes(30_000)
    const manifest = await ship(peers, data)
    const who = peerOf(peers, 0)
    network.silence('p2')
    expect(same(await who.shards.readData(manifest, 0, data.length, { hedge: 1 }), data)).toBe(true)
    expect(who.shards.stats().readsGivenUp).toBeGreaterThan(0)
    expect(who.shards.stats().degradedReads).toBeGreaterThan(0)
  })

  it('as any other gives right data while holders are lost', async () => {
    const { network, peers } = cluster(five())
    const data = randomBytes(30_000)
    const manifest = await ship(peers, data)
    network.kill('p2')
    network.kill('p4')
    for (const hedge of [1, 2, 5]) {
      expect(
        same(await peerOf(peers, 0).shards.readData(manifest, 77, 20_000, { hedge }), data.subarray(77, 20_077))
      ).toBe(true)
    }
    network.kill('p3')
    const lost = peerOf(peers, 0).shards.readData(manifest, 0, data.length, { hedge: 2 })
    await expect(lost).rejects.toMatchObject({ code: 'SHARD_LOST' })
  })
})

describe('a read that too few can answer', () => {
  const detector = (dead: ReadonlySet<string>): FailureDetector => ({
    livenessOf: peer => (dead.has(peer) ? 'dead' : 'alive'),
    alive: () => [],
    onChange() {},
    start() {},
    stop() {}
  })

  it('waits for those that live and are cut off, and goes on when they are back', async () => {
    const { network, peers } = cluster(five(), { detector: detector(new Set()) })
    const data = randomBytes(9_000)
    const manifest = await ship(peers, data)
    for (const gone of ['p2', 'p3', 'p4']) network.kill(gone)
    const read = peerOf(peers, 0).shards.readData(manifest, 0, data.length)
    await new Promise(resolve => setTimeout(resolve, 250))
    network.revive('p3')
    expect(same(await read, data)).toBe(true)
  })

  it('does not wait for the dead, nor for who has said that it lacks what is asked for', async () => {
    const stores = five()
    const { network, peers } = cluster(stores, { detector: detector(new Set(['p2', 'p3'])) })
    const data = randomBytes(9_000)
    const manifest = await ship(peers, data)
    stores[4]?.held.clear()
    for (const gone of ['p2', 'p3']) network.kill(gone)
    const lost = peerOf(peers, 0).shards.readData(manifest, 0, data.length)
    const soon = new Promise(resolve => setTimeout(resolve, 2_000)).then(() => 'waits')
    await expect(Promise.race([lost, soon])).rejects.toMatchObject({ code: 'SHARD_LOST', details: { have: 2 } })
  })
})

describe('a read that is cancelled', () => {
  const ranges = [{ offset: 0, length: 8 }]

  async function two(store: MemoryStore) {
    const network = new Network()
    const service = (id: string): ShardService =>
      new ShardService({ transport: network.transport(id), store, clock, log: memoryLog() })
    const services = { asker: service('a'), server: service('b') }
    await services.asker.put('b', 'g/v/1/1', 0, 0, randomBytes(64))
    return services
  }

  it('rejects at once, and the peer drops it where it waits for its turn or is being read', async () => {
    const store = new MemoryStore()
    const { asker, server } = await two(store)
    const before = server.stats().served
    let release = (): void => {}
    const gate = new Promise<void>(resolve => {
      release = resolve
    })
    const readColumn = store.readColumn.bind(store)
    store.readColumn = (...where) => gate.then(() => readColumn(...where))
    const abort = new AbortController()
    const reads = Array.from({ length: 30 }, () => asker.get('b', 'g/v/1/1', 0, 0, ranges, abort.signal))
    const kept = asker.get('b', 'g/v/1/1', 0, 0, ranges)
    await turn()
    abort.abort(new Error('enough'))
    const outcomes = await Promise.allSettled(reads)
    expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true)
    await turn()
    release()
    expect(await kept).toHaveLength(8)
    // 16 were under way, of which the peer had begun to read four.
    expect(server.stats()).toMatchObject({ cancelled: 16, served: before + 1 })
    expect(store.reads).toBe(5)
    await expect(asker.get('b', 'g/v/1/1', 0, 0, ranges, abort.signal)).rejects.toThrow('enough')
    expect(await asker.get('b', 'g/v/1/1', 0, 0, ranges, new AbortController().signal)).toHaveLength(8)
  })
})

describe('a column that is not with its planned holder', () => {
  /** Moves a column in all grids. */
  function move(stores: readonly MemoryStore[], column: number, from: number, to: number): void {
    const [source, target] = [stores[from] as MemoryStore, stores[to] as MemoryStore]
    for (const [key, bytes] of source.held) {
      if (!key.endsWith(` ${column}`)) continue
      source.held.delete(key)
      target.held.set(key, bytes)
    }
  }

  it('is rebuilt once, then found where it is and read from there', async () => {
    const stores = [...five(), new MemoryStore()]
    const { peers } = cluster(stores)
    const data = randomBytes(9_000)
    const manifest = await ship(peers.slice(0, 5), data)
    move(stores, 2, 2, 5)
    const who = peerOf(peers, 0)
    expect(same(await who.shards.readData(manifest, 0, data.length), data)).toBe(true)
    expect(who.shards.stats().degradedReads).toBeGreaterThan(0)
    await turn()
    const { degradedReads } = who.shards.stats()
    const asked = who.transport.sent.get('p2')
    expect(same(await who.shards.readData(manifest, 0, data.length), data)).toBe(true)
    expect(who.shards.stats().degradedReads).toBe(degradedReads)
    expect(who.transport.sent.get('p2')).toBe(asked)
  })

  it('is read from another place that is known before its symbols count as lost', async () => {
    const stores = [...five(), new MemoryStore(), new MemoryStore()]
    const { peers } = cluster(stores)
    const data = randomBytes(7_680)
    const manifest = await ship(peers.slice(0, 5), data)
    for (const [column, to] of [
      [2, 5],
      [1, 6]
    ] as const)
      move(stores, column, column, to)
    const [, one, , , , , elsewhere] = stores
    one?.held.set('g/v/1/1 1 1', elsewhere?.held.get('g/v/1/1 1 1') ?? new Uint8Array()) // it has another grid of it
    const who = peerOf(peers, 0)
    // Column 2, row 0: it is lost where it should be, and where all columns are is asked for meanwhile. Then column 1, row 0.
    expect(same(await who.shards.readData(manifest, 6 * 256, 256), data.subarray(6 * 256, 7 * 256))).toBe(true)
    await turn()
    const { degradedReads } = who.shards.stats()
    const asked = who.transport.sent.get('p1') ?? 0
    expect(same(await who.shards.readData(manifest, 3 * 256, 256), data.subarray(3 * 256, 4 * 256))).toBe(true)
    expect(who.transport.sent.get('p1')).toBe(asked + 1)
    expect(degradedReads).toBe(1)
    expect(who.shards.stats().degradedReads).toBe(1)
  })

  it('is found before a read gives up, with more planned holders gone than the code alone would stand', async () => {
    const stores = [...five(), new MemoryStore(), new MemoryStore()]
    const { network, peers } = cluster(stores)
    const data = randomBytes(9_000)
    const manifest = await ship(peers.slice(0, 5), data)
    move(stores, 1, 1, 5)
    move(stores, 3, 3, 6)
    for (const gone of ['p1', 'p3', 'p4']) network.kill(gone)
    expect(same(await peerOf(peers, 2).shards.readData(manifest, 0, data.length), data)).toBe(true)
    network.kill('p6')
    expect(same(await peerOf(peers, 0).shards.readData(manifest, 0, data.length), data)).toBe(true)
    network.kill('p5')
    const lost = peerOf(peers, 0).shards.readData(manifest, 0, data.length)
    await expect(lost).rejects.toMatchObject({ code: 'SHARD_LOST', details: { have: 2 } })
  })
})

describe('a column of which different peers have different grids', () => {
  it('is read from each what that has, where it is needed', async () => {
    const stores = [...five(), new MemoryStore(), new MemoryStore()]
    const { network, peers } = cluster(stores)
    const data = randomBytes(9_000)
    const manifest = await ship(peers.slice(0, 5), data)
    const [, source, , , , one, other] = stores
    for (const [key, bytes] of source?.held ?? []) (key.endsWith(' 1 1') ? one : other)?.held.set(key, bytes)
    for (const gone of ['p1', 'p3', 'p4']) network.kill(gone)
    const who = peerOf(peers, 0)
    expect(same(await who.shards.readData(manifest, 0, data.length), data)).toBe(true)
    network.kill('p6')
    const half = who.shards.readData(manifest, 0, data.length)
    await expect(half).rejects.toMatchObject({ code: 'SHARD_LOST', details: { have: 2 } })
    expect(same(await who.shards.readData(manifest, 3_840, 3_840), data.subarray(3_840, 7_680))).toBe(true)
  })
})

describe('a column that came damaged', () => {
  it('is checked by its holder, which learns of it so, once for all that was wrong in it', async () => {
    const stores = five()
    const found: string[] = []
    const repair = { damaged: (stream: string, column: number) => void found.push(`${stream} ${column}`), asked() {} }
    const { peers } = cluster(stores, { repair })
    const data = randomBytes(3_840)
    const manifest = await ship(peers, data)
    const holder = stores[2] as MemoryStore
    holder.held.get('g/v/1/1 0 2')?.fill(0)
    holder.verifyColumn = async () => 'damaged'
    const who = peerOf(peers, 0)
    expect(same(await who.shards.readData(manifest, 0, data.length), data)).toBe(true)
    await turn()
    expect(who.shards.stats()).toMatchObject({ wrongHashes: 3, damagedColumns: 1 })
    expect(found).toEqual(['g/v/1/1 2'])
  })

  it('is checked as the peer says that its store is to be checked, where that sees more than checksums', async () => {
    const stores = five()
    const found: string[] = []
    const asked: string[] = []
    const repair: RepairHooks = {
      damaged: (stream, column) => void found.push(`${stream} ${column}`),
      async verify(...place) {
        asked.push(place.join(' '))
        return 'damaged'
      },
      asked() {}
    }
    const { peers } = cluster(stores, { repair })
    const data = randomBytes(3_840)
    const manifest = await ship(peers, data)
    ;(stores[2] as MemoryStore).held.get('g/v/1/1 0 2')?.fill(0)
    expect(same(await peerOf(peers, 0).shards.readData(manifest, 0, data.length), data)).toBe(true)
    await turn()
    expect(asked).toEqual(['g/v/1/1 0 2'])
    expect(found).toEqual(['g/v/1/1 2'])
  })
})
