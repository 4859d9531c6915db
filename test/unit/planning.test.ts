import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { planHolders, tolerates, withinReach } from '../../node/planning/holders.ts'
import { planOwners, planRestore } from '../../node/planning/placement.ts'
import { parseStreamId, planRetention } from '../../node/planning/retention.ts'
import type { ImageManifest } from '../../node/ports.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'

const vm = (id: string, memoryMiB = 64) => aVm(id, { memoryMiB })
const record = (fields: Partial<GroupRecord>): GroupRecord =>
  aGroup({ vms: [vm('a'), vm('b'), vm('c')], owners: { a: 'p1', b: 'p2', c: 'p3' }, ...fields })

describe('placement', () => {
  test('the plan does not depend on the order in which facts are learned', () => {
    const hosts = fc.uniqueArray(fc.constantFrom('p1', 'p2', 'p3', 'p4', 'p5'), { minLength: 1 })
    fc.assert(
      fc.property(
        hosts,
        fc.array(fc.integer({ min: 16, max: 512 }), { minLength: 1, maxLength: 8 }),
        (peers, sizes) => {
          const vms = sizes.map((size, i) => vm(`v${i}`, size))
          const plan = planOwners(vms, {}, { hosts: peers, groups: [] })
          expect(planOwners(vms, {}, { hosts: [...peers].reverse(), groups: [] })).toEqual(plan)
        }
      )
    )
  })
  test('VMs spread over the hosts with the least memory promised', () => {
    const busy = record({ id: 'other', vms: [vm('x', 512)], owners: { x: 'p1' } })
    const plan = planOwners([vm('a'), vm('b')], {}, { hosts: ['p1', 'p2', 'p3'], groups: [busy] })
    expect(plan?.owners).toEqual({ a: 'p2', b: 'p3' })
  })
  test('a restore leaves VMs where their host lives and moves only the lost ones', () => {
    const plan = planRestore(record({}), { hosts: ['p1', 'p3', 'p4'], groups: [record({})] })
    expect(plan?.owners).toEqual({ a: 'p1', b: 'p4', c: 'p3' })
  })
  test('a plan says why each VM goes where it goes', () => {
    const busy = record({ id: 'other', vms: [vm('x', 512)], owners: { x: 'p4' } })
    const plan = planRestore(record({}), { hosts: ['p1', 'p3', 'p4'], groups: [busy] })
    const promised = [
      { peer: 'p1', memoryMiB: 64 },
      { peer: 'p3', memoryMiB: 64 },
      { peer: 'p4', memoryMiB: 512 }
    ]
    expect(plan?.moves).toEqual([{ vm: vm('b'), to: 'p1', ground: 'name', promised, standby: false, columns: 0 }])
  })
  test('without a living host there is no plan', () => {
    expect(planRestore(record({}), { hosts: [], groups: [] })).toBeUndefined()
  })
  test('a host that leaves keeps what it runs, and gets nothing', () => {
    const plan = planRestore(record({}), { hosts: ['p4'], leaving: ['p1'], groups: [] })
    expect(plan?.owners).toEqual({ a: 'p1', b: 'p4', c: 'p4' })
    expect(planRestore(record({}), { hosts: [], leaving: ['p1'], groups: [] })).toBeUndefined()
    expect(planRestore(record({}), { hosts: [], leaving: ['p1', 'p2', 'p3'], groups: [] })?.moves).toEqual([])
  })
})

