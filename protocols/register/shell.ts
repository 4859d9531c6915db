/** Runs acceptor and proposer of this peer on the control bus, a clock and a store; implements the port `Registers`. */
import type { RegisterSettings } from '../../config/schema.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { Clock, ControlBus, Log, Registers, RegisterStore } from '../../node/ports.ts'
import { Alarm } from '../alarm.ts'
import type { PeerId, Random } from '../core.ts'
import { Acceptor, type LeaseGuard } from './acceptor.ts'
import { DurableOrder, type Entry } from './durable-order.ts'
import {
  type AcceptorMessage,
  isKey,
  MAX_KEY_BYTES,
  parseRegisterMessage,
  type ProposerMessage,
  REGISTER_PROTOCOL,
  type RegisterMessage
} from './messages.ts'
import { Proposer, type ProposerInput } from './proposer.ts'
import { recordEntry, remember, reservedEntry } from './record.ts'
import type { ChangeOptions } from './request.ts'

export interface RegisterOptions {
  readonly self: PeerId
  /** The same on every peer. Majorities are counted among them; others may propose. */
  readonly voters: readonly PeerId[]
  readonly bus: ControlBus
  readonly clock: Clock
  readonly random: Random
  readonly store: RegisterStore
  /** The voter part of the leases of this peer. */
  readonly guard: LeaseGuard
  readonly settings: RegisterSettings
  readonly log: Log
  /** The store failed: this peer votes and proposes no more, and should be stopped. */
  readonly onBroken?: (error: DiapauseError) => void
}

export interface RegisterShell extends Registers {
  /** The generation of the register's value, read linearizably; 0 before the first. */
  generationOf(key: string): Promise<number>
  /** Remembers what is in the store. Messages that come before are dropped, requests rejected with REGISTER_STOPPED. */
  start(): Promise<void>
  /** Says nothing any more. Requests under way reject with REGISTER_STOPPED. The store is the caller's to close. */
  stop(): void
}

interface Pending {
  resolve(result: { value: unknown; generation: number }): void
  reject(error: unknown): void
}

export function createRegisters(options: RegisterOptions): RegisterShell {
  return new Shell(options)
}

class Shell implements RegisterShell {
  readonly #options: RegisterOptions
  /** Two orders, for a proposer's messages need not wait for what the acceptor writes. */
  readonly #votes: DurableOrder
  readonly #proposals: DurableOrder
  readonly #pending = new Map<number, Pending>()
  readonly #alarm: Alarm
  #acceptor: Acceptor | null = null
  #proposer: Proposer | null = null
  #nextId = 1
  #stopped: DiapauseError | null = null

  constructor(options: RegisterOptions) {
    this.#options = options
    this.#alarm = new Alarm(options.clock, () => {
      if (this.#stopped === null) this.#propose({ kind: 'tick' })
    })
    const persist = (entries: readonly Entry[]): Promise<void> => options.store.persist(entries)
    this.#votes = new DurableOrder(persist, cause => this.#break(cause))
    this.#proposals = new DurableOrder(persist, cause => this.#break(cause))
    options.bus.on(REGISTER_PROTOCOL, parseRegisterMessage, (from, message) => this.#receive(from, message))
  }

  async start(): Promise<void> {
    const { self, voters, settings, random, store, guard, clock } = this.#options
    const { records, reserved } = remember(await store.load())
    if (this.#stopped !== null) return
    if (voters.includes(self)) this.#acceptor = new Acceptor(records, guard)
    this.#proposer = new Proposer({ self, voters, settings, random, reserved })
    guard.open(clock.now())
  }

  stop(): void {
    this.#halt(new DiapauseError('REGISTER_STOPPED', 'this peer is stopping: ask another'))
  }

  async read(key: string): Promise<unknown> {
    return (await this.#ask({ kind: 'read', id: this.#nextId++, key: checked(key) })).value
  }

  async generationOf(key: string): Promise<number> {
    return (await this.#ask({ kind: 'read', id: this.#nextId++, key: checked(key) })).generation
  }

  async change(key: string, next: (current: unknown) => unknown, options: ChangeOptions = {}): Promise<unknown> {
    return (await this.#ask({ kind: 'change', id: this.#nextId++, key: checked(key), next, options })).value
  }

  async localKeys(): Promise<string[]> {
    return this.#acceptor?.keys() ?? []
  }

  #ask(input: Extract<ProposerInput, { id: number }>): Promise<{ value: unknown; generation: number }> {
    if (this.#stopped !== null) return Promise.reject(this.#stopped)
    if (this.#proposer === null) {
      return Promise.reject(
        new DiapauseError('REGISTER_STOPPED', 'this peer is still reading its registers: wait for start()')
      )
    }
    return new Promise((resolve, reject) => {
      this.#pending.set(input.id, { resolve, reject })
      this.#propose(input)
    })
  }

  #receive(from: PeerId, message: RegisterMessage): void {
    if (this.#stopped !== null) return
    if (message.kind === 'prepare' || message.kind === 'accept' || message.kind === 'read') this.#vote(from, message)
    else if (this.#proposer !== null) this.#propose({ kind: 'answer', from, message })
  }

  #vote(from: PeerId, message: ProposerMessage): void {
    if (this.#acceptor === null) return
    const entries: Entry[] = []
    const answers: { to: PeerId; message: AcceptorMessage }[] = []
    for (const effect of this.#acceptor.step({ from, message }, this.#options.clock.now())) {
      if (effect.kind === 'persist') entries.push(recordEntry(effect.key, effect.record))
      else answers.push(effect)
    }
    this.#votes.submit(entries, () => {
      for (const answer of answers) this.#options.bus.send(answer.to, REGISTER_PROTOCOL, answer.message)
    })
  }

  #propose(input: ProposerInput): void {
    if (this.#proposer === null) return
    const effects = this.#proposer.step(input, this.#options.clock.now())
    const entries = effects.flatMap(effect => (effect.kind === 'reserve' ? [reservedEntry(effect.counter)] : []))
    this.#proposals.submit(entries, () => {
      for (const effect of effects) {
        if (effect.kind === 'send') this.#options.bus.send(effect.to, REGISTER_PROTOCOL, effect.message)
      }
    })
    this.#alarm.set(this.#proposer.wakeAtMs())
    for (const effect of effects) {
      if (effect.kind === 'done') this.#settle(effect.id)?.resolve(effect)
      else if (effect.kind === 'failed') this.#settle(effect.id)?.reject(effect.error)
    }
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id)
    this.#pending.delete(id)
    return pending
  }

  #break(cause: unknown): void {
    const error = new DiapauseError(
      'REGISTER_STORE',
      'the registers cannot be written to disk: this peer votes no more until it is restarted; check the disk',
      { cause }
    )
    this.#options.log.error({ err: error }, error.message)
    this.#halt(error)
    this.#options.onBroken?.(error)
  }

  #halt(error: DiapauseError): void {
    if (this.#stopped !== null) return
    this.#stopped = error
    this.#votes.stop()
    this.#proposals.stop()
    this.#alarm.set(Number.POSITIVE_INFINITY)
    for (const { reject } of this.#pending.values()) reject(error)
    this.#pending.clear()
  }
}

function checked(key: string): string {
  if (isKey(key)) return key
  throw new DiapauseError(
    'REGISTER_KEY',
    `"${String(key)}" is not a register key: 1 to ${MAX_KEY_BYTES} of A-Z a-z 0-9 . _ : / -, the first a small letter or digit`
  )
}
