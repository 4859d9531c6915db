/** Requests over TCP: what stands in their headers before anything of them is done, and the page's files, which take no token. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import { listenerOf } from '../../node/edge/api-tcp.ts'
import { createStatic, type StaticFiles } from '../../node/edge/static.ts'
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

/** The page, by the paths that are asked for. */
const PAGE: ReadonlyMap<string, string> = new Map([
  ['/index.html', '<!doctype html><title>a page</title>'],
  ['/assets/page.js', 'console.log(1)\n'.repeat(40)]
])
const etagOf = (content: string): string => `"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"`
const ETAG = etagOf(PAGE.get('/index.html') ?? '')

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
  'last-event-id': ['7', 'p/r/-1', 'x'.repeat(300)],
  'accept-encoding': ['gzip, br', 'br;q=0, GZIP;q=0.5', 'identity', '*', ';q=0,,br;;q=0.000'],
  'if-none-match': [ETAG, `W/${ETAG}`, `"other", ${ETAG}`, '*', '"'.repeat(300)],
  range: ['bytes=0-4', 'bytes=-1', 'bytes=9-2,0-', 'lines=1']
}

/** What asks for files of the page, or for others by way of them. */
const PATHS = [
  '/',
  '/index.html',
  '/assets/page.js?v=1#top',
  '/%69ndex.html',
  '/index.html/',
  '/index.html%00',
  '/assets/../index.html',
  '/assets/%2e%2e/index.html',
  '/../../../../etc/passwd',
  '/..%2f..%2fetc%2fpasswd',
  '/..\\..\\secret',
  '//localhost/index.html',
  'http://localhost/index.html'
]

/** `METHOD TARGET`, header lines, an empty line, a body. */
function tcpSeeds(): Uint8Array[] {
  const known = ['host: localhost', `authorization: Bearer ${tokenOf('admin')}`]
  return requestSeeds().map(seed => {
    const [first = '', body = ''] = Buffer.from(seed).toString().split('\n')
    return new Uint8Array(Buffer.from([first, ...known, '', body].join('\n')))
  })
}

/** Strangers': without a token, each with one of the headers that files look at, and with none. */
function pageSeeds(): Uint8Array[] {
  const headers = ['accept-encoding', 'if-none-match', 'range'].flatMap(name =>
    (CHOICES[name] ?? []).map(value => [`${name}: ${value}`])
  )
  const asked = [
    ...PATHS.map(path => [`GET ${path}`]),
    ...[[], ...headers].map(lines => ['HEAD /index.html', ...lines])
  ]
  const more = headers.map(lines => ['GET /assets/page.js', ...lines])
  return [...asked, ...more].map(
    ([first = '', ...lines]) => new Uint8Array(Buffer.from([first, 'host: localhost', ...lines, '', ''].join('\n')))
  )
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

/** Whoever asks from elsewhere does so under a name of ours, and from no other site's page. */
function mayAsk({ host = '', origin, ...more }: IncomingHttpHeaders): boolean {
  const ours = /^(localhost\.?|peer\.example\.?|\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\])(:\d+)?$/i.test(host)
  const site = more['sec-fetch-site']
  const own = origin === undefined || new URL(origin).hostname === new URL(`http://${host}`).hostname
  return ours && own && site !== 'cross-site' && site !== 'same-site'
}

/** And is let in by a token of ours alone. */
function mayPass(headers: IncomingHttpHeaders, method: string): boolean {
  const holder = HOLDERS.get(/^bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1] ?? '')
  return mayAsk(headers) && holder !== undefined && (holder.role !== 'view' || method === 'GET')
}

