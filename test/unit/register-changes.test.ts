/** Changes of voters, deletions and traces through the production shells. */
import { expect, test } from 'vitest'
import { compareBallots } from '../../protocols/register/messages.ts'
import { remember } from '../../protocols/register/record.ts'
import { firstVoters, nextVoters } from '../../protocols/register/voters.ts'
import { cluster, inTime, MemoryStore, type Peer, peer, settled, started } from './register-support.ts'

const ABC = firstVoters(['a', 'b', 'c'])

function adopt(peers: readonly Peer[], set: Parameters<Peer['registers']['setVoters']>[0]): void {
  for (const { registers, leases } of peers) {
    registers.setVoters(set)
    leases.setVoters(set)
  }
}

test('registers move to other voters one by one: at the end none of the first is needed', async () => {
  const peers = await started(['a', 'b', 'c', 'd', 'e', 'f'], ABC)
  const { registers } = peer(peers, 5)
  await Promise.all(Array.from({ length: 40 }, (_, i) => registers.change(`key/${i}`, () => i)))
  let set = ABC
  for (const ids of ['abcd', 'bcd', 'bcde', 'cde', 'cdef', 'def']) {
    set = nextVoters(set, ids.split(''))
    adopt(peers, set)
    const progress: string[] = []
    const settling = peer(peers, 0).registers.settle((done, total) => progress.push(`${done}/${total}`))
    const told = await inTime(peer(peers, 0).clock, settling)
    expect(told).toMatchObject({ version: set.version, keys: 40 })
    expect(progress.at(-1)).toBe('40/40')
    set = { ...set, settled: true }
    adopt(peers, set)
  }
  for (const { registers: gone } of peers.slice(0, 3)) gone.stop()
  for (let i = 0; i < 40; i++) expect(await inTime(peer(peers, 5).clock, registers.read(`key/${i}`))).toBe(i)
  await settled()
  expect([...peer(peers, 0).store.entries.keys()].filter(name => name.startsWith('register/'))).toEqual([])
})

test('who counts in an older set is refused and told; who counts in a newer one is not answered, and found out about', async () => {
  const peers = await started(['a', 'b', 'c', 'd'], ABC)
  const [a, d] = [peer(peers, 0), peer(peers, 3)]
  await d.registers.change('x', () => 1)
  const next = nextVoters(ABC, ['a', 'b', 'c', 'd'])
  adopt(peers.slice(0, 3), next)
  const late = d.registers.read('x')
  await settled()
  expect(d.newer).toContain('a 2')
  adopt([d], next)
  expect(await late).toBe(1)
  const ahead = nextVoters({ ...next, settled: true }, ['b', 'c', 'd'])
  adopt([d], ahead)
  const early = d.registers.read('x')
  await settled()
  expect(a.newer).toEqual([])
  expect(peer(peers, 1).newer).toContain('d 3')
  adopt(peers.slice(0, 3), ahead)
  await d.clock.pass(600)
  expect(await early).toBe(1)
})

test('a voter set outlives a restart; another one of its version is refused', async () => {
  const peers = await started(['a', 'b', 'c'])
  const next = nextVoters(ABC, ['a', 'b'])
  adopt(peers, next)
  await settled()
  const stores = Object.fromEntries(['a', 'b', 'c'].map((name, i) => [name, peer(peers, i).store]))
  const again = await started(['a', 'b', 'c'], ABC, stores)
  expect(again.map(({ registers }) => registers.voters())).toEqual([next, next, next])
  const { registers } = peer(again, 0)
  expect(() => registers.setVoters({ ...next, ids: ['a', 'c'] })).toThrow(
    expect.objectContaining({ code: 'REGISTER_VOTERS' })
  )
  registers.setVoters(ABC)
  expect(registers.voters()).toEqual(next)
  const [other] = cluster(['a'], { ...next, ids: ['a', 'x'] }, stores)
  await expect(other?.registers.start()).rejects.toMatchObject({ code: 'REGISTER_VOTERS' })
})

test('settling ends when the voters change meanwhile, and with the registers; two callers share one', async () => {
  const peers = await started(['a', 'b', 'c'])
  const [a] = peers as [Peer]
  await a.registers.change('x', () => 1)
  const next = nextVoters(ABC, ['a', 'b'])
  a.registers.setVoters(next) // b has not heard of it: no majority lists anything
  const both = [a.registers.settle(), a.registers.settle()]
  await settled()
  adopt(peers, nextVoters({ ...next, settled: true }, ['a', 'b', 'c']))
  for (const settling of both) await expect(settling).rejects.toMatchObject({ code: 'REGISTER_VOTERS_CHANGED' })
  const last = a.registers.settle()
  a.registers.stop()
  await expect(last).rejects.toMatchObject({ code: 'REGISTER_STOPPED' })
})

test('what is deleted reads as nothing, is forgotten by every voter, and can be made anew', async () => {
  const peers = await started(['a', 'b', 'c'])
  const [a, b] = [peer(peers, 0), peer(peers, 1)]
  const soon = <T>(promise: Promise<T>): Promise<T> => inTime(a.clock, promise)
  await a.registers.change('x', () => 'first', { generation: () => 3 })
  await soon(b.registers.change('x', current => [current]))
  expect(await soon(a.registers.delete('x', { only: current => current === 'another' }))).toBe(false)
  expect(await soon(a.registers.delete('x'))).toBe(true)
  expect(await b.registers.read('x')).toBeNull()
  await settled()
  for (const { store, registers } of peers) {
    expect(store.entries.has('register/x')).toBe(false)
    expect(await registers.localKeys()).toEqual([])
  }
  expect(await soon(a.registers.delete('x'))).toBe(true)
  expect(await b.registers.generationOf('x')).toBe(0)
  expect(await soon(b.registers.change('x', current => [current, 'anew']))).toEqual([null, 'anew'])
  expect(await a.registers.read('x')).toEqual([null, 'anew'])
})

