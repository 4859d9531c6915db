/**
 * What the log tells of a takeover whose end must wait for a lease: detector, registers, leases, directory and takeover agent as
 * in a peer, on a bus in memory and in the time of one clock, so that the wait is there on any machine.
 */
import { describe, expect, it } from 'vitest'
import type { DecisionLog } from '../../node/agents/decisions.ts'
import { GroupDirectory } from '../../node/agents/directory.ts'
import { TakeoverAgent } from '../../node/agents/takeover.ts'
import type { RegisterStore, Transport } from '../../node/ports.ts'
import { createGroup } from '../../protocols/epoch/record.ts'
import { createFailureDetector } from '../../protocols/failure-detector/shell.ts'
import { type GroupRecord, groupKey } from '../../protocols/group.ts'
import { createLeases } from '../../protocols/lease/shell.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import { createRegisters } from '../../protocols/register/shell.ts'
import { firstVoters } from '../../protocols/register/voters.ts'
import { MAX_AGO_MS, type Story } from '../../protocols/decisions/merge.ts'
import { whyText } from '../../node/edge/why.ts'
import { DecisionWorld, VOTERS } from './decision-world.ts'

const LEASE = { durationMs: 2_000, renewEveryMs: 200, driftPerMille: 20 }
const REGISTER = { roundTimeoutMs: 500, giveUpMs: 5_000 }
const DETECTOR = { periodMs: 200, probeTimeoutMs: 100, indirectProbes: 3, suspicionMinMs: 400, suspicionMaxMs: 1_200 }

const vms = ['vm1', 'vm2'].map((id, i) => ({
  id,
  mac: `52:54:00:00:00:0${i}`,
  memoryMiB: 64,
  kernel: '/k',
  initrd: '/i',
  append: ''
}))

function memoryStore(): RegisterStore {
  const entries = new Map<string, Uint8Array>()
  return {
    load: async () => [...entries],
    persist: async list => {
      for (const [name, bytes] of list) {
        if (bytes === null) entries.delete(name)
        else entries.set(name, bytes)
      }
    },
    close: async () => {}
  }
}

/** All of a peer that decides, without what runs VMs. */
async function peerIn(world: DecisionWorld, self: string) {
  const decisions = await world.peer(self)
  const { note, noteBallot, noteLease } = decisions
  const voter = new LeaseVoter(LEASE)
  const lost: ((peer: string, connected: boolean) => void)[] = []
  const transport = { connected: () => true, onConnection: (handler: (typeof lost)[number]) => void lost.push(handler) }
  const shared = {
    self,
    voters: firstVoters(VOTERS),
    bus: world.bus(self),
    clock: world.clock,
    random: () => 0.5,
    log: world.log
  }
  const parts = { store: memoryStore(), guard: voter, settings: REGISTER, onDecision: noteBallot }
  const registers = createRegisters({ ...shared, ...parts })
  const generationOf = (key: string) => registers.generationOf(key)
  const leases = createLeases({ ...shared, settings: LEASE, voter, generationOf, onTrace: noteLease })
  const detector = createFailureDetector({ ...shared, members: VOTERS, settings: DETECTOR, transport, note })
  const directory = new GroupDirectory({
    ...shared,
    members: () => VOTERS,
    floor: () => 0,
    transport: transport as unknown as Transport,
    registers
  })
  decisions.follow(directory)
  new TakeoverAgent({ ...shared, hosts: () => VOTERS, leaving: () => [], directory, detector, report() {}, note })
  await registers.start()
  leases.start()
  detector.start()
  return { decisions, leases, directory, detector, lose: (peer: string) => lost.forEach(each => each(peer, false)) }
}

/** Lets time go on until it is. */
async function over(world: DecisionWorld, what: Promise<unknown>): Promise<void> {
  let settled = false
  const noticed = what.finally(() => (settled = true))
  await world.run(5_000, () => settled)
  await noticed
}

/** With a group that p1 and p2 own, and the lease of p1. */
async function cluster() {
  const world = new DecisionWorld()
  const [p1, p2, p3] = [await peerIn(world, 'p1'), await peerIn(world, 'p2'), await peerIn(world, 'p3')]
  await world.run(3_000) // voters that have just started accept no takeover
  await over(world, p1.directory.change('bank', createGroup('bank', vms, { vm1: 'p1', vm2: 'p2' })))
  await over(world, p1.leases.acquire(groupKey('bank'), 1))
  await world.run(500)
  return { world, p1, p2, p3 }
}

