import { type ChildProcess, fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test, vi } from 'vitest'
import type { Channel } from '../../node/ports.ts'
import { type ByteSink, openDirect } from '../../protocols/direct.ts'
import { RecordSealer } from '../../protocols/direct-records.ts'
import { type Connection, frameHeader } from '../../protocols/stream.ts'
import { backoffMs, MAX_MESSAGE_BYTES, protocolOf } from '../../protocols/transport.ts'
import {
  CHANNELS,
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

const CHILD = new URL('transport-child.ts', import.meta.url)

afterEach(cleanUp)

async function childOf(host: Host, members: readonly Host[]): Promise<ChildProcess> {
  const options = {
    key: Buffer.from(host.key.raw).toString('hex'),
    listen: host.address,
    members: members.map(publicPart)
  }
  const child = fork(CHILD, [JSON.stringify(options)], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] })
  cleanups.push(() => child.kill('SIGKILL'))
  await once(child.stdout as Readable, 'data')
  return child
}

test('messages of each channel arrive whole and in order', async () => {
  const got: Record<Channel, Uint8Array[]> = { control: [], bulk: [], frames: [] }
  const collect = (channel: Channel) => (_from: string, message: Uint8Array) =>
    void got[channel].push(Uint8Array.from(message))
  const [a, b] = await pair({ control: collect('control'), bulk: collect('bulk'), frames: collect('frames') })
  const sent: Record<Channel, Buffer[]> = { control: [], bulk: [], frames: [] }
  for (let i = 0; i < 300; i++) {
    for (const channel of CHANNELS) {
      const largest = i % 100 === 99 ? MAX_MESSAGE_BYTES[channel] : 3_000
      const message = randomBytes(1 + Math.floor(Math.random() * largest))
      const cut = Math.floor(message.length / 3)
      sent[channel].push(message)
      await a.write(b.self, channel, [message.subarray(0, cut), message.subarray(cut)])
    }
  }
  await until(() => CHANNELS.every(channel => got[channel].length === 300))
  for (const channel of CHANNELS) {
    for (let i = 0; i < 300; i++)
      expect(Buffer.compare(got[channel][i] as Uint8Array, sent[channel][i] as Buffer)).toBe(0)
  }
  expect(a.stats().sent).toEqual({ control: 300, bulk: 300, frames: 300 })
})

test.each(['bulk', 'frames'] as const)(
  'a slow reader of %s holds the sender back and memory stays flat',
  async channel => {
    let open = (): void => {}
    const gate = new Promise<void>(resolve => {
      open = resolve
    })
    let received = 0
    const controls: string[] = []
    const [a, b] = await pair({
      [channel]: () => {
        received++
        return gate
      },
      control: (_from, message) => void controls.push(Buffer.from(message).toString())
    })
    const message = Buffer.alloc(1 << 20, 7)
    let accepted = 0
    for (let refused = 0; refused < 30; refused++) {
      while (accepted < 200 && a.send(b.self, channel, [message])) {
        accepted++
        refused = 0
      }
      await sleep(10)
    }
    // The queue, the windows and the sockets are bounded: tens of messages fit, not hundreds.
    expect(accepted).toBeLessThan(60)
    expect(received).toBe(1)
    expect(a.stats().dropped[channel]).toBeGreaterThanOrEqual(30)
    let wrote = false
    const writing = a.write(b.self, channel, [message]).then(() => {
      wrote = true
    })
    a.send(b.self, 'control', [Buffer.from('the other channels go on')])
    await until(() => controls.length === 1)
    expect(wrote).toBe(false)
    open()
    await writing
    await until(() => received === accepted + 1)
  }
)

test('messages to a member that is not there are refused', async () => {
  const both = await hosts(2)
  const a = await started(both[0] as Host, both)
  const absent = (both[1] as Host).id
  expect(a.connected(absent)).toBe(false)
  expect(a.send(absent, 'control', [Buffer.from('x')])).toBe(false)
  await expect(a.write(absent, 'bulk', [Buffer.from('x')])).rejects.toMatchObject({ code: 'TRANSPORT_DISCONNECTED' })
})

