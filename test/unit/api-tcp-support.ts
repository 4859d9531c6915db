/** A peer of which only the edge over TCP is real, with a token of each role, and requests as an attacker writes them. */
import { request as httpRequest } from 'node:http'
import { connect, type Socket } from 'node:net'
import { type TcpOptions, serveTcp } from '../../node/edge/api-tcp.ts'
import { TCP_LIMITS, type TcpLimits } from '../../node/edge/tcp-limits.ts'
import { EventFeed } from '../../node/edge/events.ts'
import type { TokenHolder } from '../../node/edge/token-view.ts'
import type { PeerView } from '../../node/edge/view.ts'
import type { Log } from '../../node/ports.ts'
import { aStatus } from './status-support.ts'

export const tokens = { view: 'diapause_view', operate: 'diapause_operate', admin: 'diapause_admin' }

/** What it was asked beside its status is in `done`; whatever a test does not name does nothing and says that it was asked. */
export async function tcpPeer({
  limits,
  groups = [],
  ...options
}: Omit<Partial<TcpOptions>, 'limits'> & { limits?: Partial<TcpLimits>; groups?: readonly string[] } = {}) {
  const holders = new Map<string, TokenHolder>(
    (['view', 'operate', 'admin'] as const).map(role => [tokens[role], { name: `of-${role}`, role }])
  )
  const done: string[] = []
  const events = new EventFeed(() => 0)
  const note = (what: string) => (): Promise<void> => Promise.resolve(void done.push(what))
  const part = (name: string): object => new Proxy(note(name), { get: (_, key) => note(`${name}.${String(key)}`) })
  const own = {
    events,
    status: async () => aStatus,
    groups: () => groups.map(id => ({ id })),
    tokens: tokenPart(holders, done)
  }
  /** What a test lets it answer, by the name of the question. */
  const answers: Record<string, (...args: unknown[]) => unknown> = {}
  const view = new Proxy(own, {
    get: (target, key) => answers[String(key)] ?? (Reflect.get(target, key) as unknown) ?? part(String(key))
  }) as unknown as PeerView
  const logged: string[] = []
  const tell = (_: object, text: string): void => void logged.push(text)
  const log: Log = { debug: tell, info: tell, warn: tell, error: tell }
  const server = await serveTcp({
    view,
    log,
    host: '127.0.0.1',
    port: 0,
    isName: () => false,
    ...options,
    limits: { ...TCP_LIMITS, wrongTokenMs: 1, ...limits }
  })
  const { port } = server.address
  return {
    answers,
    view,
    server,
    port,
    events,
    holders,
    done,
    logged,
    ask: asking(port),
    raw: (text: string) => rawly(port, text)
  }
}

const tokenPart = (holders: Map<string, TokenHolder>, done: string[]): Partial<PeerView['tokens']> => ({
  list: () => [],
  make: async ({ name, role }) => {
    done.push(`make ${name}`)
    return { token: 'diapause_new', name, role }
  },
  remove: async name => void done.push(`remove ${name}`),
  holderOf: token => holders.get(token)
})

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

interface Asked {
  readonly method?: string
  readonly token?: string
  readonly headers?: Record<string, string>
  readonly body?: string
}

const asking =
  (port: number) =>
  (path: string, { method = 'GET', token, headers = {}, body }: Asked = {}): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const authorization = token === undefined ? {} : { authorization: `Bearer ${token}` }
      const all = { ...authorization, ...headers }
      const request = httpRequest({ host: '127.0.0.1', port, path, method, headers: all, agent: false }, response => {
        let text = ''
        response.setEncoding('utf8').on('data', (part: string) => (text += part))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }))
      })
      request.on('error', reject).end(body)
    })

/** Writes these bytes and gives what comes until the other side closes. */
function rawly(port: number, text: string): { socket: Socket; answer: Promise<string> } {
  const socket = connect(port, '127.0.0.1', () => socket.write(text))
  let got = ''
  socket.setEncoding('utf8').on('data', (part: string) => (got += part))
  socket.on('error', () => {})
  return { socket, answer: new Promise(resolve => socket.on('close', () => resolve(got))) }
}
