/** `diapause dashboard` from the command line to a peer's events and tokens, which are a test's. */
import { mkdtempSync, rmSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Config } from '../../config/schema.ts'
import { type ApiServer, apiSocketPath, serveApi } from '../../node/edge/api.ts'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import { EventFeed } from '../../node/edge/events.ts'
import type { TokenStatus, TokenWish } from '../../node/edge/token-view.ts'
import type { PeerView } from '../../node/edge/view.ts'

let dir: string
let api: ApiServer
let events: EventFeed
let listed: TokenStatus[]
let removed: string[]
let wishes: TokenWish[]

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'cli-dashboard-'))
  events = new EventFeed(() => 1)
  listed = []
  removed = []
  wishes = []
  shows = false
  const tokens: Partial<PeerView['tokens']> = {
    list: () => listed,
    remove: async name => void removed.push(name),
    make: async wish => {
      wishes.push(wish)
      return { name: wish.name, role: wish.role, expiresMs: 7, token: 'diapause_secret' }
    }
  }
  const log = { debug() {}, info() {}, warn() {}, error() {} }
  api = await serveApi({ view: { events, tokens } as PeerView, runDir: dir, log })
})
afterEach(async () => {
  await api.close()
  rmSync(dir, { recursive: true })
})

/** Standard output is a terminal. */
let shows: boolean

async function dashboard(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ['', '']
  const host: Partial<CliHost> = {
    version: '0',
    defaultConfigFile: undefined,
    defaultRemote: {},
    scripts: [],
    terminal: { shows } as CliHost['terminal'],
    print: text => (out += text),
    printError: text => (err += text),
    loadConfig: async () => ({ api: {}, peer: { listen: '/ip4/0.0.0.0/tcp/7500' } }) as Config
  }
  const code = await runCli(['dashboard', '--socket', apiSocketPath(dir), ...words], host as CliHost)
  return { code, out, err }
}

describe('diapause dashboard', () => {
  it('prints a link to where the peer listens now, with a token that is good for a day', async () => {
    events.emit('api.listening', { host: '127.0.0.1', port: 7480, tls: false })
    events.emit('api.listening', { host: '0.0.0.0', port: 7580, tls: true })
    expect(await dashboard()).toEqual({ code: 0, out: 'https://127.0.0.1:7580/#token=diapause_secret', err: '' })
    expect(wishes).toEqual([{ name: expect.stringMatching(/^page-[a-z0-9]+$/), role: 'operate', expiresDays: 1 }])
  })

  it('removes tokens of earlier links that have expired, and no others', async () => {
    const token = { role: 'view', madeMs: 0 } as const
    listed = [
      { ...token, name: 'page-1', expired: true },
      { ...token, name: 'page-2', expired: false },
      { ...token, name: 'mine', expired: true }
    ]
    events.emit('api.listening', { host: '::1', port: 7480, tls: false })
    expect((await dashboard('--role', 'view')).out).toBe('http://[::1]:7480/#token=diapause_secret')
    expect(removed).toEqual(['page-1'])
  })

  it('says on a terminal how the link is opened at another computer', async () => {
    shows = true
    events.emit('api.listening', { host: '127.0.0.1', port: 7480, tls: false })
    const told = await dashboard()
    expect(told.out).toBe('http://127.0.0.1:7480/#token=diapause_secret')
    expect(told.err).toBe(`from elsewhere: ssh -L 7480:127.0.0.1:7480 ${hostname()}, then the same link there`)
    expect((await dashboard('--json')).err).toBe('')
    events.emit('api.listening', { host: '0.0.0.0', port: 7480, tls: true })
    expect((await dashboard()).err).toContain(`https://${hostname()}:7480/`)
    events.emit('api.listening', { host: '10.9.9.9', port: 7480, tls: true })
    expect((await dashboard()).err).toBe('')
  })

  it('goes by the config where the peer told too long ago, and makes no token where nothing is served', async () => {
    const told = await dashboard('--config', 'c.toml', '--json')
    expect(JSON.parse(told.out)).toMatchObject({ url: 'http://127.0.0.1:7580/#token=diapause_secret', role: 'operate' })
    wishes = []
    events.emit('api.off', { message: 'the port is taken' })
    expect(await dashboard()).toMatchObject({ code: 2, err: expect.stringContaining('API_NOT_SERVED') })
    expect(wishes).toEqual([])
  })
})
