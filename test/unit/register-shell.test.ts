import { expect, test } from 'vitest'
import { FREE_COUNTERS, MAX_LEAP } from '../../protocols/register/leaps.ts'
import { MAX_COUNTER } from '../../protocols/register/messages.ts'
import { firstVoters, nextVoters } from '../../protocols/register/voters.ts'
import { cluster, inTime, LEASE, peer, SETTINGS, started } from './register-support.ts'

test('what one peer changes every peer reads, also one that does not vote', async () => {
  const peers = await started(['a', 'b', 'c', 'd'], firstVoters(['a', 'b', 'c']))
  expect(await peer(peers, 0).registers.read('group/x')).toBeNull()
  expect(await peer(peers, 3).registers.change('group/x', () => ({ version: 1 }), { generation: () => 3 })).toEqual({
    version: 1
  })
  for (const { registers } of peers) {
    expect(await registers.read('group/x')).toEqual({ version: 1 })
    expect(await registers.generationOf('group/x')).toBe(3)
  }
  expect(await peer(peers, 0).registers.change('group/x', () => undefined)).toEqual({ version: 1 })
  expect(await peer(peers, 0).registers.localKeys()).toEqual(['group/x'])
  expect(await peer(peers, 3).registers.localKeys()).toEqual([])
})

test('a member that comes with the highest ballots that there are, and with ever higher ones that are taken, ends no register', async () => {
  const peers = await started(['a', 'b', 'c', 'd'], firstVoters(['a', 'b', 'c']))
  await peer(peers, 0).registers.change('group/x', () => 1)
  const liar = peer(peers, 3)
  const ask = (key: string, counter: number) => {
    const message = { kind: 'prepare', version: 1, key, ballot: { counter, peer: 'd' } }
    for (const to of ['a', 'b', 'c']) liar.bus.send(to, 'register', message)
  }
  for (const key of ['group/x', 'group/y']) {
    ask(key, MAX_COUNTER)
    for (const counter of [1_000_003, FREE_COUNTERS, FREE_COUNTERS + MAX_LEAP / 2 + 7]) ask(key, counter)
    for (let counter = 2 ** 20; counter < MAX_COUNTER; counter *= 2) ask(key, counter)
    for (let counter = FREE_COUNTERS; counter < MAX_COUNTER; counter += MAX_LEAP * 2 ** 10) ask(key, counter)
  }
  await liar.clock.pass(20)
  for (const [i, key] of ['group/x', 'group/y'].entries()) {
    const changed = peer(peers, i).registers.change(key, () => 2)
    await liar.clock.pass(2_000)
    expect(await changed).toBe(2)
    expect(await peer(peers, 2).registers.read(key)).toBe(2)
  }
})

test('every register that a majority knows is listed, also by a peer that does not vote; without a majority none', async () => {
  const peers = await started(['a', 'b', 'c', 'd'], firstVoters(['a', 'b', 'c']))
  for (const key of ['group/y', 'group/x']) await peer(peers, 0).registers.change(key, () => 1)
  expect(await peer(peers, 3).registers.allKeys()).toEqual(['group/x', 'group/y'])
  for (const gone of [0, 1]) peer(peers, gone).registers.stop()
  const { registers, clock } = peer(peers, 3)
  const [listing] = await Promise.allSettled([registers.allKeys(), clock.pass(SETTINGS.giveUpMs)])
  expect(listing).toMatchObject({ reason: { code: 'REGISTER_UNAVAILABLE' } })
})

test('a listing ends when the voters change, and when the peer stops', async () => {
  const voters = firstVoters(['a', 'b', 'c'])
  const { registers } = peer(await started(['a', 'b', 'c'], voters), 0)
  const overtaken = registers.allKeys()
  registers.setVoters(nextVoters(voters, ['a', 'b']))
  await expect(overtaken).rejects.toMatchObject({ code: 'REGISTER_VOTERS_CHANGED' })
  const ended = registers.allKeys()
  registers.stop()
  await expect(ended).rejects.toMatchObject({ code: 'REGISTER_STOPPED' })
})

test('concurrent changes all happen, one after another', async () => {
  const peers = await started(['a'])
  const { registers } = peer(peers, 0)
  const add = (id: number) =>
    registers.change('list', current => {
      const list = (current as number[] | null) ?? []
      return list.includes(id) ? undefined : [...list, id]
    })
  await Promise.all(Array.from({ length: 30 }, (_, id) => add(id)))
  expect(await registers.read('list')).toEqual(Array.from({ length: 30 }, (_, id) => id))
})

