import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type CliHost, runCli } from '../../node/edge/cli.ts'
import { ApiClient } from '../../node/edge/client.ts'
import { readCertificate, readToken } from '../../node/host/token-file.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'
import { aStatus } from './status-support.ts'
import { pairs } from './tls-pairs.ts'

let peer: Awaited<ReturnType<typeof tcpPeer>>
let dir: string

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'diapause-remote-'))
})

afterEach(async () => {
  await peer.server.close()
  rmSync(dir, { recursive: true })
})

describe('a client elsewhere', () => {
  it('speaks with a token, and is told when that is not good enough', async () => {
    peer = await tcpPeer()
    const url = `http://127.0.0.1:${peer.port}`
    const client = new ApiClient({ url, token: tokens.view })
    expect(await client.status()).toEqual(aStatus)
    expect(await client.whoami()).toEqual({ name: 'of-view', role: 'view' })
    await expect(client.takeEpoch('g')).rejects.toMatchObject({ name: 'UsageError', code: 'API_FORBIDDEN' })
    const stranger = new ApiClient({ url, token: 'other' })
    await expect(stranger.status()).rejects.toMatchObject({ name: 'UsageError', code: 'API_UNAUTHORIZED' })
  })

  it('sends its token over TLS to the certificate that it was given, and to no other', async () => {
    peer = await tcpPeer({ tls: pairs.a })
    const url = `https://127.0.0.1:${peer.port}`
    const token = tokens.view
    expect(await new ApiClient({ url, token, ca: pairs.a.cert }).status()).toEqual(aStatus)
    for (const ca of [pairs.b.cert, undefined]) {
      await expect(new ApiClient({ url, token, ca }).status()).rejects.toMatchObject({ code: 'PEER_UNREACHABLE' })
    }
    const elsewhere = new ApiClient({ url: `https://localhost:${peer.port}`, token, ca: pairs.a.cert })
    await expect(elsewhere.status()).rejects.toThrow(/localhost/) // not a name of the certificate
    peer.server.setTls(pairs.b)
    expect(await new ApiClient({ url, token, ca: pairs.b.cert }).status()).toEqual(aStatus)
  })

  it('never sends its token beyond this host without TLS, nor has it in a URL', async () => {
    peer = await tcpPeer()
    const urls = [
      'http://10.0.0.1:7480',
      'http://host.example',
      'http://0.0.0.0:1',
      'ftp://127.0.0.1',
      'https://t@host',
      'https://host/v1',
      'host',
      'http://127.0.0.1.example'
    ]
    for (const url of urls) {
      expect(() => new ApiClient({ url, token: 't' }), url).toThrow(expect.objectContaining({ code: 'API_URL' }))
    }
    for (const url of ['http://127.0.0.1:1', 'http://[::1]:1', 'http://localhost', 'https://10.0.0.1:7480']) {
      expect(() => new ApiClient({ url, token: 't' }), url).not.toThrow()
    }
  })
})

