/** An image that is sent to a peer which has refused it: what is still read of it, so that its sender hears why. */
import { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { afterEach, expect, it, vi } from 'vitest'
import { throwAway } from '../../node/edge/image-routes.ts'
import { TCP_LIMITS } from '../../node/edge/tcp-limits.ts'

afterEach(() => vi.useRealTimers())

it('an upload that is refused and goes on is cut off after a time, also on the socket', async () => {
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
