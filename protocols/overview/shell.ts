/** Asks other peers what a person wants to see of the cluster, and answers them, on the control bus. */
import { messageOf } from '../../node/errors.ts'
import type { Clock, ControlBus } from '../../node/ports.ts'
import type { PeerId } from '../core.ts'
import { clockAheadMs } from '../decisions/merge.ts'
import { RateLimit } from '../rate-limit.ts'
import {
  MAX_ANSWER_BYTES,
  type MessageOf,
  OVERVIEW_PROTOCOL,
  type OverviewMessage,
  type OverviewQuestion,
  parseOverviewMessage
} from './messages.ts'

/** A peer that answers at all answers within some round trips, and a page that somebody looks at must not wait. A guess. */
export const ANSWER_MS = 1_000
/**
 * Questions of one peer that are answered a second: so many for a report, and so many others. Beyond, the former are dropped, for
 * whoever gathers an overview asks once a second, and the latter are refused as BUSY. A guess: some people look at its dashboard.
 */
export const MAX_ANSWERS_PER_S = 10
/** A page of history, say, that was asked for too soon: who is so answered is alive. */
export const BUSY = 'busy: it was asked too much within a second; ask again'

export interface OverviewExchangeOptions {
  readonly bus: ControlBus
  readonly clock: Clock
  wallMs(): number
  /** What this peer knows, or a promise of it, as JSON will have it: MAX_ANSWER_BYTES at most, or there is no answer. */
  answer(question: OverviewQuestion): unknown
  onFollow(from: PeerId, message: MessageOf<'follow'>): void
  onEvents(from: PeerId, message: MessageOf<'events'>): void
}

/** `aheadMs`: its wall clock less ours; 0 where that may be chance. */
export interface Heard<T> {
  readonly by: PeerId
  readonly aheadMs: number
  readonly value: T
}

export interface Silent {
  readonly peer: PeerId
  readonly why: string
}

type Reply = MessageOf<'answer'> | MessageOf<'refusal'>

export class OverviewExchange {
  readonly #options: OverviewExchangeOptions
  /** Question → what takes its answers. */
  readonly #asking = new Map<number, (from: PeerId, reply: Reply) => void>()
  /** By whether it was for a report: who pages through the history must not make this peer look dead. */
  readonly #answers = { report: new RateLimit(MAX_ANSWERS_PER_S), other: new RateLimit(MAX_ANSWERS_PER_S) }
  #nextId = 1

  constructor(options: OverviewExchangeOptions) {
    this.#options = options
    options.bus.on(OVERVIEW_PROTOCOL, parseOverviewMessage, (from, message) => this.#receive(from, message))
  }

  /** What `peers` answer within ANSWER_MS, each at most once; and who did not. `parse` throws on what is no such answer. */
  ask<T>(
    question: OverviewQuestion,
    peers: readonly PeerId[],
    parse: (raw: unknown) => T
  ): Promise<{ heard: Heard<T>[]; silent: Silent[] }> {
    const { bus, clock, wallMs } = this.#options
    const id = this.#nextId++
    const askedMs = wallMs()
    const waiting = new Set(peers)
    const [heard, silent]: [Heard<T>[], Silent[]] = [[], []]
    return new Promise(resolve => {
      const finish = (): void => {
        cancel()
        this.#asking.delete(id)
        for (const peer of waiting) silent.push({ peer, why: `no answer within ${ANSWER_MS / 1_000} s` })
        resolve({ heard, silent })
      }
      const cancel = clock.after(ANSWER_MS, finish)
      this.#asking.set(id, (from, reply) => {
        if (!waiting.delete(from)) return
        const read = readReply(reply, parse)
        if ('why' in read) silent.push({ peer: from, why: read.why })
        else heard.push({ by: from, value: read.value, aheadMs: clockAheadMs(askedMs, read.nowMs, wallMs()) })
        if (waiting.size === 0) finish()
      })
      for (const peer of peers) {
        if (bus.send(peer, OVERVIEW_PROTOCOL, { kind: 'ask', id, question })) continue
        waiting.delete(peer)
        silent.push({ peer, why: 'not connected' })
      }
      if (waiting.size === 0) finish()
    })
  }

  #receive(from: PeerId, message: OverviewMessage): void {
    if (message.kind === 'follow') this.#options.onFollow(from, message)
    else if (message.kind === 'events') this.#options.onEvents(from, message)
    else if (message.kind !== 'ask') this.#asking.get(message.id)?.(from, message)
    else this.#asked(from, message)
  }

  #asked(from: PeerId, { id, question }: MessageOf<'ask'>): void {
    const isReport = question.of === 'report'
    const answers = this.#answers[isReport ? 'report' : 'other']
    if (answers.allows(from, this.#options.clock.now())) void this.#answer(from, { id, question })
    else if (!isReport) this.#options.bus.send(from, OVERVIEW_PROTOCOL, { kind: 'refusal', id, why: BUSY })
  }

  async #answer(from: PeerId, { id, question }: Omit<MessageOf<'ask'>, 'kind'>): Promise<void> {
    const { bus, wallMs, answer } = this.#options
    const reply = (message: OverviewMessage): void => void bus.send(from, OVERVIEW_PROTOCOL, message)
    try {
      const json = JSON.stringify(await answer(question))
      if (!isShort(json)) throw new RangeError('its answer is too long')
      reply({ kind: 'answer', id, nowMs: wallMs(), json })
    } catch (error) {
      reply({ kind: 'refusal', id, why: messageOf(error).slice(0, 500) })
    }
  }
}

const isShort = (json: string): boolean => Buffer.byteLength(json) <= MAX_ANSWER_BYTES

function readReply<T>(reply: Reply, parse: (raw: unknown) => T): { value: T; nowMs: number } | { why: string } {
  if (reply.kind === 'refusal') return { why: reply.why }
  try {
    return { value: parse(JSON.parse(reply.json)), nowMs: reply.nowMs }
  } catch {
    return { why: 'its answer cannot be read: it may be of another version' }
  }
}
