/** What a client says of a peer that cannot be reached, breaks off, or is silent. */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import { ApiClient } from '../../node/edge/client.ts'
import { unreachable } from '../../node/edge/client-exchange.ts'

let dir: string
let path: string
let server: Server
let answer: (socket: Socket) => void
const sockets = new Set<Socket>()

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'diapause-lost-'))
  path = join(dir, 'api.sock')
  server = createServer(socket => {
    sockets.add(socket.on('error', () => {}).on('close', () => sockets.delete(socket)))
    socket.once('data', () => answer(socket))
  })
  await once(server.listen(path), 'listening')
})

afterEach(() => {
  for (const socket of sockets) socket.destroy()
  server.close()
  rmSync(dir, { recursive: true })
})

const HALF = 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n'

async function run(words: readonly string[], interrupted = new AbortController().signal) {
  let err = ''
  const host = {
    version: '1',
    defaultRemote: {},
    terminal: { shows: false, asks: false, color: false },
    print() {},
    progress() {},
    printError: (text: string) => (err += text),
    interruptible: (work: (signal: AbortSignal) => Promise<unknown>) => work(interrupted)
  }
  return { code: await runCli([...words, '--socket', path], host as unknown as CliHost), err }
}

describe('a peer that breaks off', () => {
  it('may have done what it was asked for: the exit code is not that of nothing done', async () => {
    for (const end of [(socket: Socket) => socket.destroy(), (socket: Socket) => socket.end(HALF)]) {
      answer = end
      await expect(new ApiClient(path).takeEpoch('g')).rejects.toMatchObject({
        name: 'DiapauseError',
        code: 'PEER_LOST'
      })
      const { code, err } = await run(['snapshot', 'g'])
      expect([code, err]).toEqual([1, expect.stringMatching(/^diapause: the peer broke off .* \[PEER_LOST\]$/)])
    }
  })

  it('was asked nothing where it could not be reached', async () => {
    const nowhere = new ApiClient(join(dir, 'other.sock'))
    await expect(nowhere.takeEpoch('g')).rejects.toMatchObject({ name: 'UsageError', code: 'PEER_UNREACHABLE' })
  })

  it('is told from one that this user may not speak to', () => {
    const refused = (code: string) =>
      unreachable('/run/x/api.sock', Object.assign(new Error(`connect ${code}`), { code }))
    expect(refused('EACCES')).toMatchObject({ name: 'UsageError', code: 'PEER_FORBIDDEN' })
    expect(refused('EACCES').message).toContain("/run/x/api.sock may be spoken to by its peer's user and root only")
    expect(refused('ECONNREFUSED').code).toBe('PEER_UNREACHABLE')
  })

  it('ends its events, which were whole until then', async () => {
    const event = `${JSON.stringify({ atMs: 1, kind: 'one' })}\n`
    answer = socket => socket.end(`${HALF}${event}`)
    const kinds: string[] = []
    for await (const { kind } of new ApiClient(path).events()) kinds.push(kind)
    expect(kinds).toEqual(['one'])
  })
})

describe('a peer that is silent', () => {
  it('is not waited for without end where it only tells, before its answer and within it', async () => {
    for (const said of ['', HALF]) {
      answer = socket => void socket.write(said)
      const client = new ApiClient(path, { answerMs: 50 })
      await expect(client.status()).rejects.toMatchObject({ name: 'DiapauseError', code: 'PEER_SILENT' })
    }
  })

  it('does not keep whoever watches it from leaving', async () => {
    const interrupted = new AbortController()
    let [told, timer]: [boolean, NodeJS.Timeout | undefined] = [false, undefined]
    answer = socket => {
      interrupted.abort()
      timer = setTimeout(() => {
        told = true
        socket.destroy()
      }, 5_000)
    }
    expect(await run(['status', '--watch'], interrupted.signal)).toEqual({ code: 0, err: '' })
    clearTimeout(timer)
    expect(told).toBe(false)
  })
})
