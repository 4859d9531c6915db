/** Takeovers and ends of epochs for a generation that is over, which are counted; changes that would make what nobody can read. */
import { expect, test } from 'vitest'
import type { GroupDirectory } from '../../node/agents/directory.ts'
import { GroupAgent } from '../../node/agents/group-agent.ts'
import { Placing } from '../../node/agents/placing.ts'
import { TakeoverAgent } from '../../node/agents/takeover.ts'
import { createGroup, openEpoch, takeOver } from '../../protocols/epoch/record.ts'
import { keepHeld } from '../../protocols/epoch/kept.ts'
import { MAX_HOLDS } from '../../protocols/epoch/messages.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { MembershipWorld, type WorldPeer } from './membership-world.ts'

const vm = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }
const DEADLINE_MS = 500

type Next = Parameters<GroupDirectory['change']>[1]

async function change(world: MembershipWorld, { directory }: WorldPeer, next: Next): Promise<GroupRecord> {
  let ended = false
  const changing = directory.change('g', next)
  void changing.finally(() => (ended = true)).catch(() => {})
  await world.run(5_000, () => ended)
  return (await changing) as GroupRecord
}

/** Group g at generation 3, with an epoch open when it was at 1; b has heard of nothing after that. */
async function behind() {
  const world = new MembershipWorld()
  const [a, b, c] = (await world.founders('a', 'b', 'c')) as [WorldPeer, WorldPeer, WorldPeer]
  await world.run(100) // voters that have just started wait for leases that they may have granted
  const made = await change(world, a, createGroup('g', [vm], { vm1: c.self }, 0))
  await change(world, a, openEpoch(a.self, DEADLINE_MS, made.version))
  await world.run(5)
  const agents = {
    self: b.self,
    directory: b.directory,
    detector: { ...b.detector, onChange: () => {} },
    clock: world.clock,
    log: world.log,
    report: () => {},
    note: () => {}
  }
  world.drop = (_from, to, _kind, protocol) => to === b.self && protocol === 'epoch'
  for (const generation of [1, 2]) await change(world, a, takeOver(generation, { vm1: a.self }))
  expect(b.directory.get('g')).toMatchObject({ generation: 1, open: { epoch: 1 } })
  return { world, a, b, c, agents }
}

test('a takeover that finds a newer generation is refused and counted', async () => {
  const { world, b, c, agents } = await behind()
  world.down.add(c.self)
  const takeover = new TakeoverAgent({ ...agents, hosts: () => [b.self], leaving: () => [] })
  takeover.considerAll()
  expect(await world.run(2_000, () => b.directory.refusedChanges > 0)).toBe(true)
  takeover.stop()
  expect(b.directory.refusedChanges).toBe(1)
  expect(b.directory.get('g')).toMatchObject({ generation: 3, owners: { vm1: 'ida' } })
})

test('whoever would abort an epoch of a generation that is over is refused and counted', async () => {
  const { world, b, agents } = await behind()
  const network = { setGroup() {}, removeGroup() {} } as never
  const placing = new Placing({
    self: b.self,
    transport: { connected: () => true },
    about: peers => peers.map(peer => ({ peer }))
  })
  const members = { members: () => [b.self], storage: () => [b.self], leaving: () => [], nameOf: () => '' }
  const hosts = { ...members, older: () => [], hosting: undefined, placing, keeping: () => keepHeld }
  const agent = new GroupAgent({ ...agents, ...hosts, leases: { release: async () => {} } as never, network })
  agent.onRecord(b.directory.get('g') as GroupRecord)
  expect(await world.run(20 * DEADLINE_MS, () => b.directory.refusedChanges > 0)).toBe(true)
  await agent.stop()
  expect(b.directory.get('g')).toMatchObject({ generation: 3, owners: { vm1: 'ida' } })
})

test('a change that would make a record which nobody can read is refused, and the group goes on as it was', async () => {
  const world = new MembershipWorld()
  const [a] = (await world.founders('a', 'b', 'c')) as [WorldPeer]
  await world.run(100)
  const made = await change(world, a, createGroup('g', [vm], { vm1: a.self }, 0))
  const holds = Array.from({ length: MAX_HOLDS + 1 }, (_, i) => ({ epoch: 1, name: `x${i}` }))
  const tooMany = change(world, a, now => (now === null ? undefined : { ...now, version: now.version + 1, holds }))
  await expect(tooMany).rejects.toMatchObject({ code: 'GROUP_CHANGE' })
  expect(await change(world, a, takeOver(1, { vm1: a.self }))).toMatchObject({
    version: made.version + 1,
    generation: 2
  })
})
