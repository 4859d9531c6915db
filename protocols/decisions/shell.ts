/** Asks other peers for what they noted, and answers them, on the control bus. */
import type { Clock, ControlBus } from '../../node/ports.ts'
import type { PeerId } from '../core.ts'
import type { Entry } from './facts.ts'
import { type Account, clockAheadMs, type WhyQuestion } from './merge.ts'
import { DECISIONS_PROTOCOL, type DecisionsMessage, fitting, parseDecisionsMessage } from './messages.ts'

/** A peer that answers at all answers within some round trips, also on a busy host. A guess. */
export const ANSWER_MS = 2_000
/** Questions answered a second, of all peers together; the others are dropped. A guess: people ask by hand. */
export const MAX_ANSWERS_PER_S = 10

export type Question = Omit<WhyQuestion, 'here'>

export interface ExchangeOptions {
  readonly bus: ControlBus
  readonly clock: Clock
  wallMs(): number
  /** This peer's own entries. */
  entriesFor(question: Question): Entry[]
}

export interface OtherAccount extends Account {
  /** Older entries that it has and did not send. */
  readonly left: number
}

export interface Collected {
  readonly accounts: readonly OtherAccount[]
  readonly silent: readonly { readonly peer: PeerId; readonly why: string }[]
}

type Answer = Extract<DecisionsMessage, { kind: 'answer' }>

export class DecisionExchange {
  readonly #options: ExchangeOptions
  /** Question → what takes its answers. */
  readonly #asking = new Map<number, (from: PeerId, answer: Answer) => void>()
  #nextId = 1
  #answeredInS = 0
  #secondEndsMs = 0

  constructor(options: ExchangeOptions) {
    this.#options = options
    options.bus.on(DECISIONS_PROTOCOL, parseDecisionsMessage, (from, message) => this.#receive(from, message))
  }

  /** What `peers` answer within `ANSWER_MS`, each at most once; and who did not. */
  collect(question: Question, peers: readonly PeerId[]): Promise<Collected> {
    const { bus, clock, wallMs } = this.#options
    const { group, vm, agoMs } = question
    const id = this.#nextId++
    const askedMs = wallMs()
    const waiting = new Set(peers)
    const silent: { peer: PeerId; why: string }[] = []
    const accounts: OtherAccount[] = []
    return new Promise(resolve => {
      const finish = (): void => {
        cancel()
        this.#asking.delete(id)
        for (const peer of waiting) silent.push({ peer, why: `no answer within ${ANSWER_MS / 1000} s` })
        resolve({ accounts, silent })
      }
      const cancel = clock.after(ANSWER_MS, finish)
      this.#asking.set(id, (from, { nowMs, entries, left }) => {
        if (!waiting.delete(from)) return
        const own = entries.filter(({ fact }) => !('group' in fact) || fact.group === group)
        accounts.push({ by: from, entries: own, left, aheadMs: clockAheadMs(askedMs, nowMs, wallMs()) })
        if (waiting.size === 0) finish()
      })
      for (const peer of peers) {
        if (bus.send(peer, DECISIONS_PROTOCOL, { kind: 'ask', id, group, vm, agoMs })) continue
        waiting.delete(peer)
        silent.push({ peer, why: 'not connected' })
      }
      if (waiting.size === 0) finish()
    })
  }

  #receive(from: PeerId, message: DecisionsMessage): void {
    if (message.kind === 'answer') {
      this.#asking.get(message.id)?.(from, message)
      return
    }
    const { bus, clock, wallMs, entriesFor } = this.#options
    if (clock.now() >= this.#secondEndsMs) {
      this.#secondEndsMs = clock.now() + 1_000
      this.#answeredInS = 0
    }
    if (++this.#answeredInS > MAX_ANSWERS_PER_S) return
    const { id, ...question } = message
    const answer = { kind: 'answer', id, nowMs: wallMs(), ...fitting(entriesFor(question)) }
    bus.send(from, DECISIONS_PROTOCOL, answer)
  }
}
