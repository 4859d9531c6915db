/** What becomes of removed groups: forgotten after a while, and their names free for groups with higher numbers. */
import { describe, expect, test } from 'vitest'
import type { GroupDirectory } from '../../node/agents/directory.ts'
import { Forgetting } from '../../node/agents/forgetting.ts'
import type { MembershipAgent } from '../../node/agents/membership.ts'
import type { FailureDetector } from '../../node/ports.ts'
import { Reservation } from '../../node/operations/reservation.ts'
import { createGroup, importGroup, removeGroup, reserveGroup, takeOver } from '../../protocols/epoch/record.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { JumpingClock } from './jumping-clock.ts'
import { LEASE_MS, MembershipWorld, type WorldPeer } from './membership-world.ts'

const FORGET_MS = 500
const vm = { id: 'vm1', mac: '52:54:00:00:00:01', memoryMiB: 64, kernel: '/k', initrd: '/i', append: '' }

interface Host {
  readonly peer: WorldPeer
  readonly directory: GroupDirectory
  /** Generations that it was told of, with whether they are the end; and what it was told to forget. */
  readonly heard: string[]
}

async function hosts(world: MembershipWorld, ...names: string[]): Promise<Host[]> {
  const peers = await world.founders(...names)
  return peers.map(peer => {
    const { self, membership, registers, directory, detector } = peer
    const shared = { self, registers, clock: world.clock, log: world.log }
    const heard: string[] = []
    directory.onRecord(({ id, generation, removed }) => void heard.push(`${id} ${generation}${removed ? ' ends' : ''}`))
    directory.onForgotten(id => void heard.push(`${id} forgotten`))
    new Forgetting({ ...shared, directory, membership, detector, forgetRemovedMs: FORGET_MS })
    return { peer, directory, heard }
  })
}

async function settled<T>(world: MembershipWorld, promise: Promise<T>): Promise<T> {
  let ended = false
  void promise.finally(() => (ended = true)).catch(() => {})
  await world.run(3_000, () => ended)
  return await promise
}

/** As `Operations.createGroup`: looks, reads the floor, makes it. */
async function make(world: MembershipWorld, { peer, directory }: Host): Promise<GroupRecord | null> {
  const found = await settled(world, directory.refresh('g'))
  const floor = found === null ? (await settled(world, peer.membership.refresh())).groupFloor : null
  return await settled(world, directory.change('g', createGroup('g', [vm], { vm1: peer.self }, floor)))
}

describe('a group', () => {
  test('whose maker dies before it has told anybody of it is found by the voters that know of it', async () => {
    const world = new MembershipWorld()
    const [a, b, c] = (await hosts(world, 'a', 'b', 'c')) as [Host, Host, Host]
    world.drop = (from, _, kind) => from === a.peer.self && kind === 'record'
    await make(world, a)
    world.kill(a.peer)
    expect([b, c].map(({ directory }) => directory.get('g'))).toEqual([undefined, undefined])
    expect(await world.run(5_000, () => [b, c].every(({ directory }) => directory.get('g')?.version === 1))).toBe(true)
  })
})

describe('a removed group', () => {
  test('is forgotten by all after a while, and its name begins again above all numbers it ever had', async () => {
    const world = new MembershipWorld()
    const [a, b, c] = (await hosts(world, 'a', 'b', 'c')) as [Host, Host, Host]
    expect(await make(world, a)).toMatchObject({ version: 1, generation: 1 })
    await world.run(2 * LEASE_MS) // voters that have just started wait for leases that they may have granted
    await settled(world, b.directory.change('g', takeOver(1, { vm1: b.peer.self })))
    await settled(world, a.directory.change('g', removeGroup))
    await world.run(FORGET_MS - 50)
    expect(b.directory.get('g')).toMatchObject({ version: 3, generation: 3, removed: true })

    expect(await world.run(10_000, () => [a, b, c].every(host => host.directory.get('g') === undefined))).toBe(true)
    expect(a.peer.membership.record().groupFloor).toBe(3)
    expect(await settled(world, c.peer.registers.read('group/g'))).toBeNull()
    for (const { heard } of [a, b, c]) expect(heard.slice(-2)).toEqual(['g 3 ends', 'g forgotten'])

    expect(await make(world, c)).toMatchObject({ version: 4, generation: 4, lastEpoch: 0, removed: false })
    await world.run(2 * FORGET_MS + 3_000)
    expect(a.directory.get('g')).toMatchObject({ version: 4, removed: false })
  })

  test('ends at a peer that was away meanwhile, which had it running as far as it knew', async () => {
    const world = new MembershipWorld()
    const [a, b, c] = (await hosts(world, 'a', 'b', 'c')) as [Host, Host, Host]
    await make(world, c)
    await world.run(5)
    world.down.add(c.peer.self)
    await settled(world, a.directory.change('g', removeGroup))
    expect(await world.run(10_000, () => b.directory.get('g') === undefined)).toBe(true)
    expect(c.directory.get('g')).toMatchObject({ removed: false })
    const old = c.directory.get('g')

    world.down.delete(c.peer.self)
    // It tells of the group as soon as it is back: nobody believes that.
    world.deliver(c.peer.self, a.peer.self, 'epoch', { kind: 'record', record: old })
    expect(await world.run(10_000, () => c.directory.get('g') === undefined)).toBe(true)
    expect(c.heard).toEqual(['g 1', 'g 2 ends', 'g forgotten'])
    expect(a.heard).toEqual(['g 1', 'g 2 ends', 'g forgotten'])
  })

  test('is not forgotten where it has been made again in time', async () => {
    const world = new MembershipWorld()
    const [a, b] = (await hosts(world, 'a', 'b', 'c')) as [Host, Host, Host]
    await make(world, a)
    await settled(world, a.directory.change('g', removeGroup))
    await world.run(FORGET_MS - 100)
    expect(await make(world, b)).toMatchObject({ version: 3, generation: 3 })
    await world.run(FORGET_MS + 5_000)
    expect(a.directory.get('g')).toMatchObject({ version: 3, removed: false })
    expect(a.peer.membership.record().groupFloor).toBe(0)
  })

  test('whose record goes just when its name is used again is seen as gone first', () => {
    expect(createGroup('g', [vm], {}, null)(null)).toBeUndefined()
    expect(createGroup('g', [vm], {}, 7)(null)).toMatchObject({ version: 8, generation: 8 })
  })
})

