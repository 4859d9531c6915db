/** Calls between two processes over Node's IPC channel, both ways. Values must be JSON. */
import type { ChildProcess } from 'node:child_process'
import { messageOf } from '../../node/errors.ts'

type Handlers = Readonly<Record<string, (argument: never) => unknown>>

interface Message {
  readonly id: number
  /** Absent in an answer. */
  readonly method?: string
  readonly argument?: unknown
  readonly value?: unknown
  readonly error?: string
}

/** `Remote` is what the other process handles. */
export class ProcessCalls<Remote extends Handlers> {
  readonly #other: ChildProcess | NodeJS.Process
  readonly #waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>()
  #next = 1
  #over: Error | undefined

  constructor(other: ChildProcess | NodeJS.Process, handlers: Handlers) {
    this.#other = other
    other.on('message', message => void this.#receive(message as Message, handlers))
    other.on('disconnect', () => this.#end(new Error('the other process has ended')))
  }

  async call<M extends keyof Remote & string>(
    method: M,
    argument: Parameters<Remote[M]>[0]
  ): Promise<Awaited<ReturnType<Remote[M]>>> {
    if (this.#over) throw this.#over
    const id = this.#next++
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
    this.#other.send?.({ id, method, argument } satisfies Message)
    return (await answer) as Awaited<ReturnType<Remote[M]>>
  }

  async #receive(message: Message, handlers: Handlers): Promise<void> {
    const { id, method, argument } = message
    if (method === undefined) {
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (message.error === undefined) waiting?.resolve(message.value)
      else waiting?.reject(new Error(message.error))
      return
    }
    try {
      const value = await handlers[method]?.(argument as never)
      this.#other.send?.({ id, value } satisfies Message)
    } catch (error) {
      this.#other.send?.({ id, error: messageOf(error) } satisfies Message)
    }
  }

  #end(why: Error): void {
    this.#over = why
    for (const { reject } of this.#waiting.values()) reject(why)
    this.#waiting.clear()
  }
}
