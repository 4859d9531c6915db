/** What strangers, invited or not, may do to a peer: ask to join, and nothing else. */
import { randomBytes } from 'node:crypto'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, expect, test } from 'vitest'
import type { Clock } from '../../node/ports.ts'
import { JOIN_PROTOCOL, MAX_JOIN_BYTES, requestJoin } from '../../protocols/join-channel.ts'
import { frameHeader } from '../../protocols/stream.ts'
import { JOIN_DEADLINE_MS, type JoinHandler } from '../../protocols/transport-invited.ts'
import { type Libp2pTransport, protocolOf } from '../../protocols/transport.ts'
import { freePort } from './loopback.ts'
import { clock } from './real-clock.ts'
import {
  CHANNELS,
  cleanUp,
  cleanups,
  dialRaw,
  type Host,
  hosts,
  rawNode,
  transportOf,
  until
} from './transport-support.ts'

afterEach(cleanUp)

const echo: JoinHandler = async (_invite, request) => request

interface Scene {
  readonly member: Host
  readonly invited: Host
  readonly transport: Libp2pTransport
  /** Messages that came to handlers of members' channels. */
  readonly leaked: string[]
  /** Those that have not passed. */
  readonly deadlines: readonly (() => void)[]
}

/** A running member and somebody whom it has invited. Deadlines pass when a test says so. */
async function scene(handler: JoinHandler = echo): Promise<Scene> {
  const [member, invited] = (await hosts(2)) as [Host, Host]
  const deadlines: (() => void)[] = []
  const manual: Clock = {
    now: () => clock.now(),
    after: (ms, fn) => {
      if (ms !== JOIN_DEADLINE_MS) return clock.after(ms, fn)
      deadlines.push(fn)
      return () => void deadlines.splice(deadlines.indexOf(fn), 1)
    }
  }
  const transport = await transportOf(member, [member], { clock: manual })
  const leaked: string[] = []
  for (const channel of CHANNELS) transport.handle(channel, () => void leaked.push(channel))
  transport.onJoin(handler)
  transport.setInvited(new Set([invited.id]))
  await transport.start()
  return { member, invited, transport, leaked, deadlines }
}

const ask = ({ key }: Host, peer: { id: string; address: string }, request: Uint8Array, timeoutMs = 20_000) =>
  requestJoin({ inviteKey: key, peer, request, timeoutMs })

const framed = (bytes: Uint8Array): Uint8Array => Buffer.concat([frameHeader(bytes.length), bytes])

test('an invited stranger asks and is answered, with up to 64 KiB each way', async () => {
  const asked: string[] = []
  const { member, invited, transport } = await scene(async (invite, request) => {
    asked.push(invite)
    return request.length === 1 ? randomBytes(MAX_JOIN_BYTES) : Buffer.from('welcome')
  })
  expect(Buffer.from(await ask(invited, member, randomBytes(MAX_JOIN_BYTES))).toString()).toBe('welcome')
  expect(await ask(invited, member, Buffer.from('?'))).toHaveLength(MAX_JOIN_BYTES)
  expect(asked).toEqual([invited.id, invited.id])
  expect(transport.stats()).toMatchObject({ joins: 2, invitedRefused: 0, strangers: 0 })
  await until(() => transport.stats().connections === 0)
})

test('an invitation may be used up by its own answer', async () => {
  const { member, invited, transport } = await scene(async (_invite, request) => {
    transport.setInvited(new Set())
    await sleep(20)
    return request
  })
  expect(await ask(invited, member, Buffer.from('once'))).toEqual(Buffer.from('once'))
  await expect(ask(invited, member, Buffer.from('twice'))).rejects.toMatchObject({
    name: 'UsageError',
    code: 'JOIN_REFUSED',
    message: expect.stringContaining('ask for a new invitation')
  })
  expect(transport.stats()).toMatchObject({ joins: 1, strangers: 1 })
})

test('who was removed dials as members do, is linked to nobody, and is told so when it asks', async () => {
  const { member, invited: removed, transport, leaked } = await scene(async () => Buffer.from('you were removed'))
  const returned = await transportOf(removed, [member, removed])
  const linked: string[] = []
  returned.onConnection(peer => linked.push(peer))
  await returned.start()
  await until(() => transport.stats().invitedRefused > 0)
  // A dial of its own may stand in the way of the question: it asks again.
  const answers: string[] = []
  for (let tries = 0; tries < 20 && answers.length < 2; tries++) {
    const answer = ask(removed, member, new Uint8Array(1)).then(bytes => answers.push(Buffer.from(bytes).toString()))
    await answer.catch(() => sleep(100))
  }
  expect(answers).toEqual(['you were removed', 'you were removed'])
  expect([linked, leaked, returned.connected(member.id)]).toEqual([[], [], false])
})

