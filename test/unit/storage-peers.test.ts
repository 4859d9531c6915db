import { setImmediate } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { Placing } from '../../node/agents/placing.ts'
import { StoragePeers } from '../../node/agents/storage-peers.ts'
import { coarseFree } from '../../node/planning/domains.ts'
import type { ControlBus, Log } from '../../node/ports.ts'
import { HOST_PROTOCOL } from '../../protocols/host-facts.ts'
import { parseStorageFacts, STORAGE_PROTOCOL } from '../../protocols/storage-facts.ts'

const log: Log = { debug() {}, info() {}, warn() {}, error() {} }
const GIB = 2 ** 30

/** Three peers on a bus that delivers at once; time goes on when it is told to. */
function cluster() {
  /** By peer and protocol. */
  const handlers = new Map<string, (from: string, message: unknown) => void>()
  const links = new Map<string, (peer: string, connected: boolean) => void>()
  const timers: (() => void)[] = []
  const sent: string[] = []
  const lost = new Set<string>()
  const clock = {
    now: () => 0,
    after(_: number, run: () => void) {
      timers.push(run)
      return () => void timers.splice(timers.indexOf(run), 1)
    }
  }
  let members = ['a', 'b', 'c']
  const peer = (self: string, labels: { rack?: string }): StoragePeers => {
    const bus: ControlBus = {
      self,
      send(to, protocol, message) {
        sent.push(`${self} ${to}`)
        if (!lost.has(to)) handlers.get(`${to} ${protocol}`)?.(self, structuredClone(message))
        return true
      },
      on(protocol, parse, handler) {
        handlers.set(`${self} ${protocol}`, (from, message) => handler(from, parse(message)))
      }
    }
    const transport = { onConnection: (handler: (peer: string, up: boolean) => void) => void links.set(self, handler) }
    return new StoragePeers({ self, labels, bus, transport, clock, log, members: () => members })
  }
  return {
    peer,
    sent,
    lost,
    connect: (self: string, to: string) => links.get(self)?.(to, true),
    /** What is sent to `at` by `protocol` arrives as an older peer reads it. */
    hears: (at: string, protocol: string, handler: (from: string, message: unknown) => void) =>
      void handlers.set(`${at} ${protocol}`, handler),
    say: (from: string, to: string, message: unknown) => handlers.get(`${to} ${STORAGE_PROTOCOL}`)?.(from, message),
    only: (some: string[]) => (members = some),
    async look() {
      for (const run of timers.splice(0)) run()
      await setImmediate()
    }
  }
}

test('members learn of each other where they stand and how much room and memory they have, again when it has changed', async () => {
  const world = cluster()
  const [a, b] = [world.peer('a', { rack: 'r1' }), world.peer('b', {})]
  let free = 5 * GIB
  expect(b.about(['a', 'b', 'c'])).toEqual([{ peer: 'a' }, { peer: 'b', labels: {} }, { peer: 'c' }])
  a.start(async () => free, { vmMemoryMiB: 1024 })
  await setImmediate()
  expect(b.about(['a'])).toEqual([{ peer: 'a', labels: { rack: 'r1' }, freeBytes: 4 * GIB, vmMemoryMiB: 1024 }])
  expect(a.about(['a'])).toEqual(b.about(['a']))
  const before = world.sent.length
  free = 4.5 * GIB
  await world.look()
  expect(world.sent).toHaveLength(before)
  free = 1000
  await world.look()
  expect(b.about(['a'])[0]?.freeBytes).toBe(0)
})

test('who is connected later is told, and who missed a message hears of it again', async () => {
  const world = cluster()
  const [a, b] = [world.peer('a', {}), world.peer('b', {})]
  world.lost.add('b')
  world.connect('a', 'b') // it has nothing to say yet
  expect(world.sent).toEqual([])
  a.start(async () => 2 * GIB, { vmMemoryMiB: 512 })
  await setImmediate()
  expect(b.about(['a'])).toEqual([{ peer: 'a' }])
  world.lost.clear()
  for (let look = 0; look < 6; look++) await world.look()
  expect(b.about(['a'])[0]?.freeBytes).toBe(2 * GIB)
  const c = world.peer('c', {})
  world.connect('a', 'c')
  expect(c.about(['a'])[0]?.freeBytes).toBe(2 * GIB)
  a.stop()
  world.sent.length = 0
  for (let look = 0; look < 12; look++) await world.look()
  expect(world.sent).toEqual([])
})

