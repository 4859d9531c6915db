import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { domainsOf } from '../../node/planning/domains.ts'
import {
  type PlacementFacts,
  placeRestore,
  placeStart,
  placeVms,
  planRestore,
  standbyHosts
} from '../../node/planning/placement.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'

const vm = (id: string, memoryMiB = 64, apart?: string): VmSpec =>
  aVm(id, { memoryMiB, ...(apart === undefined ? {} : { apart }) })
const record = (vms: readonly VmSpec[], owners: Record<string, string>, id = 'g'): GroupRecord =>
  aGroup({ id, vms, owners })

const HOSTS = ['p1', 'p2', 'p3', 'p4']

/** Clusters so small that all plans can be tried: four hosts, in two racks or none, up to five VMs. */
const small = fc.record({
  vms: fc
    .array(
      fc.record({
        memoryMiB: fc.constantFrom(16, 32, 48, 64),
        apart: fc.constantFrom(undefined, 'web', 'db'),
        owner: fc.constantFrom(...HOSTS)
      }),
      { minLength: 1, maxLength: 5 }
    )
    .map(drawn => drawn.map(({ memoryMiB, apart, owner }, i) => ({ spec: vm(`v${i}`, memoryMiB, apart), owner }))),
  known: fc.tuple(
    ...HOSTS.map(peer =>
      fc.record({
        peer: fc.constant(peer),
        labels: fc.constantFrom({}, { host: 'h1', rack: 'r1' }, { rack: 'r1' }, { rack: 'r2' }),
        vmMemoryMiB: fc.constantFrom(undefined, 32, 64, 96, 128)
      })
    )
  ),
  alive: fc.uniqueArray(fc.constantFrom(...HOSTS), { minLength: 1 }),
  standby: fc.constantFrom(...HOSTS)
})
type Small = typeof small extends fc.Arbitrary<infer T> ? T : never

function factsOf({ vms, known, alive, standby }: Small): { record: GroupRecord; facts: PlacementFacts } {
  const owners = Object.fromEntries(vms.map(({ spec, owner }) => [spec.id, owner]))
  const specs = vms.map(({ spec }) => spec)
  return {
    record: record(specs, owners),
    facts: { hosts: alive, groups: [], known, standbys: { v0: [standby] } }
  }
}

/** What a plan gives up; undefined: it is none, because a host that got a VM has not the memory. */
function costOf(
  owners: Record<string, string | undefined>,
  { record: { vms, ...before }, facts }: ReturnType<typeof factsOf>
) {
  const about = (peer: string) => facts.known?.find(each => each.peer === peer) ?? { peer }
  const placed = vms.flatMap(spec => (owners[spec.id] === undefined ? [] : [{ spec, host: owners[spec.id] as string }]))
  for (const host of facts.hosts) {
    const here = placed.filter(each => each.host === host)
    const capacity = about(host).vmMemoryMiB ?? Number.POSITIVE_INFINITY
    const arrived = here.some(({ spec }) => before.owners[spec.id] !== host)
    if (arrived && here.reduce((sum, { spec }) => sum + spec.memoryMiB, 0) > capacity) return undefined
  }
  const pairs = placed.flatMap((a, i) =>
    placed
      .slice(i + 1)
      .flatMap(b => (a.spec.apart !== undefined && a.spec.apart === b.spec.apart ? [[a, b] as const] : []))
  )
  const sharing = (level: 'host' | 'rack'): number =>
    pairs.filter(([a, b]) => domainsOf(about(a.host))[level] === domainsOf(about(b.host))[level]).length
  return [vms.length - placed.length, sharing('host'), sharing('rack')]
}

/** Every way to give hosts to those that need one. */
function* allPlans(
  vms: readonly VmSpec[],
  hosts: readonly string[],
  keep: Record<string, string>
): Generator<Record<string, string | undefined>> {
  const [first, ...rest] = vms
  if (first === undefined) return yield { ...keep }
  for (const host of [...hosts, undefined]) {
    for (const plan of allPlans(rest, hosts, keep)) yield { ...plan, [first.id]: host }
  }
}

