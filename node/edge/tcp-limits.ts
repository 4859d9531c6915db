/** What strangers can make the API keep over TCP: connections, headers, time. */
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { isIP, type Socket } from 'node:net'

export interface TcpLimits {
  /** Guesses: forty people with two pages each, and programs; a fifth of the 1,024 files that a process may open by default. */
  readonly connections: number
  /** A quarter of them. Not of loopback, where a proxy speaks for everybody. */
  readonly connectionsOfOne: number
  /** A browser's headers have about 1 KiB. */
  readonly headerBytes: number
  /** For all headers of a request, and for the handshake of TLS. A guess. */
  readonly headersMs: number
  /** Of a connection between requests; Node's default. */
  readonly keepAliveMs: number
  /** A sender that sends nothing, or a reader that reads nothing, while it is its turn, is cut off after this. A guess. */
  readonly idleMs: number
  /** A wrong token is answered after this: who guesses 256 bits needs no other hindrance, who is mistaken does not mind. A guess. */
  readonly wrongTokenMs: number
  /** So many wait for that at a time; others are cut off. A guess. */
  readonly wrongTokens: number
  /** What was refused unread is cut off when its answer has had time to arrive. A guess. */
  readonly lingerMs: number
}

export const TCP_LIMITS: TcpLimits = {
  connections: 200,
  connectionsOfOne: 50,
  headerBytes: 8_192,
  headersMs: 10_000,
  keepAliveMs: 5_000,
  idleMs: 60_000,
  wrongTokenMs: 500,
  wrongTokens: 32,
  lingerMs: 1_000
}

/** How many connections there are, of whom. */
export class ConnectionCount {
  readonly #limits: TcpLimits
  readonly #of = new Map<string, number>()
  #all = 0

  constructor(limits: TcpLimits) {
    this.#limits = limits
  }

  /** False where it would be one too many; else how to say that it is gone. */
  admit(address: string): false | (() => void) {
    const { connections, connectionsOfOne } = this.#limits
    const network = networkOf(address)
    const before = this.#of.get(network) ?? 0
    if (this.#all >= connections || (before >= connectionsOfOne && !isLoopback(address))) return false
    this.#all++
    this.#of.set(network, before + 1)
    return () => {
      this.#all--
      const left = (this.#of.get(network) ?? 1) - 1
      if (left === 0) this.#of.delete(network)
      else this.#of.set(network, left)
    }
  }
}

/** What connections are counted by: an address, of IPv6 its first 64 bits, of which one host has all. */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/, '')
  if (isIP(plain) !== 6) return plain
  const [before = '', after] = plain.replace(/%.*$/, '').split('::')
  const head = before === '' ? [] : before.split(':')
  const tail = after === undefined || after === '' ? [] : after.split(':')
  const zeros = after === undefined ? 0 : 8 - head.length - tail.length
  return [...head, ...Array<string>(Math.max(zeros, 0)).fill('0'), ...tail].slice(0, 4).join(':')
}

const isLoopback = (address: string): boolean => /^(::1|(::ffff:)?127\.\d+\.\d+\.\d+)$/.test(address)

export function boundConnections(server: Server, limits: TcpLimits): void {
  const count = new ConnectionCount(limits)
  server.on('connection', (socket: Socket) => {
    const gone = count.admit(socket.remoteAddress ?? '')
    if (gone === false) socket.destroy()
    else socket.on('close', gone)
  })
}

/** Whose turn it is on each connection. */
export class Turns {
  readonly #now = new WeakMap<Socket, IncomingMessage>()
  readonly #limits: TcpLimits

  constructor(limits: TcpLimits) {
    this.#limits = limits
  }

  /** False for a second request before the first is answered: no browser does so, and each would be work that is kept waiting. */
  take(request: IncomingMessage, response: ServerResponse): boolean {
    const { socket } = request
    if (this.#now.has(socket)) return false
    this.#now.set(socket, request)
    response.on('close', () => this.#now.delete(socket))
    response.on('finish', () => {
      if (!request.complete) setTimeout(() => request.complete || socket.destroy(), this.#limits.lingerMs)
    })
    return true
  }

  /** While we are at work on an answer, however long, its connection is silent for our sake. */
  cutOffIdle(server: Server): void {
    const { idleMs } = this.#limits
    server.setTimeout(idleMs, (socket: Socket) => {
      if (this.#now.get(socket)?.complete === true && socket.writableLength === 0) socket.setTimeout(idleMs)
      else socket.destroy()
    })
  }
}
