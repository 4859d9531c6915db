/** Data keys in a cluster of real registers and agents: who makes them, who is given them, and what operators see. */
import { expect, test } from 'vitest'
import { MemberOperations } from '../../node/operations/members.ts'
import type { ImageManifest } from '../../node/ports.ts'
import { commitEpoch, createGroup, openEpoch } from '../../protocols/epoch/record.ts'
import { addInvite, admit, wishLeave } from '../../protocols/membership/changes.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { KEPT_KEYS, MAX_OLDER_KEYS } from '../../protocols/membership/keys.ts'
import { memberById } from '../../protocols/membership/record.ts'
import { founder, MembershipWorld, WorldPeer } from './membership-world.ts'

const storage = (name: string) => ({ ...founder(name), role: 'storage' as const })
const vm = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }
const invite = { id: 'invite', role: 'storage', votes: false, expiresMs: 1e9 } as const

/** Witness a is the first in rank; b and c store. */
async function cluster(world: MembershipWorld): Promise<[WorldPeer, WorldPeer, WorldPeer]> {
  const record = foundersRecord('c', [founder('a'), storage('b'), storage('c')])
  const peers = ['a', 'b', 'c'].map(name => new WorldPeer(world, `id${name}`, record))
  for (const peer of peers) await peer.start()
  await world.run(100)
  return peers as [WorldPeer, WorldPeer, WorldPeer]
}

async function done<T>(world: MembershipWorld, promise: Promise<T>): Promise<T> {
  let ended = false
  void promise.finally(() => (ended = true)).catch(() => {})
  await world.run(5_000, () => ended)
  return await promise
}

function operationsOf(world: MembershipWorld, peer: WorldPeer) {
  const { membership, dataKeys, directory, detector, facts, neededImages } = peer
  const parts = {
    membership,
    dataKeys,
    directory,
    detector,
    facts,
    neededImages,
    transport: { connected: () => true } as never,
    storagePeers: { about: () => [] }
  }
  const newInvite = async () => ({ id: 'invite', seed: new Uint8Array(32) })
  return new MemberOperations({ ...parts, newInvite, wallMs: () => world.nowMs, code: { k: 1, m: 1 } })
}

const keysOf = ({ dataKeys }: WorldPeer): string[] | undefined =>
  dataKeys.opens() ? dataKeys.all().map(({ id, key }) => `${id} ${key.join()}`) : undefined

test('a new key is made at a storage member that has the present one, and both see it', async () => {
  const world = new MembershipWorld()
  const [a, b, c] = await cluster(world)
  await expect(done(world, operationsOf(world, a).rotateKeys())).rejects.toMatchObject({
    code: 'KEYS_ELSEWHERE',
    message: expect.stringContaining('b, c')
  })
  expect(await operationsOf(world, b).keys()).toMatchObject({
    opens: true,
    keys: [{ id: 0, streams: 0 }],
    holders: ['b', 'c']
  })
  const status = await done(world, operationsOf(world, b).rotateKeys())
  expect(status).toEqual({
    cluster: 'c',
    opens: true,
    keys: [
      { id: 1, madeMs: expect.any(Number), by: 'b', streams: 0 },
      { id: 0, streams: 0 }
    ],
    holders: ['b', 'c'],
    lacking: []
  })
  expect(await world.run(1_000, () => c.dataKeys.all().length === 2)).toBe(true)
  expect(keysOf(c)).toEqual(keysOf(b))
  expect(await operationsOf(world, a).keys()).toMatchObject({ opens: false, keys: [{ id: 1 }, { id: 0 }] })
})

test('a member is removed by who can make the key of those who stay, and one that joins is given all', async () => {
  const world = new MembershipWorld()
  const [a, b, c] = await cluster(world)
  await done(world, a.membership.change(wishLeave(c.self, true)))
  const gone = (): boolean => memberById(b.membership.record(), c.self) === undefined
  expect(await world.run(20_000, gone)).toBe(true)
  expect(b.membership.record().keys?.newest).toMatchObject({ id: 1, by: b.self }) // though a is the first in rank
  expect(keysOf(b)).toHaveLength(2)
  expect(keysOf(c)).not.toEqual(keysOf(b))

  await done(world, a.membership.change(addInvite(invite)))
  const { id, name, address } = storage('d')
  const joined = await done(world, a.membership.change(admit(invite, { id, name, address })))
  const d = new WorldPeer(world, id, joined)
  await d.start()
  expect(await world.run(10_000, () => d.dataKeys.opens())).toBe(true)
  expect(keysOf(d)).toEqual(keysOf(b))
})

test('too many keys that may be needed: no other is made, a member that leaves waits, until images are known to need few', async () => {
  const world = new MembershipWorld()
  const [, b, c] = await cluster(world)
  const operations = operationsOf(world, b)
  const image = 'a'.repeat(64)
  const made = await done(world, b.directory.change('g', createGroup('g', [vm], { vm1: b.self }, 0)))
  await done(world, b.directory.change('g', openEpoch(b.self, 1_000, made?.version ?? 0)))
  await done(world, b.directory.change('g', commitEpoch(1, 1, { vm1: image }))) // its manifest is nowhere
  for (let i = 0; i < MAX_OLDER_KEYS; i++) await done(world, operations.rotateKeys())
  await expect(done(world, operations.rotateKeys())).rejects.toMatchObject({ code: 'KEYS_FULL' })
  await done(world, b.membership.change(wishLeave(c.self, true)))
  await world.run(5_000)
  expect(memberById(b.membership.record(), c.self)).toMatchObject({ leaving: true })
  expect((await operations.status()).waits).toContainEqual({
    member: 'c',
    why: expect.stringContaining('take an epoch')
  })

  const stream = { stream: 's', k: 1, m: 1, holders: [b.self, b.self], dataBytes: 1, key: 3, grids: [] }
  world.manifests.set(image, { streams: [stream] } as unknown as ImageManifest)
  expect(await world.run(20_000, () => memberById(b.membership.record(), c.self) === undefined)).toBe(true)
  const { keys } = await operations.keys()
  expect(keys.filter(({ streams }) => streams === 1)).toEqual([expect.objectContaining({ id: 3 })])
  const ids = keys.map(({ id }) => id)
  expect(ids).toEqual([...Array.from({ length: KEPT_KEYS + 1 }, (_, i) => MAX_OLDER_KEYS + 1 - i), 3])
})
