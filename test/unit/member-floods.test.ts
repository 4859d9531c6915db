/** What a member that sends and sends can make a peer do: answers a second, and lines of its log. */
import { describe, expect, it } from 'vitest'
import { Housekeeping, type HousekeepingDeps, type ManifestFacts } from '../../node/agents/housekeeping.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { ShardStore } from '../../node/ports.ts'
import { createGroup } from '../../protocols/epoch/record.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { createLeases } from '../../protocols/lease/shell.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import { RateLimit } from '../../protocols/rate-limit.ts'
import { encodeMessage } from '../../protocols/shards/messages.ts'
import { sparingly } from '../../protocols/sparingly.ts'
import type { Connection, Stream } from '../../protocols/stream.ts'
import { MemberPeer } from '../../protocols/transport-peer.ts'
import { aVm } from './group-records.ts'
import { founder, MembershipWorld, type WorldPeer } from './membership-world.ts'
import { cluster, MemoryStore, type Peer } from './shards-network.ts'
import { clock, memoryLog } from './store-support.ts'

/** More than anybody asks within a second. */
const FLOOD = 100

async function three() {
  const world = new MembershipWorld()
  const log = memoryLog()
  Object.assign(world.log, log)
  const [a, b, c] = (await world.founders('a', 'b', 'c')) as [WorldPeer, WorldPeer, WorldPeer]
  /** How often b sends its record of something to a peer because of `FLOOD` messages of that one. */
  const answered = (peer: WorldPeer, protocol: string, question: object): number => {
    const before = world.sent.length
    for (let i = 0; i < FLOOD; i++) world.deliver(peer.self, b.self, protocol, question)
    return world.sent.slice(before).filter(each => each === `${b.self} ${peer.self} ${protocol} record`).length
  }
  return { world, log, a, b, c, answered }
}

describe('a member that asks and asks', () => {
  it('which groups there are is answered so often a second, and others as before', async () => {
    const { world, a, b, c, answered } = await three()
    void b.directory.change('g', createGroup('g', [aVm('vm1')], { vm1: b.self }))
    expect(await world.run(3_000, () => b.directory.get('g') !== undefined)).toBe(true)
    expect([a, a, c].map(peer => answered(peer, 'epoch', { kind: 'ask', versions: {} }))).toEqual([4, 0, 4])
    world.pass(1_000)
    expect(answered(a, 'epoch', { kind: 'ask', versions: {} })).toBe(4)
  })

  it('who the members are is answered so often a second, and others as before', async () => {
    const { world, a, c, answered } = await three()
    expect([a, a, c].map(peer => answered(peer, 'membership', { kind: 'ask', version: 0 }))).toEqual([20, 0, 20])
    world.pass(1_000)
    expect(answered(a, 'membership', { kind: 'ask', version: 0 })).toBe(20)
  })

  it('is counted for a second, and then nothing is kept of it', () => {
    const limit = new RateLimit(2)
    expect([0, 1, 2, 999].map(nowMs => limit.allows('a', nowMs))).toEqual([true, true, false, false])
    expect(limit.allows('b', 500)).toBe(true)
    expect(limit.allows('a', 1_000)).toBe(true)
    expect(limit.size).toBe(2)
    for (let i = 0; i < 1_000; i++) limit.allows(`m${i}`, 3_000)
    limit.allows('c', 4_000)
    expect(limit.size).toBe(1)
  })
})