test('a killed process is noticed, and linked again when it is back', async () => {
  const both = await hosts(2)
  const [first, second] = both as [Host, Host]
  const changes: boolean[] = []
  const answers: string[] = []
  const a = await transportOf(first, both)
  a.onConnection((_peer, connected) => void changes.push(connected))
  a.handle('control', (_from, message) => void answers.push(Buffer.from(message).toString()))
  await a.start()
  const child = await childOf(second, both)
  await until(() => a.connected(second.id))
  child.kill('SIGKILL')
  await until(() => !a.connected(second.id))
  await childOf(second, both)
  await until(() => a.connected(second.id))
  // Its own link to us may come up a moment later; until then answers are lost, as messages may be.
  while (answers.length === 0) {
    a.send(second.id, 'control', [Buffer.from('hello')])
    await sleep(20)
  }
  expect(answers[0]).toBe('hello')
  expect(changes).toEqual([true, false, true])
})

test('waiting writers are told when the link breaks', async () => {
  const never = new Promise<void>(() => {})
  const [a, b] = await pair({ bulk: () => never })
  const message = Buffer.alloc(8 << 20)
  const writes = Array.from({ length: 12 }, () => a.write(b.self, 'bulk', [message]))
  const results = Promise.allSettled(writes)
  await b.stop()
  const last = (await results).at(-1)
  expect(last).toMatchObject({ status: 'rejected', reason: { code: 'TRANSPORT_DISCONNECTED' } })
})

test('a stranger is refused by its identity, whichever side dials', async () => {
  const [first, stranger] = (await hosts(2)) as [Host, Host]
  const a = await started(first, [first])
  const s = await rawNode(stranger.key)
  const spoken = dialRaw(s, first).then(connection => connection.newStream('/diapause/control/1'))
  await expect(spoken).rejects.toThrow()
  await until(() => a.stats().strangers === 1)

  // A member's address answered by somebody else.
  const [member] = (await hosts(1)) as [Host]
  await rawNode(stranger.key, [member.address])
  const [other] = (await hosts(1)) as [Host]
  const b = await started(other, [other, member])
  await until(() => b.stats().dials >= 3)
  expect(b.connected(member.id)).toBe(false)
})

test('a message over the limit closes the stream and is counted', async () => {
  const [first, second] = (await hosts(2)) as [Host, Host]
  let delivered = 0
  const a = await started(first, [first, second], { control: () => void delivered++ })
  const raw = await rawNode(second.key)
  const connection = await dialRaw(raw, first)
  const stream = await connection.newStream('/diapause/control/1')
  stream.send(Buffer.from([0, 0, 0, 1, 42]))
  await until(() => delivered === 1)
  stream.send(Buffer.from([0x7f, 0xff, 0xff, 0xff, 1, 2, 3]))
  await until(() => stream.status !== 'open')
  expect(a.stats().oversize).toBe(1)
  expect(() => a.send(second.id, 'control', [Buffer.alloc(MAX_MESSAGE_BYTES.control + 1)])).toThrow(/at most/)
})

test('a handler that throws closes the stream, and the link comes back', async () => {
  let calls = 0
  const [a, b] = await pair({
    control: () => {
      calls++
      if (calls === 1) throw new Error('broken once')
    }
  })
  a.send(b.self, 'control', [Buffer.from('one')])
  await until(() => !a.connected(b.self))
  await until(() => a.connected(b.self))
  a.send(b.self, 'control', [Buffer.from('two')])
  await until(() => calls === 2)
  expect(a.connected(b.self)).toBe(true)
})

test('two peers that start at the same moment link once and stay linked', async () => {
  const five = await hosts(5)
  const all = await Promise.all(five.map(host => transportOf(host, five)))
  const changes: string[] = []
  for (const transport of all) {
    transport.onConnection((peer, connected) => void changes.push(`${transport.self} ${peer} ${connected}`))
  }
  await Promise.all(all.map(transport => transport.start()))
  await until(() =>
    all.every(transport => five.every(host => host.id === transport.self || transport.connected(host.id)))
  )
  await sleep(300)
  expect(changes).toHaveLength(20)
  expect(new Set(changes).size).toBe(20)
})

