/** What people look at, gathered from all peers: questions, answers and events on a bus in memory, in the time of a clock that stands still. */
import { describe, expect, it } from 'vitest'
import { EventFeed } from '../../node/edge/events.ts'
import { openReading } from '../../node/composition/reading.ts'
import type { PeerStatus } from '../../node/edge/view.ts'
import type { SeenEpoch } from '../../node/ports.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { MAX_EVENT_BYTES, OVERVIEW_PROTOCOL, parseOverviewMessage } from '../../protocols/overview/messages.ts'
import { ANSWER_MS, BUSY, MAX_ANSWERS_PER_S } from '../../protocols/overview/shell.ts'
import { DecisionWorld, VOTERS } from './decision-world.ts'
import { aGroup, aVm } from './group-records.ts'
import { aStatus, member } from './status-support.ts'

const record = aGroup({
  id: 'bank',
  generation: 2,
  vms: ['vm1', 'vm2', 'vm3'].map(id => aVm(id)),
  owners: { vm1: 'p1', vm2: 'p2', vm3: 'p3' },
  committed: { epoch: 4, generation: 2, previousEpoch: 3, images: {} }
})

const seen: SeenEpoch = {
  group: 'bank',
  generation: 2,
  epoch: 4,
  outcome: 'committed',
  openedAtMs: 5_000,
  tookMs: 300,
  vms: {}
}

const statusOf = (self: string, runs: readonly string[], generation = 2): PeerStatus => ({
  ...aStatus,
  id: self,
  members: VOTERS.map(id => ({ ...member(id), id, name: `host-${id}` })),
  groups: [
    {
      record: { ...record, generation },
      running: runs,
      captures: Object.fromEntries(runs.map(vm => [vm, { mode: 'dirty' as const }])),
      leaseRemainingMs: 700
    }
  ]
})

/** Three peers, of which each runs the VM of its number. */
async function cluster(change: (status: PeerStatus) => PeerStatus = status => status) {
  const world = new DecisionWorld()
  const teardown: (() => unknown)[] = []
  const members = VOTERS.map(id => ({ id, name: `host-${id}`, role: 'storage' }))
  const peers = await Promise.all(
    VOTERS.map(async (self, i) => {
      const aheadMs = self === 'p3' ? 60_000 : 0
      const wallMs = (): number => world.nowMs + aheadMs
      const events = new EventFeed(wallMs)
      const bus = world.bus(self)
      const decisions = await world.peer(self, undefined, aheadMs)
      const reads = openReading({
        self,
        bus,
        clock: world.clock,
        wallMs,
        config: { restore: { togetherMs: 0 }, epochs: { intervalMs: 1_000 } },
        membership: { record: () => ({ members }) as unknown as ClusterRecord },
        directory: { get: id => (id === 'bank' ? record : undefined), all: () => [record] },
        storagePeers: { about: ids => ids.map(peer => ({ peer, vmMemoryMiB: 512 })) },
        decisions,
        groups: { talksOf: async () => ({}) },
        history: { of: () => [seen] },
        redundancy: undefined,
        transport: { onConnection() {} },
        events,
        status: async () => change(statusOf(self, [`vm${i + 1}`])),
        teardown: { add: step => void teardown.push(step) }
      })
      return { self, events, reads, bus, decisions }
    })
  )
  const [p1, p2, p3] = peers
  if (p1 === undefined || p2 === undefined || p3 === undefined) throw new Error('three peers')
  return { world, p1, p2, p3 }
}

/** What comes of `asked` while time goes on. */
async function within<T>(world: DecisionWorld, asked: Promise<T>, ms = 2 * ANSWER_MS): Promise<T> {
  let isDone = false
  const settled = asked.finally(() => {
    isDone = true
  })
  await world.run(ms, () => isDone)
  return settled
}

