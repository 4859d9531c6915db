/** When a leaving member may go for good: with real registers, directories and agents, on disks in memory. */
import { expect, test } from 'vitest'
import { LostMembers } from '../../node/agents/lost-members.ts'
import { MemberOperations } from '../../node/operations/members.ts'
import type { ImageManifest, Liveness } from '../../node/ports.ts'
import { commitEpoch, createGroup, openEpoch } from '../../protocols/epoch/record.ts'
import { wishLeave, wishVotes } from '../../protocols/membership/changes.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { memberById } from '../../protocols/membership/record.ts'
import { founder, MembershipWorld, WorldPeer } from './membership-world.ts'

const vm = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }
const NAMES = ['a', 'b', 'c', 'd', 'e'] as const
const RECORD = foundersRecord(
  'c',
  NAMES.map(name => ({ ...founder(name), role: 'storage' as const }))
)

type Five = [WorldPeer, WorldPeer, WorldPeer, WorldPeer, WorldPeer]

async function storagePeers(world: MembershipWorld): Promise<Five> {
  const peers = NAMES.map(name => new WorldPeer(world, `id${name}`, RECORD)) as Five
  for (const peer of peers) await peer.start()
  await world.run(100) // voters that have just started wait for leases that they may have granted
  return peers
}

async function done<T>(world: MembershipWorld, promise: Promise<T>): Promise<T> {
  let ended = false
  void promise.finally(() => (ended = true)).catch(() => {})
  await world.run(5_000, () => ended)
  return await promise
}

/** Group g, whose VM `owner` runs; its first epoch is committed, with columns at `holders`. */
async function commit(world: MembershipWorld, { self, directory }: WorldPeer, owner: string, holders: string[]) {
  const before = await done(world, directory.change('g', createGroup('g', [vm], { vm1: owner }, 0)))
  const opened = await done(world, directory.change('g', openEpoch(self, 1_000, before?.version ?? 0)))
  const epoch = opened?.open?.epoch ?? 0
  const streams = [{ stream: 's', k: 2, m: 2, holders, dataBytes: 1, grids: [] }]
  const hash = epoch.toString(16).padStart(64, '0')
  world.manifests.set(hash, { streams } as unknown as ImageManifest)
  await done(world, directory.change('g', commitEpoch(1, epoch, { vm1: hash })))
}

async function leave(world: MembershipWorld, by: WorldPeer, id: string): Promise<void> {
  await done(world, by.membership.change(wishLeave(id, false)))
  expect(await world.run(20_000, () => settledWithout(by, id))).toBe(true)
}

function settledWithout({ membership }: WorldPeer, id: string): boolean {
  const { voters } = membership.record()
  return voters.settled && !voters.ids.includes(id)
}

const isMember = (peer: WorldPeer, id: string): boolean => memberById(peer.membership.record(), id) !== undefined

test('a peer that has just started, and knows no group yet, removes no member whose shards are needed', async () => {
  const world = new MembershipWorld()
  const [a, b] = await storagePeers(world)
  await commit(world, b, b.self, ['ida', 'idb', 'idc', 'ide'])
  await leave(world, b, 'ide')
  world.kill(a)
  await world.run(50)
  world.down.delete(a.self)
  const again = new WorldPeer(world, a.self, a.membership.record(), a.entries)
  await again.start()
  await world.run(5_000)
  expect(again.directory.get('g')).toMatchObject({ committed: { epoch: 1 } })
  expect([isMember(again, 'ide'), isMember(b, 'ide')]).toEqual([true, true])
  await commit(world, b, b.self, ['ida', 'idb', 'idc', 'idd'])
  expect(await world.run(5_000, () => !isMember(b, 'ide'))).toBe(true)
})

test('a group that a peer was never told of is looked for before it removes a member', async () => {
  const world = new MembershipWorld()
  const [a, b] = await storagePeers(world)
  await done(world, b.membership.change(wishVotes(a.self, false)))
  expect(await world.run(20_000, () => settledWithout(b, a.self))).toBe(true)
  expect(await world.run(1_000, () => a.directory.surveyed)).toBe(true)
  world.drop = (_from, to, _kind, protocol) => to === a.self && protocol === 'epoch'
  await commit(world, b, 'ide', [])
  await leave(world, b, 'ide')
  await world.run(5_000)
  expect([isMember(a, 'ide'), isMember(b, 'ide')]).toEqual([true, true])
  expect(a.directory.get('g')).toMatchObject({ owners: { vm1: 'ide' } })
})