test('a witness tells what it understands and nothing of storage, so that members of before understand it, too', async () => {
  const world = cluster()
  const [a, b] = [world.peer('a', {}), world.peer('b', {})]
  const atC: unknown[] = []
  world.hears('c', HOST_PROTOCOL, (_, message) => atC.push(z.object({ vmMemoryMiB: z.number() }).parse(message)))
  world.hears('c', STORAGE_PROTOCOL, (_, message) => atC.push(message))
  a.start(undefined, { vmMemoryMiB: 0, speaks: 7 })
  await setImmediate()
  expect(b.about(['a'])).toEqual([{ peer: 'a', vmMemoryMiB: 0, speaks: 7 }])
  expect(a.about(['a'])[0]?.speaks).toBe(7)
  expect(atC).toEqual([{ vmMemoryMiB: 0 }])
  world.connect('a', 'c')
  expect(atC).toHaveLength(2)
})

test('nothing is kept of who is no member, and nothing is believed that is no such message', async () => {
  const world = cluster()
  const a = world.peer('a', {})
  world.say('x', 'a', { labels: {}, freeBytes: 1 })
  expect(a.about(['x'])).toEqual([{ peer: 'x' }])
  world.say('b', 'a', { labels: { rack: 'r' }, freeBytes: null })
  expect(a.about(['b'])).toEqual([{ peer: 'b', labels: { rack: 'r' } }])
  world.only(['a', 'c'])
  a.start(async () => GIB, { vmMemoryMiB: 512 })
  await setImmediate()
  expect(a.about(['b'])).toEqual([{ peer: 'b' }])
  for (const wrong of [null, {}, { labels: { rack: 'R 1' }, freeBytes: 1 }, { labels: {}, freeBytes: -1 }]) {
    expect(() => parseStorageFacts(wrong)).toThrow()
  }
})

test('free space is told in steps that change rarely', () => {
  expect(coarseFree(100 * GIB, undefined)).toBe(64 * GIB)
  expect(coarseFree(63 * GIB, 64 * GIB)).toBe(32 * GIB)
  expect(coarseFree(70 * GIB, 32 * GIB)).toBe(32 * GIB)
  expect(coarseFree(81 * GIB, 32 * GIB)).toBe(64 * GIB)
  expect(coarseFree(300 * GIB, 32 * GIB)).toBe(128 * GIB)
  expect(coarseFree(GIB / 64, GIB)).toBe(0)
  expect(coarseFree(GIB / 16 + 1, 0)).toBe(0)
  expect(coarseFree(GIB, 0)).toBe(GIB / 2)
})

test('columns of a group stay where they were when a member joins, and nobody gets one who is not reached', () => {
  const down = new Set<string>()
  const transport = { connected: (peer: string) => !down.has(peer) }
  const placing = new Placing({ self: 'a', transport, about: peers => peers.map(peer => ({ peer })) })
  const five = ['a', 'b', 'c', 'd', 'e']
  const first = placing.place(five, { k: 3, m: 2 }, 'g').holders
  const six = placing.place([...five, 'f'], { k: 3, m: 2 }, 'g')
  expect(six.holders.slice(0, 5)).toEqual(first)
  expect(six.holders[5]).toBe('f')
  down.add('b')
  expect(placing.place([...five, 'f'], { k: 3, m: 2 }, 'g').peers).toEqual(['a', 'c', 'd', 'e', 'f'])
  down.add('f') // too few are reached: all stay, better an epoch later than one that bears less
  expect(placing.place([...five, 'f'], { k: 3, m: 2 }, 'g').holders).toHaveLength(6)
})