/** As it leaves: with all headers, and its body. */
class TcpAnswer extends Answer {
  readonly #chunks: Buffer[] = []
  get body(): Buffer {
    return Buffer.concat(this.#chunks)
  }
  override writeHead(status: number, more: Readonly<Record<string, unknown>> = {}): this {
    for (const [name, value] of Object.entries(more)) this.setHeader(name, value)
    return super.writeHead(status)
  }
  override _write(chunk: Buffer, _encoding: unknown, done: () => void): void {
    this.#chunks.push(chunk)
    done()
  }
}

/** Files are read when somebody first asks for one, and are in memory from then on: nothing of them stays on disk. */
async function buildPage(): Promise<StaticFiles> {
  const folder = await mkdtemp(join(tmpdir(), 'diapause-fuzz-'))
  try {
    for (const [path, content] of PAGE) {
      await mkdir(dirname(join(folder, path)), { recursive: true })
      await writeFile(join(folder, path), content)
    }
    const files = createStatic(folder)
    const response = new TcpAnswer()
    const isRead = once(response, 'close')
    const first = { method: 'GET', url: '/', headers: {} }
    files.answer(first as unknown as IncomingMessage, response as unknown as ServerResponse)
    await isRead
    return files
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** Of the page a stranger is given its files, whole, each by its own name alone. */
function checkPage({ status, headers: told, body }: TcpAnswer, { method, url = '', headers }: IncomingMessage): void {
  const [path = ''] = url.split(/[?#]/, 1)
  const content = PAGE.get(path === '/' ? '/index.html' : path)
  assert.ok(mayAsk(headers) && (method === 'GET' || method === 'HEAD'), 'a file is given to who may not ask for it')
  assert.ok(told.has('content-security-policy'))
  assert.equal(told.get('cache-control'), content === undefined ? 'no-store' : 'no-cache')
  if (content === undefined) return assert.equal(status, 404)
  if (status === 304) {
    assert.ok(headers['if-none-match']?.includes(etagOf(content)) === true && body.length === 0)
    return
  }
  assert.equal(status, 200)
  const coding = told.get('content-encoding')
  const accepted = headers['accept-encoding']?.toLowerCase() ?? ''
  assert.ok(
    coding === undefined || (typeof coding === 'string' && accepted.includes(coding)),
    `in a coding that was not asked for: ${accepted}`
  )
  if (method === 'HEAD') return assert.equal(body.length, 0)
  assert.equal(told.get('content-length'), body.length)
  const plain = coding === 'br' ? brotliDecompressSync(body) : coding === 'gzip' ? gunzipSync(body) : body
  assert.equal(plain.toString(), content)
}

let page: Promise<StaticFiles> | undefined

async function overTcp(input: Uint8Array): Promise<string | undefined> {
  const { request, headers, method, isCut } = requestOf(input)
  const response = new TcpAnswer()
  const built = await (page ??= buildPage())
  const asked = { isOfPage: false }
  const files: StaticFiles = { answer: (...both) => (asked.isOfPage = built.answer(...both)) }
  const wrong: unknown[] = []
  const log = { debug() {}, info() {}, warn() {}, error: ({ err }: { err?: unknown }) => void wrong.push(err) }
  const followers = new Set<() => void>()
  const limits = { ...TCP_LIMITS, wrongTokenMs: 0 }
  const listen = listenerOf(
    { view: tcpView, log, isName: name => name === OUR_NAME, files },
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
  if (asked.isOfPage) checkPage(response, request)
  else assert.equal(response.headers.get('cache-control'), 'no-store')
  const understood = wrong.some(error => error instanceof DiapauseError && error.code === UNDERSTOOD)
  const isPublic = request.url?.split('?', 1)[0] === '/v1/openapi.json'
  const answered = understood || response.status < 400
  if (answered && !isPublic && !asked.isOfPage)
    assert.ok(mayPass(headers, method), `let in: ${JSON.stringify(headers)}`)
  return answered ? undefined : String(response.status)
}

export const tcpTargets: readonly Target[] = [
  {
    name: 'api-tcp',
    group: 'texts',
    summary: 'a request from elsewhere: its Host, Origin and token, then as to the socket; or for a file of the page',
    seeds: () => [...tcpSeeds(), ...pageSeeds()],
    mutate: mutateHeaders,
    run: overTcp
  }
]
