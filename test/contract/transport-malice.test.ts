/** What a member gone bad may do to another over the network, and somebody in between: whatever they send, the others go on. */
import { randomBytes } from 'node:crypto'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Packr } from 'msgpackr'
import { afterEach, expect, test } from 'vitest'
import type { Channel } from '../../node/ports.ts'
import { clusterHash, envelopeHeader } from '../../protocols/envelope.ts'
import { createControlBus } from '../../protocols/service.ts'
import { type Connection, frameHeader } from '../../protocols/stream.ts'
import { type Libp2pTransport, MAX_MESSAGE_BYTES, protocolOf } from '../../protocols/transport.ts'
import { freePort } from './loopback.ts'
import { quietLog } from './real-clock.ts'
import {
  CHANNELS,
  cleanUp,
  cleanups,
  dialRaw,
  type Host,
  hosts,
  rawNode,
  started,
  transportOf,
  until
} from './transport-support.ts'

afterEach(cleanUp)

const framed = (bytes: Uint8Array): Uint8Array => Buffer.concat([frameHeader(bytes.length), bytes])

interface Scene {
  readonly victim: Host
  readonly rogue: Host
  readonly transport: Libp2pTransport
  /** What came to the victim from whom. */
  readonly heard: { from: string; channel: Channel; bytes: number }[]
  /** An honest member says something, and the victim hears it. */
  honestIsHeard(): Promise<void>
}

/** A peer, an honest member, and one whose identity is a member's and whose program is not ours. */
async function scene(): Promise<Scene> {
  const all = (await hosts(3)) as [Host, Host, Host]
  const [victim, honest, rogue] = all
  const heard: { from: string; channel: Channel; bytes: number }[] = []
  const transport = await transportOf(victim, all)
  for (const channel of CHANNELS)
    transport.handle(channel, (from, { length: bytes }) => void heard.push({ from, channel, bytes }))
  await transport.start()
  const friend = await started(honest, all)
  const honestIsHeard = async (): Promise<void> => {
    await until(() => friend.connected(victim.id))
    const bytes = 1 + heard.length
    expect(friend.send(victim.id, 'control', [Buffer.alloc(bytes)])).toBe(true)
    await until(() => heard.some(each => each.from === honest.id && each.bytes === bytes))
  }
  await honestIsHeard()
  return { victim, rogue, transport, heard, honestIsHeard }
}

test('a member that claims a huge message, or one without end, is cut off before it is taken in', async () => {
  const { victim, rogue, transport, heard, honestIsHeard } = await scene()
  const raw = await rawNode(rogue.key)
  for (const length of [MAX_MESSAGE_BYTES.control + 1, 0x7fff_ffff, 0xffff_ffff]) {
    const connection = await dialRaw(raw, victim)
    const stream = await connection.newStream(protocolOf('control'))
    stream.send(frameHeader(length))
    await until(() => connection.status !== 'open')
  }
  expect(transport.stats().oversize).toBe(3)
  // Of the largest that is allowed nothing is handled before it is whole.
  const connection = await dialRaw(raw, victim)
  const stream = await connection.newStream(protocolOf('control'))
  stream.send(frameHeader(MAX_MESSAGE_BYTES.control))
  stream.send(Buffer.alloc(MAX_MESSAGE_BYTES.control - 1))
  await sleep(50)
  expect(heard.filter(({ from }) => from === rogue.id)).toEqual([])
  await honestIsHeard()
})

test('a member that sends without end is held back, alone, while its last message is being handled', async () => {
  const all = (await hosts(3)) as [Host, Host, Host]
  const [victim, honest, rogue] = all
  let [taken, told] = [0, 0]
  const transport = await transportOf(victim, all)
  transport.handle('bulk', () => {
    taken++
    return new Promise(() => {})
  })
  transport.handle('control', () => void told++)
  await transport.start()
  const stream = await (await dialRaw(await rawNode(rogue.key), victim)).newStream(protocolOf('bulk'))
  const message = framed(Buffer.alloc(1 << 20, 7))
  for (let sent = 0; sent < 64 && stream.writeBufferLength < 16 << 20; sent++) {
    stream.send(message)
    await sleep(2)
  }
  // What neither window nor sockets took waits at the member's own.
  await until(() => stream.writeBufferLength >= 16 << 20)
  expect(taken).toBe(1)
  const friend = await started(honest, all)
  await until(() => friend.connected(victim.id))
  friend.send(victim.id, 'control', [Buffer.from('x')])
  await until(() => told === 1)
})

test('a member has so many connections and no more, and takes no place from others', async () => {
  const { victim, rogue, transport, honestIsHeard } = await scene()
  const raw = await rawNode(rogue.key)
  const before = transport.stats().connections
  // One after the other: libp2p takes dials to one place at the same time for one.
  const dialled: Connection[] = []
  for (let dial = 0; dial < 60; dial++) dialled.push(await dialRaw(raw, victim))
  const open = () => dialled.filter(({ status }) => status === 'open').length
  await until(() => open() <= 24)
  expect(open()).toBeGreaterThan(0)
  expect(transport.stats().connections - before).toBeLessThanOrEqual(24)
  await honestIsHeard()
})

