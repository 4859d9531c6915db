import { createHash, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Liveness, StreamManifest } from '../../node/ports.ts'
import { encodeMessage } from '../../protocols/shards/messages.ts'
import { openShardStore } from '../../node/store/shard-store.ts'
import { cluster, MemoryStore, type Peer, ship } from './shards-network.ts'
import { clock, memoryLog, withDirectory } from './store-support.ts'

const five = (): MemoryStore[] => Array.from({ length: 5 }, () => new MemoryStore())
const reader = (peers: readonly Peer[], i: number): Peer => peers[i] as Peer
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

async function whole(peer: Peer, manifest: StreamManifest): Promise<Uint8Array> {
  return await peer.shards.readData(manifest, 0, manifest.dataBytes)
}

const putTo = (who: Peer, stream: string, column: number): Promise<void> =>
  who.shards.putColumn({ stream, holders: ['p0', 'p1'] }, 0, column, randomBytes(64))

function* pairs(n: number): Generator<[number, number]> {
  for (let a = 0; a < n; a++) for (let b = a + 1; b < n; b++) yield [a, b]
}

describe('the shards of a cluster', () => {
  it('give any range back to any peer without decoding while all holders are well', async () => {
    const { peers } = cluster(five())
    const data = randomBytes(20_000)
    const manifest = await ship(peers, data)
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: 20_000 }), fc.nat({ max: 20_000 }), fc.nat({ max: 4 }), async (a, b, who) => {
        const [from, to] = [Math.min(a, b), Math.max(a, b)]
        expect(same(await reader(peers, who).shards.readData(manifest, from, to - from), data.subarray(from, to))).toBe(
          true
        )
      }),
      { numRuns: 40 }
    )
    expect(peers.every(({ shards }) => shards.stats().degradedReads === 0)).toBe(true)
  })

  it('give the same data back over real stores when any two holders are gone, and say when it is three', async () => {
    await withDirectory(async dir => {
      const open = (i: number) => openShardStore(`${dir}/${i}`, { log: memoryLog(), clock })
      const stores = await Promise.all([0, 1, 2, 3, 4].map(open))
      const data = randomBytes(30_000)
      for (const lost of pairs(5)) {
        const { network, peers } = cluster(stores)
        const manifest = await ship(peers, data)
        for (const i of lost) network.kill(`p${i}`)
        const alive = [0, 1, 2, 3, 4].filter(i => !lost.includes(i))
        const who = reader(peers, alive[0] ?? 0)
        expect(same(await whole(who, manifest), data), `without ${lost.join()}`).toBe(true)
        expect(who.shards.stats().degradedReads).toBeGreaterThan(0)
        network.kill(`p${alive[2]}`)
        await expect(whole(who, manifest)).rejects.toMatchObject({ code: 'SHARD_LOST' })
      }
      await Promise.all(stores.map(store => store.close()))
    })
  })

  it('survive holders that die while they are read from', async () => {
    const { network, peers } = cluster(five())
    const data = randomBytes(60_000)
    const manifest = await ship(peers, data)
    network.fate = () => 3
    const read = whole(reader(peers, 4), manifest)
    setTimeout(() => network.kill('p1'), 4)
    setTimeout(() => network.kill('p3'), 8)
    expect(same(await read, data)).toBe(true)
  })

  it('count a symbol with a wrong hash as lost, say so, and rebuild it', async () => {
    const stores = five()
    const { peers } = cluster(stores)
    const data = randomBytes(3_840)
    const manifest = await ship(peers, data)
    const column = stores[2]?.held.get('g/v/1/1 0 2') as Uint8Array
    column[0] = (column[0] ?? 0) ^ 1
    expect(same(await whole(reader(peers, 0), manifest), data)).toBe(true)
    expect(reader(peers, 0).shards.stats()).toMatchObject({ degradedReads: 1, wrongHashes: 1 })
    const said = reader(peers, 0).log.lines.find(({ level }) => level === 'error')
    expect(said?.fields).toMatchObject({ holder: 'p2', grid: 0, column: 2, row: 0 })
  })

  it('never give wrong bytes: with every symbol of two holders spoiled the data is right, with three it is lost', async () => {
    const stores = five()
    const { peers } = cluster(stores)
    const data = randomBytes(9_000)
    const manifest = await ship(peers, data)
    const spoil = (i: number): void => {
      for (const column of stores[i]?.held.values() ?? []) column.forEach((byte, at) => (column[at] = byte ^ 0x55))
    }
    for (const i of [1, 4]) spoil(i)
    expect(same(await whole(reader(peers, 0), manifest), data)).toBe(true)
    spoil(0)
    await expect(whole(reader(peers, 2), manifest)).rejects.toMatchObject({ code: 'SHARD_LOST', details: { k: 3 } })
  })

  it('read around a holder that is silent, and take its late answers as well as the others', async () => {
    const { network, peers } = cluster(five(), { settings: { forcedTimeoutMs: 20 } })
    const data = randomBytes(12_000)
    const manifest = await ship(peers, data)
    network.silence('p2')
    const who = reader(peers, 0)
    expect(same(await whole(who, manifest), data)).toBe(true)
    expect(who.shards.stats().degradedReads).toBeGreaterThan(0)
    expect(who.shards.stats().readsGivenUp).toBeGreaterThan(0)
    network.release('p2')
    network.silence('p3')
    network.silence('p4')
    expect(same(await whole(who, manifest), data)).toBe(true)
  })

  it('wait for late answers where the others are too few', async () => {
    const { network, peers } = cluster(five(), { settings: { forcedTimeoutMs: 5 } })
    const data = randomBytes(5_000)
    const manifest = await ship(peers, data)
    network.kill('p3')
    network.kill('p4')
    network.silence('p1')
    setTimeout(() => network.release('p1'), 60)
    expect(same(await whole(reader(peers, 0), manifest), data)).toBe(true)
  })

  it('say that data is lost when the silent ones never answer', async () => {
    const { network, peers } = cluster(five(), { settings: { forcedTimeoutMs: 5 }, requestTimeoutMs: 100 })
    const manifest = await ship(peers, randomBytes(5_000))
    for (const peer of ['p1', 'p2', 'p3']) network.silence(peer)
    await expect(whole(reader(peers, 0), manifest)).rejects.toMatchObject({ code: 'SHARD_LOST' })
  })

  it('do not ask a holder that is known dead, unless there is no other way', async () => {
    const liveness = new Map<string, Liveness>([
      ['p1', 'dead'],
      ['p2', 'suspect']
    ])
    const { network, peers } = cluster(five(), { detector: { livenessOf: peer => liveness.get(peer) ?? 'alive' } })
    const data = randomBytes(6_000)
    const manifest = await ship(peers, data)
    const who = reader(peers, 0)
    const before = [who.transport.sent.get('p1'), who.transport.sent.get('p2')]
    expect(same(await whole(who, manifest), data)).toBe(true)
    expect([who.transport.sent.get('p1'), who.transport.sent.get('p2')]).toEqual(before)
    network.kill('p3')
    network.kill('p4')
    expect(same(await whole(who, manifest), data)).toBe(true)
  })

  it('give right data with random shapes, random losses, delays and lost messages', async () => {
    const shapes = fc.record({
      k: fc.integer({ min: 1, max: 5 }),
      m: fc.integer({ min: 1, max: 3 }),
      extra: fc.integer({ min: 0, max: 2 })
    })
    await fc.assert(
      fc.asyncProperty(
        shapes,
        fc.integer({ min: 1, max: 9_000 }),
        fc.infiniteStream(fc.nat({ max: 99 })),
        async (shape, size, dice) => {
          const roll = (): number => dice.next().value ?? 0
          const { k, m, extra } = shape
          const stores = Array.from({ length: k + m + extra }, () => new MemoryStore())
          const { network, peers } = cluster(stores, { settings: { forcedTimeoutMs: 5 }, requestTimeoutMs: 60 })
          const data = randomBytes(size)
          const manifest = await ship(peers, data, { k, m, symbolBytes: 128 })
          // One holder loses or delays what it says; the others of m are dead.
          for (let i = 1; i < m; i++) network.kill(`p${1 + ((roll() + i) % (peers.length - 1))}`)
          const odd = `p${1 + (roll() % (peers.length - 1))}`
          network.fate = from => (from !== odd ? 0 : roll() < 30 ? 'lose' : roll() % 12)
          expect(same(await whole(reader(peers, 0), manifest), data)).toBe(true)
        }
      ),
      { numRuns: 25 }
    )
  })

  it('ask each holder once for its symbols of a grid', async () => {
    const { peers } = cluster(five())
    const manifest = await ship(peers, randomBytes(3 * 5 * 256))
    const who = reader(peers, 1)
    const sent = (): number[] => ['p0', 'p2', 'p3', 'p4'].map(peer => who.transport.sent.get(peer) ?? 0)
    const before = sent()
    await whole(who, manifest)
    expect(sent().map((now, i) => now - (before[i] ?? 0))).toEqual([1, 1, 1, 1])
  })

  it('refuse manifests that cannot be, and ranges outside', async () => {
    const { peers } = cluster(five())
    const manifest = await ship(peers, randomBytes(1_000))
    const who = reader(peers, 0)
    const [grid] = manifest.grids
    const short = { ...manifest, grids: [{ symbolBytes: grid?.symbolBytes ?? 0, hashes: new Uint8Array(16) }] }
    await expect(who.shards.readData(short, 0, 1)).rejects.toMatchObject({ code: 'ERASURE_SHAPE' })
    await expect(who.shards.readData({ ...manifest, k: 4 }, 0, 1)).rejects.toMatchObject({ code: 'ERASURE_SHAPE' })
    await expect(who.shards.readData(manifest, 999, 2)).rejects.toThrow(RangeError)
    expect(await who.shards.readData(manifest, 1_000, 0)).toHaveLength(0)
  })
})