test('whoever was not invited is refused, and so is a request that the handler refuses', async () => {
  const { member, invited, transport } = await scene(async () => {
    throw new Error('no')
  })
  const [stranger] = (await hosts(1)) as [Host]
  await expect(ask(stranger, member, Buffer.from('let me in'))).rejects.toMatchObject({ code: 'JOIN_REFUSED' })
  await expect(ask(invited, member, Buffer.from('let me in'))).rejects.toMatchObject({ code: 'JOIN_REFUSED' })
  expect(transport.stats()).toMatchObject({ joins: 0, strangers: 1 })
})

test('a request goes to the member it is meant for or to nobody', async () => {
  const { member, invited, transport } = await scene()
  const [other] = (await hosts(1)) as [Host]
  const code = 'JOIN_UNREACHABLE'
  // Somebody else answers there; nobody answers there; that is no address; there is no answer.
  await expect(ask(invited, { ...other, address: member.address }, Buffer.from('x'))).rejects.toMatchObject({ code })
  await expect(ask(invited, other, Buffer.from('x'))).rejects.toMatchObject({
    code,
    message: expect.stringContaining(other.address)
  })
  await expect(ask(invited, { ...other, address: 'host:7400' }, Buffer.from('x'))).rejects.toMatchObject({ code })
  const slow = await scene(() => new Promise(() => {}))
  await expect(ask(slow.invited, slow.member, Buffer.from('x'), 1_000)).rejects.toMatchObject({
    code,
    message: expect.stringContaining('in time')
  })
  expect(transport.stats().joins).toBe(0)
})

test('an invited stranger can open none of the channels of members', async () => {
  const { member, invited, transport, leaked } = await scene()
  const raw = await rawNode(invited.key)
  for (const [i, channel] of CHANNELS.entries()) {
    const connection = await dialRaw(raw, member)
    const message = framed(Buffer.from('I am a member'))
    const spoken = connection.newStream(protocolOf(channel)).then(stream => stream.send(message))
    await Promise.allSettled([spoken])
    await until(() => connection.status !== 'open' && transport.stats().connections === 0)
    expect(transport.stats().invitedRefused).toBe(i + 1)
  }
  const connection = await dialRaw(raw, member)
  for (const unknown of ['/ipfs/id/1.0.0', '/ipfs/ping/1.0.0', '/diapause/join/2']) {
    await expect(connection.newStream(unknown)).rejects.toThrow()
  }
  expect(leaked).toEqual([])
})

test('an invited stranger has one connection, and on it one request', async () => {
  const { member, invited, transport } = await scene()
  const raw = await rawNode(invited.key)
  const connection = await dialRaw(raw, member)
  const stream = await connection.newStream(JOIN_PROTOCOL)
  const second = dialRaw(raw, member).then(refused => refused.newStream(JOIN_PROTOCOL))
  await expect(second).rejects.toThrow()
  expect(transport.stats()).toMatchObject({ invitedRefused: 1, connections: 1 })

  stream.send(framed(Buffer.from('first')))
  await until(() => transport.stats().joins === 1)
  const again = connection.newStream(JOIN_PROTOCOL).then(next => next.send(framed(Buffer.from('second'))))
  await Promise.allSettled([again])
  await until(() => connection.status !== 'open')
  expect(transport.stats()).toMatchObject({ joins: 1, invitedRefused: 2 })
})

test('an invitation that is withdrawn ends a visit that has not asked yet', async () => {
  const { member, invited, transport } = await scene()
  const connection = await dialRaw(await rawNode(invited.key), member)
  await until(() => transport.stats().connections === 1)
  transport.setInvited(new Set())
  expect(transport.stats().connections).toBe(0)
  await until(() => connection.status !== 'open')
})

test('a request over the limit is refused before it is taken in', async () => {
  const { member, invited, transport } = await scene()
  const connection = await dialRaw(await rawNode(invited.key), member)
  const stream = await connection.newStream(JOIN_PROTOCOL)
  stream.send(frameHeader(MAX_JOIN_BYTES + 1))
  await until(() => connection.status !== 'open')
  expect(transport.stats()).toMatchObject({ joins: 0, invitedRefused: 1 })
  await expect(ask(invited, member, Buffer.alloc(MAX_JOIN_BYTES + 1))).rejects.toThrow(TypeError)
})