test('a member speaks no protocol that is not one, and its newest stream of a channel is its only one', async () => {
  const { victim, rogue, heard, honestIsHeard } = await scene()
  const raw = await rawNode(rogue.key)
  const connection = await dialRaw(raw, victim)
  for (const unknown of ['/ipfs/id/1.0.0', '/ipfs/ping/1.0.0', '/diapause/control/2', '/diapause/../control/1'])
    await expect(connection.newStream(unknown)).rejects.toThrow()
  const first = await dialRaw(raw, victim)
  await first.newStream(protocolOf('control'))
  const stream = await (await dialRaw(raw, victim)).newStream(protocolOf('control'))
  await until(() => first.status !== 'open')
  stream.send(framed(Buffer.from('still')))
  await until(() => heard.some(({ from }) => from === rogue.id))
  await honestIsHeard()
})

/** A bus of the victim's, and what a member says on it with a program of its own. */
async function spokenTo() {
  const all = (await hosts(2)) as [Host, Host]
  const [victim, rogue] = all
  const transport = await transportOf(victim, all)
  const bus = createControlBus(transport, quietLog, 'test')
  const told: [string, unknown][] = []
  bus.on(
    'swim',
    message => message,
    (from, message) => void told.push([from, message])
  )
  await transport.start()
  const stream = await (await dialRaw(await rawNode(rogue.key), victim)).newStream(protocolOf('control'))
  const say = (...parts: Uint8Array[]): void => void stream.send(framed(Buffer.concat(parts)))
  return { victim, rogue, bus, told, say, header: envelopeHeader(clusterHash('test'), 'swim') }
}

const packr = new Packr({ useRecords: false })

test('whatever name a member gives itself, it is heard under its own', async () => {
  const { victim, rogue, told, say, header } = await spokenTo()
  const message = { from: victim.id, peer: victim.id, kind: 'gossip', updates: [] }
  say(header, packr.pack(message))
  await until(() => told.length === 1)
  expect(told).toEqual([[rogue.id, message]])
})

test('a member that nests deeply, claims what is not there, or speaks for another cluster is dropped and counted, message by message', async () => {
  const { bus, told, say, header } = await spokenTo()
  say(header, Buffer.alloc(200_000, 0x91), Buffer.of(0xc0)) // a list in a list in a list …
  say(header, Buffer.of(0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0)) // four thousand million members
  say(header, Buffer.of(0xc6, 0xff, 0xff, 0xff, 0xff, 0)) // four thousand million bytes
  say(header, Buffer.from('c7ff00'.repeat(9), 'hex')) // types of its own
  say(envelopeHeader(clusterHash('another'), 'swim'), packr.pack({ kind: 'gossip' }))
  say(envelopeHeader(clusterHash('test'), 'no-such-protocol'), packr.pack({}))
  say(randomBytes(500))
  say(header, packr.pack({ kind: 'gossip', updates: [] }))
  await until(() => told.length === 1)
  const { dropped, delivered } = bus.stats()
  expect(delivered).toBe(1)
  expect(dropped).toMatchObject({ MSGPACK_LIMIT: 1, ENVELOPE_CLUSTER: 1, ENVELOPE_PROTOCOL: 1 })
  expect(Object.values(dropped).reduce((sum, count) => sum + count, 0)).toBe(7)
})

test('strangers who leave handshakes open break no link', async () => {
  const { victim, transport, honestIsHeard } = await scene()
  const { connections } = transport.stats()
  const sockets = Array.from({ length: 400 }, () => connect(portOf(victim), '127.0.0.1').on('error', () => {}))
  cleanups.push(() => sockets.forEach(socket => socket.destroy()))
  await until(() => sockets.every(({ connecting }) => !connecting))
  for (const socket of sockets) if (socket.writable) socket.write('\x13/multistream/1.0.0\n\x07/noise\n')
  await honestIsHeard()
  expect(transport.stats().connections).toBe(connections)
})

/** Between two peers: what went towards the second, connection by connection. */
async function wiretap(behind: Host): Promise<{ address: string; recorded: Buffer[][] }> {
  const recorded: Buffer[][] = []
  const server = createServer(inward => {
    const outward = connect(portOf(behind), '127.0.0.1')
    const record: Buffer[] = []
    recorded.push(record)
    const relay = (from: Socket, to: Socket, tap: (data: Buffer) => void): void => {
      from.on('data', data => {
        tap(data)
        to.write(data)
      })
      from.on('close', () => to.destroy()).on('error', () => {})
    }
    relay(inward, outward, data => void record.push(data))
    relay(outward, inward, () => {})
  })
  const port = await freePort()
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  cleanups.push(() => server.close())
  return { address: `/ip4/127.0.0.1/tcp/${port}`, recorded }
}

const portOf = ({ address }: Host): number => Number(address.split('/').at(-1))

test('a recording of all that a member said, played back, says nothing again', async () => {
  const all = (await hosts(2)) as [Host, Host]
  const [victim, member] = all
  const heard: string[] = []
  const transport = await transportOf(victim, [victim, member])
  for (const channel of CHANNELS) transport.handle(channel, (_, message) => void heard.push(`${message.length}`))
  await transport.start()
  const { address, recorded } = await wiretap(victim)
  const speaker = await started(member, [{ ...victim, address }, member])
  await until(() => speaker.connected(victim.id))
  for (const channel of CHANNELS) speaker.send(victim.id, channel, [Buffer.alloc(100)])
  await until(() => heard.length === 3)
  expect(recorded.length).toBeGreaterThanOrEqual(3)
  const { received } = transport.stats()
  for (const record of recorded) {
    const socket = connect(portOf(victim), '127.0.0.1')
    const ended = new Promise(resolve => socket.on('close', resolve).on('error', () => {}))
    cleanups.push(() => socket.destroy())
    for (const part of record) socket.write(part)
    socket.end()
    socket.resume()
    await ended
  }
  expect(transport.stats().received).toEqual(received)
  expect(heard).toHaveLength(3)
})
