/**
 * Calls between two threads over a message port: `call` posts a request and settles with its answer, both ways. Errors
 * keep their code and message. A byte array that owns all of its memory is moved and not copied.
 */
import type { MessagePort, Worker } from 'node:worker_threads'
import { DiapauseError, messageOf } from '../errors.ts'

type Handlers = Record<string, (argument: never) => unknown>

type Message =
  | { readonly call: number; readonly method: string; readonly argument: unknown }
  | { readonly answer: number; readonly value: unknown }
  | { readonly answer: number; readonly error: PlainError }

interface PlainError {
  readonly code: string | undefined
  readonly message: string
  readonly details: Record<string, unknown>
}

interface Waiting {
  resolve(value: unknown): void
  reject(error: unknown): void
}

/** `Remote` is the other thread's handlers. */
export class ThreadCalls<Remote extends Handlers> {
  readonly #port: Worker | MessagePort
  readonly #handlers: Handlers
  readonly #waiting = new Map<number, Waiting>()
  #next = 1
  #failure: Error | undefined

  constructor(port: Worker | MessagePort, handlers: Handlers) {
    this.#port = port
    this.#handlers = handlers
    port.on('message', (message: Message) => void this.#receive(message))
  }

  call<M extends keyof Remote & string>(
    method: M,
    argument: Parameters<Remote[M]>[0],
    transfer: readonly ArrayBuffer[] = []
  ): Promise<Awaited<ReturnType<Remote[M]>>> {
    if (this.#failure) return Promise.reject(this.#failure)
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: value => resolve(value as Awaited<ReturnType<Remote[M]>>), reject })
      this.#port.postMessage({ call: id, method, argument } satisfies Message, transfer)
    })
  }

  /** The other thread has ended: every call rejects with `error`, now and later. */
  fail(error: Error): void {
    this.#failure ??= error
    for (const { reject } of this.#waiting.values()) reject(this.#failure)
    this.#waiting.clear()
  }

  async #receive(message: Message): Promise<void> {
    if ('answer' in message) {
      const waiting = this.#waiting.get(message.answer)
      this.#waiting.delete(message.answer)
      if ('error' in message) waiting?.reject(thrown(message.error))
      else waiting?.resolve(message.value)
      return
    }
    try {
      const handler = this.#handlers[message.method]
      if (!handler) throw new TypeError(`no handler for ${message.method}`)
      const value = await handler(message.argument as never)
      this.#port.postMessage({ answer: message.call, value } satisfies Message, wholeMemoryOf(value))
    } catch (error) {
      this.#port.postMessage({ answer: message.call, error: plain(error) } satisfies Message)
    }
  }
}

/** The memory of a byte array that is a view of all of it, and so can be moved. */
export function wholeMemoryOf(value: unknown): ArrayBuffer[] {
  if (!(value instanceof Uint8Array) || !(value.buffer instanceof ArrayBuffer)) return []
  return value.length > 0 && value.length === value.buffer.byteLength ? [value.buffer] : []
}

function plain(error: unknown): PlainError {
  const { code, details } = error as { code?: unknown; details?: Record<string, unknown> }
  return { code: typeof code === 'string' ? code : undefined, message: messageOf(error), details: { ...details } }
}

function thrown({ code, message, details }: PlainError): Error {
  return code === undefined ? new Error(message) : new DiapauseError(code, message, { details })
}
