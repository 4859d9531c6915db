/** What somebody tries who reaches the port and has no token, a lesser one, or a page that a person has open. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { HEARTBEAT_MS } from '../../node/edge/api-events.ts'
import { ApiClient } from '../../node/edge/client.ts'
import { ConnectionCount, networkOf, TCP_LIMITS } from '../../node/edge/tcp-limits.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'
import { aStatus } from './status-support.ts'
import { pairs } from './tls-pairs.ts'

let peer: Awaited<ReturnType<typeof tcpPeer>>

afterEach(() => peer.server.close())

const line = (path: string, headers: readonly string[] = []): string =>
  [`GET ${path} HTTP/1.1`, 'host: 127.0.0.1', ...headers, '', ''].join('\r\n')
const authorized = `authorization: Bearer ${tokens.admin}`

const stillWorks = async (): Promise<void> =>
  expect((await peer.ask('/v1/status', { token: tokens.view })).status).toBe(200)

describe('a page of another site', () => {
  it('reaches nothing by a name that was made to point here', async () => {
    peer = await tcpPeer({ isName: name => name === 'peer.example' })
    const ask = async (host: string): Promise<number> =>
      (await peer.ask('/v1/status', { token: tokens.admin, headers: { host } })).status
    for (const host of [
      'evil.example',
      `evil.example:${peer.port}`,
      '127.0.0.1.evil.example',
      'localhost.evil',
      '127.1',
      '0x7f.1',
      'peer.example.evil',
      'peer.example:',
      '127.0.0.1:80:80',
      '[::1',
      'a b',
      '@127.0.0.1',
      'evil@127.0.0.1'
    ]) {
      expect([host, [400, 421].includes(await ask(host))]).toEqual([host, true])
    }
    for (const host of [
      '127.0.0.1',
      `127.0.0.1:${peer.port}`,
      '[::1]:7480',
      'localhost',
      'LocalHost:1',
      'Peer.Example:7480',
      'peer.example.'
    ]) {
      expect([host, await ask(host)]).toEqual([host, 200])
    }
    expect(await peer.raw(`GET /v1/status HTTP/1.1\r\n${authorized}\r\n\r\n`).answer).toMatch(/^HTTP\/1.1 400 /)
    expect(
      await peer.raw(line('/v1/status', [authorized, 'connection: close']).replace('127.0.0.1', '')).answer
    ).toMatch(/^HTTP\/1.1 421 /)
    expect(await peer.raw(`GET /v1/status HTTP/1.0\r\n${authorized}\r\n\r\n`).answer).toMatch(/^HTTP\/1.1 421 /)
  })

  it('may ask nothing, even with a token, and learns no more from asking beforehand', async () => {
    peer = await tcpPeer()
    const host = `127.0.0.1:${peer.port}`
    const ask = (headers: Record<string, string>, method = 'GET') =>
      peer.ask('/v1/status', { method, token: tokens.admin, headers: { host, ...headers } })
    for (const origin of [
      'https://evil.example',
      'null',
      'http://127.0.0.1',
      `http://127.0.0.1:${peer.port}0`,
      `http://localhost:${peer.port}`,
      `file://${host}`,
      ''
    ]) {
      expect([origin, (await ask({ origin })).status]).toEqual([origin, 403])
    }
    for (const site of ['cross-site', 'same-site']) expect((await ask({ 'sec-fetch-site': site })).status).toBe(403)
    expect((await ask({ origin: `http://${host}`, 'sec-fetch-site': 'same-origin' })).status).toBe(200)
    const preflight = { origin: 'https://evil.example', 'access-control-request-method': 'POST' }
    const { status, headers } = await ask(preflight, 'OPTIONS')
    expect(status).toBe(403)
    expect(Object.keys(headers).filter(name => name.startsWith('access-control'))).toEqual([])
  })

  it('can neither frame nor sniff what is answered, and no answer is kept', async () => {
    peer = await tcpPeer()
    for (const path of ['/v1/status', '/v1/nowhere']) {
      expect((await peer.ask(path)).headers).toMatchObject({
        'x-frame-options': 'DENY',
        'x-content-type-options': 'nosniff',
        'cache-control': 'no-store',
        'cross-origin-resource-policy': 'same-origin'
      })
    }
  })
})

describe('somebody with a lesser token', () => {
  it('runs no command of his own by a drill, and no file of the host is named', async () => {
    peer = await tcpPeer()
    const drill = (token: string, body: object) =>
      peer.ask('/v1/groups/g/drill', { method: 'POST', token, body: JSON.stringify(body) })
    for (const body of [{ check: 'id' }, { cwd: '/root' }, { check: 'id', cwd: '/' }]) {
      expect((await drill(tokens.operate, body)).status).toBe(403)
    }
    expect(peer.done).toEqual([])
    await drill(tokens.operate, {})
    await drill(tokens.admin, { check: 'id' })
    expect(peer.done).toEqual(['drills.run', 'drills.run'])
  })

  it('sees no more events when it was taken from him, although he holds the line', async () => {
    peer = await tcpPeer()
    vi.useFakeTimers({ toFake: ['setInterval'] })
    try {
      const client = new ApiClient({ url: `http://127.0.0.1:${peer.port}`, token: tokens.view })
      peer.events.emit('before')
      const kinds: string[] = []
      for await (const { kind } of client.events({ follow: true })) {
        kinds.push(kind)
        if (kind === 'before') {
          vi.advanceTimersByTime(HEARTBEAT_MS) // he may still
          peer.events.emit('between')
        } else {
          peer.holders.delete(tokens.view)
          vi.advanceTimersByTime(HEARTBEAT_MS)
          peer.events.emit('after')
        }
      }
      expect(kinds).toEqual(['before', 'between'])
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('somebody who wants to keep the peer busy', () => {
  it('is cut off when he sends too many headers', async () => {
    peer = await tcpPeer()
    const many = line('/v1/status', [`x-a: ${'a'.repeat(TCP_LIMITS.headerBytes)}`])
    expect(await peer.raw(many).answer).toMatch(/^HTTP\/1.1 431 /)
    await stillWorks()
  })

  it('is cut off when he sends headers too slowly or none', async () => {
    peer = await tcpPeer({ limits: { headersMs: 100 } })
    expect(await peer.raw('GET /v1/status HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: ').answer).toMatch(/^(HTTP\/1.1 408 |$)/)
    await peer.raw('').answer
    // Whoever asks here may take more than 100 ms on a busy machine, and is cut off as well: then again.
    await vi.waitFor(stillWorks, 30_000)
  })

  it('is cut off in the middle of a body that does not go on, but not while his answer is made', async () => {
    peer = await tcpPeer({ limits: { idleMs: 100 } })
    const half = ['POST /v1/tokens HTTP/1.1', 'host: 127.0.0.1', authorized, 'content-length: 50', '', '{"name"'].join(
      '\r\n'
    )
    expect(await peer.raw(half).answer).toBe('')
    expect(peer.done).toEqual([])
    const slow = await tcpPeer({
      limits: { idleMs: 200 },
      view: { ...viewOf(peer), status: () => new Promise(resolve => setTimeout(resolve, 600, aStatus)) }
    })
    expect((await slow.ask('/v1/status', { token: tokens.view })).status).toBe(200)
    await slow.server.close()
  })

  it('sends a body without end to nobody: what is refused is not read on', async () => {
    peer = await tcpPeer({ limits: { lingerMs: 50 } })
    const { socket, answer } = peer.raw(line('/v1/images', ['transfer-encoding: chunked']).replace('GET', 'POST'))
    const sending = setInterval(() => socket.write('4\r\nabcd\r\n'), 5)
    expect(await answer).toMatch(/^HTTP\/1.1 401 /)
    clearInterval(sending)
  })

  it('has so many connections and no more; when they are gone there is room again', async () => {
    peer = await tcpPeer({ limits: { connections: 3, keepAliveMs: 60_000 } })
    const held = [1, 2, 3].map(() => connect(peer.port, '127.0.0.1'))
    await Promise.all(held.map(socket => once(socket, 'connect')))
    expect(await peer.raw(line('/v1/status', [authorized, 'connection: close'])).answer).toBe('')
    for (const socket of held) socket.destroy()
    await vi.waitFor(stillWorks)
  })

  it('is counted by his network, however many addresses of it he has', () => {
    const count = new ConnectionCount({ ...TCP_LIMITS, connections: 10, connectionsOfOne: 2 })
    const gone = count.admit('2001:db8:0:1::1')
    expect(count.admit('2001:db8:0:1:ffff::2')).not.toBe(false)
    expect(count.admit('2001:db8::1:0:0:0:3')).toBe(false)
    expect(count.admit('2001:db8:0:2::1')).not.toBe(false)
    expect(gone !== false && gone()).toBe(undefined)
    expect(count.admit('2001:db8:0:1::4')).not.toBe(false)
    for (let at = 0; at < 7; at++) expect(count.admit('127.0.0.1')).not.toBe(false)
    expect(count.admit('10.0.0.1')).toBe(false)
    expect(networkOf('::ffff:10.0.0.1')).toBe('10.0.0.1')
    expect([networkOf('fe80::1%eth0'), networkOf('::1'), networkOf('1::')]).toEqual([
      'fe80:0:0:0',
      '0:0:0:0',
      '1:0:0:0'
    ])
  })

  it('queues no requests on one connection', async () => {
    peer = await tcpPeer()
    const post = [
      'POST /v1/tokens HTTP/1.1',
      'host: 127.0.0.1',
      authorized,
      'content-length: 28',
      '',
      '{"name":"x","role":"admin"} '
    ].join('\r\n')
    const answer = await peer.raw(post.repeat(100)).answer
    expect(answer.match(/HTTP\/1.1/g) ?? []).toHaveLength(0)
    expect(peer.done.length).toBeLessThanOrEqual(1)
    await stillWorks()
  })

  it('guesses tokens slowly, and hinders nobody who has one', async () => {
    peer = await tcpPeer({ limits: { wrongTokenMs: 60_000, wrongTokens: 3 } })
    const guesses = Array.from({ length: 5 }, (_, at) =>
      peer.raw(line('/v1/status', [`authorization: Bearer guess${at}`]))
    )
    const cut = [await Promise.race(guesses.map(({ answer }) => answer))]
    expect(cut).toEqual([''])
    await stillWorks()
    for (const { socket } of guesses) socket.destroy()
  })
})

describe('somebody who sends what is no honest request', () => {
  it('cannot hide one request in another', async () => {
    peer = await tcpPeer()
    const hidden = `DELETE /v1/tokens/x HTTP/1.1\r\nhost: 127.0.0.1\r\n${authorized}\r\n\r\n`
    for (const headers of [
      ['content-length: 5', 'transfer-encoding: chunked'],
      ['content-length: 0', `content-length: ${hidden.length}`],
      ['transfer-encoding: chunked', 'transfer-encoding: identity'],
      ['content-length : 0'],
      ['x: y\rcontent-length: 3']
    ]) {
      const text = `${line('/v1/status', [authorized, ...headers]).replace('GET', 'POST')}0\r\n\r\n${hidden}`
      expect([headers, await peer.raw(text).answer]).toEqual([headers, expect.stringMatching(/^HTTP\/1.1 400 /)])
    }
    expect(peer.done).toEqual([])
  })

  it('finds no other way to a path, and no way around its role', async () => {
    peer = await tcpPeer()
    for (const path of [
      '//evil.example/v1/tokens',
      '/v1//tokens',
      '/v1/tokens/',
      '/V1/tokens',
      '/v1/%74okens',
      '/v1/groups/../tokens',
      '/%2e%2e/v1/tokens',
      'http://127.0.0.1/v1/tokens',
      '/v1/tokens;x',
      '/v1/tokens%00',
      '//',
      '/\\v1/tokens'
    ]) {
      const { status } = await peer.ask(path, { token: tokens.view })
      expect([path, status]).toEqual([path, 404])
    }
    const override = {
      'x-http-method-override': 'DELETE',
      'x-original-url': '/v1/tokens',
      'x-forwarded-for': '127.0.0.1'
    }
    expect((await peer.ask('/v1/keys', { method: 'POST', token: tokens.view, headers: override })).status).toBe(403)
    for (const method of ['TRACE', 'HEAD', 'OPTIONS', 'PROPFIND']) {
      expect([method, (await peer.ask('/v1/status', { method, token: tokens.view })).status]).toEqual([method, 405])
    }
    expect((await peer.ask('/v1/status', { headers: { connection: 'upgrade', upgrade: 'websocket' } })).status).toBe(
      401
    )
    expect(await peer.raw('CONNECT 10.0.0.1:22 HTTP/1.1\r\nhost: 10.0.0.1:22\r\n\r\n').answer).not.toMatch(/200/)
  })

  it('holds no handshake open', async () => {
    peer = await tcpPeer({ tls: pairs.a, limits: { headersMs: 50 } })
    expect(await peer.raw('').answer).toBe('')
    // Also one that has begun: the header of a record, whose body does not come.
    expect(await peer.raw('\x16\x03\x01\x01\x00').answer).not.toMatch(/HTTP/)
  })

  // With the real limits: how long a handshake takes is this machine's affair.
  it('speaks no TLS of old and no plain text where there is TLS', async () => {
    peer = await tcpPeer({ tls: pairs.a, limits: { connections: 3 } })
    expect(await peer.raw(line('/v1/status', [authorized])).answer).not.toMatch(/HTTP\/1.1 2/)
    const old = tlsConnect({
      host: '127.0.0.1',
      port: peer.port,
      ca: pairs.a.cert,
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      ciphers: 'DEFAULT@SECLEVEL=0'
    })
    expect(
      await new Promise(resolve =>
        old.on('secureConnect', () => resolve('secure')).on('error', () => resolve('refused'))
      )
    ).toBe('refused')
    const client = new ApiClient({ url: `https://127.0.0.1:${peer.port}`, token: tokens.view, ca: pairs.a.cert })
    for (let at = 0; at < 6; at++) expect(await client.whoami()).toMatchObject({ role: 'view' }) // each goes again
  })
})

/** A peer's view that tests change in part. */
const viewOf = ({ view }: typeof peer) => view
