/** Members that come, move and go while the peer runs. */
import { createServer } from 'node:net'
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import type { Libp2pTransport } from '../../protocols/transport.ts'
import { seeded } from '../sim/swim-world.ts'
import { freePort } from './loopback.ts'
import { memoryLog } from './real-clock.ts'
import {
  cleanUp,
  cleanups,
  dialRaw,
  type Host,
  hosts,
  pair,
  publicPart,
  rawNode,
  started,
  transportOf,
  until
} from './transport-support.ts'

afterEach(cleanUp)

const linked = (a: Libp2pTransport, b: Libp2pTransport): boolean => a.connected(b.self) && b.connected(a.self)

test('new members are dialled at once, and linked both ways', async () => {
  const both = await hosts(2)
  const [first, second] = both as [Host, Host]
  const a = await started(first, [first])
  const b = await started(second, [])
  expect(a.send(b.self, 'control', [Buffer.from('who?')])).toBe(false)
  a.setMembers(both.map(publicPart))
  b.setMembers(both.map(publicPart))
  await until(() => linked(a, b))
})

test('a removed member is cut off within the turn, and its redials are refused', async () => {
  const both = await hosts(2)
  const [first, second] = both as [Host, Host]
  let open = (): void => {}
  const gate = new Promise<void>(resolve => {
    open = resolve
  })
  let handled = 0
  const a = await started(first, both, {
    bulk: () => {
      handled++
      return gate
    }
  })
  const changes: boolean[] = []
  a.onConnection((_peer, connected) => void changes.push(connected))
  const b = await started(second, both)
  await until(() => linked(a, b))
  for (let i = 0; i < 10; i++) b.send(a.self, 'bulk', [Buffer.alloc(1_000)])
  await until(() => handled === 1)
  await sleep(50) // the other messages are here, too, and wait for the first

  const { dials, strangers } = a.stats()
  const waiting = Array.from({ length: 4 }, () => a.write(b.self, 'bulk', [Buffer.alloc(8 << 20)]))
  const written = Promise.allSettled(waiting)
  a.setMembers([publicPart(first)])
  expect(changes).toEqual([true, false])
  expect(a.connected(b.self)).toBe(false)
  expect(a.send(b.self, 'control', [Buffer.from('x')])).toBe(false)
  await expect(a.write(b.self, 'control', [Buffer.from('x')])).rejects.toMatchObject({ code: 'TRANSPORT_DISCONNECTED' })
  expect((await written).at(-1)).toMatchObject({ status: 'rejected', reason: { code: 'TRANSPORT_DISCONNECTED' } })
  open()
  await nextTurn()
  expect(a.stats().connections).toBe(0)

  await until(() => !b.connected(a.self))
  await until(() => a.stats().strangers >= strangers + 3)
  expect(a.stats()).toMatchObject({ dials, connections: 0 })
  expect(handled).toBe(1)
  expect(changes).toEqual([true, false])
})

test('a removed member loses connections on which it never opened a stream', async () => {
  const [first, second] = (await hosts(2)) as [Host, Host]
  const a = await started(first, [first, second])
  const raw = await rawNode(second.key)
  const connection = await dialRaw(raw, first)
  await until(() => a.stats().connections === 1)
  a.setMembers([publicPart(first)])
  await nextTurn()
  expect(a.stats().connections).toBe(0)
  await until(() => connection.status !== 'open')
})

test('a member that is removed and added again is linked again', async () => {
  const [a, b] = await pair({})
  const changes: boolean[] = []
  a.onConnection((_peer, connected) => void changes.push(connected))
  const { address } = (await hosts(1))[0] as Host
  a.setMembers([])
  await until(() => !b.connected(a.self))
  // The address is wrong: our link cannot come up, but the member may call.
  a.setMembers([{ id: b.self, name: 'b', address }])
  await until(() => b.connected(a.self))
  expect(changes).toEqual([false])
})

test('a member that moved is dialled at its new address, also while a dial to the old one hangs', async () => {
  const [first, second, third] = (await hosts(3)) as [Host, Host, Host]
  // Takes connections and says nothing.
  const silent = createServer()
  const port = await freePort()
  let callers = 0
  silent.on('connection', socket => {
    callers++
    cleanups.push(() => socket.destroy())
    socket.on('error', () => {})
  })
  await new Promise<void>(resolve => silent.listen(port, '127.0.0.1', resolve))
  cleanups.push(() => silent.close())

  const moving = { ...second, address: `/ip4/127.0.0.1/tcp/${port}` }
  const log = memoryLog()
  const a = await transportOf(first, [first, moving], { log })
  await a.start()
  await until(() => callers === 1)
  await started(second, [first, second])
  a.setMembers([first, second].map(publicPart))
  await until(() => a.connected(second.id))
  expect(a.stats().dials).toBe(2)
  expect(log.lines.map(({ message }) => message)).not.toContain('cannot dial') // it was given up, it did not time out

  // Where the link is up the new address waits for its end.
  a.setMembers([publicPart(first), { ...publicPart(second), address: third.address }])
  await sleep(100)
  expect(a.connected(second.id)).toBe(true)
})

test('whatever the order of comings and goings, links follow the last word', async () => {
  const all = await hosts(3)
  const nodes = await Promise.all(all.map(host => started(host, [])))
  const random = seeded(1)
  const heard: Record<string, boolean[]> = {}
  for (const node of nodes) {
    node.onConnection((peer, connected) => void (heard[`${node.self} ${peer}`] ??= []).push(connected))
  }
  for (let round = 0; round < 60; round++) {
    const node = nodes[round % 3] as Libp2pTransport
    node.setMembers(all.filter(() => random() < 0.6).map(publicPart))
    if (round % 4 === 0) await sleep(random() * 60)
  }
  for (const node of nodes) node.setMembers(all.map(publicPart))
  await until(() => nodes.every(node => all.every(({ id }) => id === node.self || node.connected(id))))
  for (const node of nodes) node.setMembers([])
  for (const changes of Object.values(heard)) {
    changes.forEach((connected, i) => expect(connected).toBe(i % 2 === 0))
    expect(changes.at(-1)).toBe(false)
  }
  await nextTurn()
  for (const node of nodes) expect(node.stats().connections).toBe(0)
})
