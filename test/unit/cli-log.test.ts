/** `diapause log`: from the command line, and over TCP as far as a token reaches, to the log of a peer. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import type { PeerView } from '../../node/edge/view.ts'
import { openLog } from '../../node/host/logging.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'

let dir: string
let api: ApiServer
let lines: string[]

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'diapause-log-'))
  lines = []
  const { log, logging } = openLog({ level: 'info', name: 'oak' }, line => void lines.push(line))
  api = await serveApi({ view: { logging } as PeerView, runDir: dir, log })
})
afterEach(async () => {
  await api.close()
  rmSync(dir, { recursive: true })
})

async function run(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ['', '']
  const host: Partial<CliHost> = {
    version: '0',
    defaultConfigFile: undefined,
    defaultRemote: {},
    print: text => void (out += text),
    printError: text => void (err += text),
    progress: () => {}
  }
  return { code: await runCli(['log', ...words, '--socket', apiSocketPath(dir)], host as CliHost), out, err }
}

describe('diapause log', () => {
  it('says how much the log tells, and has it tell more until that is taken back', async () => {
    expect((await run()).out).toBe('the log is at info, as its config says')
    expect((await run('debug')).out).toBe('the log is at debug; its config says info')
    expect(JSON.parse((await run('--json')).out)).toEqual({ level: 'debug', configured: 'info' })
    expect((await run('default')).out).toBe('the log is at info, as its config says')
    expect(lines.map(line => (JSON.parse(line) as { msg: string }).msg)).toEqual([
      'the log is at debug now',
      'the log is at info now'
    ])
  })

  it('refuses a level that there is not', async () => {
    const { code, err } = await run('loud')
    expect(code).toBe(2)
    expect(err).toMatch(/'loud' cannot be the level\..*debug, info, warn, error, default/s)
  })

  it('is changed over TCP by admins only', async () => {
    const peer = await tcpPeer()
    const change = (token: string) =>
      peer.ask('/v1/log', { method: 'PUT', token, body: JSON.stringify({ level: 'debug' }) })
    expect((await change(tokens.operate)).status).toBe(403)
    expect(peer.done).toEqual([])
    expect((await change(tokens.admin)).status).toBe(200)
    expect(peer.done).toEqual(['logging.setLevel'])
    const wrong = await peer.ask('/v1/log', { method: 'PUT', token: tokens.admin, body: '{"level":"loud"}' })
    expect([wrong.status, wrong.text]).toEqual([400, expect.stringContaining('API_BAD_REQUEST')])
    await peer.server.close()
  })
})
