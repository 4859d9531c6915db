/**
 * The API over TCP, for people's browsers and for programs elsewhere: with tokens, and bounded in all that a stranger can make
 * it keep: connections, headers, time, memory. The socket goes on whatever happens here.
 *
 * In front of the table of requests stand, in this order: so many connections (also of one address), headers within a time and
 * a size, one request at a time on a connection, the Host and Origin headers, the token. A wrong token is answered late.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { DiapauseError, UsageError } from '../errors.ts'
import type { Log } from '../ports.ts'
import { answer, type Answering, errorReply, send } from './api-answer.ts'
import { closeServer } from './api.ts'
import { bearerOf, checkHeaders, isLoopback, networkOf } from './api-guard.ts'
import type { StaticFiles } from './static.ts'
import type { PeerView } from './view.ts'

/** Guesses: forty people with two pages each, and programs; a fifth of the 1,024 files that a process may open by default. */
export const MAX_CONNECTIONS = 200
/** A quarter of them. Not of loopback, where a proxy speaks for everybody. */
export const MAX_CONNECTIONS_OF_ONE = 50
/** A browser's headers have about 1 KiB. */
const MAX_HEADER_BYTES = 8_192
/** For all headers of a request, and for the handshake of TLS. A guess. */
export const HEADERS_TIMEOUT_MS = 10_000
/** Of a connection between requests; Node's default. */
const KEEP_ALIVE_MS = 5_000
/** A sender that sends nothing, or a reader that reads nothing, while it is its turn, is cut off after this. A guess. */
const IDLE_MS = 60_000
/** A wrong token is answered after this: who guesses 256 bits needs no other hindrance, who is mistaken does not mind. A guess. */
export const WRONG_TOKEN_MS = 500
/** So many wait for that at a time; others are cut off. A guess. */
const MAX_WRONG = 32
/** What was refused unread is cut off when its answer has had time to arrive. A guess. */
const LINGER_MS = 1_000

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
}

export interface TlsFiles {
  readonly cert: string
  readonly key: string
}

export interface TcpServer {
  readonly address: AddressInfo
  /** Connections from now on use this certificate. Throws where it cannot be used. */
  setTls(tls: TlsFiles): void
  close(): Promise<void>
}

/** UsageError API_PORT where nobody can listen there. */
export async function serveTcp(options: TcpOptions): Promise<TcpServer> {
  const { tls, host, port } = options
  const followers = new Set<() => void>()
  const limits = {
    maxHeaderSize: MAX_HEADER_BYTES,
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: 0, // an image takes as long as it takes
    connectionsCheckingInterval: HEADERS_TIMEOUT_MS / 5,
    keepAliveTimeout: KEEP_ALIVE_MS
  }
  const listener = listenerOf(options, followers)
  const https = tls === undefined ? undefined : await import('node:https')
  const secure = tls && https?.createServer({ ...limits, ...tlsOptions(tls) }, listener)
  const server: Server = secure ?? createServer(limits, listener)
  server.maxHeadersCount = 50
  boundConnections(server)
  cutOffIdle(server)
  await new Promise<void>((resolve, reject) => {
    server.once('error', cause => {
      const message = `cannot listen on ${host} port ${port} for the API (${cause.message}): set api.listen in the config`
      reject(new UsageError('API_PORT', message, { cause }))
    })
    server.listen({ host, port }, resolve)
  })
  return {
    address: server.address() as AddressInfo,
    setTls: files => secure?.setSecureContext(tlsOptions(files)),
    close: () => closeServer(server, followers)
  }
}

const tlsOptions = ({ cert, key }: TlsFiles) =>
  ({ cert, key, minVersion: 'TLSv1.2', handshakeTimeout: HEADERS_TIMEOUT_MS }) as const

// ---------------------------------------------------------------------------------------------- requests

function listenerOf({ view, log, isName, files, tls }: TcpOptions, followers: Set<() => void>) {
  const identify: Answering['identify'] = ({ headers }) => {
    const token = bearerOf(headers)
    return token === undefined ? undefined : view.tokens.holderOf(token)
  }
  const answering = { view, log, followers, identify, refuse: slowRefusal(log) }
  return (request: IncomingMessage, response: ServerResponse): void => {
    if (!takeTurn(request, response)) return void request.socket.destroy()
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

/** What each connection is asked now. */
const asked = new WeakMap<Socket, { readonly request: IncomingMessage; readonly response: ServerResponse }>()

/** False for a second request before the first is answered: no browser does so, and each would be work that is kept waiting. */
function takeTurn(request: IncomingMessage, response: ServerResponse): boolean {
  const { socket } = request
  if (asked.has(socket)) return false
  asked.set(socket, { request, response })
  response.on('close', () => asked.delete(socket))
  response.on('finish', () => {
    if (!request.complete) setTimeout(() => request.complete || socket.destroy(), LINGER_MS)
  })
  return true
}

function slowRefusal(log: Log): Answering['refuse'] {
  let waiting = 0
  return async request => {
    const missing = request.headers.authorization === undefined
    if (!missing) {
      const from = request.socket.remoteAddress
      log.warn({ from, path: request.url?.slice(0, 200) }, 'a wrong token was refused')
      if (waiting >= MAX_WRONG) request.socket.destroy()
      waiting++
      await new Promise(resolve => setTimeout(resolve, WRONG_TOKEN_MS))
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

// ---------------------------------------------------------------------------------------------- connections

function boundConnections(server: Server): void {
  const of = new Map<string, number>()
  let all = 0
  server.on('connection', (socket: Socket) => {
    const { remoteAddress = '' } = socket
    const network = networkOf(remoteAddress)
    const before = of.get(network) ?? 0
    if (all >= MAX_CONNECTIONS || (before >= MAX_CONNECTIONS_OF_ONE && !isLoopback(remoteAddress))) {
      return void socket.destroy()
    }
    all++
    of.set(network, before + 1)
    socket.on('close', () => {
      all--
      const left = (of.get(network) ?? 1) - 1
      if (left === 0) of.delete(network)
      else of.set(network, left)
    })
  })
}

/** While we are at work on an answer, however long, its connection is silent for our sake. */
function cutOffIdle(server: Server): void {
  server.setTimeout(IDLE_MS, (socket: Socket) => {
    const now = asked.get(socket)
    if (now?.request.complete === true && socket.writableLength === 0) socket.setTimeout(IDLE_MS)
    else socket.destroy()
  })
}
