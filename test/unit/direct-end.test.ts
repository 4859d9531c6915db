/** What a member says past libp2p when its stream is closed already. */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { readDirect } from '../../protocols/direct.ts'
import { KEY_BYTES, RecordSealer } from '../../protocols/direct-records.ts'
import { type Connection, frameHeader, type Stream } from '../../protocols/stream.ts'
import { readLean } from '../../protocols/transport-lean.ts'
import { leftRejected } from './left-rejected.ts'

/** The key has come on it; nothing can be said on it any more. */
class ClosedStream extends EventTarget {
  readonly protocol = '/diapause/frames/2'
  readonly status = 'open'
  readonly writeStatus = 'closed'
  readonly readStatus = 'readable'
  readonly remoteWriteStatus = 'writable'
  readonly readBufferLength = 0

  say(key: Uint8Array): void {
    const data = Object.assign([Buffer.concat([frameHeader(key.length), key])], { byteLength: 4 + key.length })
    this.dispatchEvent(Object.assign(new Event('message'), { data }))
  }
}

it('is nothing that a peer ends over, also where it is forged', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'direct-'))
  const accepted = Promise.withResolvers<net.Socket>()
  const server = net.createServer(accepted.resolve)
  readLean({ server })
  const path = join(folder, 'member')
  await new Promise<void>(resolve => server.listen(path, resolve))
  const member = net.connect(path)
  const socket = await accepted.promise
  const stream = new ClosedStream()
  const connection = { maConn: { socket } } as unknown as Connection
  const reading = readDirect(connection, stream as unknown as Stream, { maxBytes: 100, message: () => {} })
  setImmediate(() => stream.say(randomBytes(KEY_BYTES)))
  await expect(reading).rejects.toMatchObject({ code: 'STREAM_CLOSED' })
  const forged = new RecordSealer(randomBytes(KEY_BYTES)).seal(Uint8Array.of(1, 2, 3))
  const left = await leftRejected(() => void member.write(forged))
  expect(left).toEqual([])
  member.destroy()
  socket.destroy()
  server.close()
  await rm(folder, { recursive: true })
})
