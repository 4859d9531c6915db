/** An image that is sent to a peer which has refused it: what is still read of it, so that its sender hears why. */
import { EventEmitter, once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { afterEach, expect, it, vi } from 'vitest'
import { encodeRecord } from '../../node/edge/image-records.ts'
import { REST_BYTES, throwAway } from '../../node/edge/image-routes.ts'
import { TCP_LIMITS } from '../../node/edge/tcp-limits.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'

afterEach(() => vi.useRealTimers())

const MIB = 1 << 20
/** Beyond what kernels hold of a connection. */
const MOST_BYTES = 4 * REST_BYTES

const chunked = (bytes: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])

it('an upload without end that is refused is read so far and no further: its sender is told why, and cut off', async () => {
  const peer = await tcpPeer({ limits: { lingerMs: 50 } })
  const socket = connect(peer.port, '127.0.0.1').on('error', () => {}) // who is cut off while it sends is told so by its kernel
  const isClosed = new Promise(resolve => socket.once('close', resolve))
  let text = ''
  socket.setEncoding('utf8').on('data', (part: string) => (text += part))
  const head = ['POST /v1/images HTTP/1.1', 'host: localhost', `authorization: Bearer ${tokens.admin}`]
  socket.write([...head, 'transfer-encoding: chunked', '', ''].join('\r\n'))
  socket.write(chunked(Buffer.concat(encodeRecord({ kind: 'end' }))))
  const more = chunked(new Uint8Array(MIB))
  let sent = 0
  while (!socket.destroyed && sent < MOST_BYTES) {
    sent += MIB
    if (!socket.write(more)) await Promise.race([once(socket, 'drain').catch(() => {}), isClosed])
  }
  if (sent >= MOST_BYTES) socket.destroy()
  await isClosed
  await peer.server.close()
  expect(sent).toBeGreaterThan(REST_BYTES)
  expect(sent).toBeLessThan(MOST_BYTES)
  expect(text).toMatch(/^HTTP\/1.1 400 [^]*IMPORT_INVALID/)
})

it('an upload that is refused and goes on slowly is cut off after a time, also on the socket', async () => {
  vi.useFakeTimers()
  const socket = { destroy: vi.fn<() => void>() }
  const request = Object.assign(new Readable({ read() {} }), { socket })
  const response = new EventEmitter()
  let isOver = false
  void throwAway(request as unknown as IncomingMessage, response as unknown as ServerResponse).then(
    () => (isOver = true)
  )
  for (let seconds = 0; seconds < 29; seconds++) {
    request.push(Buffer.alloc(1_000))
    await vi.advanceTimersByTimeAsync(1_000)
  }
  expect([isOver, request.readableLength]).toEqual([false, 0])
  await vi.advanceTimersByTimeAsync(1_000)
  expect(isOver).toBe(true)
  request.push(Buffer.alloc(1_000))
  await vi.advanceTimersByTimeAsync(1_000)
  expect([request.isPaused(), request.readableLength]).toEqual([true, 1_000])
  response.emit('finish')
  expect(socket.destroy).not.toHaveBeenCalled()
  await vi.advanceTimersByTimeAsync(TCP_LIMITS.lingerMs)
  expect(socket.destroy).toHaveBeenCalledOnce()
})

it('an upload that is refused and ends is left its connection', async () => {
  const request = Object.assign(Readable.from([Buffer.alloc(10)]), { socket: { destroy: vi.fn<() => void>() } })
  const response = new EventEmitter()
  await throwAway(request as unknown as IncomingMessage, response as unknown as ServerResponse)
  expect([request.readableEnded, response.listenerCount('finish')]).toEqual([true, 0])
})