describe('holders of columns', () => {
  test('with enough peers each column has its own and any m peers may vanish', () => {
    const holders = planHolders(['p5', 'p1', 'p2', 'p3', 'p4'], 3, 2, 1)
    expect(new Set(holders).size).toBe(5)
    expect(tolerates(holders, 2)).toBe(2)
  })
  test('with fewer peers than columns some hold two, and the tolerance says so', () => {
    expect(tolerates(planHolders(['p1', 'p2', 'p3', 'p4'], 3, 2, 0), 2)).toBe(1)
    expect(tolerates(planHolders(['p1', 'p2'], 3, 2, 0), 2)).toBe(0)
  })
  test('a living peer that its owner has no connection to holds nothing, unless too few others are left', () => {
    const reached = (peer: string): boolean => peer !== 'p6'
    expect(withinReach(['p1', 'p2', 'p3', 'p4', 'p5', 'p6'], reached, 3, 2)).toEqual(['p1', 'p2', 'p3', 'p4', 'p5'])
    expect(withinReach(['p1', 'p2', 'p3', 'p4', 'p6'], reached, 3, 2)).toEqual(['p1', 'p2', 'p3', 'p4', 'p6'])
  })
  test('tolerance is what trying every set of lost peers says', () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 0, max: 4 }),
        (holders, m) => {
          const peers = [...new Set(holders)]
          const survives = (lost: string[]) => holders.filter(holder => lost.includes(holder)).length <= m
          const subsets = (n: number): string[][] =>
            Array.from({ length: 2 ** peers.length }, (_, bits) => peers.filter((_, i) => (bits >> i) & 1)).filter(
              set => set.length === n
            )
          let safe = 0
          while (safe < peers.length && subsets(safe + 1).every(survives)) safe++
          expect(tolerates(holders, m)).toBe(safe)
        }
      )
    )
  })
})

