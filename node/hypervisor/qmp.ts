/**
 * A QMP client on a connected unix socket. Commands are matched to replies by id, so several may be under way; events
 * go to whoever waits for them. Whatever breaks the protocol closes the socket, and everything that waits then rejects
 * with the reason: nobody hangs on a QEMU that is gone.
 */
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Clock } from '../ports.ts'
import { LineSplitter, parseQmpLine, type QmpEvent, type QmpMessage } from './qmp-protocol.ts'

/** Longest wait for a reply. All commands used answer at once on a healthy host; 10 s (a guess) is a host in trouble. */
const COMMAND_TIMEOUT_MS = 10_000

interface Pending {
  readonly name: string
  resolve(value: unknown): void
  reject(error: DiapauseError): void
  readonly disarm: () => void
}

interface Waiter {
  readonly names: readonly string[]
  readonly matches: (event: QmpEvent) => boolean
  resolve(event: QmpEvent): void
  reject(error: DiapauseError): void
}

export interface QmpOptions {
  readonly clock: Clock
  readonly commandTimeoutMs?: number
  readonly lineLimitBytes?: number
}

export class QmpClient {
  /** Resolves (never rejects) with the reason when the connection is over. */
  readonly closed: Promise<DiapauseError>
  readonly #socket: Socket
  readonly #clock: Clock
  readonly #timeoutMs: number
  readonly #lines: LineSplitter
  readonly #pending = new Map<number, Pending>()
  readonly #waiters = new Set<Waiter>()
  readonly #greeted = Promise.withResolvers<void>()
  readonly #closing = Promise.withResolvers<DiapauseError>()
  #over: DiapauseError | undefined
  #lastId = 0