describe('the log of a peer', () => {
  /** Of `FLOOD`: the 1st, 2nd, 4th, … 64th. */
  const TOLD = [1, 2, 4, 8, 16, 32, 64]
  const countsOf = (log: ReturnType<typeof memoryLog>, text: string): unknown[] =>
    log.lines.filter(({ message }) => message === text).map(({ fields }) => (fields as { count: number }).count)

  it('has the 1st, 2nd, 4th, … of what happens again and again', () => {
    const told: string[] = []
    const tell = sparingly((what: string, count) => void told.push(`${what} ${count}`))
    for (let i = 1; i <= 9; i++) tell(`no. ${i}:`)
    expect(told).toEqual(['no. 1: 1', 'no. 2: 2', 'no. 4: 4', 'no. 8: 8'])
  })

  it('is not filled by records of the cluster that a member makes up, and has no whole one', async () => {
    const { world, log, a, b } = await three()
    const ours = b.membership.record()
    const { voters } = ours
    const other = foundersRecord('other', [founder('a'), founder('b')])
    const few = { ...voters, ids: voters.ids.slice(0, 1), since: { [a.self]: 1 } }
    for (let i = 0; i < FLOOD; i++) {
      for (const record of [other, { ...ours, groupFloor: 5 }, { ...ours, version: 9, voters: few }])
        world.deliver(a.self, b.self, 'membership', { kind: 'record', record })
    }
    expect(countsOf(log, 'a member announces the record of another cluster')).toEqual(TOLD)
    expect(countsOf(log, 'two records of the cluster with the same version')).toEqual(TOLD)
    expect(countsOf(log, 'two records of the cluster whose voters contradict each other')).toEqual(TOLD)
    expect(log.lines.at(-1)?.fields).toEqual({
      from: a.self,
      record: { version: 9, voters: voters.version },
      ours: { version: 1, voters: voters.version },
      count: 64
    })
  })

  /** What a voter that grants leases of 1 s tells of members that claim longer ones. */
  function longerLeases() {
    const log = memoryLog()
    const here = { nowMs: 0 }
    let handler = (_from: string, _message: unknown): void => {}
    const settings = { durationMs: 1_000, renewEveryMs: 200, driftPerMille: 20 }
    const leases = createLeases({
      self: 'me',
      voters: { version: 1, ids: ['me'], since: { me: 1 }, settled: true },
      bus: {
        self: 'me',
        send: () => true,
        on: (_, parse, handle) => (handler = (from, message) => handle(from, parse(message)))
      },
      clock: { now: () => here.nowMs, after: () => () => {} },
      random: Math.random,
      settings,
      log,
      voter: new LeaseVoter(settings),
      generationOf: () => Promise.resolve(1)
    })
    leases.start()
    const claim = (from: string, durationMs: number): void =>
      handler(from, { kind: 'claim', version: 1, session: 1, round: 1, durationMs, claims: [] })
    const told = (): unknown[] =>
      log.lines
        .splice(0)
        .map(({ fields }) => fields as { peer: string; theirMs: number; count: number })
        .map(({ peer, theirMs, count }) => [peer, theirMs, count])
    return { here, claim, told }
  }

  it('has the 1st, 2nd, 4th, … of each member that claims leases longer than we grant', () => {
    const { claim, told } = longerLeases()
    for (let i = 0; i < FLOOD; i++) claim('a', 2_000)
    claim('b', 2_000)
    expect(told()).toEqual([...TOLD.map(count => ['a', 2_000, count]), ['b', 2_000, 1]])
  })

  it('has a member that claims leases of another length that we do not grant, once a minute though it varies', () => {
    const { here, claim, told } = longerLeases()
    for (let i = 0; i < FLOOD; i++) claim('a', 2_000)
    claim('a', 3_000)
    expect(told()).toHaveLength(TOLD.length)
    here.nowMs += 60_000
    claim('a', 2_000)
    expect(told()).toEqual([])
    for (let i = 0; i < 5; i++) claim('a', 3_000)
    expect(told()).toEqual([['a', 3_000, FLOOD + 3]])
    for (let i = 0; i < FLOOD; i++) claim('a', 4_000 + i)
    expect(told()).toEqual([['a', 4_020, 128]])
    here.nowMs += 59_999
    for (let i = 0; i < 20; i++) claim('a', 5_000 + i)
    expect(told()).toEqual([])
    here.nowMs++
    for (let i = 0; i < 20; i++) claim('a', 6_000 + i)
    expect(told()).toEqual([['a', 6_000, FLOOD + 7 + FLOOD + 20 + 1]])
  })

  it('is not filled by messages about shards that make no sense, or ask for what is damaged', async () => {
    const readColumn = (): Promise<never> => Promise.reject(new DiapauseError('SHARD_CORRUPT', 'it is damaged'))
    const { peers } = cluster([new MemoryStore(), Object.assign(new MemoryStore(), { readColumn })])
    const { transport, log } = peers[1] as Peer
    for (let id = 1; id <= FLOOD; id++) {
      void transport.handler?.('p0', Uint8Array.of(0xff, id))
      const get = {
        kind: 'get',
        id,
        stream: 'g/v/1/1',
        grid: 0,
        column: 0,
        ranges: [{ offset: 0, length: 1 }]
      } as const
      void transport.handler?.('p0', Buffer.concat(encodeMessage(get)))
      for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate)
    }
    expect(countsOf(log, 'a message about shards was refused')).toEqual(TOLD)
    expect(countsOf(log, 'a request about shards failed')).toEqual(TOLD)
  })

  it('is not filled by manifests that make no sense, each of which is read once', async () => {
    const log = memoryLog()
    const stored: string[] = []
    const read: string[] = []
    const store = {
      manifests: async () => [...stored],
      getManifest: async (hash: string) => {
        read.push(hash)
        if (hash === 'sick') throw new Error('EIO')
        return Buffer.from(hash)
      },
      streams: async () => []
    } as unknown as ShardStore
    let changed = (): void => {}
    const due: (() => void)[] = []
    const { directory, ...deps } = {
      directory: { all: () => [], get: () => undefined, surveyed: true, onForgotten: () => {} },
      self: 'me',
      registers: { read: async () => null, delete: async () => true },
      clock: { now: () => 0, after: (_: number, fn: () => void) => (due.push(fn), () => {}) },
      deadlineMs: 1_000,
      floor: () => 0,
      describeManifest: (bytes: Uint8Array) => JSON.parse(Buffer.from(bytes).toString()) as ManifestFacts,
      fetchManifest: () => Promise.reject(new Error('unused'))
    }
    const told = { ...directory, onRecord: (handler: () => void) => (changed = handler) }
    new Housekeeping({ ...deps, directory: told as unknown as HousekeepingDeps['directory'], store, log })
    const run = async (): Promise<void> => {
      changed()
      for (const each of due.splice(0)) each()
      for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate)
    }
    for (let i = 1; i <= FLOOD; i++) {
      stored.push(`made up ${i}`)
      await run()
    }
    expect(read).toEqual(stored)
    stored.push('sick')
    for (let i = 0; i < 3; i++) await run()
    expect(read.slice(FLOOD)).toEqual(['sick', 'sick', 'sick'])
    const text = 'manifests cannot be read: they stay, and what they may refer to'
    expect(countsOf(log, text)).toEqual([...TOLD, 1, 2])
    expect(log.lines).toHaveLength(TOLD.length + 2)
    expect(log.lines[1]?.fields).toMatchObject({ hash: 'made up 2', manifests: 1, why: 'content' })
    expect(log.lines.at(-1)?.fields).toMatchObject({ hash: 'sick', error: 'EIO', manifests: 1, why: 'disk' })
  })

  it('is not filled by streams that are closed for what they said', async () => {
    const log = memoryLog()
    const peer = new MemberPeer(
      { id: 'p1', name: 'elm', address: '/ip4/127.0.0.1/tcp/1' },
      {
        open: () => Promise.reject(new Error('nobody is there')),
        announce: () => {},
        handlers: {},
        counts: { received: { control: 0, bulk: 0, frames: 0 }, oversize: 0, silent: 0, mdnsLinks: 0 },
        clock,
        log
      }
    )
    let closed = 0
    const connection = { abort: () => closed++ } as unknown as Connection // of no socket: frames cannot come on it
    for (let i = 0; i < FLOOD; i++) await peer.receive('frames', {} as Stream, connection)
    expect(closed).toBe(FLOOD)
    expect(countsOf(log, 'closed a stream')).toEqual(TOLD)
    expect(log.lines[0]?.fields).toMatchObject({ peer: 'elm', channel: 'frames' })
  })
})
