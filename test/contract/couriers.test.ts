/** People are told by webhooks and commands: real sockets, real processes, files with secrets. */
import { createHmac } from 'node:crypto'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { targetSchema } from '../../config/notices.ts'
import { createCourier } from '../../node/couriers/courier.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { NotificationBody } from '../../node/ports.ts'

const body: NotificationBody = {
  text: 'Failover of group shop: host-a died; web to host-b.',
  cluster: 'home',
  peer: 'host-b',
  notices: [
    {
      key: 'failover/shop/2',
      kind: 'failover',
      state: 'once',
      text: 'Failover …',
      atMs: 1_700_000_000_000,
      group: 'shop'
    }
  ],
  left: 0
}

let folder: string
let server: Server
let answer: { status: number; headers?: Record<string, string> } | undefined
let got: { url: string; headers: IncomingHttpHeaders; text: string }[]

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'couriers-'))
  got = []
  answer = { status: 204 }
  server = createServer((request, response) => {
    let text = ''
    request.setEncoding('utf8').on('data', (part: string) => (text += part))
    request.on('end', () => {
      got.push({ url: request.url ?? '', headers: request.headers, text })
      if (answer !== undefined) response.writeHead(answer.status, answer.headers).end('what it says')
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
})

afterEach(() => {
  server.closeAllConnections()
  server.close()
  rmSync(folder, { recursive: true, force: true })
})

const urlOf = (path: string): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`

function secret(name: string, text: string, mode = 0o600): string {
  const file = join(folder, name)
  writeFileSync(file, text)
  chmodSync(file, mode)
  return file
}

const deliver = (target: object, message = body): Promise<void> =>
  createCourier([targetSchema.parse({ name: 'pager', ...target })]).deliver(
    'pager',
    message,
    new AbortController().signal
  )

const errorOf = async (target: object): Promise<DiapauseError> => {
  const error: unknown = await deliver(target).catch((thrown: unknown) => thrown)
  if (error instanceof DiapauseError) return error
  throw new Error(`expected a DiapauseError, got ${String(error)}`)
}

describe('a webhook', () => {
  it('gets the notices as JSON, with its token, and signed with its key', async () => {
    const webhookFile = secret('url', `${urlOf('/T000/secret')}\n`)
    await deliver({ webhookFile, tokenFile: secret('token', 'abc\n'), signingKeyFile: secret('key', 'k-1\n') })
    const [{ url, headers, text } = { url: '', headers: {}, text: '' }] = got
    expect(url).toBe('/T000/secret')
    expect(headers['authorization']).toBe('Bearer abc')
    expect(headers['diapause-signature']).toBe(`sha256=${createHmac('sha256', 'k-1').update(text).digest('hex')}`)
    expect(JSON.parse(text)).toEqual({
      text: body.text,
      cluster: 'home',
      peer: 'host-b',
      notices: [
        {
          key: 'failover/shop/2',
          kind: 'failover',
          state: 'once',
          text: 'Failover …',
          at: '2023-11-14T22:13:20.000Z',
          group: 'shop'
        }
      ],
      left: 0
    })
  })

  it('is tried again when it is overloaded, when it says', async () => {
    answer = { status: 429, headers: { 'retry-after': '7' } }
    const { code, details } = await errorOf({ webhook: urlOf('/') })
    expect({ code, details }).toEqual({ code: 'NOTIFICATION_FAILED', details: { retryAfterMs: 7_000 } })
  })

  it('is not tried again when it refuses, or leads elsewhere, where the token would go', async () => {
    answer = { status: 404 }
    expect((await errorOf({ webhook: urlOf('/') })).code).toBe('NOTIFICATION_REFUSED')
    answer = { status: 307, headers: { location: urlOf('/elsewhere') } }
    expect((await errorOf({ webhook: urlOf('/') })).code).toBe('NOTIFICATION_REFUSED')
    expect(got.map(({ url }) => url)).toEqual(['/', '/'])
  })

  it('that does not answer in time, or is not there, may be tried again', async () => {
    answer = undefined
    expect((await errorOf({ webhook: urlOf('/'), timeoutMs: 100 })).code).toBe('NOTIFICATION_FAILED')
    server.closeAllConnections()
    const gone = urlOf('/')
    await new Promise(resolve => server.close(resolve))
    const { code, message } = await errorOf({ webhook: gone })
    expect(code).toBe('NOTIFICATION_FAILED')
    expect(message).toContain('ECONNREFUSED')
  })

  it('has no secret in any error', async () => {
    answer = { status: 500 }
    const token = { tokenFile: secret('token', 'tell-nobody') }
    for (const target of [
      { webhook: urlOf('/tell-nobody?x=tell-nobody'), ...token },
      { webhookFile: secret('url', 'no-url-tell-nobody'), ...token },
      { webhook: urlOf('/'), tokenFile: secret('other', 'two tell-nobody') }
    ]) {
      const error = await errorOf(target)
      expect(`${error.message} ${JSON.stringify(error.details)} ${String(error.cause)}`).not.toContain('tell-nobody')
    }
  })

  it('is not told where others may read its secret', async () => {
    const { code, message } = await errorOf({ webhook: urlOf('/'), tokenFile: secret('token', 'abc', 0o644) })
    expect(code).toBe('NOTIFICATION_REFUSED')
    expect(message).toContain('chmod 600')
    expect(got).toEqual([])
  })
})

describe('a command', () => {
  it('gets JSON on its input and the text in its environment, and nothing else of this process', async () => {
    const out = join(folder, 'out')
    process.env['TELL_NOBODY'] = 'secret'
    await deliver({ command: `{ cat; echo; env; } > ${out}` })
    const [json = '', ...environment] = readFileSync(out, 'utf8').split('\n')
    expect(JSON.parse(json)).toEqual(body)
    expect(environment).toContain(`DIAPAUSE_TEXT=${body.text}`)
    expect(environment.join('\n')).not.toContain('TELL_NOBODY')
  })

  it('that fails, or takes too long, is ended and may be tried again, with what it said last', async () => {
    const { code, message, details } = await errorOf({ command: 'echo no line out >&2; exit 3' })
    expect(code).toBe('NOTIFICATION_FAILED')
    expect(message).toMatch(/ended with status 3$/)
    expect(details).toEqual({ said: 'no line out' })
    expect((await errorOf({ command: 'sleep 100 & sleep 100', timeoutMs: 100 })).message).toContain('too long')
  })
})
