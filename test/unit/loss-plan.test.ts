import { describe, expect, test } from 'vitest'
import { restoreFacts, roomText } from '../../node/agents/restore-facts.ts'
import { planText } from '../../node/edge/cli-plan.ts'
import { parsePlanWish } from '../../node/edge/plan-view.ts'
import { PlanOperations, type PlanOperationsDeps } from '../../node/operations/plans.ts'
import { hostsToLose, planLoss } from '../../node/planning/loss-plan.ts'
import type { StoredImage } from '../../node/planning/obstacles.ts'
import { measuredParts } from '../../node/planning/measured-parts.ts'
import type { Fact, Told } from '../../protocols/decisions/facts.ts'
import type { Talk } from '../../protocols/talks.ts'
import { aGroup, aVm } from './group-records.ts'

const vm = (id: string, memoryMiB = 64, apart?: string) =>
  aVm(id, { memoryMiB, ...(apart === undefined ? {} : { apart }) })
const talk = (other: string, answers: number, answerMs: number): Talk => ({
  vm: other,
  network: 'default',
  sent: 90,
  sentBytes: 9_000,
  heard: 90,
  heardBytes: 9_000,
  answers,
  answerMs
})
const record = aGroup({
  id: 'shop',
  version: 7,
  generation: 2,
  vms: [vm('web', 256, 'front'), vm('db', 512), vm('log', 64, 'front')],
  owners: { web: 'p1', db: 'p1', log: 'p2' },
  lastEpoch: 9,
  committed: { epoch: 9, generation: 2, previousEpoch: 8, images: { web: 'w', db: 'd', log: 'l' } }
})
const TALKS = { web: [talk('db', 40, 0.8)], db: [talk('web', 12, 9)], log: [] }

const told = (facts: readonly (readonly [number, Fact])[]): Told[] =>
  facts.map(([atMs, fact], seq) => ({ seq, atMs, lastAtMs: atMs, times: 1, fact, by: 'p2' }))
const about = { group: 'shop', generation: 2 }
const FAILOVER = told([
  [1_000, { kind: 'suspected', peer: 'p9', by: 'p2', why: 'silent', deadInMs: 1_200 }],
  [1_100, { kind: 'suspected', peer: 'p9', by: 'p3', why: 'silent', deadInMs: 1_200 }],
  [1_620, { kind: 'declared-dead', peer: 'p9', by: 'p2', suspectedBy: ['p2'], afterMs: 620 }],
  [2_050, { ...about, kind: 'generation', epoch: 8, owners: record.owners, displaced: { web: 'p9' }, how: 'changed' }],
  [2_060, { ...about, kind: 'generation', epoch: 8, owners: record.owners, displaced: { web: 'p9' }, how: 'changed' }],
  [2_500, { ...about, kind: 'vm', vm: 'db', event: 'resumed', epoch: 8, tookMs: 900 }],
  [2_600, { ...about, kind: 'vm', vm: 'web', event: 'resumed', epoch: 8, tookMs: 450 }]
])

describe('what a failover took', () => {
  test('is told by the last one: from suspicion to death, to the decision, and to the VM running', () => {
    expect(measuredParts(FAILOVER, 'web')).toEqual({ detectMs: 620, decideMs: 430, resumeMs: 450 })
    expect(measuredParts([], 'web')).toEqual({})
  })
  test('is not counted from a suspicion that was refuted, nor to a decision for another reason', () => {
    const refuted = told([
      [1_000, { kind: 'suspected', peer: 'p9', by: 'p2', why: 'silent', deadInMs: 1_200 }],
      [1_300, { kind: 'refuted', peer: 'p9', was: 'suspect', afterMs: 300 }],
      [9_000, { kind: 'suspected', peer: 'p9', by: 'p2', why: 'silent', deadInMs: 1_200 }],
      [9_700, { kind: 'declared-dead', peer: 'p9', by: 'p2', suspectedBy: ['p2'], afterMs: 700 }],
      [10_000, { ...about, kind: 'generation', epoch: 8, owners: {}, displaced: { db: 'p8' }, how: 'changed' }]
    ])
    expect(measuredParts(refuted, 'web')).toEqual({ detectMs: 700 })
  })
})

describe('the plan for the loss of a host', () => {
  const placement = {
    hosts: ['p1', 'p2', 'p3'],
    groups: [record],
    known: [
      { peer: 'p2', vmMemoryMiB: 1_024 },
      { peer: 'p3', vmMemoryMiB: 600 }
    ]
  }
  test('has where VMs go by memory and apart, and when they start together', () => {
    const measured = { web: measuredParts(FAILOVER, 'web'), db: measuredParts(FAILOVER, 'db') }
    const standing = { voters: placement.hosts, living: placement.hosts, images: [] }
    const facts = { record, placement, talks: TALKS, togetherMs: 2_000, measured, ...standing }
    const plan = planLoss('p1', facts)
    expect(plan.vms).toEqual(['web', 'db'])
    expect(plan.moves.map(({ vm: { id }, to }) => [id, to])).toEqual([
      ['db', 'p2'],
      ['web', 'p3']
    ])
    expect(plan).toMatchObject({ homeless: [], detectMs: 620, decideMs: 430, unmeasured: ['log'] })
    expect(plan.line.together.map(({ starts }) => starts.map(({ vm: id, atMs }) => [id, atMs]))).toEqual([
      [['log', 900]],
      [
        ['web', 900],
        ['db', 900]
      ]
    ])
    expect(plan.obstacle).toBeUndefined()
    expect(planLoss('p1', { ...facts, living: ['p1', 'p2'] }).obstacle).toMatchObject({ kind: 'no-majority', live: 1 })
    expect(hostsToLose(record, placement)).toEqual(['p1', 'p2'])
  })
})