test('a member that looks dead for a moment keeps what it stores; one that is lost goes', async () => {
  const world = new MembershipWorld()
  const [, b] = await storagePeers(world)
  await commit(world, b, b.self, ['ida', 'idb', 'idc', 'ide'])
  await leave(world, b, 'ide')
  world.down.add('ide')
  await world.run(5_000)
  expect(isMember(b, 'ide')).toBe(true)
  world.lost.add('ide')
  expect(await world.run(5_000, () => !isMember(b, 'ide'))).toBe(true)
})

test('while another member looks dead for a moment the columns of one that leaves count as before', async () => {
  const world = new MembershipWorld()
  const [, b] = await storagePeers(world)
  await commit(world, b, b.self, ['ida', 'idb', 'idc', 'ide'])
  world.down.add('idd')
  await leave(world, b, 'ide')
  await world.run(5_000)
  expect(isMember(b, 'ide')).toBe(true)
  world.lost.add('idd')
  expect(await world.run(5_000, () => !isMember(b, 'ide'))).toBe(true)
})

test('a member is lost when it has been dead for long enough without a break', () => {
  const world = new MembershipWorld()
  const told: ((peer: string, liveness: Liveness, why: string) => void)[] = []
  const onChange = (handler: (typeof told)[number]): void => void told.push(handler)
  const lost = new LostMembers({ detector: { onChange }, clock: world.clock, lostAfterMs: 100 })
  const becomes = (liveness: Liveness): void => told.forEach(each => each('ida', liveness, ''))
  for (const liveness of ['suspect', 'dead'] as const) becomes(liveness)
  world.pass(99)
  becomes('alive')
  world.pass(99)
  expect(lost.has('ida')).toBe(false)
  becomes('dead')
  world.pass(99)
  expect(lost.has('ida')).toBe(false)
  world.pass(1)
  expect(lost.has('ida')).toBe(true)
  becomes('alive')
  expect(lost.has('ida')).toBe(false)
  becomes('dead')
  lost.stop()
  world.pass(200)
  expect(lost.has('ida')).toBe(false)
})

function operationsOf(world: MembershipWorld, a: Awaited<ReturnType<typeof storagePeers>>[0]): MemberOperations {
  const { membership, dataKeys, directory, detector, facts, neededImages } = a
  const newInvite = async () => ({ id: 'inviteAb12Cd', seed: new Uint8Array(32) })
  const transport = { connected: () => true } as never
  const noFacts = { about: () => [] }
  const parts = {
    membership,
    dataKeys,
    directory,
    detector,
    facts,
    neededImages,
    newInvite,
    transport,
    storagePeers: noFacts
  }
  return new MemberOperations({ ...parts, wallMs: () => world.nowMs, code: { k: 2, m: 2 } })
}

test('an invitation is withdrawn by the short id that is listed, once, and not by another', async () => {
  const world = new MembershipWorld()
  const [a] = await storagePeers(world)
  const operations = operationsOf(world, a)
  await done(world, operations.invite({ role: 'witness', votes: true, expiresMinutes: 5 }))
  const [listed] = (await operations.status()).invites
  expect(listed).toMatchObject({ id: 'Ab12Cd' })
  const gone = { code: 'INVITE_UNKNOWN' }
  await expect(done(world, operations.withdrawInvite('other'))).rejects.toMatchObject(gone)
  await done(world, operations.withdrawInvite('Ab12Cd'))
  expect((await operations.status()).invites).toEqual([])
  await expect(done(world, operations.withdrawInvite('Ab12Cd'))).rejects.toMatchObject(gone)
})

test('whoever asks a peer that knows no group yet to remove the owner of a VM is refused', async () => {
  const world = new MembershipWorld()
  const [a, b] = await storagePeers(world)
  world.drop = (_from, to, _kind, protocol) => to === a.self && protocol === 'epoch'
  await commit(world, b, 'ide', [])
  expect(a.directory.get('g')).toBeUndefined()
  const operations = operationsOf(world, a)
  await expect(done(world, operations.removeMember('e', false))).rejects.toMatchObject({
    code: 'MEMBER_OWNS_VMS',
    details: { vms: ['g/vm1'] }
  })
})