describe('an overview', () => {
  it('has of every VM what its own host says, and of every member what it says of itself', async () => {
    const { world, p1 } = await cluster()
    const { members, vms, groups } = await within(world, p1.reads.overview())
    expect(vms.map(({ vm, owner, state, capture }) => [vm, owner, state, capture])).toEqual([
      ['vm1', 'p1', 'running', 'dirty'],
      ['vm2', 'p2', 'running', 'dirty'],
      ['vm3', 'p3', 'running', 'dirty']
    ])
    expect(
      members.map(({ name, self, usedMemoryMiB, vmMemoryMiB }) => [name, self, usedMemoryMiB, vmMemoryMiB])
    ).toEqual([
      ['host-p1', true, 64, 512],
      ['host-p2', false, 64, 512],
      ['host-p3', false, 64, 512]
    ])
    expect(members.map(({ report }) => Math.round((report?.aheadMs ?? 0) / 100))).toEqual([0, 0, 600])
    expect(groups).toMatchObject([{ id: 'bank', generation: 2, epoch: 4, kept: 1, committedMs: 5_300 }])
  })

  it('tells what a VM would lose by the clock that the age of its epoch is told by', async () => {
    const outlook = {
      backMs: 900,
      parts: { detectMs: null, decideMs: null, runsMs: null },
      bySettings: [],
      lossMs: 8_700,
      missed: []
    }
    const { world, p1 } = await cluster(status => ({
      ...status,
      groups: status.groups.map(group => ({ ...group, outlooks: { [group.running[0] ?? '']: outlook } }))
    }))
    const { vms, groups, nowMs } = await within(world, p1.reads.overview())
    const ageMs = nowMs - (groups[0]?.committedMs ?? 0)
    expect(ageMs).not.toBe(8_700)
    expect(vms.map(each => each.outlook?.lossMs)).toEqual([ageMs, ageMs, ageMs])
  })

  it('says of a group for how long it was not saved, where that is longer than its policy lets pass', async () => {
    const { world, p1 } = await cluster()
    world.nowMs = 30_000
    expect((await within(world, p1.reads.overview())).groups[0]?.overdueMs).toBeUndefined()
    world.nowMs = 90_000
    expect((await within(world, p1.reads.overview())).groups[0]?.overdueMs).toBeCloseTo(90_000 - 5_300, -2)
  })

  it('comes without those that do not answer, and says so of them and of their VMs', async () => {
    const { world, p1 } = await cluster()
    world.leave('p2', 'silent')
    world.leave('p3', 'gone')
    const { members, vms } = await within(world, p1.reads.overview())
    expect(members.map(({ report, silent }) => [report !== null, silent])).toEqual([
      [true, undefined],
      [false, 'no answer within 1 s'],
      [false, 'not connected']
    ])
    expect(vms.map(({ state }) => state)).toEqual(['running', 'unknown', 'unknown'])
  })

  it('calls a VM lost whose host is dead, and starting where its host does not run it in this generation', async () => {
    const dead = (status: PeerStatus): PeerStatus => ({
      ...status,
      members: status.members.map(each => (each.id === 'p3' ? { ...each, liveness: 'dead' } : each)),
      groups: status.groups.map(group => {
        const generation = status.id === 'p2' ? 1 : 2
        return { ...group, record: { ...group.record, generation } }
      })
    })
    const { world, p1 } = await cluster(dead)
    world.leave('p3', 'gone')
    const { vms } = await within(world, p1.reads.overview())
    expect(vms.map(({ state }) => state)).toEqual(['running', 'starting', 'lost'])
  })

  it('is gathered once for all who ask within a second, and anew after it', async () => {
    let looks = 0
    const { world, p1 } = await cluster(status => {
      if (status.id === 'p2') looks++
      return status
    })
    await within(world, Promise.all([p1.reads.overview(), p1.reads.overview()]))
    await within(world, p1.reads.overview())
    expect(looks).toBe(1)
    world.pass(3_000)
    await within(world, p1.reads.overview())
    expect(looks).toBe(2)
  })

  it('takes no more of a member that lies than that its answer cannot be read', async () => {
    const { world, p1, p2 } = await cluster()
    p2.bus.on(OVERVIEW_PROTOCOL, parseOverviewMessage, (from, message) => {
      if (message.kind !== 'ask') return
      p2.bus.send(from, OVERVIEW_PROTOCOL, { kind: 'answer', id: message.id, nowMs: 1, json: '{"version":7}' })
    })
    const { members } = await within(world, p1.reads.overview())
    expect(members[1]).toMatchObject({ report: null, silent: expect.stringContaining('cannot be read') })
    expect(members[2]?.report).toMatchObject({ version: '0.1.0' })
  })

  it('is not told to who asks too often', async () => {
    const { world, p1, p2 } = await cluster()
    let answers = 0
    p1.bus.on(OVERVIEW_PROTOCOL, parseOverviewMessage, (_, { kind }) => void (kind === 'answer' && answers++))
    for (let id = 1; id <= 2 * MAX_ANSWERS_PER_S; id++) {
      p1.bus.send(p2.self, OVERVIEW_PROTOCOL, { kind: 'ask', id, question: { of: 'report' } })
    }
    await world.turns()
    await world.turns()
    expect(answers).toBe(MAX_ANSWERS_PER_S)
  })

  it('is told to who pages fast through the history, who hears of too fast a page that the member is busy', async () => {
    const { world, p1 } = await cluster()
    const pages = Array.from({ length: MAX_ANSWERS_PER_S + 1 }, () => p1.reads.history('bank', { limit: 5 }))
    const silent = (await Promise.all(pages.map(page => within(world, page)))).map(page => page.silent)
    expect(silent.slice(0, -1).flat()).toEqual([])
    expect(silent.at(-1)).toEqual(['p2', 'p3'].map(peer => ({ peer, why: BUSY })))
    const { members } = await within(world, p1.reads.overview())
    expect(members.map(member => member.silent)).toEqual([undefined, undefined, undefined])
  })
})

