/** The connection to a bridge that answers, refuses, talks nonsense or says nothing: pretended, on a real socket. */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { DiapauseError } from '../../node/errors.ts'
import { OpenFlowConnection } from '../../node/switch/openflow/connection.ts'
import { purgeCache } from '../../node/switch/openflow/control.ts'
import { decode } from '../../protocols/openflow/decode.ts'
import { encode, flowAdd } from '../../protocols/openflow/encode.ts'
import type { Envelope, Message } from '../../protocols/openflow/messages.ts'
import { MessageSplitter } from '../../protocols/openflow/splitter.ts'
import { clock } from '../contract/real-clock.ts'

const entry = (priority: number) => flowAdd({ table: 0, priority, match: {}, instructions: [], cookie: 1n })
const code = (name: string) => expect.objectContaining({ code: name }) as unknown

describe('a connection to a bridge', () => {
  let dir: string
  let path: string
  let server: Server
  let sockets: Socket[]
  let heard: Message[]
  let closed: (DiapauseError | undefined)[]
  /** Timers that the connection has set; called, its time is over. */
  let timers: (() => void)[]

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'openflow-'))
    path = join(dir, 'bridge')
    ;[sockets, heard, closed, timers] = [[], [], [], []]
  })

  afterEach(async () => {
    for (const socket of sockets) socket.destroy()
    await new Promise(resolve => server.close(resolve))
    await rm(dir, { recursive: true })
  })

  /** A bridge of which `answer` gives what it says to a message, besides the greeting. */
  async function bridge(answer: (envelope: Envelope) => Message[], hello: Message = { type: 'hello', versions: [4] }) {
    await listen(socket => {
      const splitter = new MessageSplitter()
      socket.write(encode({ xid: 1, message: hello }))
      socket.on('data', chunk => {
        for (const envelope of splitter.push(chunk).map(decode)) {
          heard.push(envelope.message)
          for (const message of answer(envelope)) socket.write(encode({ xid: envelope.xid, message }))
        }
      })
    })
  }

  async function listen(serve: (socket: Socket) => void): Promise<void> {
    server = createServer(socket => {
      sockets.push(socket)
      socket.on('error', () => {})
      serve(socket)
    })
    await new Promise<void>(resolve => server.listen(path, resolve))
  }

  const features: Message = { type: 'featuresReply', datapathId: 1n, tables: 254 }
  const willing = ({ message }: Envelope): Message[] => {
    if (message.type === 'featuresRequest') return [features]
    return message.type === 'barrierRequest' ? [{ type: 'barrierReply' }] : []
  }

  function open(): Promise<OpenFlowConnection> {
    const manual = { now: clock.now, after: (_: number, fn: () => void) => (timers.push(fn), () => {}) }
    return OpenFlowConnection.open(path, manual, {
      packetIn: (cookie, frame) => heard.push({ type: 'packetIn', table: 0, cookie, match: {}, frame }),
      writable: () => {},
      closed: error => closed.push(error)
    })
  }

  it('greets, asks to be sent frames, and answers echoes', async () => {
    await bridge(willing)
    const connection = await open()
    expect(heard.map(({ type }) => type)).toEqual(['hello', 'setConfig', 'featuresRequest'])
    sockets[0]?.write(encode({ xid: 77, message: { type: 'echoRequest', data: Uint8Array.from([1, 2]) } }))
    await expect.poll(() => heard.at(-1)).toMatchObject({ type: 'echoReply' })
    connection.close()
    expect(closed).toEqual([undefined])
  })

  it('resolves a batch when all of it is done', async () => {
    await bridge(willing)
    const connection = await open()
    await connection.apply([entry(1), entry(2)])
    expect(heard.slice(-3).map(({ type }) => type)).toEqual(['flowAdd', 'flowAdd', 'barrierRequest'])
  })

  it('rejects the batch of which the bridge refused a message, and no other', async () => {
    const refused: Message = { type: 'error', category: 5, code: 1, data: new Uint8Array(0) }
    const picky = (envelope: Envelope): Message[] =>
      envelope.message.type === 'flowAdd' && envelope.message.priority === 13 ? [refused] : willing(envelope)
    await bridge(picky)
    const connection = await open()
    const batches = [[entry(1)], [entry(2), entry(13)], [entry(3)]].map(batch => connection.apply(batch))
    const results = await Promise.allSettled(batches)
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(results[1]).toMatchObject({ reason: { code: 'OPENFLOW_REFUSED' } })
    expect(closed).toEqual([])
  })

  it('puts together answers that come in parts', async () => {
    const port = (number: number) => ({ port: number, mac: 5, name: `p${number}` })
    await bridge(envelope =>
      envelope.message.type === 'portsRequest'
        ? [
            { type: 'portsReply', more: true, ports: [port(1), port(2)] },
            { type: 'portsReply', more: false, ports: [port(3)] }
          ]
        : willing(envelope)
    )
    expect(await (await open()).ports()).toEqual([port(1), port(2), port(3)])
  })

  it('is not opened to a bridge that speaks another version only, or to nobody', async () => {
    await bridge(willing, { type: 'hello', versions: [1, 6] })
    await expect(open()).rejects.toThrow(code('OPENFLOW_VERSION'))
    path = join(dir, 'nobody')
    await expect(open()).rejects.toThrow(code('OPENFLOW_DOWN'))
    expect(closed).toEqual([])
  })

  it('ends where the bridge talks nonsense, and with it all that was asked', async () => {
    await bridge(envelope => (envelope.message.type === 'barrierRequest' ? [] : willing(envelope)))
    const connection = await open()
    const applied = connection.apply([])
    sockets[0]?.write(Uint8Array.from([4, 10, 0, 9, 0, 0, 0, 1, 0]))
    await expect(applied).rejects.toThrow(code('OPENFLOW_MALFORMED'))
    expect(closed).toMatchObject([{ code: 'OPENFLOW_MALFORMED' }])
    await expect(connection.apply([])).rejects.toThrow(code('OPENFLOW_DOWN'))
  })

  it('ends where the bridge does not answer in time', async () => {
    await bridge(envelope => (envelope.message.type === 'barrierRequest' ? [] : willing(envelope)))
    const connection = await open()
    const applied = connection.apply([entry(1)])
    timers.at(-1)?.()
    await expect(applied).rejects.toThrow(code('OPENFLOW_DOWN'))
    expect(closed).toMatchObject([{ code: 'OPENFLOW_DOWN' }])
  })

  it('ends where the bridge goes away', async () => {
    await bridge(willing)
    await open()
    sockets[0]?.destroy()
    await expect.poll(() => closed).toMatchObject([{ code: 'OPENFLOW_DOWN' }])
  })

  it('takes the answer of a control socket in parts, and its refusal or nonsense for an error', async () => {
    const answers = ['{"id":0,"result":"","err', 'or":null}']
    await listen(socket => socket.on('data', () => answers.splice(0).forEach(part => socket.write(part))))
    await purgeCache(path, clock)
    answers.push('{"id":0,"result":null,"error":"no such command"}')
    await expect(purgeCache(path, clock)).rejects.toThrow(code('OPENFLOW_CONTROL'))
    const deep = `{"id":0,"error":${'['.repeat(20_000)}${']'.repeat(20_000)}}`
    answers.push(deep)
    await expect(purgeCache(path, clock)).rejects.toThrow(code('OPENFLOW_CONTROL'))
    answers.push('x'.repeat(70_000))
    await expect(purgeCache(path, clock)).rejects.toThrow(code('OPENFLOW_CONTROL'))
    await expect(purgeCache(join(dir, 'nobody'), clock)).rejects.toThrow(code('OPENFLOW_CONTROL'))
  })
})