  private constructor(socket: Socket, options: QmpOptions) {
    this.#socket = socket
    this.#clock = options.clock
    this.#timeoutMs = options.commandTimeoutMs ?? COMMAND_TIMEOUT_MS
    this.#lines = new LineSplitter(options.lineLimitBytes)
    this.closed = this.#closing.promise
    this.#greeted.promise.catch(() => {})
    socket.on('data', (chunk: Buffer) => this.#onData(chunk))
    socket.on('error', cause => this.#end('QMP_CLOSED', `The QMP connection to QEMU failed: ${cause.message}`, cause))
    socket.on('close', () => this.#end('QMP_CLOSED', 'QEMU closed its QMP connection'))
  }

  /**
   * Waits for the greeting and negotiates capabilities; after that commands may be sent. Owns `socket` from the call on.
   * Rejects with QMP_CLOSED, QMP_TIMEOUT, QMP_MALFORMED or QMP_LINE_TOO_LONG, the socket then closed.
   */
  static async open(socket: Socket, options: QmpOptions): Promise<QmpClient> {
    const client = new QmpClient(socket, options)
    const disarm = options.clock.after(client.#timeoutMs, () =>
      client.#end('QMP_TIMEOUT', `QEMU sent no QMP greeting within ${client.#timeoutMs} ms`)
    )
    try {
      await client.#greeted.promise
      await client.command('qmp_capabilities')
    } catch (error) {
      client.close()
      throw error
    } finally {
      disarm()
    }
    return client
  }

  /**
   * Runs one command and gives its `return` value. Rejects with QMP_REFUSED (details: command, errorClass) where QEMU
   * says no. Where it says nothing the connection is over (QMP_TIMEOUT): a QEMU in which a command may still take
   * effect at any time cannot be reasoned about. QMP_CLOSED and its kin where it is gone.
   */
  command(name: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.#over) return Promise.reject(this.#over)
    const id = ++this.#lastId
    const { promise, resolve, reject } = Promise.withResolvers<unknown>()
    const disarm = this.#clock.after(this.#timeoutMs, () =>
      this.#end('QMP_TIMEOUT', `QEMU did not answer ${name} within ${this.#timeoutMs} ms`)
    )
    this.#pending.set(id, { name, resolve, reject, disarm })
    this.#socket.write(`${JSON.stringify({ execute: name, arguments: args, id })}\n`)
    return promise
  }

  /**
   * The next event of that name, or of one of those names, for which `matches` holds. It listens from the moment of the call, so call it before
   * the command that causes the event. There is no deadline; it rejects when the connection ends, and by `signal`, with its
   * reason. Nobody need await it.
   */
  waitEvent(
    name: string | readonly string[],
    matches: (event: QmpEvent) => boolean = () => true,
    signal?: AbortSignal
  ): Promise<QmpEvent> {
    if (this.#over) return handled(Promise.reject(this.#over))
    const { promise, resolve, reject } = Promise.withResolvers<QmpEvent>()
    const waiter: Waiter = { names: [name].flat(), matches, resolve, reject }
    this.#waiters.add(waiter)
    signal?.addEventListener('abort', () => {
      if (this.#waiters.delete(waiter)) reject(signal.reason)
    })
    return handled(promise)
  }

  close(): void {
    this.#end('QMP_CLOSED', 'The QMP connection has been closed')
  }

  #onData(chunk: Buffer): void {
    if (this.#over) return
    try {
      for (const line of this.#lines.push(chunk)) {
        if (line.length > 0) this.#onMessage(parseQmpLine(line))
      }
    } catch (error) {
      this.#end(error instanceof DiapauseError ? error.code : 'QMP_MALFORMED', messageOf(error), error)
    }
  }

  #onMessage(message: QmpMessage): void {
    if (message.kind === 'greeting') return this.#greeted.resolve()
    if (message.kind === 'event') return this.#onEvent(message)
    const pending = this.#pending.get(message.id)
    if (!pending) {
      throw new DiapauseError('QMP_MALFORMED', `QEMU answered command ${message.id}, which was not asked (any more)`)
    }
    this.#pending.delete(message.id)
    pending.disarm()
    if (message.kind === 'reply') return pending.resolve(message.value)
    pending.reject(
      new DiapauseError('QMP_REFUSED', `QEMU refused ${pending.name}: ${message.description}`, {
        details: { command: pending.name, errorClass: message.errorClass }
      })
    )
  }

  #onEvent(event: QmpEvent): void {
    for (const waiter of this.#waiters) {
      if (!waiter.names.includes(event.name) || !waiter.matches(event)) continue
      this.#waiters.delete(waiter)
      waiter.resolve(event)
    }
  }

  #end(code: string, message: string, cause?: unknown): void {
    if (this.#over) return
    const over = new DiapauseError(code, message, { cause })
    this.#over = over
    this.#socket.destroy()
    this.#greeted.reject(over)
    for (const pending of this.#pending.values()) {
      pending.disarm()
      pending.reject(over)
    }
    this.#pending.clear()
    for (const waiter of this.#waiters) waiter.reject(over)
    this.#waiters.clear()
    this.#closing.resolve(over)
  }
}

/** The same promise, whose rejection is not an "unhandled rejection" where nobody came to wait for it. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

export interface QmpListener {
  /** Resolves with QEMU's connection; the socket file is gone from then on. Rejects with QMP_CLOSED after `close`. */
  readonly connection: Promise<Socket>
  close(): void
}

/**
 * Listens for the one connection that a QEMU with `-qmp unix:PATH,server=off` makes. QEMU calls us and not the other
 * way round, so that nobody polls for a socket to appear: control is there the moment QEMU has it to give.
 */
export async function listenForQmp(path: string): Promise<QmpListener> {
  await rm(path, { force: true })
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  void handled(promise)
  const server = createServer(socket => {
    server.close()
    resolve(socket)
  })
  server.maxConnections = 1
  server.listen(path)
  await once(server, 'listening')
  server.on('error', reject)
  return {
    connection: promise,
    close: () => {
      server.close()
      reject(new DiapauseError('QMP_CLOSED', 'QEMU did not connect to its QMP socket'))
    }
  }
}