describe('events of all peers', () => {
  const kinds = (events: readonly { name: string; kind: string }[]): string[] =>
    events.map(({ name, kind }) => `${name} ${kind}`)

  it('are those that each keeps, in one order, whatever their clocks say', async () => {
    const { world, p1, p2, p3 } = await cluster()
    p3.events.emit('first')
    world.pass(200)
    p2.events.emit('second', { peer: 'p9' })
    world.pass(200)
    p1.events.emit('third')
    const events = await within(world, p1.reads.clusterEvents.recent())
    expect(kinds(events)).toEqual(['host-p3 first', 'host-p2 second', 'host-p1 third'])
    expect(events[1]?.event).toMatchObject({ kind: 'second', peer: 'p9' })
  })

  it('come as they happen, each once, also when a message of them was lost', async () => {
    const { world, p1, p2 } = await cluster()
    const seen: string[] = []
    p1.reads.clusterEvents.subscribe(({ name, kind }) => seen.push(`${name} ${kind}`))
    await world.run(100)
    p2.events.emit('a')
    await world.run(100)
    world.leave('p2', 'silent')
    p2.events.emit('lost')
    await world.run(100)
    world.comeBack('p2')
    expect(seen).toEqual(['host-p2 a'])
    await world.run(6_000)
    p2.events.emit('b')
    await world.run(100)
    expect(seen).toEqual(['host-p2 a', 'host-p2 lost', 'host-p2 b'])
  })

  it('count once however often they are told, and are others in another life of their peer', async () => {
    const { world, p1, p2 } = await cluster()
    const seen: string[] = []
    p1.reads.clusterEvents.subscribe(({ kind }) => seen.push(kind))
    await world.run(100)
    p2.events.emit('own')
    await world.run(20_000)
    const tell = (run: string): void => {
      const json = JSON.stringify({ atMs: 1, kind: run })
      p2.bus.send(p1.self, OVERVIEW_PROTOCOL, { kind: 'events', run, nowMs: 1, events: [{ seq: 1, json }] })
    }
    for (const run of ['later', 'later', 'last']) tell(run)
    await world.turns()
    expect(seen).toEqual(['own', 'later', 'last'])
  })

  it('come in pieces where many are kept, and leave out one that is too long', async () => {
    const { world, p1, p2 } = await cluster()
    for (let i = 0; i < 500; i++) p2.events.emit(`e${i}`, { text: 'x'.repeat(200) })
    p2.events.emit('long', { text: 'x'.repeat(MAX_EVENT_BYTES) })
    const seen: string[] = []
    p1.reads.clusterEvents.subscribe(({ kind }) => seen.push(kind))
    await world.run(500)
    expect(seen).toHaveLength(500)
    expect(seen.at(-1)).toBe('e499')
  })

  it('are sent no longer to who has not asked for them for a while', async () => {
    const { world, p1, p2 } = await cluster()
    const end = p1.reads.clusterEvents.subscribe(() => {})
    await world.run(10)
    end()
    await world.run(100_000, () => false)
    let sent = 0
    p1.bus.on(OVERVIEW_PROTOCOL, parseOverviewMessage, () => void sent++)
    p2.events.emit('unseen')
    await world.run(100)
    expect(sent).toBe(0)
  })
})