const OLD_LIMITS = { p1: 2_048, p2: 1_024, p3: 600, p4: 128 }
const NOW = { alive: ['p1', 'p2', 'p3', 'p4'], images: [] as readonly StoredImage[] }
function operations(limits: Partial<Record<string, number>> = OLD_LIMITS, { alive, images } = NOW) {
  const members = ['p1', 'p2', 'p3', 'p4'].map(id => ({
    id,
    name: `host-${id}`,
    address: '',
    role: 'storage' as const,
    leaving: false
  }))
  const hosts = () => members.map(({ id }) => id)
  const about = (peers: readonly string[]) => peers.map(peer => ({ peer, labels: {}, vmMemoryMiB: limits[peer] }))
  const world = {
    hosts,
    leaving: () => [],
    detector: { alive: () => alive },
    directory: { all: () => [record] },
    about,
    shape: { k: 2, m: 1 }
  }
  return new PlanOperations({
    config: { restore: { togetherMs: 2_000 } },
    membership: { record: () => ({ members, voters: { ids: hosts() } }) },
    directory: { all: () => [record] },
    storagePeers: { about },
    decisions: { why: async () => ({ told: FAILOVER }) },
    takeover: { facts: () => restoreFacts(world, record), room: () => roomText(world) },
    groups: { talksOf: async () => TALKS },
    detector: world.detector,
    imagesOf: async () => images
  } as unknown as PlanOperationsDeps)
}

describe('diapause plan', () => {
  test('tells people who would restore what, in which order and why', async () => {
    const plans = await operations().plan({ group: 'shop', host: 'host-p1' })
    expect(planText(plans)).toMatchInlineSnapshot(`
      "group shop (back to epoch 9)
        if host-p1 died:
          db (512 MiB) goes to host-p2: 64 of 1024 MiB promised there, 1 column of its image at hand
          web (256 MiB) goes to host-p3: 0 of 600 MiB promised there, 1 column of its image at hand
          log on host-p2 (no restore of it measured yet) starts when it is ready: it waits for nobody's answers
          web on host-p3 (after 900 ms) and db on host-p2 (after 900 ms) start together:
            db waits for web (default: 12 answers, 9 ms each)
            web waits for db (default: 40 answers, 0.8 ms each)
          as the last time: detection 620 ms, decision 430 ms, last VM 900 ms"
    `)
  })
  test('says where a VM fits nowhere, and looks at each host that runs VMs where none is named', async () => {
    const [plan] = await operations({ p1: 64, p2: 128, p3: 128, p4: 128 }).plan({})
    expect(plan?.losses.map(({ host }) => host)).toEqual(['host-p1', 'host-p2'])
    expect(plan?.losses[0]?.homeless).toEqual([
      { vm: 'web', memoryMiB: 256 },
      { vm: 'db', memoryMiB: 512 }
    ])
    expect(planText(plan === undefined ? [] : [plan])).toContain('db (512 MiB): NO HOST HAS ROOM')
    expect(plan?.losses[0]?.totalMs).toBeNull()
    expect(planText(plan === undefined ? [] : [{ ...plan, losses: plan.losses.slice(0, 1) }])).not.toMatch(
      /start|last time/
    )
    expect(planText([])).toBe('there are no groups')
  })
  test('knows what the parts of a failover took, whatever would stand in the way of one now', async () => {
    const known = { web: { detectMs: 620, decideMs: 430, runsMs: 900 } }
    expect(await operations().partsIfLost('shop', 'p1')).toMatchObject(known)
    expect(await operations(OLD_LIMITS, { ...NOW, alive: ['p1'] }).partsIfLost('shop', 'p1')).toMatchObject(known)
  })
  test('looks for what stands in the way at each moment: votes, room, columns', async () => {
    const limits = { ...OLD_LIMITS }
    const now = operations(limits)
    expect(now.obstacleIfLost(record, 'p1', [])).toBeUndefined()
    const image = { vm: 'db', streams: [{ k: 2, places: [['p1'], ['p2'], ['p1']] }] }
    expect(now.obstacleIfLost(record, 'p1', [image])).toMatchObject({ kind: 'columns', left: 1 })
    limits.p2 = 128
    limits.p3 = 128
    expect(now.obstacleIfLost(record, 'p1', [])).toEqual({ kind: 'no-room' })
    const left = operations(OLD_LIMITS, { ...NOW, alive: ['p1', 'p2', 'p3'] })
    expect(left.obstacleIfLost(record, 'p1', [])).toEqual({ kind: 'no-majority', live: 2, voters: 4 })
  })
  test('tells people that a group would not come back, and no time', async () => {
    const image = { vm: 'db', streams: [{ k: 2, places: [['p1'], ['p2'], ['p1']] }] }
    const [plan] = await operations(OLD_LIMITS, { ...NOW, images: [image] }).plan({ host: 'p1' })
    expect(plan?.losses[0]).toMatchObject({ obstacle: { kind: 'columns', vm: 'db' }, totalMs: null })
    expect(planText(plan === undefined ? [] : [plan])).not.toMatch(/goes to|start|last time/)
  })
  test('refuses groups and hosts that there are not', async () => {
    await expect(operations().plan({ group: 'x' })).rejects.toMatchObject({ code: 'GROUP_UNKNOWN' })
    await expect(operations().plan({ host: 'x' })).rejects.toMatchObject({ code: 'HOST_UNKNOWN' })
    expect(parsePlanWish(new URLSearchParams('group=g&host=h'))).toEqual({ group: 'g', host: 'h' })
    expect(() => parsePlanWish(new URLSearchParams('vm=a'))).toThrow('?group=GROUP')
  })
})