const less = (a: readonly number[], b: readonly number[]): boolean => {
  const at = a.findIndex((value, i) => value !== b[i])
  return at !== -1 && (a[at] ?? 0) < (b[at] ?? 0)
}

describe('who restores what', () => {
  test('no plan of all there are gives up less, and no host gets more VMs than it has memory for', () => {
    fc.assert(
      fc.property(small, drawn => {
        const world = factsOf(drawn)
        const plan = placeRestore(world.record, world.facts)
        const cost = costOf(plan.owners, world)
        const lost = world.record.vms.filter(({ id }) => !drawn.alive.includes(world.record.owners[id] ?? ''))
        const keep = Object.fromEntries(
          Object.entries(world.record.owners).filter(([id]) => lost.every(each => each.id !== id))
        )
        expect(plan.owners).toMatchObject(keep)
        expect(plan.homeless.map(({ id }) => id)).toEqual(
          world.record.vms.filter(({ id }) => plan.owners[id] === undefined).map(({ id }) => id)
        )
        expect(cost).toBeDefined()
        for (const other of allPlans(lost, drawn.alive, keep)) {
          const its = costOf(other, world)
          if (its !== undefined) expect(less(its, cost ?? [])).toBe(false)
        }
      }),
      { numRuns: 300 }
    )
  })
  test('everybody makes the same plan, in whatever order facts were learned', () => {
    fc.assert(
      fc.property(small, drawn => {
        const { record: group, facts } = factsOf(drawn)
        const turned = {
          ...facts,
          hosts: facts.hosts.toReversed(),
          known: facts.known?.toReversed() ?? []
        }
        const backwards = { ...group, vms: group.vms.toReversed() }
        const plan = placeRestore(group, facts)
        const other = placeRestore(backwards, turned)
        expect(other.owners).toEqual(plan.owners)
        expect(other.moves).toEqual(plan.moves)
      })
    )
  })
  test('what a group elsewhere does leaves a plan alone that keeps a standby where it is', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('p2', 'p3'), fc.integer({ min: 16, max: 500 })), { maxLength: 6 }),
        busy => {
          const groups = busy.map(([owner, memoryMiB], i) => record([vm('x', memoryMiB)], { x: owner }, `other${i}`))
          const group = record([vm('a'), vm('b')], { a: 'p1', b: 'p1' })
          const facts = { hosts: HOSTS, groups, standbys: { a: ['p2'], b: ['p3'] } }
          expect(standbyHosts(group, facts)).toEqual({ a: 'p2', b: 'p3' })
          expect(planRestore(group, { ...facts, hosts: ['p2', 'p3', 'p4'] })?.owners).toEqual({ a: 'p2', b: 'p3' })
        }
      )
    )
  })
  test('a standby that is chosen stays chosen when it is there', () => {
    fc.assert(
      fc.property(small, drawn => {
        const { record: group, facts } = factsOf(drawn)
        const alive = { ...facts, hosts: HOSTS, standbys: {} }
        const chosen = standbyHosts(group, alive)
        const standbys = Object.fromEntries(Object.entries(chosen).map(([id, host]) => [id, [host]]))
        expect(standbyHosts(group, { ...alive, standbys })).toEqual(chosen)
        for (const [id, host] of Object.entries(chosen)) expect(host).not.toBe(group.owners[id])
      })
    )
  })
  test('VMs to be apart find different racks, then hosts, and share one rather than not run', () => {
    const known = [
      { peer: 'p1', labels: { rack: 'r1' } },
      { peer: 'p2', labels: { rack: 'r1' } },
      { peer: 'p3', labels: { rack: 'r2' } }
    ]
    const three = ['a', 'b', 'c'].map(id => vm(id, 64, 'web'))
    const on = (count: number, hosts: readonly string[]) =>
      placeVms(three.slice(0, count), {}, { hosts, groups: [], known })
    expect(on(2, HOSTS.slice(0, 3)).owners).toEqual({ a: 'p1', b: 'p3' })
    expect(on(3, HOSTS.slice(0, 3)).owners).toEqual({ a: 'p1', b: 'p3', c: 'p2' })
    expect(on(3, HOSTS.slice(0, 3)).moves.map(({ shares }) => shares)).toEqual([undefined, undefined, 'rack'])
    expect(on(3, ['p1', 'p3']).moves.map(({ shares }) => shares)).toEqual([undefined, undefined, 'host'])
  })
  test('memory is never given up: a VM without room has no host, and the plan says which', () => {
    const known = [
      { peer: 'p1', vmMemoryMiB: 100 },
      { peer: 'p2', vmMemoryMiB: 64 }
    ]
    const facts = { hosts: ['p1', 'p2'], groups: [], known }
    const plan = placeVms([vm('a', 64, 'web'), vm('b', 64), vm('c', 64, 'web')], {}, facts)
    expect(plan.homeless).toHaveLength(1)
    expect(planRestore(record([vm('a', 128)], { a: 'p9' }), facts)).toBeUndefined()
    // p1 has room for both only if the larger one does not go to the emptier host.
    const tight = placeVms([vm('a', 60), vm('b', 50), vm('c', 50)], {}, facts)
    expect(tight.owners).toEqual({ a: 'p2', b: 'p1', c: 'p1' })
  })
  test('a plan says of each VM what counted: that it is the only host, or has room, or in what it is better than the best other', () => {
    const gives = (...limits: (number | undefined)[]) =>
      limits.map((vmMemoryMiB, i) => ({ peer: `p${i + 1}`, ...(vmMemoryMiB !== undefined && { vmMemoryMiB }) }))
    const ground = (vms: readonly VmSpec[], known: ReturnType<typeof gives>, more: Partial<PlacementFacts> = {}) =>
      placeVms(vms, {}, { hosts: known.map(({ peer }) => peer), groups: [], known, ...more }).moves.map(
        each => each.ground
      )
    expect(ground([vm('a')], gives(512))).toEqual(['only-host'])
    expect(ground([vm('a')], gives(512, 32))).toEqual(['room'])
    expect(ground([vm('a')], gives(512, 512))).toEqual(['name'])
    expect(ground([vm('a')], gives(512, undefined))).toEqual(['told'])
    expect(ground([vm('a')], gives(512, 1_024))).toEqual(['fullness'])
    expect(ground([vm('a')], gives(512, 512), { standbys: { a: ['p2'] } })).toEqual(['standby'])
    expect(ground([vm('a')], gives(512, 512), { columns: { a: { p2: 2, p1: 1 } } })).toEqual(['columns'])
    expect(ground([vm('a', 64, 'web'), vm('b', 64, 'web')], gives(512, 512))).toEqual(['name', 'apart'])
    // The first would be better off on the emptier host, but then the others found no room.
    expect(ground([vm('a', 60), vm('b', 50), vm('c', 50)], gives(100, 64))).toEqual(['others', 'room', 'room'])
  })
  test('VMs of groups that are removed take no room', () => {
    const gone = { ...record([vm('x', 64)], { x: 'p1' }, 'other'), removed: true }
    const facts = { hosts: ['p1'], groups: [gone], known: [{ peer: 'p1', vmMemoryMiB: 64 }] }
    expect(placeVms([vm('a')], {}, facts).owners).toEqual({ a: 'p1' })
  })
  test('a host twice as large gets twice as much', () => {
    const known = [
      { peer: 'p1', vmMemoryMiB: 2048 },
      { peer: 'p2', vmMemoryMiB: 1024 }
    ]
    const nine = Array.from({ length: 9 }, (_, i) => vm(`v${i}`, 128))
    const { owners } = placeVms(nine, {}, { hosts: ['p1', 'p2'], groups: [], known })
    expect(Object.values(owners).filter(host => host === 'p1')).toHaveLength(6)
  })
  test('a host that said nothing, as one of an older version, gets what no other has room for', () => {
    const four = Array.from({ length: 4 }, (_, i) => vm(`v${i}`, 128))
    const facts = { hosts: ['p1', 'p2', 'p3'], groups: [], known: [{ peer: 'p2', vmMemoryMiB: 256 }] }
    const { owners, homeless } = placeVms(four, {}, { ...facts, standbys: { v0: ['p1'] } })
    expect(Object.values(owners).toSorted()).toEqual(['p1', 'p2', 'p2', 'p3'])
    expect([owners['v0'], owners['v1'], homeless]).toEqual(['p2', 'p2', []])
    expect(Object.values(placeVms(four.slice(0, 3), {}, { ...facts, known: [] }).owners).toSorted()).toEqual(
      facts.hosts
    )
  })
  test('of hosts that are as full, the one with more of the image is taken', () => {
    const facts = { hosts: ['p1', 'p2', 'p3'], groups: [], columns: { a: { p1: 0, p2: 1, p3: 2 } } }
    expect(placeVms([vm('a')], {}, facts).moves).toMatchObject([{ to: 'p3', columns: 2, standby: false }])
  })
})