test('a visit that dawdles is ended by its deadline, and so is one that does not leave', async () => {
  const { member, invited, transport, deadlines } = await scene()
  const raw = await rawNode(invited.key)
  const dawdler = await dialRaw(raw, member)
  const slow = await dawdler.newStream(JOIN_PROTOCOL)
  slow.send(frameHeader(1_000))
  slow.send(Buffer.from('one byte at a t'))
  await sleep(50)
  expect(deadlines).toHaveLength(1)
  deadlines[0]?.()
  await until(() => dawdler.status !== 'open')
  expect(deadlines).toHaveLength(0)

  const guest = await dialRaw(raw, member)
  const stream = await guest.newStream(JOIN_PROTOCOL)
  stream.send(framed(Buffer.from('hello')))
  await until(() => transport.stats().joins === 1)
  await sleep(50)
  expect(guest.status).toBe('open')
  expect(deadlines).toHaveLength(1)
  deadlines[0]?.()
  await until(() => guest.status !== 'open')
  expect(transport.stats()).toMatchObject({ joins: 1, invitedRefused: 1 })
})

test('whatever an invited stranger writes, the member answers the next one', async () => {
  const { member, invited, transport, leaked } = await scene()
  const raw = await rawNode(invited.key)
  const header = fc.integer({ min: 0, max: 0xffff_ffff }).map(frameHeader)
  const bytes = fc.array(fc.oneof(header, fc.uint8Array({ maxLength: 300 })), { maxLength: 6 })
  await fc.assert(
    fc.asyncProperty(bytes, async pieces => {
      const connection = await dialRaw(raw, member)
      const stream = await connection.newStream(JOIN_PROTOCOL)
      for (const piece of pieces) if (stream.writeStatus === 'writable') stream.send(piece)
      await Promise.allSettled([stream.close()])
      connection.abort(new Error('gone'))
      await until(() => transport.stats().connections === 0)
    }),
    { numRuns: 60 }
  )
  expect(await ask(invited, member, Buffer.from('still there?'))).toEqual(Buffer.from('still there?'))
  expect(leaked).toEqual([])
})

test('garbage on the port disturbs nobody', async () => {
  const { member, invited } = await scene()
  const port = Number(member.address.split('/').at(-1))
  for (let i = 0; i < 40; i++) {
    const socket = connect(port, '127.0.0.1')
    cleanups.push(() => socket.destroy())
    socket.on('error', () => {})
    // Every other one begins as it should, and goes on with garbage.
    if (i % 2 === 1) socket.write('\x13/multistream/1.0.0\n\x07/noise\n')
    socket.write(randomBytes(1 + i * 50))
  }
  expect(await ask(invited, member, Buffer.from('still there?'))).toEqual(Buffer.from('still there?'))
})

/** What went through a relay, in order: `<` from the peer, `>` to it. */
async function relayed(member: Host): Promise<{ address: string; passed: ('<' | '>')[] }> {
  const port = await freePort()
  const passed: ('<' | '>')[] = []
  const server = createServer(inward => {
    const outward = connect(Number(member.address.split('/').at(-1)), '127.0.0.1')
    const relay = (from: Socket, to: Socket, direction: '<' | '>'): void => {
      from.on('data', data => {
        passed.push(direction)
        to.write(data)
      })
      from.on('close', () => to.destroy())
      from.on('error', () => {})
    }
    relay(inward, outward, '>')
    relay(outward, inward, '<')
  })
  await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
  cleanups.push(() => server.close())
  return { address: `/ip4/127.0.0.1/tcp/${port}`, passed }
}

test('a stranger who knows the address hears nothing after the handshake', async () => {
  const { member, invited, transport } = await scene()
  const [stranger] = (await hosts(1)) as [Host]
  const speak = async (host: Host): Promise<string> => {
    const { address, passed } = await relayed(member)
    const raw = await rawNode(host.key)
    const asked = dialRaw(raw, { ...member, address }).then(connection => connection.newStream(JOIN_PROTOCOL))
    const [{ status }] = await Promise.allSettled([asked])
    expect(status).toBe(host === stranger ? 'rejected' : 'fulfilled')
    return passed.join('')
  }
  // The stranger has the last word: the third message of Noise XX, which proves who it is.
  expect(await speak(stranger)).toMatch(/>$/)
  expect(transport.stats()).toMatchObject({ strangers: 1, connections: 0 })
  // That this looks at the right thing: to somebody who is invited the peer goes on to speak.
  expect(await speak(invited)).toMatch(/<$/)
})