describe('the register of a removed group', () => {
  test('is not deleted when it has been written anew since, also where that is of a removed group again', async () => {
    const removed = removeGroup(createGroup('g', [vm], { vm1: 'a' }, 0)(null) ?? null) as GroupRecord
    const clock = new JumpingClock()
    let only: (current: unknown) => boolean = () => true
    let learn: (record: GroupRecord) => void = () => {}
    const directory = {
      onRecord: (handler: typeof learn) => void (learn = handler),
      get: () => removed,
      refresh: () => Promise.resolve(null)
    }
    new Forgetting({
      self: 'a',
      directory: directory as unknown as GroupDirectory,
      membership: {
        onChange: () => {},
        change: () => Promise.resolve({ groupFloor: 9 })
      } as unknown as MembershipAgent,
      registers: {
        delete: (_, options) => {
          only = options?.only ?? only
          return Promise.resolve(true)
        }
      },
      detector: { alive: () => ['a'] } as unknown as FailureDetector,
      clock,
      log: { debug() {}, info() {}, warn() {}, error() {} },
      forgetRemovedMs: FORGET_MS
    })
    learn(removed)
    await clock.until(clock.nowMs + FORGET_MS)
    expect(only(removed)).toBe(true)
    const taken = reserveGroup('g', [vm], 'b', null)(removed) as GroupRecord
    expect(taken.removed).toBe(true) // a name that somebody imports under
    expect(only(taken)).toBe(false)
    expect(only({ ...removed, removed: false })).toBe(false)
    expect(only(null)).toBe(false)
  })
})

describe('a name that is taken for an import', () => {
  test('is not forgotten while the import goes on, however long, and is when nothing comes of it', async () => {
    const world = new MembershipWorld()
    const [a, b, c] = (await hosts(world, 'a', 'b', 'c')) as [Host, Host, Host]
    // Was removed a moment ago, so that all wait to forget it.
    await make(world, a)
    await settled(world, a.directory.change('g', removeGroup))
    await world.run(FORGET_MS - 100)
    const reserve = reserveGroup('g', [vm], a.peer.self, null)
    const reserved = (await settled(world, a.directory.change('g', reserve))) as GroupRecord
    const deps = { directory: a.directory, clock: world.clock, log: world.log, forgetRemovedMs: FORGET_MS }
    const reservation = new Reservation(deps, reserved)
    await world.run(20 * FORGET_MS)
    reservation.check()
    expect(b.directory.get('g')).toMatchObject({ generation: reserved.generation, removed: true })
    for (const { heard } of [a, b, c]) expect(heard).not.toContain('g forgotten')
    const owners = { vm1: b.peer.self }
    await world.run(2 * LEASE_MS)
    const images = { vm1: '0'.repeat(64) }
    const imported = await settled(world, a.directory.change('g', importGroup(reserved, owners, images)))
    expect(imported).toMatchObject({ removed: false, owners })
    reservation.end()

    await settled(world, a.directory.change('g', removeGroup))
    const again = (await settled(world, a.directory.change('g', reserve))) as GroupRecord
    const abandoned = new Reservation(deps, again)
    await world.run(3 * FORGET_MS)
    abandoned.end()
    expect(await world.run(10_000, () => [a, b, c].every(host => host.directory.get('g') === undefined))).toBe(true)
  })

  test('is known as lost where another peer has taken it', async () => {
    const world = new MembershipWorld()
    const [a, b] = (await hosts(world, 'a', 'b', 'c')) as [Host, Host, Host]
    const reserved = (await settled(
      world,
      a.directory.change('g', reserveGroup('g', [vm], a.peer.self, 0))
    )) as GroupRecord
    const deps = { directory: a.directory, clock: world.clock, log: world.log, forgetRemovedMs: FORGET_MS }
    const reservation = new Reservation(deps, reserved)
    await world.run(2 * LEASE_MS)
    await settled(world, b.directory.change('g', reserveGroup('g', [vm], b.peer.self, null)))
    await world.run(FORGET_MS)
    expect(() => reservation.check()).toThrow(expect.objectContaining({ code: 'RESERVATION_LOST' }))
    reservation.end()
  })
})
