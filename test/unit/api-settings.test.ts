import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { listeningOf } from '../../config/listening.ts'
import { checkConfig } from '../../config/parse.ts'
import { problemText } from '../../config/words.ts'
import { readTls, tlsVersion } from '../../node/host/tls-files.ts'
import { pairs } from './tls-pairs.ts'

const peer = { name: 'one', dataDir: '/data', listen: '/ip4/0.0.0.0/tcp/7400' }
const problemsOf = (api: object): string[] => {
  const checked = checkConfig({ cluster: { name: 'c' }, peer, api })
  return checked.ok ? [] : checked.problems.map(problemText)
}

describe('where the API listens over TCP', () => {
  it('is on this host alone, 80 above the port for peers, unless the config says where or not at all', () => {
    expect(listeningOf(undefined, peer.listen)).toEqual({ host: '127.0.0.1', port: 7480, named: false })
    expect(listeningOf(undefined, '/ip6/::/tcp/65500')).toBeUndefined()
    expect(listeningOf('off', peer.listen)).toBeUndefined()
    expect(listeningOf('10.0.0.1:443', peer.listen)).toEqual({ host: '10.0.0.1', port: 443, named: true })
    expect(listeningOf('[::1]:80', peer.listen)).toEqual({ host: '::1', port: 80, named: true })
  })

  it('is beyond this host only with TLS, or where somebody says that something in front of it has it', () => {
    const tls = { certFile: '/cert', keyFile: '/key' }
    for (const listen of ['0.0.0.0:7480', '10.0.0.1:7480', '[::]:7480', '[::ffff:127.0.0.1]:7480']) {
      expect(problemsOf({ listen })).toEqual([
        expect.stringMatching(/^api\.listen: expected an address of this host alone/)
      ])
      expect(problemsOf({ listen, tls })).toEqual([])
      expect(problemsOf({ listen, plaintext: true })).toEqual([])
    }
    for (const listen of ['127.0.0.1:7480', '127.1.2.3:1', '[::1]:7480', 'off'])
      expect(problemsOf({ listen })).toEqual([])
  })

  it('is an address and a port, and nothing that could be mistaken for one', () => {
    for (const listen of [
      '7480',
      'localhost:7480',
      '127.0.0.1',
      '127.0.0.1:0',
      '127.0.0.1:0x50',
      '127.0.0.1: 80',
      '[::1]x:80',
      '127.0.0.1:65536',
      '127.0.0.256:1',
      '::1:80',
      ''
    ]) {
      expect([listen, problemsOf({ listen }).length]).toEqual([listen, 1])
    }
    expect(problemsOf({ tls: { certFile: '/cert' } })).toHaveLength(1)
    expect(problemsOf({ names: ['peer.example', 'a b'] })).toHaveLength(1)
  })
})

describe("the API's certificate", () => {
  let dir: string
  let paths: { certFile: string; keyFile: string }

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'diapause-tls-'))
    paths = { certFile: join(dir, 'cert.pem'), keyFile: join(dir, 'key.pem') }
    writeFileSync(paths.certFile, pairs.a.cert)
    writeFileSync(paths.keyFile, pairs.a.key, { mode: 0o600 })
  })

  afterEach(() => rmSync(dir, { recursive: true }))

  it('is read with the names that it is for, and has another version when it was renewed', async () => {
    const pair = await readTls(paths)
    expect(pair).toMatchObject(pairs.a)
    expect([pair.names('peer-a.example'), pair.names('peer-b.example')]).toEqual([true, false])
    expect(await tlsVersion(paths)).toBe(pair.version)
    writeFileSync(paths.certFile, pairs.b.cert)
    expect(await tlsVersion(paths)).not.toBe(pair.version)
  })

  it('is refused without its own key, with a key that everybody may read, and where it is none', async () => {
    writeFileSync(paths.keyFile, pairs.b.key)
    await expect(readTls(paths)).rejects.toMatchObject({
      code: 'API_TLS',
      message: expect.stringContaining('is not that of')
    })
    chmodSync(paths.keyFile, 0o644)
    await expect(readTls(paths)).rejects.toMatchObject({ code: 'API_TLS_EXPOSED' })
    chmodSync(paths.keyFile, 0o640)
    writeFileSync(paths.keyFile, pairs.a.key)
    expect(await readTls(paths)).toMatchObject(pairs.a)
    writeFileSync(paths.keyFile, pairs.a.key.padEnd(100_000, '\n'))
    await expect(readTls(paths)).rejects.toMatchObject({
      code: 'API_TLS',
      message: expect.stringContaining('too many for the key')
    })
    writeFileSync(paths.keyFile, 'no key')
    await expect(readTls(paths)).rejects.toMatchObject({
      code: 'API_TLS',
      message: expect.stringContaining(paths.keyFile)
    })
    writeFileSync(paths.certFile, pairs.a.key)
    await expect(readTls(paths)).rejects.toMatchObject({
      code: 'API_TLS',
      message: expect.stringContaining(paths.certFile)
    })
    await expect(readTls({ ...paths, certFile: '/none' })).rejects.toMatchObject({
      name: 'UsageError',
      code: 'API_TLS'
    })
  })
})