test('a peer whose disk refuses a write votes and proposes no more, and says so', async () => {
  const peers = await started(['a', 'b', 'c'])
  const { store, registers, broken } = peer(peers, 0)
  const before = [...store.entries.keys()]
  store.full = true
  await expect(registers.change('x', () => 1)).rejects.toMatchObject({ code: 'REGISTER_STORE' })
  expect(broken).toHaveLength(1)
  await expect(registers.read('x')).rejects.toMatchObject({ code: 'REGISTER_STORE' })
  expect(await peer(peers, 1).registers.change('x', () => 2)).toBe(2)
  expect([...store.entries.keys()]).toEqual(before)
})

test('requests before the start, after the end and with a bad key are refused with a code', async () => {
  const [early] = cluster(['a'])
  await expect(early?.registers.read('x')).rejects.toMatchObject({ code: 'REGISTER_STOPPED' })
  const { registers } = peer(await started(['a']), 0)
  await expect(registers.read('Bad Key')).rejects.toMatchObject({ code: 'REGISTER_KEY' })
  const pending = registers.read('x')
  registers.stop()
  await expect(pending).rejects.toMatchObject({ code: 'REGISTER_STOPPED' })
})

test('a lease is acquired, fences a takeover, and lets it pass when it is released', async () => {
  const peers = await started(['a', 'b', 'c'])
  const [a, b] = [peer(peers, 0), peer(peers, 1)]
  await a.registers.change('g', () => ({ owner: 'a' }), { generation: () => 1 })
  await a.leases.acquire('g', 1)
  expect(a.leases.remainingMs('g', 1)).toBe(1_000)
  await a.clock.pass(1_100)
  expect(a.leases.remainingMs('g', 1)).toBeGreaterThan(800)
  let outcome: unknown
  const takeover = async (): Promise<unknown> => {
    b.registers
      .change('g', () => ({ owner: 'b' }), { fence: () => ['a'], generation: () => 2 })
      .then(
        value => {
          outcome = value
        },
        (error: unknown) => {
          outcome = error
        }
      )
    await a.clock.pass(100)
    return outcome
  }
  expect(await takeover()).toMatchObject({ code: 'REGISTER_LEASED', details: { retryMs: expect.any(Number) } })
  await a.leases.release('g')
  expect(a.leases.remainingMs('g', 1)).toBe(0)
  expect(await takeover()).toEqual({ owner: 'b' })
})

test('acquire is refused under a generation that is over, and ends with the leases', async () => {
  const peers = await started(['a', 'b', 'c'])
  const { registers, leases } = peer(peers, 0)
  await registers.change('g', () => 1, { generation: () => 7 })
  await expect(leases.acquire('g', 6)).rejects.toMatchObject({ code: 'LEASE_REFUSED', details: { newer: 7 } })
  const held = leases.acquire('g', 7)
  await held
  const waiting = leases.acquire('h', 1)
  leases.stop()
  await expect(waiting).rejects.toMatchObject({ code: 'LEASE_STOPPED' })
  expect(leases.remainingMs('g', 7)).toBe(0)
})

test('a voter that is restarted with a shorter lease waits for what it granted with the longer one', async () => {
  const names = ['a', 'b', 'c']
  const before = await started(names, firstVoters(names), {}, { ...LEASE, durationMs: 10_000 })
  await peer(before, 0).registers.change('g', () => ({ owner: 'a' }), { generation: () => 1 })
  for (const { registers } of before) registers.stop()
  const stores = Object.fromEntries(names.map((name, i) => [name, peer(before, i).store]))
  for (const lives of [1, 2]) {
    const peers = await started(names, firstVoters(names), stores)
    const { registers, clock } = peer(peers, 1)
    await clock.pass(1_100)
    const takeover = registers.change('g', () => ({ owner: 'b' }), { fence: () => ['a'], generation: () => 2 })
    const [outcome] = await Promise.allSettled([inTime(clock, takeover)])
    const reason = { code: 'REGISTER_LEASED', details: { retryMs: expect.any(Number) } }
    expect(outcome, `life ${lives}`).toMatchObject({ status: 'rejected', reason })
    for (const each of peers) each.registers.stop()
  }
})

test('a voter grants nothing before the length of its grants is on disk', async () => {
  const short = peer(await started(['a'], undefined, {}, { ...LEASE, durationMs: 100 }), 0)
  await short.registers.change('g', () => 1, { generation: () => 1 })
  short.registers.stop()
  const { store } = short
  const written = Promise.withResolvers<void>()
  const persist = store.persist.bind(store)
  store.persist = async entries => {
    if (entries.some(([name]) => name === 'grants')) await written.promise
    await persist(entries)
  }
  const { leases, clock } = peer(await started(['a'], undefined, { a: store }), 0)
  const held = leases.acquire('g', 1)
  await clock.pass(LEASE.renewEveryMs)
  expect(leases.remainingMs('g', 1)).toBe(0)
  written.resolve()
  await clock.pass(LEASE.renewEveryMs)
  await held
  expect(leases.remainingMs('g', 1)).toBeGreaterThan(0)
})
