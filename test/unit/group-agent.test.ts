import { expect, test } from 'vitest'
import { GroupAgent, type GroupAgentDeps } from '../../node/agents/group-agent.ts'
import type { GuestAgent } from '../../node/ports.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { aGroup, aVm } from './group-records.ts'

const { mac: _, ...small } = aVm('vm1')
const spec: VmSpec = { ...small, nics: [{ mac: '52:54:00:00:00:01', network: 'uplink' }] }
const record = (owner: string): GroupRecord => aGroup({ id: 'shop', vms: [spec], owners: { vm1: owner } })

/** A peer that hears of a group; its VMs start at once. */
function agent(
  uplink: boolean,
  guest?: GuestAgent,
  more: object = {},
  destroy: () => Promise<void> = async () => {}
): { readonly agent: GroupAgent; readonly events: [string, Record<string, unknown>][] } {
  const events: [string, Record<string, unknown>][] = []
  const done = async () => {}
  const nic = { ends: [], hold: done, release: done, detach: done, close: done }
  const vm = {
    hypervisor: { define: () => ({ start: done, stop: done, resume: done, destroy, agent: guest }) },
    network: { attach: async () => nic },
    openWorker: async () => ({ close: done }),
    path: () => '',
    wallMs: () => 5_000
  }
  const deps = {
    self: 'id-oak',
    members: () => [],
    nameOf: (id: string) => id.replace('id-', ''),
    hosting: { vm, uplink, started: { of: () => 0, note: async () => {} } },
    network: { setGroup() {}, removeGroup() {} },
    leases: { acquire: async () => {} },
    directory: { broadcast() {} },
    clock: { now: () => 0, after: () => () => {} },
    report: (kind: string, fields: Record<string, unknown>) => events.push([kind, fields]),
    note() {},
    ...more
  }
  return { agent: new GroupAgent(deps as unknown as GroupAgentDeps), events }
}

test('who types on a VM that runs elsewhere is told where, by name', async () => {
  const { agent: peer } = agent(true)
  peer.onRecord(record('id-ash'))
  await expect(peer.type('vm1', 'ls')).rejects.toMatchObject({
    code: 'VM_ELSEWHERE',
    message: 'VM vm1 does not run on this peer; ask ash.'
  })
})

test('a VM that starts where the uplink leads nowhere is told of', async () => {
  for (const uplink of [true, false]) {
    const { agent: peer, events } = agent(uplink)
    peer.onRecord(record('id-oak'))
    await expect.poll(() => events.map(([kind]) => kind)).toContain('vm.started')
    const told = events.find(([kind]) => kind === 'vm.without-uplink')
    expect(told?.[1]['warning']).toEqual(uplink ? undefined : expect.stringContaining('switch.uplink of this peer'))
  }
})

test('a VM that stood still for want of its lease is told the time when it goes on', async () => {
  const set: number[] = []
  const setTime = async (nowMs: () => number) => void set.push(nowMs())
  const { agent: peer, events } = agent(true, { setTime, run: async () => 0 })
  peer.onRecord(record('id-oak'))
  await expect.poll(() => events.map(([kind]) => kind)).toContain('vm.started')
  peer.onLease('lapse', 1)
  expect(set).toEqual([])
  peer.onLease('regained', 1)
  await expect.poll(() => events.at(-1)?.[0]).toBe('vm.clock-set')
  expect(set).toEqual([5_000])
})

test('a group that rests lets its lease go when its VMs have ended, but not the one under which it runs again by then', async () => {
  for (const startsAgain of [false, true]) {
    const leased: string[] = []
    const ending = Promise.withResolvers<void>()
    const acquire = async (key: string, generation: number) => void leased.push(`acquire ${key} ${generation}`)
    const release = async (key: string) => void leased.push(`release ${key}`)
    const { agent: peer, events } = agent(true, undefined, { leases: { acquire, release } }, () => ending.promise)
    const at = (version: number, more: Partial<GroupRecord>) => peer.onRecord({ ...record('id-oak'), version, ...more })
    at(1, { generation: 1 })
    await expect.poll(() => events.map(([kind]) => kind)).toContain('vm.started')
    at(2, { generation: 2, resting: true })
    if (startsAgain) at(3, { generation: 3 })
    await new Promise(resolve => setTimeout(resolve))
    const before = startsAgain ? ['acquire group/shop 1', 'acquire group/shop 3'] : ['acquire group/shop 1']
    expect(leased).toEqual(before)
    ending.resolve()
    await expect.poll(() => events.map(([kind]) => kind)).toContain('vm.destroyed')
    if (startsAgain) await expect.poll(() => events.filter(([kind]) => kind === 'vm.started').length).toBe(2)
    expect(leased).toEqual(startsAgain ? before : [...before, 'release group/shop'])
  }
})

test('a host that gives its VMs up keeps the lease of a newer generation that gives them back while they end', async () => {
  const leased: string[] = []
  const acquire = async (key: string, generation: number) => void leased.push(`acquire ${key} ${generation}`)
  const release = async (key: string) => void leased.push(`release ${key}`)
  const done = async () => {}
  const fails = async () => {
    throw new Error('no room')
  }
  let ending: Promise<void> = Promise.resolve()
  const define = ({ spec: { id } }: { spec: VmSpec }) => ({
    start: id === 'vm1' ? fails : done,
    stop: done,
    destroy: () => (id === 'vm1' ? Promise.resolve() : ending)
  })
  const nic = { ends: [], hold: done, release: done, detach: done, close: done }
  const vm = { hypervisor: { define }, network: { attach: async () => nic }, openWorker: async () => ({ close: done }) }
  const due: (() => void)[] = []
  const asked: string[] = []
  const hosts = ['id-oak', 'id-ash']
  const { agent: peer, events } = agent(true, undefined, {
    hosting: {
      vm: { ...vm, path: () => '', wallMs: () => 0 },
      uplink: true,
      started: { of: () => 0, note: done }
    },
    leases: { acquire, release },
    storage: () => hosts,
    leaving: () => [],
    detector: { alive: () => hosts },
    clock: { now: () => 0, after: (_: number, then: () => void) => (due.push(then), () => {}) },
    directory: { broadcast() {}, all: () => [], change: async (id: string) => void asked.push(id) },
    log: { error() {}, warn() {}, info() {} }
  })
  const two = [spec, { ...spec, id: 'vm2' }]
  const at = (generation: number): void =>
    peer.onRecord({
      ...record('id-oak'),
      vms: two,
      owners: { vm1: 'id-oak', vm2: 'id-oak' },
      version: generation,
      generation
    })
  const failures = () => events.filter(([kind]) => kind === 'vm.failed').length
  for (const generation of [1, 2, 3]) {
    at(generation)
    await expect.poll(failures).toBe(generation)
  }
  const { promise, resolve } = Promise.withResolvers<void>()
  ending = promise
  due.at(-1)?.()
  at(4)
  resolve()
  await expect.poll(() => asked).toEqual(['shop'])
  expect(leased.filter(each => each.endsWith('4'))).toEqual(['acquire group/shop 4', 'acquire group/shop 4'])
  expect(leased.filter(each => each.startsWith('release'))).toEqual([])
})
