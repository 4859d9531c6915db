/** Asks another peer for what a VM of its says on its console, or to type there, and answers such questions. */
import { DiapauseError, messageOf } from '../../node/errors.ts'
import type { Clock, ControlBus } from '../../node/ports.ts'
import type { PeerId } from '../core.ts'
import { CONSOLE_PROTOCOL, type ConsoleMessage, type MessageOf, parseConsoleMessage } from './messages.ts'

/** Beyond the time that a question may stand: some round trips, also on a busy host. A guess. */
export const ANSWER_MS = 2_000
/** Questions of one peer that stand here at a time; others are refused. A guess: some people look at some consoles. */
export const MAX_STANDING = 16

/** A piece of what a VM said; `from`: where it begins, in bytes. */
export interface Said {
  readonly from: number
  readonly bytes: Uint8Array
}

export type ReadQuestion = Pick<MessageOf<'read'>, 'group' | 'vm' | 'from' | 'waitMs'>
export type TypeQuestion = Pick<MessageOf<'type'>, 'group' | 'vm' | 'text'>

export interface ConsoleExchangeOptions {
  readonly bus: ControlBus
  readonly clock: Clock
  /** Of VMs of this host. */
  read(question: ReadQuestion): Promise<Said>
  type(question: TypeQuestion): Promise<void>
}

type Reply = MessageOf<'said' | 'typed' | 'refusal'>

export class ConsoleExchange {
  readonly #options: ConsoleExchangeOptions
  /** Question → whom it was put to, and what takes the answer. */
  readonly #asking = new Map<number, { readonly of: PeerId; answer(reply: Reply): void }>()
  readonly #standing = new Map<PeerId, number>()
  #nextId = 1

  constructor(options: ConsoleExchangeOptions) {
    this.#options = options
    options.bus.on(CONSOLE_PROTOCOL, parseConsoleMessage, (from, message) => this.#receive(from, message))
  }

  /** CONSOLE_SILENT where the peer does not answer; else what it refuses with. */
  async read(peer: PeerId, question: ReadQuestion): Promise<Said> {
    const reply = await this.#ask(peer, id => ({ kind: 'read', id, ...question }), question.waitMs)
    if (reply.kind !== 'said') throw odd()
    return { from: reply.from, bytes: Buffer.from(reply.bytes, 'base64') }
  }

  /** As `read`. */
  async type(peer: PeerId, question: TypeQuestion): Promise<void> {
    const reply = await this.#ask(peer, id => ({ kind: 'type', id, ...question }), 0)
    if (reply.kind !== 'typed') throw odd()
  }

  #ask(peer: PeerId, question: (id: number) => ConsoleMessage, waitMs: number): Promise<Reply> {
    const { bus, clock } = this.#options
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      const finish = (): void => {
        cancel()
        this.#asking.delete(id)
      }
      const silent = (why: string): void => {
        finish()
        reject(new DiapauseError('CONSOLE_SILENT', `The VM's host does not answer: ${why}.`))
      }
      const cancel = clock.after(waitMs + ANSWER_MS, () => silent(`nothing within ${(waitMs + ANSWER_MS) / 1_000} s`))
      const answer = (reply: Reply): void => {
        finish()
        if (reply.kind === 'refusal') reject(new DiapauseError(reply.code, reply.why))
        else resolve(reply)
      }
      this.#asking.set(id, { of: peer, answer })
      if (!bus.send(peer, CONSOLE_PROTOCOL, question(id))) silent('it is not connected')
    })
  }

  #receive(from: PeerId, message: ConsoleMessage): void {
    if (message.kind === 'read' || message.kind === 'type') {
      void this.#answer(from, message)
      return
    }
    const asked = this.#asking.get(message.id)
    if (asked?.of === from) asked.answer(message)
  }

  async #answer(from: PeerId, question: MessageOf<'read' | 'type'>): Promise<void> {
    const { id } = question
    const standing = this.#standing.get(from) ?? 0
    this.#standing.set(from, standing + 1)
    try {
      if (standing >= MAX_STANDING) throw new DiapauseError('CONSOLE_BUSY', 'Too many look at consoles of this host.')
      this.#reply(from, await this.#do(question))
    } catch (error) {
      const code = error instanceof DiapauseError ? error.code : 'INTERNAL'
      this.#reply(from, { kind: 'refusal', id, code: code.slice(0, 60), why: messageOf(error).slice(0, 500) })
    } finally {
      const left = (this.#standing.get(from) ?? 1) - 1
      if (left > 0) this.#standing.set(from, left)
      else this.#standing.delete(from)
    }
  }

  async #do(question: MessageOf<'read' | 'type'>): Promise<Reply> {
    const { id, kind } = question
    if (kind === 'type') {
      await this.#options.type(question)
      return { kind: 'typed', id }
    }
    const { from, bytes } = await this.#options.read(question)
    return { kind: 'said', id, from, bytes: Buffer.from(bytes).toString('base64') }
  }

  #reply(to: PeerId, reply: Reply): void {
    this.#options.bus.send(to, CONSOLE_PROTOCOL, reply)
  }
}

const odd = (): DiapauseError => new DiapauseError('CONSOLE_SILENT', "The VM's host answered to something else.")