describe('a put to the cluster', () => {
  it('says that the holder is unreachable when it is gone, goes away, or does not answer', async () => {
    const { network, peers } = cluster(five(), { requestTimeoutMs: 50 })
    const put = (column: number, stream = 'g/v/1/1'): Promise<void> =>
      reader(peers, 0).shards.putColumn({ stream, holders: ['p0', 'p1', 'p2', 'p3', 'p4'] }, 0, column, randomBytes(64))
    network.silence('p1')
    await expect(put(1)).rejects.toMatchObject({ code: 'SHARD_UNREACHABLE', details: { peer: 'p1' } })
    network.silence('p2')
    const cut = put(2)
    network.kill('p2')
    await expect(cut).rejects.toMatchObject({ code: 'SHARD_UNREACHABLE' })
    await expect(put(2)).rejects.toMatchObject({ code: 'SHARD_UNREACHABLE' })
    await put(3)
    await put(0)
  })

  it('of a grid that may lack a column ends without the answer of a silent holder, which comes late', async () => {
    const stores = five()
    const { network, peers } = cluster(stores)
    const holders = ['p0', 'p1', 'p2', 'p3', 'p4']
    const { shards } = reader(peers, 0)
    network.silence('p3')
    const to = { stream: 'g/v/1/2', holders, spare: 1 }
    const outcomes = await Promise.allSettled(holders.map((_, c) => shards.putColumn(to, 0, c, randomBytes(64))))
    expect(outcomes.map(({ status }) => status === 'fulfilled')).toEqual([true, true, true, false, true])
    expect(outcomes[3]).toMatchObject({ reason: { code: 'SHARD_LATE', details: { peer: 'p3' } } })
    network.release('p3')
    await expect.poll(() => stores[3]?.columns('g/v/1/2')).toEqual([{ column: 3, grids: 1 }])
    expect(shards.stats()).toMatchObject({ lateColumns: 1, failedColumns: 0 })
  })

  it('of an older generation than that of the record is refused, at home and abroad', async () => {
    const { peers } = cluster(five())
    for (const { shards } of peers) shards.observeGeneration('g', 'v', 2)
    for (const column of [0, 1]) await putTo(reader(peers, 0), 'g/v/2/7', column)
    for (const column of [0, 1]) {
      await expect(putTo(reader(peers, 2), 'g/v/1/6', column)).rejects.toMatchObject({ code: 'SHARD_STALE' })
      await putTo(reader(peers, 2), 'g/w/1/6', column)
    }
    await expect(putTo(reader(peers, 0), 'nonsense', 1)).rejects.toMatchObject({ code: 'SHARD_INVALID' })
  })

  it('of a generation that will never be keeps nobody from putting those of the record', async () => {
    const stores = five()
    const { peers } = cluster(stores)
    await putTo(reader(peers, 4), 'g/v/999999999999999/1', 1)
    await putTo(reader(peers, 0), 'g/v/1/1', 1)
    const again = cluster(stores)
    reader(again.peers, 1).shards.observeGeneration('g', 'v', 1)
    await putTo(reader(again.peers, 0), 'g/v/1/2', 1)
    expect([...(stores[1]?.held.keys() ?? [])].map(key => key.split(' ')[0])).toEqual([
      'g/v/999999999999999/1',
      'g/v/1/1',
      'g/v/1/2'
    ])
  })

  it('waits for its turn when many are under way to one holder, and all arrive', async () => {
    const stores = five()
    let open = 0
    let most = 0
    const slow = stores[1] as MemoryStore
    slow.beforePut = async () => {
      most = Math.max(most, ++open)
      await new Promise(resolve => setTimeout(resolve, 2))
      open--
    }
    const { peers } = cluster(stores)
    const puts = Array.from({ length: 100 }, (_, grid) =>
      reader(peers, 0).shards.putColumn({ stream: 'g/v/1/1', holders: ['p0', 'p1'] }, grid, 1, randomBytes(64))
    )
    await Promise.all(puts)
    expect(slow.held.size).toBe(100)
    expect(most).toBeLessThanOrEqual(16)
  })

  it('is refused by a peer that serves too much of one asker already, which goes on reading', async () => {
    const stores = five()
    let release = (): void => {}
    const gate = new Promise<void>(resolve => {
      release = resolve
    })
    const store = stores[1] as MemoryStore
    store.beforePut = () => gate
    const { peers } = cluster(stores)
    // Past the lanes, as a peer would that does not keep to them.
    for (let id = 1; id <= 200; id++) {
      const put = {
        kind: 'put',
        id: id + 1e6,
        stream: 'g/v/1/1',
        grid: id,
        column: 1,
        payload: randomBytes(8)
      } as const
      reader(peers, 0).transport.send('p1', 'bulk', encodeMessage(put))
    }
    await expect(reader(peers, 0).shards.getManifest('0'.repeat(64))).rejects.toMatchObject({
      code: 'MANIFEST_MISSING'
    })
    expect(reader(peers, 1).shards.stats().refusedBusy).toBeGreaterThan(200 - 65)
    release()
  })
})