async function whyOf(world: DecisionWorld, { decisions }: { decisions: DecisionLog }): Promise<Story> {
  const asking = decisions.why({ group: 'bank', vm: 'vm1', agoMs: MAX_AGO_MS, here: false })
  await world.turns()
  return await asking
}

describe('a takeover that must wait for the lease of the dead owner', () => {
  it('is told with suspicion, votes, ballots, the wait, and the new owner', async () => {
    const { world, p2, p3 } = await cluster()
    world.leave('p1', 'gone')
    for (const peer of [p2, p3]) peer.lose('p1')
    const moved = (record: GroupRecord | undefined): boolean => record?.generation === 2
    await world.run(5_000, () => moved(p2.directory.get('bank')) && moved(p3.directory.get('bank')))

    const story = await whyOf(world, p2)
    expect(story.silent).toEqual([{ peer: 'p1', why: 'not connected' }])
    const facts = story.told.map(({ by, fact }) => ({ teller: by, ...fact }))
    const first = (kind: string) => facts.find(fact => fact.kind === kind)
    expect(first('suspected')).toMatchObject({ peer: 'p1', by: expect.stringMatching(/p[23]/) })
    expect(first('declared-dead')).toMatchObject({ peer: 'p1', suspectedBy: expect.arrayContaining(['p2', 'p3']) })
    expect(first('plan')).toMatchObject({ generation: 1, owners: { vm1: 'p3', vm2: 'p2' }, moves: [{ vm: 'vm1' }] })
    expect(first('takeover-waits')).toMatchObject({ why: 'lease' })
    const ballots = facts.filter(fact => fact.kind === 'ballot')
    expect(ballots[0]).toMatchObject({
      outcome: 'leased',
      votes: [
        { peer: 'p1', vote: 'silent' },
        { peer: 'p2', vote: 'leased', leaseMs: expect.any(Number) },
        { peer: 'p3', vote: 'leased' }
      ]
    })
    expect(ballots.at(-1)).toMatchObject({
      outcome: 'chosen',
      counter: expect.any(Number),
      votes: [
        { peer: 'p1', vote: 'silent' },
        { peer: 'p2', vote: 'accepted' },
        { peer: 'p3', vote: 'accepted' }
      ]
    })
    expect(facts.filter(fact => fact.kind === 'generation').at(-1)).toMatchObject({ displaced: { vm1: 'p1' } })
    const text = whyText(story, { zone: 'UTC' })
    expect(text).toContain(
      'Moved from host-p1 to host-p3 and booted anew, for there was no snapshot, because host-p1 was'
    )
    expect(text).toMatch(/waits \S+ m?s until the lease of the old owner has run out/)
  })
})

describe('a peer that is silent for a while', () => {
  it('keeps its VMs, and the log of all says why', async () => {
    const { world, p1, p2 } = await cluster()
    world.leave('p1', 'silent')
    await world.run(5_000, () => p2.detector.livenessOf('p1') === 'suspect')
    world.comeBack('p1')
    await world.run(5_000, () => p2.detector.livenessOf('p1') === 'alive')
    await world.run(500)
    const story = await whyOf(world, p1)
    expect(whyText(story, { zone: 'UTC' })).toMatch(/Not moved: host-p1 was suspected, and refuted it after \S+ m?s\./)
    const facts = story.told.map(({ by, fact }) => ({ teller: by, ...fact }))
    expect(facts).toContainEqual({ teller: 'p1', kind: 'accused', peer: 'p1', by: expect.any(String), of: 'suspect' })
    expect(facts.some(fact => fact.kind === 'takeover-due')).toBe(false)
    // Several times, and once with less left than a round of renewals leaves.
    const [renewed] = story.told.flatMap(({ by, times, fact }) =>
      fact.kind === 'lease' && fact.event === 'renewed' ? [{ by, times, leftMs: fact.leftMs }] : []
    )
    expect(renewed).toMatchObject({ by: 'p1', times: expect.toSatisfy((times: number) => times > 2) })
    expect(renewed?.leftMs).toBeGreaterThan(0)
    expect(renewed?.leftMs).toBeLessThan(LEASE.durationMs - 2 * LEASE.renewEveryMs)
  })
})
