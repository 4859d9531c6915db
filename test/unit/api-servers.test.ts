/** What the servers of the API do when the machine fails them. */
import { mkdtempSync, rmSync } from 'node:fs'
import { Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { serveApi } from '../../node/edge/api.ts'
import { ApiClient } from '../../node/edge/client.ts'
import { TCP_LIMITS } from '../../node/edge/tcp-limits.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'

const ends: (() => unknown)[] = []

afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/** Both servers of a peer, and how to fail them. */
async function bothServers() {
  const listen = vi.spyOn(Server.prototype, 'listen')
  ends.push(() => listen.mockRestore())
  const peer = await tcpPeer()
  ends.push(() => peer.server.close())
  const runDir = mkdtempSync(join(tmpdir(), 'diapause-servers-'))
  ends.push(() => rmSync(runDir, { recursive: true }))
  const logged: string[] = []
  const tell = (_: object, text: string): void => void logged.push(text)
  const log = { debug: tell, info: tell, warn: tell, error: tell }
  const api = await serveApi({ view: peer.view, runDir, log })
  ends.push(() => api.close())
  const [overTcp, overSocket] = listen.mock.contexts as Server[]
  return { peer, api, logged, overTcp, overSocket }
}

describe('a server of the API', () => {
  it('goes on, however often it cannot take a connection, and logs ever more rarely that it could not', async () => {
    const { peer, api, logged, overTcp, overSocket } = await bothServers()
    for (let at = 0; at < 5; at++) {
      for (const server of [overTcp, overSocket]) server?.emit('error', new Error('accept EMFILE'))
    }
    const line = 'the API could not take a connection'
    expect([peer.logged, logged]).toEqual([Array(3).fill(line), Array(3).fill(line)])
    expect((await peer.ask('/v1/status', { token: tokens.view })).status).toBe(200)
    expect((await new ApiClient(api.socketPath).status()).name).toBe('one')
  })

  it('has TCP look whether a host that says nothing is still there', async () => {
    const { overTcp } = await bothServers()
    expect(overTcp).toMatchObject({ keepAlive: true, keepAliveInitialDelay: TCP_LIMITS.idleMs / 1_000 })
  })
})
