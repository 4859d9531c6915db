/** What reaches a peer by its API, and what people bring from other hypervisors. */
import assert from 'node:assert/strict'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable, Writable } from 'node:stream'
import { readLibvirt } from '../../node/edge/adopt/libvirt.ts'
import { readProxmox } from '../../node/edge/adopt/proxmox.ts'
import { type Draft } from '../../node/edge/adopt/findings.ts'
import { adopt } from '../../node/edge/adopt/adopt.ts'
import { answer, LOCAL } from '../../node/edge/api-answer.ts'
import { routes } from '../../node/edge/api-routes.ts'
import type { PeerView } from '../../node/edge/view.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { Random } from '../../protocols/core.ts'
import { conf, domain } from '../unit/adopt/files.ts'
import { libvirtDevices, libvirtTop, proxmoxLines } from '../unit/adopt/shapes.ts'
import { mutate, mutateValue } from './mutate.ts'
import { attempt, type Target } from './target.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const textOf = (input: Uint8Array): string => Buffer.from(input).toString('utf8')

// ---------------------------------------------------------------------------------------------- other hypervisors

/** Whatever was understood, what comes of it is a definition that would be taken, or says what it lacks. */
function adopted(read: () => Draft): string | undefined {
  return attempt(/^ADOPT_(XML|NO_DOMAIN|PROXMOX|OPTION)$/, read, draft => {
    const { definition, refused } = adopt(draft, new Map(), { fallbackName: 'vm', networks: new Map() })
    assert.ok((definition === undefined) === refused.length > 0)
  })
}

const texts = (shapes: readonly { readonly text: string }[]): string[] => shapes.map(({ text }) => text)

// ---------------------------------------------------------------------------------------------- the API

/** What a request asks of its peer when it has been understood. */
export const UNDERSTOOD = 'FUZZ_UNDERSTOOD'
export const view = new Proxy(() => {}, {
  get: (_, name): unknown => (name === 'then' ? undefined : view),
  apply: (): never => {
    throw new DiapauseError(UNDERSTOOD, 'it would be done')
  }
}) as unknown as PeerView

const LEAVES = { bank: 'bank', name: 'one', epoch: 4, force: true, role: 'operate', keepLast: 3, days: 7, text: 'ls\n' }
const POLICY = { kind: 'interval', intervalMs: 60_000, everyMs: 86_400_000, timeoutMs: 300_000, check: 'books' }
const GROUP = {
  id: 'shop',
  vms: [{ id: 'till', nics: [{ mac: '52:54:00:00:00:01', network: 'lan' }], memoryMiB: 64, kernel: '/k', append: '' }],
  owners: { till: 'one' }
}

/** `METHOD TARGET`, and behind the first line its body. */
export const requestSeeds = (): Uint8Array[] =>
  routes.flatMap(({ method, path }) => {
    const target = path.replace(/\{\w*[eE]poch\w*\}/g, '4').replace(/\{\w+\}/g, 'bank')
    const query = '?limit=5&ago=60000&follow=0&dryRun=1&here=1&from=-9&wait=0'
    const bodies =
      method === 'GET' || method === 'DELETE' ? [''] : [LEAVES, POLICY, GROUP].map(each => JSON.stringify(each))
    return bodies.map(body => bytes(`${method} ${target}${query}\n${body}`))
  })

/** Half of the time its body stays JSON, and is another. */
function mutateRequest(input: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  const text = textOf(input)
  const at = text.indexOf('\n') + 1
  if (random() < 0.5 || at === text.length) return mutate(input, random, seeds)
  return bytes(text.slice(0, at) + JSON.stringify(mutateValue(JSON.parse(text.slice(at)), random)))
}

export class Answer extends Writable {
  readonly headers = new Map<string, unknown>()
  headersSent = false
  status = 0
  setHeader(name: string, value: unknown): void {
    this.headers.set(name, value)
  }
  flushHeaders(): void {
    this.headersSent = true
    this.emit('told')
  }
  writeHead(status: number): this {
    this.status = status
    this.headersSent = true
    return this
  }
  override _write(_chunk: unknown, _encoding: unknown, done: () => void): void {
    done()
  }
}

/** Whoever may ask everything: each request is understood, or refused with a code and a status that is not the peer's fault. */
async function api(input: Uint8Array): Promise<string | undefined> {
  const text = textOf(input)
  const at = text.indexOf('\n')
  const [method = '', ...rest] = (at < 0 ? text : text.slice(0, at)).split(' ')
  const body = at < 0 ? new Uint8Array() : input.subarray(Buffer.byteLength(text.slice(0, at + 1)))
  const request = Object.assign(Readable.from([body], { objectMode: false }), {
    method,
    url: rest.join(' '),
    headers: {}
  })
  const response = new Answer()
  const wrong: unknown[] = []
  const log = { debug() {}, info() {}, warn() {}, error: ({ err }: { err?: unknown }) => void wrong.push(err) }
  const followers = new Set<() => void>()
  const answering = { view, log, followers, identify: () => LOCAL, refuse: () => Promise.reject(new Error('known')) }
  await answer(answering, request as unknown as IncomingMessage, response as unknown as ServerResponse)
  for (const end of followers) end()
  for (const error of wrong) if (!(error instanceof DiapauseError)) throw error
  assert.ok(response.headersSent && response.status >= 200, 'it was not answered')
  if (wrong.length > 0) return (wrong[0] as DiapauseError).code === UNDERSTOOD ? undefined : 'unforeseen'
  return response.status < 400 ? undefined : String(response.status)
}

export const edgeTargets: readonly Target[] = [
  {
    name: 'libvirt',
    group: 'texts',
    summary: 'a domain of libvirt',
    seeds: () =>
      [domain(), domain({ top: texts(libvirtTop).join('\n'), more: texts(libvirtDevices).join('\n') })].map(bytes),
    run: input => adopted(() => readLibvirt(textOf(input)))
  },
  {
    name: 'proxmox',
    group: 'texts',
    summary: 'a VM of Proxmox VE',
    seeds: () => [conf(), conf(...texts(proxmoxLines))].map(bytes),
    run: input => adopted(() => readProxmox(textOf(input)))
  },
  {
    name: 'api',
    group: 'texts',
    summary: 'a request to the API: method, path, query, body',
    seeds: requestSeeds,
    mutate: mutateRequest,
    run: api
  }
]
