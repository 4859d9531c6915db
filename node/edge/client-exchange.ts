/** One request of a client and its answer: what the peer refused, and what went wrong on the way. */
import { request as httpRequest } from 'node:http'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { DiapauseError, hasCode, messageOf, UsageError } from '../errors.ts'
import type { Connection } from './client-connection.ts'

/** An answer is at most this large (a status with every group's record). */
export const MAX_ANSWER_BYTES = 16 << 20

/** What is only told is there within this, or the peer is stuck. A guess: it asks the others for 2 s at most. */
const ANSWER_MS = 15_000

export interface ExchangeSettings {
  /** For answers that tell what is, whole. Default: ANSWER_MS. */
  readonly answerMs?: number
}

/** Every call rejects as the docstring of `ApiClient` says. */
export class Exchange {
  readonly #to: Connection
  readonly #answerMs: number

  constructor(to: Connection, { answerMs = ANSWER_MS }: ExchangeSettings) {
    this.#to = to
    this.#answerMs = answerMs
  }

  /** The answer, from JSON; undefined where it is empty. PEER_SILENT for a GET that takes too long. */
  async call(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<unknown> {
    const late = method === 'GET' ? AbortSignal.timeout(this.#answerMs) : undefined
    const signals = [late, signal].filter(each => each !== undefined)
    try {
      const response = await this.send(method, path, body, AbortSignal.any(signals))
      const text = await readText(response)
      if ((response.statusCode ?? 500) >= 400) throw refusal(response, text)
      return text === '' ? undefined : JSON.parse(text)
    } catch (cause) {
      if (late?.aborted !== true || signal?.aborted === true) throw cause
      const message = `the peer on ${this.#to.name} has not answered within ${this.#answerMs / 1_000} s: ask again, or another peer`
      throw new DiapauseError('PEER_SILENT', message, { cause })
    }
  }

  send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<IncomingMessage> {
    const { request, response } = this.begin(method, path, signal)
    request.end(body === undefined ? undefined : JSON.stringify(body))
    return response
  }

  /** A request whose body its caller sends. */
  begin(
    method: string,
    path: string,
    signal?: AbortSignal
  ): { request: ClientRequest; response: Promise<IncomingMessage> } {
    const { secure, name, options: to } = this.#to
    const options = { ...to, path, method, agent: false, ...(signal === undefined ? {} : { signal }) }
    const { promise: response, resolve, reject } = Promise.withResolvers<IncomingMessage>()
    const request = (secure ? httpsRequest() : httpRequest)(options, resolve)
    let connected = false
    request.on('socket', socket => socket.once(secure ? 'secureConnect' : 'connect', () => (connected = true)))
    request.on('error', cause => {
      if (isAbort(cause) || connected) return reject(brokenOff(cause))
      reject(unreachable(name, cause))
    })
    return { request, response }
  }
}

/** Why nobody answered at `name`. */
export function unreachable(name: string, cause: Error): UsageError {
  if (hasCode(cause, 'EACCES')) {
    const message = `${name} may be spoken to by its peer's user and root only: be one of them (sudo), or take a token (diapause tokens new) and --url`
    return new UsageError('PEER_FORBIDDEN', message, { cause })
  }
  return new UsageError('PEER_UNREACHABLE', `no peer answers on ${name} (${cause.message}); is it running?`, { cause })
}

/** Loaded only where it is needed, for it takes 20 ms, most of what a command's start takes beside Node's own. */
const httpsRequest = () => process.getBuiltinModule('node:https').request

/** What the answer consists of. PEER_LOST where it breaks off, INTERRUPTED. */
export async function* chunksOf(response: IncomingMessage): AsyncGenerator<Buffer, void> {
  try {
    yield* response as AsyncIterable<Buffer>
  } catch (cause) {
    throw brokenOff(cause)
  }
}

/** As `chunksOf`: its lines that are not empty. API_ANSWER for one that is longer than `most` characters. */
export async function* lines(response: IncomingMessage, most: number): AsyncGenerator<string, void> {
  let rest = ''
  for await (const text of textOf(response)) {
    const whole = (rest + text).split('\n')
    rest = whole.pop() ?? ''
    if (rest.length > most) throw new DiapauseError('API_ANSWER', 'the peer sent an endless line')
    for (const line of whole) if (line !== '') yield line
  }
}

export async function readText(response: IncomingMessage): Promise<string> {
  let text = ''
  for await (const part of textOf(response)) {
    text += part
    if (text.length > MAX_ANSWER_BYTES) throw new DiapauseError('API_ANSWER', 'the answer of the peer is too large')
  }
  return text
}

function textOf(response: IncomingMessage): AsyncIterable<string> {
  response.setEncoding('utf8')
  return chunksOf(response) as AsyncIterable<unknown> as AsyncIterable<string>
}

export function refusal(response: IncomingMessage, text: string): DiapauseError {
  const status = response.statusCode ?? 500
  try {
    const { error } = JSON.parse(text) as { error: unknown }
    return refusalOf(error, status < 500 ? UsageError : DiapauseError)
  } catch (cause) {
    return new DiapauseError('API_ANSWER', `the peer answered with HTTP status ${status}`, { cause })
  }
}

export function refusalOf(error: unknown, Refusal: typeof DiapauseError): DiapauseError {
  const { code, message, details } = error as { code: string; message: string; details?: Record<string, unknown> }
  return new Refusal(code, message, { ...(details && { details }) })
}

/** The peer may have had the whole request, so nobody knows what it did. */
function brokenOff(cause: unknown): DiapauseError {
  if (isAbort(cause))
    return new DiapauseError('INTERRUPTED', 'interrupted; what was asked for may be done all the same', { cause })
  const message = `the peer broke off (${messageOf(cause)}): what was asked for may have been done: look before you ask again`
  return new DiapauseError('PEER_LOST', message, { cause })
}

const isAbort = (error: unknown): boolean => error instanceof Error && error.name === 'AbortError'