/** Notes records that are removed before a promise above theirs is on disk. */
class WatchfulStore extends MemoryStore {
  readonly early: string[] = []
  removed = 0

  override async persist(entries: Parameters<MemoryStore['persist']>[0]): Promise<void> {
    const { records, forgotten } = remember(this.entries, 'a')
    for (const [name, bytes] of entries) {
      const record = records.get(name.slice('register/'.length))
      if (bytes !== null || record === undefined) continue
      this.removed += 1
      if (compareBallots(record.promised, forgotten) > 0) this.early.push(name)
    }
    await super.persist(entries)
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate)
  }
}

test('a record goes from the disk only when what takes its place is there, however busy the disk is', async () => {
  const stores = { a: new WatchfulStore(), b: new WatchfulStore(), c: new WatchfulStore() }
  const peers = await started(['a', 'b', 'c'], ABC, stores)
  const [a] = peers as [Peer]
  const keys = Array.from({ length: 20 }, (_, i) => `key/${i}`)
  await inTime(a.clock, Promise.all(keys.map(key => a.registers.change(key, () => 1))))
  await inTime(a.clock, Promise.all(keys.map(key => a.registers.delete(key))))
  await settled()
  for (const { early, removed } of Object.values(stores)) expect({ early, removed }).toEqual({ early: [], removed: 20 })
})

test('a voter that was away delays the forgetting, and somebody does it when it is back', async () => {
  const peers = await started(['a', 'b', 'c'])
  const [a, b, c] = peers as [Peer, Peer, Peer]
  await a.registers.change('x', () => 1)
  await settled()
  c.registers.stop()
  expect(await a.registers.delete('x')).toBe(true)
  a.registers.stop() // the one that deleted it will not try again
  await settled()
  expect([a, b, c].map(({ store }) => store.entries.has('register/x'))).toEqual([true, true, true])
  const stores = { a: a.store, b: b.store, c: c.store }
  const again = await started(['a', 'b', 'c'], ABC, stores)
  await peer(again, 0).clock.pass(35_000)
  expect([a, b, c].map(({ store }) => store.entries.has('register/x'))).toEqual([false, false, false])
})

test('every decision is told with the votes that made it', async () => {
  const peers = await started(['a', 'b', 'c'])
  const [a, b] = [peer(peers, 0), peer(peers, 1)]
  await a.registers.change('g', () => ({ owner: 'a' }), { generation: () => 1 })
  await a.leases.acquire('g', 1)
  await settled()
  const takeover = b.registers.change('g', () => ({ owner: 'b' }), { fence: () => ['a'], generation: () => 2 })
  await expect(inTime(a.clock, takeover)).rejects.toMatchObject({ code: 'REGISTER_LEASED' })
  await b.registers.read('g')
  expect(a.decisions).toMatchObject([
    { key: 'g', kind: 'change', outcome: 'chosen', version: 1, phase: 'accept', generation: 1, rounds: 1, tookMs: 0 }
  ])
  const [refused, read] = b.decisions
  expect(refused).toMatchObject({ outcome: 'leased', ballot: { peer: 'b' }, retryMs: expect.any(Number) })
  const leased = Object.entries(refused?.votes ?? {}).filter(([, vote]) => vote === 'leased')
  expect(leased.length).toBeGreaterThan(1)
  for (const [voter] of leased) expect(refused?.leaseMs[voter]).toBeGreaterThan(900)
  expect(read).toMatchObject({ kind: 'read', outcome: 'learned', generation: 1 })
  expect(Object.values(read?.votes ?? {})).toContain('state')
  expect(a.traces).toMatchObject([{ kind: 'acquired', key: 'g', generation: 1, version: 1, remainingMs: 1_000 }])
  expect(a.traces[0]?.grantedBy.length).toBeGreaterThan(1)
})

test('a lease that lapsed answers an acquire when it is regained, and is lost when its register is deleted', async () => {
  const peers = await started(['a', 'b', 'c'])
  const [a, b, c] = peers as [Peer, Peer, Peer]
  const lost: number[] = []
  a.leases.onLost((_key, _generation, newer) => lost.push(newer))
  await a.registers.change('g', () => 1, { generation: () => 7 })
  await a.leases.acquire('g', 7)
  for (const { leases } of [b, c]) leases.stop()
  await a.clock.pass(1_050)
  expect(a.leases.remainingMs('g', 7)).toBe(0)
  const again = a.leases.acquire('g', 7)
  for (const { leases } of [b, c]) leases.start()
  await a.clock.pass(300)
  await again
  expect(a.traces.map(({ kind }) => kind).slice(0, 3)).toEqual(['acquired', 'lapsing', 'regained'])
  // Without a fence: the voters refuse at once, and the holder reads why.
  await inTime(a.clock, b.registers.delete('g'))
  await a.clock.pass(300)
  expect(lost).toHaveLength(1)
  expect(a.leases.remainingMs('g', 7)).toBe(0)
  await expect(a.leases.acquire('g', 7)).rejects.toMatchObject({ code: 'LEASE_REFUSED' })
})

test('an empty store and one from before voter sets had versions both start with the set that is given', async () => {
  const store = new MemoryStore()
  const [fresh] = await started(['a'], firstVoters(['a']), { a: store })
  await fresh?.registers.change('x', () => 1)
  await settled()
  store.entries.delete('voters')
  const [older] = await started(['a'], firstVoters(['a']), { a: store })
  expect(await older?.registers.read('x')).toBe(1)
})