describe('the decision log of all peers', () => {
  it('is one story, as sentences of who tells it', async () => {
    const { world, p1, p2 } = await cluster()
    world.pass(1_000)
    p2.decisions.note({ kind: 'vm-failed', group: 'bank', generation: 1, vm: 'vm1', why: 'QEMU ended' })
    const { told, silent, left } = await within(world, p1.reads.decisions({ agoMs: 1e9, limit: 100 }))
    const lines = told.map(({ by, fact }) => `${by} ${fact.kind}`)
    expect(lines.slice(0, 3).sort()).toEqual(['p1 peer-started', 'p2 peer-started', 'p3 peer-started'])
    expect(lines.slice(3)).toEqual(['p2 vm-failed'])
    expect([silent, left]).toEqual([[], 0])
  })

  it('begins where a peer whose answer was full begins, so that nothing of it is passed over', async () => {
    const { world, p1, p2 } = await cluster()
    for (let i = 0; i < 1_000; i++) {
      world.pass(10)
      const why = `${i} ${'x'.repeat(250)}`
      p2.decisions.note({ kind: 'vm-failed', group: `g${i % 10}`, generation: i, vm: 'vm1', why })
    }
    const { told, left } = await within(world, p1.reads.decisions({ agoMs: 1e9, limit: 1_000 }))
    expect(new Set(told.map(({ by }) => by))).toEqual(new Set(['p2']))
    expect(told.length + left).toBe(1_003)
  })

  it('takes one answer of each peer', async () => {
    const { world, p1, p2 } = await cluster()
    world.leave('p3', 'silent')
    p2.bus.on(OVERVIEW_PROTOCOL, parseOverviewMessage, (from, message) => {
      if (message.kind !== 'ask') return
      const answer = { kind: 'answer', id: message.id, nowMs: 1, json: '{"entries":[],"left":7}' }
      for (let i = 0; i < 3; i++) p2.bus.send(from, OVERVIEW_PROTOCOL, answer)
    })
    const { left } = await within(world, p1.reads.decisions({ agoMs: 1e9, limit: 100 }))
    expect(left).toBe(7)
  })

  it('is no longer than asked for, the newest of it, and says how much is left out', async () => {
    const { world, p1, p2 } = await cluster()
    for (let i = 0; i < 20; i++) {
      world.pass(1_000)
      p2.decisions.note({ kind: 'vm-failed', group: 'bank', generation: i, vm: 'vm1', why: `${i}` })
    }
    const { told, left } = await within(world, p1.reads.decisions({ agoMs: 1e9, limit: 5 }))
    expect(told.map(({ fact }) => 'generation' in fact && fact.generation)).toEqual([15, 16, 17, 18, 19])
    expect(left).toBe(18)
  })
})