describe('a manifest', () => {
  const bytes = randomBytes(500)
  const name = createHash('sha256').update(bytes).digest('hex')

  it('is stored on all peers named, or the put fails', async () => {
    const stores = five()
    const { network, peers } = cluster(stores)
    await reader(peers, 0).shards.putManifest(name, bytes, ['p0', 'p2', 'p2'])
    expect(await Promise.all(stores.map(async store => (await store.manifests()).length))).toEqual([1, 0, 1, 0, 0])
    network.kill('p4')
    await expect(reader(peers, 0).shards.putManifest(name, bytes, ['p0', 'p4'])).rejects.toMatchObject({
      code: 'SHARD_UNREACHABLE'
    })
    await expect(reader(peers, 0).shards.putManifest(name, randomBytes(3), ['p1'])).rejects.toMatchObject({
      code: 'MANIFEST_HASH'
    })
  })

  it('may be missing at half of m peers where an epoch may, but is at m + 1 at least', async () => {
    const stores = five()
    const settings = { forcedTimeoutMs: 2_000, m: 2, durability: 'most' } as const
    const { network, peers } = cluster(stores, { settings })
    const put = (among: readonly string[]) => reader(peers, 0).shards.putManifest(name, bytes, among)
    network.silence('p4')
    await put(['p0', 'p1', 'p2', 'p3', 'p4'])
    expect(await Promise.all(stores.slice(0, 4).map(async store => (await store.manifests()).length))).toEqual([
      1, 1, 1, 1
    ])
    network.kill('p4')
    await put(['p0', 'p1', 'p2', 'p4'])
    await expect(put(['p0', 'p1', 'p4'])).rejects.toMatchObject({ code: 'SHARD_UNREACHABLE' })
    network.kill('p3')
    await expect(put(['p0', 'p1', 'p2', 'p3', 'p4'])).rejects.toMatchObject({ code: 'SHARD_UNREACHABLE' })
  })

  it('comes from whoever has it, whatever the others say or do not say', async () => {
    const stores = five()
    const { network, peers } = cluster(stores, { settings: { forcedTimeoutMs: 10 } })
    await reader(peers, 0).shards.putManifest(name, bytes, ['p4'])
    stores[1]?.forgeManifest(name)
    stores[0]?.forgeManifest(name)
    network.silence('p2')
    network.kill('p3')
    expect(same(await reader(peers, 0).shards.getManifest(name), bytes)).toBe(true)
  })

  it('that nobody within reach has is missing', async () => {
    const { network, peers } = cluster(five(), { settings: { forcedTimeoutMs: 5 }, requestTimeoutMs: 30 })
    await reader(peers, 0).shards.putManifest(name, bytes, ['p4'])
    network.kill('p4')
    network.silence('p1')
    await expect(reader(peers, 0).shards.getManifest(name)).rejects.toMatchObject({ code: 'MANIFEST_MISSING' })
  })
})
