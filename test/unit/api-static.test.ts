import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createStatic } from '../../node/edge/static.ts'
import { tcpPeer, tokens } from './api-tcp-support.ts'

let dir: string
let peer: Awaited<ReturnType<typeof tcpPeer>>

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'diapause-static-'))
  const built = join(dir, 'built')
  mkdirSync(join(built, 'parts'), { recursive: true })
  writeFileSync(join(dir, 'secret'), 'a secret of the host')
  writeFileSync(join(built, 'index.html'), '<!doctype html><title>diapause</title>')
  writeFileSync(join(built, 'parts/main.js'), `// ${'same '.repeat(500)}`)
  symlinkSync(join(dir, 'secret'), join(built, 'link'))
  peer = await tcpPeer({ files: createStatic(built) })
})

afterEach(async () => {
  await peer.server.close()
  rmSync(dir, { recursive: true })
})

describe("the dashboard's files", () => {
  it('are for everybody, with a policy that lets nothing else in', async () => {
    const { status, headers, text } = await peer.ask('/?x=1')
    expect([status, text]).toEqual([200, '<!doctype html><title>diapause</title>'])
    expect(headers).toMatchObject({ 'content-type': 'text/html; charset=utf-8', 'x-frame-options': 'DENY' })
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'; script-src 'self';/)
    expect(headers['content-security-policy']).not.toMatch(/unsafe|\*|https?:/)
    expect(headers['set-cookie']).toBeUndefined()
    expect((await peer.ask('/parts/main.js')).headers['content-type']).toBe('text/javascript; charset=utf-8')
  })

  it('are those that were built, and no other file of the host', async () => {
    for (const path of [
      '/../secret',
      '/parts/../../secret',
      '/%2e%2e/secret',
      '/..%2fsecret',
      '/link',
      '/parts',
      '//secret',
      `${dir}/secret`,
      '/index.html/',
      '/parts/main.js%00',
      '/constructor',
      '/__proto__'
    ]) {
      const { status, text } = await peer.ask(path)
      expect([path, status, text]).toEqual([path, 404, 'There is nothing here.\n'])
    }
  })

  it('hide no part of the API, which takes its token beside them', async () => {
    expect((await peer.ask('/v1/status')).status).toBe(401)
    expect((await peer.ask('/metrics')).status).toBe(401)
    expect((await peer.ask('/v1/status', { token: tokens.view })).status).toBe(200)
    expect((await peer.ask('/', { method: 'POST' })).status).toBe(401)
  })

  it('are sent small where the reader can read that, and not at all where it has them', async () => {
    const ask = (encoding: string) => peer.ask('/parts/main.js', { headers: { 'accept-encoding': encoding } })
    expect((await ask('gzip, br;q=1.0')).headers['content-encoding']).toBe('br')
    expect((await ask('gzip;q=0.5, br;q=0')).headers['content-encoding']).toBe('gzip')
    const plain = await ask('identity')
    expect(plain.headers['content-encoding']).toBeUndefined()
    expect(Number((await ask('br')).headers['content-length'])).toBeLessThan(plain.text.length / 10)
    const again = await peer.ask('/parts/main.js', { headers: { 'if-none-match': String(plain.headers['etag']) } })
    expect([again.status, again.text]).toEqual([304, ''])
    expect((await peer.ask('/parts/main.js', { headers: { 'if-none-match': '"other"' } })).status).toBe(200)
  })

  it('are missed, not mistaken, where they were not built', async () => {
    const bare = await tcpPeer({ files: createStatic(join(dir, 'none')) })
    expect(await bare.ask('/')).toMatchObject({ status: 404, text: 'The dashboard was not built.\n' })
    expect((await bare.ask('/v1/status', { token: tokens.view })).status).toBe(200)
    await bare.server.close()
  })
})