describe('retention', () => {
  const image = (id: string, streams: string[]): ImageManifest =>
    ({ vm: id, streams: streams.map(stream => ({ stream })) }) as unknown as ImageManifest
  const committed = { epoch: 3, generation: 1, previousEpoch: 2, images: { a: '1', b: '2', c: '3' } }
  const images = [image('a', ['g/a/1/2', 'g/a/1/3']), image('b', ['g/b/1/3']), image('c', ['g/c/1/3'])]
  const streams = [
    'g/a/1/1',
    'g/a/1/2',
    'g/a/1/3',
    'g/a/1/4',
    'g/a/1/5',
    'g/b/1/3',
    'g/a/2/6',
    'other/x/1/1',
    'nonsense'
  ]

  /** Nothing has been forgotten. */
  const present = { gone: new Set<string>(), floor: 0 }

  test('what the committed images refer to stays, decided epochs they do not refer to go', () => {
    const plan = planRetention({
      ...present,
      streams,
      manifests: [],
      groups: [{ record: record({ lastEpoch: 4, committed }), images }],
      about: new Map()
    })
    expect(plan.streams).toEqual(['g/a/1/1', 'g/a/1/4'])
  })
  test('what a held epoch refers to stays until it is released, and everything where it is not all at hand', () => {
    const held = [{ epoch: 1, images: { a: '0' }, by: 'p1 x' }]
    const group = { record: { ...record({ lastEpoch: 4, committed }), held }, images }
    const facts = {
      ...present,
      streams,
      manifests: ['0', '1'],
      about: new Map([['0', { group: 'g', generation: 1, epoch: 1 }]])
    }
    const whole = { ...group, images: [...images, image('a', ['g/a/1/1'])] }
    expect(planRetention({ ...facts, groups: [whole] })).toEqual({ streams: ['g/a/1/4'], manifests: [] })
    expect(planRetention({ ...facts, groups: [group] })).toEqual({ streams: [], manifests: [] })
  })
  test('the open epoch, unknown epochs, newer generations and unknown groups stay', () => {
    const open = { epoch: 4, proposer: 'p1', deadlineMs: 1 }
    const plan = planRetention({
      ...present,
      streams,
      manifests: [],
      groups: [{ record: record({ lastEpoch: 4, open, committed }), images }],
      about: new Map()
    })
    expect(plan.streams).toEqual(['g/a/1/1'])
  })
  test('nothing is forgotten while a committed manifest cannot be read', () => {
    const groups = [{ record: record({ lastEpoch: 4, committed }), images: images.slice(1) }]
    expect(
      planRetention({
        ...present,
        streams,
        manifests: ['9'],
        groups,
        about: new Map([['9', { group: 'g', generation: 1, epoch: 1 }]])
      })
    ).toEqual({
      streams: [],
      manifests: []
    })
  })
  test('manifests of decided epochs go, the committed ones stay', () => {
    const about = new Map(['1', '9'].map(hash => [hash, { group: 'g', generation: 1, epoch: hash === '1' ? 3 : 2 }]))
    const plan = planRetention({
      ...present,
      streams: [],
      manifests: ['1', '9'],
      groups: [{ record: record({ lastEpoch: 3, committed }), images }],
      about
    })
    expect(plan.manifests).toEqual(['9'])
  })
  test('manifests of streams that committed images name stay, whichever epoch made them; others go with theirs', () => {
    const about = new Map(
      ['s1', 's2', 's3', 's4'].map((hash, i) => [hash, { group: 'g', generation: 1, epoch: i + 1 }])
    )
    const [first, ...others] = images
    const named = {
      streams: [
        { stream: 'g/a/1/1', manifest: 's1' },
        { stream: 'g/a/1/3', manifest: 's3' }
      ]
    }
    const open = { epoch: 4, proposer: 'p1', deadlineMs: 1 }
    const facts = { ...present, streams: [], manifests: [...about.keys(), 'nobody knows it'], about }
    const groups = [{ record: record({ lastEpoch: 4, open, committed }), images: [named, ...others] }]
    expect(planRetention({ ...facts, groups }).manifests).toEqual(['s2'])
    const without = [{ record: record({ lastEpoch: 4, open, committed }), images: [first as ImageManifest, ...others] }]
    expect(planRetention({ ...facts, groups: without }).manifests).toEqual(['s1', 's2', 's3'])
    const unread = [{ record: record({ lastEpoch: 4, open, committed }), images: others }]
    expect(planRetention({ ...facts, groups: unread }).manifests).toEqual([])
  })
  test('of a group that was removed and forgotten goes what was made before, and nothing that is newer', () => {
    const about = new Map([
      ['old', { group: 'other', generation: 7, epoch: 1 }],
      ['new', { group: 'other', generation: 8, epoch: 1 }]
    ])
    const stored = ['other/x/7/3', 'other/x/8/3', 'third/x/1/1']
    const facts = { streams: stored, manifests: ['old', 'new'], groups: [], about, floor: 7 }
    expect(planRetention({ ...facts, gone: new Set(['other']) })).toEqual({
      streams: ['other/x/7/3'],
      manifests: ['old']
    })
    expect(planRetention({ ...facts, gone: new Set() })).toEqual({ streams: [], manifests: [] })
  })
  test('what a member makes up stays: of generations that nobody came to, of groups that there are not, and what is no manifest', () => {
    const last = Number.MAX_SAFE_INTEGER
    const about = new Map([['of no time', { group: 'g', generation: last, epoch: 1 }]])
    const facts = { about, manifests: ['of no time', 'no manifest'], gone: new Set(['made-up']), floor: 7 }
    const groups = [{ record: record({ lastEpoch: 4, committed }), images }]
    const stored = [`g/a/${last}/1`, 'g/a/2/1', `made-up/x/${last}/1`, 'made-up/x/8/1', 'unread/x/1/1']
    expect(planRetention({ ...facts, groups, streams: stored })).toEqual({ streams: [], manifests: [] })
    const old = ['g/a/1/1', 'made-up/x/7/1']
    expect(planRetention({ ...facts, groups, streams: [...stored, ...old] }).streams).toEqual(old)
  })
  test('a stream id is taken apart only if it is one', () => {
    expect(parseStreamId('g/a/1/2')).toEqual({ group: 'g', vm: 'a', generation: 1, epoch: 2 })
    for (const wrong of ['', 'g', 'g/a/x/1', 'g/a/1/2/3', 'g/a/1.5/2']) expect(parseStreamId(wrong)).toBeUndefined()
  })
})