describe('a command for a peer elsewhere', () => {
  const run = async (args: readonly string[], defaultRemote: object = {}, defaultConfigFile?: string) => {
    const [out, err]: string[][] = [[], []]
    const host = {
      version: '1',
      defaultConfigFile,
      defaultRemote,
      readToken,
      readCertificate,
      loadConfig: async () => ({ peer: { dataDir: dir } }),
      print: (text: string) => out?.push(text),
      printError: (text: string) => err?.push(text)
    }
    const code = await runCli(args, host as unknown as CliHost)
    return { code, out: out?.join('\n'), err: err?.join('\n') }
  }

  it('reads its token from a file that nobody else may read', async () => {
    peer = await tcpPeer()
    const url = `http://127.0.0.1:${peer.port}`
    const tokenFile = join(dir, 'token')
    writeFileSync(tokenFile, `${tokens.admin}\n`, { mode: 0o600 })
    expect(await run(['status', '--json', '--url', url, '--token-file', tokenFile])).toMatchObject({ code: 0 })
    expect(await run(['status', '--url', url])).toMatchObject({
      code: 2,
      err: expect.stringContaining('TOKEN_MISSING')
    })
    chmodSync(tokenFile, 0o640)
    const exposed = await run(['status', '--url', url, '--token-file', tokenFile])
    expect(exposed).toMatchObject({ code: 2, err: expect.stringContaining('chmod 600') })
    writeFileSync(tokenFile, 'two words')
    chmodSync(tokenFile, 0o600)
    const wrong = await run(['status', '--url', url, '--token-file', tokenFile])
    expect(wrong).toMatchObject({ code: 2, err: expect.not.stringContaining('two words') })
  })

  it('goes where the environment says, unless an option names another peer', async () => {
    peer = await tcpPeer()
    const tokenFile = join(dir, 'token')
    writeFileSync(tokenFile, tokens.view, { mode: 0o600 })
    const there = { url: `http://127.0.0.1:${peer.port}`, tokenFile }
    expect((await run(['status', '--json'], there, '/etc/peer.toml')).code).toBe(0)
    for (const other of [
      ['--config', '/other.toml'],
      ['--socket', join(dir, 'api.sock')],
      ['--url', 'http://127.0.0.1:9']
    ]) {
      expect(await run(['status', ...other], there)).toMatchObject({
        code: 2,
        err: expect.stringContaining('PEER_UNREACHABLE')
      })
    }
    // Also where it names what the environment does.
    expect(await run(['status', '--config', '/etc/peer.toml'], there, '/etc/peer.toml')).toMatchObject({
      err: expect.stringContaining(`no peer answers on ${dir}`)
    })
  })

  it('goes to the peer that was typed before a subcommand, and not where the environment says', async () => {
    peer = await tcpPeer()
    const tokenFile = join(dir, 'token')
    writeFileSync(tokenFile, tokens.admin, { mode: 0o600 })
    const url = `http://127.0.0.1:${peer.port}`
    const removed = await run(['tokens', '--url', url, 'remove', 'ann'], { url: 'http://127.0.0.1:9', tokenFile })
    expect(removed).toMatchObject({ code: 0 })
    expect(peer.done).toEqual(['remove ann'])
    const both = ['tokens', '--config', '/x.toml', 'remove', 'ann', '--url', url]
    expect(await run(both, { tokenFile })).toMatchObject({ code: 0 })
  })

  it('completes names at the peer that was typed, and not at that of the environment', async () => {
    peer = await tcpPeer()
    const tokenFile = join(dir, 'token')
    writeFileSync(tokenFile, tokens.view, { mode: 0o600 })
    const url = `http://127.0.0.1:${peer.port}`
    const words = ['members', 'remove', '--url', url, '--token-file', tokenFile, '']
    const { out } = await run(['complete-words', '--', ...words], { url: 'http://127.0.0.1:9', tokenFile: '/none' })
    expect(out?.split('\n')).toEqual(aStatus.members.map(({ name }) => name).sort())
  })

  it('prints a link to the page of the peer that it spoke to, whichever way that was named', async () => {
    peer = await tcpPeer()
    peer.events.emit('api.listening', { host: '10.9.9.9', port: 1, tls: true })
    const tokenFile = join(dir, 'token')
    writeFileSync(tokenFile, tokens.admin, { mode: 0o600 })
    const url = `http://127.0.0.1:${peer.port}`
    const link = { code: 0, out: `${url}/#token=diapause_new`, err: '' }
    expect(await run(['dashboard'], { url, tokenFile })).toEqual(link)
    expect(await run(['dashboard', '--url', url], { tokenFile })).toEqual(link)
  })

  it('makes, lists and removes tokens', async () => {
    peer = await tcpPeer()
    const tokenFile = join(dir, 'token')
    writeFileSync(tokenFile, tokens.admin, { mode: 0o600 })
    const there = { url: `http://127.0.0.1:${peer.port}`, tokenFile }
    const made = await run(['tokens', 'new', '--name', 'grafana', '--role', 'view', '--expires', '30'], there)
    expect(made).toEqual({ code: 0, out: 'diapause_new', err: '' })
    expect((await run(['tokens'], there)).out).toMatch(/there are no tokens/)
    expect((await run(['tokens', 'remove', 'grafana'], there)).code).toBe(0)
    expect(peer.done).toEqual(['make grafana', 'remove grafana'])
    expect((await run(['tokens', 'new', '--name', 'x', '--role', 'root'], there)).code).toBe(2)
    expect((await run(['tokens', 'new', '--name', 'x'], there)).code).toBe(2)
  })
})
