/** Stories as peers told them, for tests of the timeline. Times are milliseconds after 2026-03-01 02:14:03 UTC. */
import type { Fact, Told } from '../../protocols/decisions/facts.ts'
import type { Story } from '../../protocols/decisions/merge.ts'

export const START_MS = Date.UTC(2026, 2, 1, 2, 14, 3)

const seqs = new Map<string, number>()

export function told(
  by: string,
  afterMs: number,
  fact: Fact,
  repeats: { times?: number; lastAfterMs?: number } = {}
): Told {
  const seq = (seqs.get(by) ?? 0) + 1
  seqs.set(by, seq)
  const { times = 1, lastAfterMs = afterMs } = repeats
  return { by, seq, atMs: START_MS + afterMs, lastAtMs: START_MS + lastAfterMs, times, fact }
}

export function storyOf(entries: readonly Told[], fields: Partial<Story> = {}): Story {
  return {
    group: 'bank',
    vm: 'vm1',
    by: 'id-p2',
    nowMs: START_MS + 60_000,
    names: { 'id-p1': 'p1', 'id-p2': 'p2', 'id-p3': 'p3' },
    record: { owner: 'id-p1', generation: 1, epoch: 7, removed: false },
    told: entries,
    tellers: ['id-p2', 'id-p3'].map(peer => ({ peer, left: 0, aheadMs: 0 })),
    silent: [{ peer: 'id-p1', why: 'not connected' }],
    ...fields
  }
}

const group = { group: 'bank', generation: 1 }
const lease = { kind: 'lease', group: 'bank', leftMs: 0, granted: [], vms: [], newer: 0 } as const
const owners = { vm1: 'id-p1', vm2: 'id-p2' }

export const made: Told[] = [
  told('id-p2', -90_000, { kind: 'generation', ...group, epoch: 0, owners, displaced: {}, how: 'made' }),
  told('id-p3', -89_998, { kind: 'generation', ...group, epoch: 0, owners, displaced: {}, how: 'made' }),
  told('id-p2', -89_950, {
    ...lease,
    event: 'granted',
    generation: 1,
    leftMs: 985,
    granted: ['id-p1', 'id-p2', 'id-p3']
  }),
  told('id-p2', -89_750, { ...lease, event: 'renewed', generation: 1, leftMs: 742 }, { times: 449, lastAfterMs: -150 })
]

const suspected = (by: string): Fact => ({
  kind: 'suspected',
  peer: 'id-p1',
  by,
  why: 'no connection, 1 of 1 others that were asked say the same',
  deadInMs: 1_200
})
const confirmed: Fact = { kind: 'confirmed', peer: 'id-p1', by: 'id-p3', deadInMs: 393 }

export const suspicion: Told[] = [
  told('id-p2', 120, suspected('id-p2')),
  told('id-p3', 124, suspected('id-p2')),
  told('id-p3', 127, confirmed),
  told('id-p2', 131, confirmed)
]

export const refutation: Told[] = [
  told('id-p2', 330, { kind: 'refuted', peer: 'id-p1', was: 'suspect', afterMs: 210 }),
  told('id-p3', 334, { kind: 'refuted', peer: 'id-p1', was: 'suspect', afterMs: 210 })
]

export const death: Told[] = [
  told('id-p2', 524, {
    kind: 'declared-dead',
    peer: 'id-p1',
    by: 'id-p2',
    suspectedBy: ['id-p2', 'id-p3'],
    afterMs: 404
  }),
  told('id-p2', 524, { kind: 'takeover-due', ...group, lost: ['vm1'], dead: ['id-p1'], rank: 0, waitMs: 0 }),
  told('id-p3', 526, {
    kind: 'declared-dead',
    peer: 'id-p1',
    by: 'id-p3',
    suspectedBy: ['id-p2', 'id-p3'],
    afterMs: 402
  }),
  told('id-p3', 526, { kind: 'takeover-due', ...group, lost: ['vm1'], dead: ['id-p1'], rank: 1, waitMs: 60 }),
  told('id-p2', 526, {
    kind: 'plan',
    ...group,
    owners: { vm1: 'id-p3', vm2: 'id-p2' },
    moves: [
      {
        vm: 'vm1',
        to: 'id-p3',
        memoryMiB: 128,
        ground: 'fullness',
        promised: [
          { peer: 'id-p3', memoryMiB: 0 },
          { peer: 'id-p2', memoryMiB: 128 }
        ]
      }
    ]
  })
]

const ballot = (counter: number, outcome: 'chosen' | 'leased', leaseMs?: number): Fact => ({
  kind: 'ballot',
  group: 'bank',
  counter,
  outcome,
  rounds: 2,
  tookMs: 14,
  votes: [
    { peer: 'id-p1', vote: 'silent' },
    { peer: 'id-p2', vote: 'accepted' },
    leaseMs === undefined ? { peer: 'id-p3', vote: 'accepted' } : { peer: 'id-p3', vote: 'leased', leaseMs }
  ]
})

export const leaseWait: Told[] = [
  told('id-p2', 541, ballot(10_041, 'leased', 301)),
  told('id-p2', 541, { kind: 'takeover-waits', ...group, why: 'lease', retryMs: 301, text: '' })
]

export const takeover: Told[] = [
  told('id-p2', 861, ballot(10_043, 'chosen')),
  told('id-p2', 861, {
    kind: 'generation',
    group: 'bank',
    generation: 2,
    epoch: 7,
    owners: { vm1: 'id-p3', vm2: 'id-p2' },
    displaced: { vm1: 'id-p1' },
    how: 'changed'
  }),
  told('id-p2', 861, { kind: 'takeover-ended', ...group, outcome: 'decided' }),
  told('id-p3', 864, {
    kind: 'generation',
    group: 'bank',
    generation: 2,
    epoch: 7,
    owners: { vm1: 'id-p3', vm2: 'id-p2' },
    displaced: { vm1: 'id-p1' },
    how: 'changed'
  }),
  told('id-p3', 893, { ...lease, event: 'granted', generation: 2, leftMs: 981, granted: ['id-p2', 'id-p3'] }),
  told('id-p3', 1_093, { ...lease, event: 'renewed', generation: 2, leftMs: 701 }, { times: 80, lastAfterMs: 17_100 }),
  told('id-p3', 1_310, {
    kind: 'vm',
    group: 'bank',
    vm: 'vm1',
    generation: 2,
    event: 'resumed',
    epoch: 7,
    tookMs: 402
  }),
  told('id-p3', 2_950, { kind: 'vm', group: 'bank', vm: 'vm1', generation: 2, event: 'complete', epoch: 7, tookMs: 0 })
]
