/** Requests over TCP: what stands in their headers before anything of them is done. */
import assert from 'node:assert/strict'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { listenerOf } from '../../node/edge/api-tcp.ts'
import { TCP_LIMITS, Turns } from '../../node/edge/tcp-limits.ts'
import type { TokenHolder } from '../../node/edge/token-view.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { Random } from '../../protocols/core.ts'
import { Answer, requestSeeds, UNDERSTOOD, view } from './edge-targets.ts'
import { below, mutate } from './mutate.ts'
import type { Target } from './target.ts'

const ROLES = ['admin', 'operate', 'view'] as const
const tokenOf = (role: string): string => `diapause_${role}`
const HOLDERS = new Map<string, TokenHolder>(ROLES.map(role => [tokenOf(role), { name: `of-${role}`, role }]))
const OUR_NAME = 'peer.example'

/** Tokens are known; all else is as in `edge-targets.ts`. */
const tokens = new Proxy(view.tokens, {
  get: (_, name): unknown => (name === 'holderOf' ? (token: string) => HOLDERS.get(token) : view)
})
const tcpView = new Proxy(view, { get: (_, name): unknown => (name === 'tokens' ? tokens : view) })

/** Header lines that a request may have, of which some are right. */
const CHOICES: Readonly<Record<string, readonly string[]>> = {
  host: [
    'localhost',
    '127.0.0.1:7480',
    '[::1]:80',
    `${OUR_NAME}.:443`,
    'evil.example',
    'localhost:x',
    '127.0.0.1.nip.io',
    ''
  ],
  origin: ['http://localhost', 'https://peer.example', 'http://evil.example', 'null', 'http://localhost@evil.example'],
  authorization: [
    ...[...HOLDERS.keys(), 'diapause_other', `${tokenOf('admin')}=`].map(token => `Bearer ${token}`),
    'Basic YTpi',
    `bearer   ${tokenOf('view')}`,
    'Bearer'
  ],
  'sec-fetch-site': ['same-origin', 'same-site', 'cross-site', 'none'],
  accept: ['text/event-stream', '*/*'],
  'last-event-id': ['7', 'p/r/-1', 'x'.repeat(300)]
}

/** `METHOD TARGET`, header lines, an empty line, a body. */
function tcpSeeds(): Uint8Array[] {
  const known = ['host: localhost', `authorization: Bearer ${tokenOf('admin')}`]
  return requestSeeds().map(seed => {
    const [first = '', body = ''] = Buffer.from(seed).toString().split('\n')
    return new Uint8Array(Buffer.from([first, ...known, '', body].join('\n')))
  })
}

/** Mostly some headers are left out, and others are right, which the first of each are, or not. */
function mutateHeaders(input: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  if (random() < 0.3) return mutate(input, random, seeds)
  const [head = '', ...body] = Buffer.from(input).toString().split('\n\n')
  const names = Object.keys(CHOICES).filter(() => random() < 0.8)
  const lines = names.map(name => {
    const choices = CHOICES[name] ?? []
    return `${name}: ${choices[random() < 0.6 ? 0 : below(random, choices.length)]}`
  })
  const text = [[head.split('\n', 1)[0], ...lines].join('\n'), ...body].join('\n\n')
  const bytes = new Uint8Array(Buffer.from(text))
  return random() < 0.5 ? bytes : mutate(bytes, random)
}

/** As Node's parser gives them: names in lower case, the first of each that may come once. */
function requestOf(input: Uint8Array) {
  const text = Buffer.from(input).toString('latin1')
  const end = text.indexOf('\n\n')
  const [first = '', ...lines] = (end < 0 ? text : text.slice(0, end)).split('\n')
  const [method = '', ...rest] = first.split(' ')
  const headers: IncomingHttpHeaders = {}
  for (const line of lines) {
    const at = line.indexOf(':')
    if (at > 0) headers[line.slice(0, at).toLowerCase()] ??= line.slice(at + 1).trim()
  }
  const body = end < 0 ? new Uint8Array() : input.subarray(end + 2)
  let cut: () => void = () => {}
  const isCut = new Promise<void>(resolve => (cut = resolve))
  const socket = { remoteAddress: '::1', destroy: () => cut() }
  const readable = Readable.from([body], { objectMode: false })
  const request = Object.assign(readable, { method, url: rest.join(' '), headers, socket, complete: true })
  return { request: request as unknown as IncomingMessage, headers, method, isCut }
}

/** Who asks from elsewhere is let in by a token of ours alone, under a name of ours, and by no other site's page. */
function mayPass({ host = '', origin, authorization = '', ...more }: IncomingHttpHeaders, method: string): boolean {
  const ours = /^(localhost\.?|peer\.example\.?|\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\])(:\d+)?$/i.test(host)
  const site = more['sec-fetch-site']
  const own = origin === undefined || new URL(origin).hostname === new URL(`http://${host}`).hostname
  const holder = HOLDERS.get(/^bearer +(\S+)$/i.exec(authorization)?.[1] ?? '')
  const may = holder !== undefined && (holder.role !== 'view' || method === 'GET')
  return ours && own && site !== 'cross-site' && site !== 'same-site' && may
}

async function overTcp(input: Uint8Array): Promise<string | undefined> {
  const { request, headers, method, isCut } = requestOf(input)
  const response = new Answer()
  const wrong: unknown[] = []
  const log = { debug() {}, info() {}, warn() {}, error: ({ err }: { err?: unknown }) => void wrong.push(err) }
  const followers = new Set<() => void>()
  const limits = { ...TCP_LIMITS, wrongTokenMs: 0 }
  const listen = listenerOf(
    { view: tcpView, log, isName: name => name === OUR_NAME },
    limits,
    new Turns(limits),
    followers
  )
  const told = new Promise(resolve => void response.once('told', resolve).once('close', resolve))
  listen(request, response as unknown as ServerResponse)
  await Promise.race([told, isCut])
  for (const end of followers) end()
  for (const error of wrong) if (!(error instanceof DiapauseError)) throw error
  assert.ok(response.headersSent && response.status >= 200, 'it was not answered')
  assert.equal(response.headers.get('cache-control'), 'no-store')
  const understood = wrong.some(error => error instanceof DiapauseError && error.code === UNDERSTOOD)
  const isPublic = request.url?.split('?', 1)[0] === '/v1/openapi.json'
  const answered = understood || response.status < 400
  if (answered && !isPublic) assert.ok(mayPass(headers, method), `let in: ${JSON.stringify(headers)}`)
  return answered ? undefined : String(response.status)
}

export const tcpTargets: readonly Target[] = [
  {
    name: 'api-tcp',
    group: 'texts',
    summary: 'a request from elsewhere: its Host, Origin and token, then as to the socket',
    seeds: tcpSeeds,
    mutate: mutateHeaders,
    run: overTcp
  }
]
