/** The agents of membership, with real registers on a network and disks in memory. */
import { expect, test } from 'vitest'
import { membershipEvents } from '../../node/agents/membership-events.ts'
import { answerJoin } from '../../node/agents/membership-joins.ts'
import { addInvite, setAddress, wishLeave, wishVotes } from '../../protocols/membership/changes.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { encodeJoinRequest, parseJoinReply } from '../../protocols/membership/join.ts'
import { findMember, memberById } from '../../protocols/membership/record.ts'
import { founder, LEASE_MS, MembershipWorld, WorldPeer } from './membership-world.ts'

const A = '/ip4/10.9.9.9/tcp/1'
const B = '/ip4/10.9.9.9/tcp/2'
const C = '/ip4/10.9.9.9/tcp/3'

const versions = (peer: WorldPeer): number[] => peer.told.map(each => each.version)

test('a change reaches every member, by announcement or, where that was lost, by asking', async () => {
  const world = new MembershipWorld()
  const [a, b, c] = (await world.founders('a', 'b', 'c')) as [WorldPeer, WorldPeer, WorldPeer]
  await expect(run(world, a.membership.change(setAddress('ida', A)))).resolves.toMatchObject({ version: 2 })
  await world.run(5)
  expect([a, b, c].map(versions)).toEqual([[2], [2], [2]])
  world.down.add('idc')
  await run(world, b.membership.change(setAddress('idb', B)))
  await world.run(5)
  world.down.delete('idc')
  expect(await world.run(5_000, () => versions(c).includes(3))).toBe(true)
  expect(memberById(c.membership.record(), 'idb')?.address).toBe(B)
})

test('a change that was decided after whoever made it had given up is learned nevertheless', async () => {
  const world = new MembershipWorld()
  const [a, b] = (await world.founders('a', 'b', 'c')) as [WorldPeer, WorldPeer, WorldPeer]
  // The voters accept, and from then on no answer comes back in time.
  let accepted = false
  world.drop = (from, to, kind) => {
    if (to !== 'ida' || from === 'ida') return false
    accepted ||= kind === 'accepted'
    return accepted
  }
  await expect(run(world, a.membership.change(setAddress('ida', A)))).rejects.toMatchObject({
    code: 'REGISTER_UNAVAILABLE'
  })
  world.drop = () => false
  expect([a, b].map(versions)).toEqual([[], []])
  expect(await world.run(2_000, () => versions(a).includes(2) && versions(b).includes(2))).toBe(true)
})

test('a newer record is on disk before it is acted upon, however often the disk fails', async () => {
  const world = new MembershipWorld()
  const [a, b] = (await world.founders('a', 'b')) as [WorldPeer, WorldPeer]
  b.diskFails = true
  await run(world, a.membership.change(setAddress('ida', A)))
  await world.run(2_500)
  expect(b.told).toEqual([])
  expect(b.membership.record().version).toBe(1)
  b.diskFails = false
  expect(await world.run(2_000, () => versions(b).includes(2))).toBe(true)
  expect(b.saved.map(record => record.version)).toEqual([2])
})

test('older records and those of another cluster are not taken, and two of one version are told of', async () => {
  const world = new MembershipWorld()
  const [a, b] = (await world.founders('a', 'b')) as [WorldPeer, WorldPeer]
  const record = await run(world, a.membership.change(setAddress('ida', A)))
  const announce = (changed: object) => world.deliver('ida', 'idb', 'membership', { kind: 'record', record: changed })
  announce({ ...foundersRecord('other', [founder('a'), founder('b')]), version: 9 })
  announce({ ...record, version: 1 })
  await world.run(5)
  expect(versions(b)).toEqual([2])
  expect(world.errors).toEqual([])
  announce({ ...record, groupFloor: 5 })
  announce({ ...record, version: 9, voters: { ...record.voters, ids: ['ida'], since: { ida: 1 } } })
  announce({ ...record, version: 1, voters: { ...record.voters, version: 2 } })
  expect(world.errors).toEqual([
    'two records of the cluster with the same version',
    'two records of the cluster whose voters contradict each other',
    'two records of the cluster whose voters contradict each other'
  ])
  await world.run(5)
  expect(versions(b)).toEqual([2])
})

test('a peer whose messages tell of newer voters is asked, and not for each message', async () => {
  const world = new MembershipWorld()
  const [a] = (await world.founders('a', 'b')) as [WorldPeer, WorldPeer]
  const asked = () => world.sent.filter(each => each === 'ida idb membership ask').length
  const before = asked()
  for (let i = 0; i < 50; i++) a.membership.askOf('idb')
  expect(asked()).toBe(before + 1)
  await world.run(100)
  a.membership.askOf('idb')
  expect(asked()).toBeGreaterThan(before + 1)
})

test('votes are taken and given one by one; a set counts as settled when leases of the one before are over', async () => {
  const world = new MembershipWorld()
  const [a, b, c] = (await world.founders('a', 'b', 'c')) as [WorldPeer, WorldPeer, WorldPeer]
  await run(world, a.membership.change(wishVotes('idc', false)))
  expect(await world.run(10_000, () => settledAt(b, 2))).toBe(true)
  await run(world, b.membership.change(wishVotes('idc', true)))
  expect(await world.run(10_000, () => settledAt(a, 3) && settledAt(b, 3) && settledAt(c, 3))).toBe(true)
  expect(a.membership.record().voters).toMatchObject({ ids: ['ida', 'idb', 'idc'], since: { ida: 1, idb: 1, idc: 3 } })
  // Wish, change, settled; twice.
  const times = new Map(a.told.map(({ version, atMs }) => [version, atMs]))
  for (const changed of [3, 6]) {
    expect((times.get(changed + 1) ?? 0) - (times.get(changed) ?? 0)).toBeGreaterThanOrEqual(LEASE_MS)
  }
})