test('an address in use is a usage error that names it', async () => {
  const [first, second] = (await hosts(2)) as [Host, Host]
  await started(first, [first])
  const b = await transportOf({ ...second, address: first.address }, [second])
  await expect(b.start()).rejects.toMatchObject({
    name: 'UsageError',
    code: 'LISTEN_IN_USE',
    message: expect.stringContaining(first.address)
  })
})

test('the wait before a dial doubles up to a second, half of it jitter', () => {
  expect([0, 1, 2, 3, 4, 5, 50].map(failures => backoffMs(failures, 1))).toEqual([50, 100, 200, 400, 800, 1_000, 1_000])
  expect(backoffMs(5, 0)).toBe(500)
})

test('a message of frames costs one write and no answer: libp2p still has the names by which it is made lean', async () => {
  const MESSAGES = 50
  let got = 0
  const [a, b] = await pair({ frames: () => void got++ })
  a.send(b.self, 'frames', [randomBytes(100)]) // the first one of a stream is acknowledged
  await until(() => got === 1)
  const write = vi.spyOn(Socket.prototype, 'write')
  const push = vi.spyOn(Readable.prototype, 'push') // what a socket is given that reads into new memory
  cleanups.push(() => vi.restoreAllMocks())
  for (let i = 0; i < MESSAGES; i++) {
    a.send(b.self, 'frames', [randomBytes(100), randomBytes(5000)])
    await until(() => got === i + 2)
  }
  expect(write.mock.calls.length).toBeGreaterThanOrEqual(MESSAGES)
  expect(write.mock.calls.length).toBeLessThan(1.5 * MESSAGES) // keep-alives
  expect(push.mock.calls.length).toBeLessThan(0.5 * MESSAGES) // other streams of this process
})

test.each([
  ['a record that is sealed with another key', new RecordSealer(randomBytes(32)).seal(randomBytes(50))],
  ['a record that is longer than any', Uint8Array.of(0, 0, 255, 255, 255, 255)]
])('a member that goes past its stream with %s is cut off, and heard on its next connection', async (_, record) => {
  const [host, gone] = (await hosts(2)) as [Host, Host]
  const got: number[] = []
  await started(host, [host, gone], { frames: (_from, message) => void got.push(message.length) })
  const node = await rawNode(gone.key)
  const begin = async (): Promise<{ sink: ByteSink; connection: Connection; socket: Socket }> => {
    const connection = await dialRaw(node, host)
    const stream = await connection.newStream(protocolOf('frames'))
    const sink = await openDirect(connection, stream, AbortSignal.timeout(5_000))
    return { sink, connection, socket: (connection as unknown as { maConn: { socket: Socket } }).maConn.socket }
  }
  const message = (length: number) => Buffer.concat([frameHeader(length), randomBytes(length)])
  const first = await begin()
  await first.sink.write(message(10))
  first.socket.write(record)
  await first.sink.write(message(20))
  await until(() => first.connection.status !== 'open')
  const second = await begin()
  await second.sink.write(message(30))
  await until(() => got.length === 2)
  expect(got).toEqual([10, 30])
})

test('a link is broken, and made again, where the member has not acknowledged something, and no other is', async () => {
  const [one, two, three] = (await hosts(3)) as [Host, Host, Host]
  const all = [one, two, three]
  const a = await transportOf(one, all)
  const changes: string[] = []
  a.onConnection((peer, connected) => changes.push(`${peer === two.id ? 'b' : 'c'} ${connected ? 'up' : 'down'}`))
  await a.start()
  await started(two, all)
  await started(three, all)
  await until(() => changes.length === 2)
  const [, ip, port] = /^\/ip4\/([^/]+)\/tcp\/(\d+)/.exec(two.address) ?? []
  a.takeBack(new Set([`${ip}:${port}`, '10.9.8.7:7400']))
  await until(() => changes.length === 4)
  expect(changes.slice(2)).toEqual(['b down', 'b up'])
})
