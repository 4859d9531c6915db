/** The API over TCP as operators have it: real peers, a token that one makes and the other takes, a certificate, a second of its life. */
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ApiClient } from '../../node/edge/client.ts'
import { loopback } from '../demo/cluster.ts'
import { pairs } from '../unit/tls-pairs.ts'
import { Member, until } from './member.ts'

describe('a cluster whose API is asked over TCP', () => {
  let dir: string
  const members: Member[] = []

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'diapause-api-'))
  })

  afterEach(async () => {
    for (const member of members.splice(0)) await member.kill()
    await rm(dir, { recursive: true, force: true })
  })

  it('takes a token at every peer until it is removed at one', async () => {
    const [a = '', b = '', api = ''] = await loopback(3)
    const [one, two] = [new Member(dir, 'one', a), new Member(dir, 'two', b)]
    members.push(one, two)
    expect(await one.run('init', ...one.setup, '--cluster', 'c')).toMatchObject({ code: 0 })
    const [certFile, keyFile, tokenFile] = ['cert', 'key', 'token'].map(name => join(dir, name)) as [
      string,
      string,
      string
    ]
    await writeFile(certFile, pairs.a.cert)
    await writeFile(keyFile, pairs.a.key, { mode: 0o600 })
    const port = api.slice(api.lastIndexOf('/') + 1)
    const tls = `tls = { certFile = "${certFile}", keyFile = "${keyFile}" }`
    await appendFile(one.configFile, `\n[api]\nlisten = "127.0.0.1:${port}"\n${tls}\n`)
    await one.start()
    const invitation = await one.ask('invite', '--role', 'witness')
    expect(await two.run('join', invitation, ...two.setup)).toMatchObject({ code: 0 })
    await two.start()

    const token = await two.ask('tokens', 'new', '--name', 'me', '--role', 'operate')
    await writeFile(tokenFile, token, { mode: 0o600 })
    const remote = ['--url', `https://127.0.0.1:${port}`, '--token-file', tokenFile, '--ca', certFile]
    await until('one to take the token', async () => (await one.run('status', ...remote)).code === 0)
    expect((await one.run('status', '--json', ...remote)).out).toContain('"name": "one"')
    expect(await one.run('tokens', ...remote)).toMatchObject({ code: 2, err: expect.stringContaining('API_FORBIDDEN') })
    // The other has its default: 80 above the port for peers, on this host alone.
    const plain = new ApiClient({ url: `http://127.0.0.1:${Number(b.slice(b.lastIndexOf('/') + 1)) + 80}`, token })
    expect(await plain.whoami()).toEqual({ name: 'me', role: 'operate' })

    await one.ask('tokens', 'remove', 'me')
    expect(await one.run('status', ...remote)).toMatchObject({
      code: 2,
      err: expect.stringContaining('API_UNAUTHORIZED')
    })
    await until(
      'two to refuse the token',
      async () =>
        await plain.whoami().then(
          () => false,
          () => true
        )
    )
    await expect(plain.whoami()).rejects.toMatchObject({ code: 'API_UNAUTHORIZED' })
  })
})
