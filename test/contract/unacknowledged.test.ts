/** What this machine's kernel says of real connections. */
import { once } from 'node:events'
import { createConnection, createServer, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { unacknowledged } from '../../node/host/unacknowledged.ts'
import { remoteOf } from '../../protocols/transport-addresses.ts'
import { until } from './switch-support.ts'

describe.each(['127.0.0.1', '::1'])('a connection to %s', host => {
  it('has bytes that wait while its other side does not read, and none when it has read', async () => {
    const server = createServer({ pauseOnConnect: true }).listen(0, host)
    await once(server, 'listening')
    const { port } = server.address() as { port: number }
    const accepted = once(server, 'connection') as Promise<[Socket]>
    const socket = createConnection({ host, port })
    const [other] = await accepted
    const remote = remoteOf(`/ip${host.includes(':') ? 6 : 4}/${host}/tcp/${port}/p2p/x`) as string
    try {
      expect(unacknowledged().has(remote)).toBe(false)
      for (let i = 0; i < 256; i++) socket.write(Buffer.alloc(1 << 16))
      await until(() => unacknowledged().has(remote))
      other.resume()
      await until(() => !unacknowledged().has(remote) && socket.writableLength === 0)
    } finally {
      socket.destroy()
      other.destroy()
      server.close()
    }
  })
})

it('is told apart by the address and the port that were dialled', () => {
  expect(remoteOf('/ip4/10.0.0.2/tcp/7400/p2p/12D3')).toBe('10.0.0.2:7400')
  expect(remoteOf('/ip6/2001:db8:0:0:0:0:0:1/tcp/7400')).toBe('[2001:db8::1]:7400')
  expect(remoteOf('/unix/tmp/x')).toBeUndefined()
})
