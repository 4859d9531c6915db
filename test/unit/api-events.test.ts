import { once } from 'node:events'
import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { HEARTBEAT_MS } from '../../node/edge/api-events.ts'
import { EventFeed } from '../../node/edge/events.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'

let peer: Awaited<ReturnType<typeof tcpPeer>>

beforeEach(async () => {
  peer = await tcpPeer()
})

afterEach(() => peer.server.close())

/** A reader of server-sent events that gives what came until it has seen `last`, then leaves. */
async function readUntil(last: string, headers: readonly string[] = []): Promise<string> {
  const socket = connect(peer.port, '127.0.0.1')
  const lines = [
    'GET /v1/events HTTP/1.1',
    'host: 127.0.0.1',
    `authorization: Bearer ${tokens.view}`,
    'accept: text/event-stream'
  ]
  socket.write([...lines, ...headers, '', ''].join('\r\n'))
  let text = ''
  for await (const part of socket.setEncoding('utf8')) {
    text += part as string
    if (text.includes(last)) break
  }
  return text
}

const idOf = (text: string, kind: string): string =>
  new RegExp(`id: (\\S+)\\n[^\\n]*"kind":"${kind}"`).exec(text)?.[1] ?? ''
const kindsOf = (text: string): string[] => [...text.matchAll(/"kind":"(\w+)"/g)].map(([, kind = '']) => kind)

describe('server-sent events', () => {
  it('come as they happen, each with an id, after those that are kept', async () => {
    peer.events.emit('one', { text: 'a\nb' })
    const reading = readUntil('"kind":"two"')
    await vi.waitFor(() => expect(peer.server.followers()).toBe(1))
    peer.events.emit('two')
    const text = await reading
    expect(text).toMatch(/content-type: text\/event-stream\r\n/)
    expect(text).toContain('data: {"text":"a\\nb","atMs":0,"kind":"one"}\n\n')
    expect(kindsOf(text)).toEqual(['one', 'two'])
    expect(idOf(text, 'one')).not.toBe(idOf(text, 'two'))
    await vi.waitFor(() => expect(peer.server.followers()).toBe(0)) // who leaves is forgotten
  })

  it('go on after the last one that was seen, and begin anew where that is unknown', async () => {
    for (const kind of ['one', 'two', 'three']) peer.events.emit(kind)
    const first = await readUntil('"kind":"three"')
    const again = await readUntil('"kind":"three"', [`last-event-id: ${idOf(first, 'one')}`])
    expect(kindsOf(again)).toEqual(['two', 'three'])
    const anew = await readUntil('"kind":"three"', ['last-event-id: of-another-life-7'])
    expect(kindsOf(anew)).toEqual(['one', 'two', 'three'])
  })

  it('beat, so that both sides notice when the other is gone', async () => {
    vi.useFakeTimers({ toFake: ['setInterval'] })
    try {
      const reading = readUntil('\n:\n\n')
      await vi.waitFor(() => expect(peer.server.followers()).toBe(1))
      vi.advanceTimersByTime(HEARTBEAT_MS)
      expect(await reading).toMatch(/\n:\n\n/)
    } finally {
      vi.useRealTimers()
    }
  })

  it('have ids of this run of the peer, also where older ones are forgotten', () => {
    let now = 5
    const feed = new EventFeed(() => now++, 3)
    for (let at = 0; at < 5; at++) feed.emit(`e${at}`)
    const ids = feed.since(undefined).map(({ id }) => id)
    expect(feed.since(ids[0]).map(({ event }) => event.kind)).toEqual(['e3', 'e4'])
    expect(feed.since(ids[2])).toEqual([])
    feed.emit('e5')
    expect(feed.since(ids[2]).map(({ event }) => event.kind)).toEqual(['e5'])
    const other = new EventFeed(() => 99, 3)
    for (let at = 0; at < 5; at++) other.emit(`f${at}`)
    expect(other.since(ids[2])).toHaveLength(3)
  })
})

describe('the console of a silent VM', () => {
  it('beats, too, and ends for a token that was removed', async () => {
    let over = false
    Object.assign(peer.answers, {
      consoles: {
        read: async function* (_wish: unknown, signal: AbortSignal) {
          yield { host: 'elm' }
          await once(signal, 'abort')
          over = true
        }
      }
    })
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      const { socket, answer } = peer.raw(
        [
          'GET /v1/groups/g/vms/v/console?follow=1 HTTP/1.1',
          'host: 127.0.0.1',
          'connection: close',
          `authorization: Bearer ${tokens.operate}`,
          '',
          ''
        ].join('\r\n')
      )
      let text = ''
      socket.on('data', (part: string) => (text += part))
      await vi.waitFor(() => expect(text).toContain('"elm"'))
      vi.advanceTimersByTime(HEARTBEAT_MS)
      await vi.waitFor(() => expect(text).toContain('\r\n1\r\n\n\r\n')) // a chunk that is an empty line
      peer.holders.delete(tokens.operate)
      vi.advanceTimersByTime(HEARTBEAT_MS)
      expect(await answer).toMatch(/\r\n0\r\n\r\n$/)
      expect(over).toBe(true)
      expect(vi.getTimerCount()).toBe(0)
    } finally {
      vi.useRealTimers()
    }
  })
})