test('groups that lose VMs with one host do not all count on the same room', () => {
  const groups = ['a', 'b', 'c'].map(id => record([vm(`${id}1`)], { [`${id}1`]: 'p1' }, id))
  const known = ['p2', 'p3'].map(peer => ({ peer, vmMemoryMiB: 64 }))
  const facts: PlacementFacts = { hosts: ['p2', 'p3'], groups, known }
  const [a, b, c] = groups.map(group => placeRestore(group, facts))
  expect(Object.values({ ...a?.owners, ...b?.owners }).sort()).toEqual(['p2', 'p3'])
  expect(c?.homeless.map(({ id }) => id)).toEqual(['c1'])
  // Once the first is decided the others see it in its record, and plan as before.
  const decided = groups.map(group => (group.id === 'a' ? { ...group, owners: a?.owners ?? {} } : group))
  expect(placeRestore(groups[1] as GroupRecord, { ...facts, groups: decided }).owners).toEqual(b?.owners)
})

describe('a group that rests and starts', () => {
  const resting = (vms: readonly VmSpec[], owners: Record<string, string>): GroupRecord => ({
    ...record(vms, owners),
    resting: true
  })
  const known = ['p1', 'p2'].map(peer => ({ peer, vmMemoryMiB: 128 }))
  const alone: PlacementFacts = { hosts: ['p1', 'p2'], groups: [], known }

  test('starts where it ran, as far as nobody else has that memory by now', () => {
    const group = resting([vm('a'), vm('b')], { a: 'p1', b: 'p1' })
    expect(placeStart(group, alone)).toMatchObject({ owners: { a: 'p1', b: 'p1' }, moves: [] })
    const other = record([vm('x')], { x: 'p1' }, 'other')
    expect(placeStart(group, { ...alone, groups: [other] }).owners).toEqual({ a: 'p1', b: 'p2' })
    const large = record([vm('x', 128)], { x: 'p1' }, 'other')
    expect(placeStart(group, { ...alone, groups: [large] }).owners).toEqual({ a: 'p2', b: 'p2' })
    const both = [large, record([vm('y', 65)], { y: 'p2' }, 'third')]
    expect(placeStart(group, { ...alone, groups: both }).homeless.map(({ id }) => id)).toEqual(['a', 'b'])
    expect(placeStart(group, { ...alone, groups: both.map(each => ({ ...each, resting: true })) }).homeless).toEqual([])
  })

  test('leaves a host that leaves, and stays nowhere where all would find room elsewhere', () => {
    const group = resting([vm('a')], { a: 'p1' })
    expect(placeStart(group, { ...alone, hosts: ['p2'], leaving: ['p1'] }).owners).toEqual({ a: 'p2' })
    // Where the small one stays where it was, the large one has no host.
    const two = resting([vm('a', 64), vm('b', 128)], { a: 'p1', b: 'p9' })
    const tight = { ...alone, groups: [record([vm('x')], { x: 'p2' }, 'other')] }
    expect(placeStart(two, tight)).toMatchObject({ owners: { a: 'p2', b: 'p1' }, homeless: [] })
  })
})