test('when who began a change of voters dies, the others go on with it', async () => {
  const world = new MembershipWorld()
  const [a, b, c, d] = (await world.founders('a', 'b', 'c', 'd')) as [WorldPeer, WorldPeer, WorldPeer, WorldPeer]
  await run(world, b.membership.change(wishVotes('idd', false)))
  // The first in rank takes the vote, and dies before it has settled the set without it.
  expect(await world.run(10_000, () => b.membership.record().voters.version === 2)).toBe(true)
  world.kill(a)
  expect(b.membership.record().voters.settled).toBe(false)
  expect(await world.run(60_000, () => settledAt(b, 2) && settledAt(c, 2) && settledAt(d, 2))).toBe(true)
})

test('a member that leaves is told so, and is no member any more when it has no vote', async () => {
  const world = new MembershipWorld()
  const [a, b, c] = (await world.founders('a', 'b', 'c')) as [WorldPeer, WorldPeer, WorldPeer]
  await run(world, a.membership.change(wishLeave('idc', false)))
  const left = c.membership.until(0, record => memberById(record, 'idc') === undefined)
  const record = await run(world, left, 20_000)
  expect(record).toMatchObject({ removed: ['idc'], voters: { ids: ['ida', 'idb'], settled: true } })
  expect(await world.run(5_000, () => b.membership.record().version === record.version)).toBe(true)
  const kinds = b.membership.record()
  expect(membershipEvents(foundersRecord('c', ['a', 'b', 'c'].map(founder)), kinds)).toEqual([
    { kind: 'member.removed', member: 'c', id: 'idc' },
    { kind: 'key.made', key: 1, by: expect.stringMatching(/^[ab]$/) },
    { kind: 'voters.changed', version: 2, voters: ['a', 'b'] },
    { kind: 'voters.settled', version: 2 }
  ])
})

test('waiting for something that cannot come ends when the peer stops', async () => {
  const world = new MembershipWorld()
  const [a] = (await world.founders('a')) as [WorldPeer]
  const never = a.membership.until(0, () => false)
  a.stop()
  await expect(never).rejects.toMatchObject({ code: 'PEER_STOPPING' })
})

test('a newcomer is admitted once, whichever member it asks; only the key of its id opens', async () => {
  const world = new MembershipWorld()
  const [a, b] = (await world.founders('a', 'b')) as [WorldPeer, WorldPeer]
  const invite = { id: 'inv', role: 'witness', votes: true, expiresMs: 1e9 } as const
  const { id: cluster } = await run(world, a.membership.change(addInvite(invite)))
  const signature = new Uint8Array([1])
  const request = { cluster, id: 'idn', name: 'n', address: A, signature }
  const secret = new Uint8Array(32).fill(7)
  const ask = async (peer: WorldPeer, bytes: Uint8Array, verified = true, by = 'inv') => {
    const verify = async (): Promise<boolean> => verified
    const deps = { membership: peer.membership, secret, settings: {}, log: world.log, wallMs: () => 0, verify }
    return parseJoinReply(await run(world, answerJoin(deps, by, bytes)))
  }
  expect(await ask(a, encodeJoinRequest(request), false)).toMatchObject({ code: 'JOIN_SIGNATURE' })
  expect(await ask(a, new Uint8Array([1, 2, 3]))).toMatchObject({ code: 'JOIN_MESSAGE' })
  const [first, second] = await Promise.all([
    ask(a, encodeJoinRequest(request)),
    ask(b, encodeJoinRequest({ ...request, id: 'idm', name: 'm', address: B }))
  ])
  const welcomed = [first, second].filter(reply => reply.kind === 'welcome')
  expect(welcomed).toHaveLength(1)
  expect(welcomed[0]).toMatchObject({ secret })
  expect([first, second]).toContainEqual(expect.objectContaining({ kind: 'refused', code: 'INVITE_USED' }))
  const record = await run(world, b.membership.refresh())
  expect(record.members).toHaveLength(3)
  // Its answer was lost: the same peer hears it again, from any member.
  const again = findMember(record, 'n') === undefined ? { ...request, id: 'idm', name: 'm', address: B } : request
  expect(await ask(b, encodeJoinRequest(again))).toMatchObject({ kind: 'welcome', secret })
  // Once there are other data keys nobody needs the secret who has not got it.
  world.down.add(again.id) // it was never started
  await run(world, b.membership.change(wishLeave(again.id, true)))
  await run(
    world,
    b.membership.until(0, ({ keys }) => keys !== undefined)
  )
  await run(world, b.membership.change(addInvite({ ...invite, id: 'inv2' })))
  const later = await ask(b, encodeJoinRequest({ ...request, id: 'ido', name: 'o', address: C }), true, 'inv2')
  expect(later).toMatchObject({ kind: 'welcome' })
  expect(later).not.toHaveProperty('secret')

  world.down.add('idb')
  expect(await ask(a, encodeJoinRequest(request))).toMatchObject({ code: 'REGISTER_UNAVAILABLE' })
})

const settledAt = (peer: WorldPeer, version: number): boolean => {
  const { voters } = peer.membership.record()
  return voters.version === version && voters.settled
}

/** Lets time pass until it settles. */
async function run<T>(world: MembershipWorld, promise: Promise<T>, ms = 5_000): Promise<T> {
  let ended = false
  const ending = promise.finally(() => (ended = true))
  ending.catch(() => {}) // awaited below
  await world.run(ms, () => ended)
  return await ending
}
