/**
 * The API over TCP, for people's browsers and for programs elsewhere: with tokens, and bounded in all that a stranger can make
 * it keep (`tcp-limits.ts`). The socket goes on whatever happens here.
 *
 * In front of the table of requests stand, in this order: so many connections (also of one address), headers within a time and
 * a size, one request at a time on a connection, the Host and Origin headers, the token. A wrong token is answered late.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { sparingly } from '../../protocols/sparingly.ts'
import { DiapauseError, UsageError } from '../errors.ts'
import type { Log } from '../ports.ts'
import { answer, type Answering, errorReply, send } from './api-answer.ts'
import { closeServer, logErrors } from './api.ts'
import { bearerOf, checkHeaders } from './api-guard.ts'
import type { StaticFiles } from './static.ts'
import { boundConnections, TCP_LIMITS, type TcpLimits, Turns } from './tcp-limits.ts'
import type { PeerView } from './view.ts'

export interface TcpOptions {
  readonly view: PeerView
  readonly log: Log
  readonly host: string
  readonly port: number
  /** PEM. Absent: without TLS. */
  readonly tls?: TlsFiles | undefined
  /** Whether this peer may be called so; lower case. */
  readonly isName: (name: string) => boolean
  /** The dashboard. */
  readonly files?: StaticFiles | undefined
  readonly limits?: TcpLimits
}

export interface TlsFiles {
  readonly cert: string
  readonly key: string
}

export interface TcpServer {
  readonly address: AddressInfo
  /** How many event streams go on. */
  followers(): number
  /** Connections from now on use this certificate. Throws where it cannot be used. */
  setTls(tls: TlsFiles): void
  close(): Promise<void>
}

/** UsageError API_PORT where nobody can listen there. */
export async function serveTcp(options: TcpOptions): Promise<TcpServer> {
  const { tls, host, port, limits = TCP_LIMITS } = options
  const followers = new Set<() => void>()
  const turns = new Turns(limits)
  const settings = {
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headersMs,
    requestTimeout: 0, // an image takes as long as it takes
    connectionsCheckingInterval: limits.headersMs / 5,
    keepAliveTimeout: limits.keepAliveMs,
    // Where a host is gone without a word, its connections end: after this, and what the system waits for its probes.
    keepAlive: true,
    keepAliveInitialDelay: limits.idleMs
  }
  const listener = listenerOf(options, limits, turns, followers)
  const https = tls === undefined ? undefined : await import('node:https')
  const handshakeTimeout = limits.headersMs
  const secure = tls && https?.createServer({ ...settings, ...tlsOptions(tls), handshakeTimeout }, listener)
  const server: Server = secure ?? createServer(settings, listener)
  server.maxHeadersCount = 50
  boundConnections(server, limits)
  turns.cutOffIdle(server)
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: Error): void => {
      const message = `cannot listen on ${host} port ${port} for the API (${cause.message}): set api.listen in the config`
      reject(new UsageError('API_PORT', message, { cause }))
    }
    server.once('error', failed).listen({ host, port }, () => {
      server.off('error', failed)
      resolve()
    })
  })
  logErrors(server, options.log)
  return {
    address: server.address() as AddressInfo,
    followers: () => followers.size,
    setTls: files => secure?.setSecureContext(tlsOptions(files)),
    close: () => closeServer(server, followers)
  }
}

const tlsOptions = ({ cert, key }: TlsFiles) => ({ cert, key, minVersion: 'TLSv1.2' }) as const

/** What stands in front of the table of requests, behind the connections and Node's parser. */
export function listenerOf(
  { view, log, isName, files, tls }: Omit<TcpOptions, 'host' | 'port'>,
  limits: TcpLimits,
  turns: Turns,
  followers: Set<() => void>
) {
  const identify: Answering['identify'] = ({ headers }) => {
    const token = bearerOf(headers)
    return token === undefined ? undefined : view.tokens.holderOf(token)
  }
  const answering = { view, log, followers, identify, refuse: slowRefusal(log, limits) }
  return (request: IncomingMessage, response: ServerResponse): void => {
    if (!turns.take(request, response)) return void request.socket.destroy()
    for (const [name, value] of Object.entries(headersFor(tls !== undefined))) response.setHeader(name, value)
    try {
      checkHeaders(request.headers, isName)
    } catch (error) {
      return send(response, errorReply(error))
    }
    if (files?.answer(request, response) !== true) void answer(answering, request, response)
  }
}

/** Nothing of the API is for caches, frames, other sites or a guess of its type. */
const headersFor = (secure: boolean): Record<string, string> => ({
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  ...(secure && { 'strict-transport-security': 'max-age=31536000' })
})

function slowRefusal(log: Log, { wrongTokens, wrongTokenMs }: TcpLimits): Answering['refuse'] {
  let waiting = 0
  const tell = sparingly(({ socket, url }: IncomingMessage, count) =>
    log.warn({ from: socket.remoteAddress, path: url?.slice(0, 200), count }, 'a wrong token was refused')
  )
  return async request => {
    const missing = request.headers.authorization === undefined
    if (!missing) {
      tell(request)
      if (waiting >= wrongTokens) request.socket.destroy()
      waiting++
      await new Promise(resolve => setTimeout(resolve, wrongTokenMs))
      waiting--
    }
    throw new DiapauseError(
      'API_UNAUTHORIZED',
      missing
        ? 'this takes a token: Authorization: Bearer TOKEN; `diapause tokens new` makes one'
        : 'this token is not known here: it was removed, has expired, or belongs to another cluster'
    )
  }
}
