/**
 * The acceptor of CASPaxos (Rystsov 2018, arXiv 1802.07000, section 2.2): the memory of one voter.
 *
 * It keeps, per register, the highest ballot it promised and the last value it accepted, and obeys two rules: nothing
 * below the promise is accepted, and nothing is said before it is on disk. The second is the shell's duty, and wider
 * than it looks: an answer that changes nothing (a refusal, a repeated question, a read) still tells of state that an
 * earlier question may not have brought to disk yet. So answers leave in the order of the steps, each after all that
 * was to be persisted before it.
 *
 * A fenced accept asks the lease guard first. The acceptor tells the guard what it accepts in the same step, before
 * the disk knows: from that instant no lease of an older generation is granted here (see lease/voter.ts for why).
 */
import type { Core, PeerId } from '../core.ts'
import {
  type AcceptorMessage,
  type Ballot,
  compareBallots,
  type Fence,
  type ProposerMessage,
  ZERO_BALLOT
} from './messages.ts'
import type { AcceptorRecord } from './record.ts'

/** The voter's side of leases, as the acceptor needs it. */
export interface LeaseGuard {
  /** The acceptor knows again all it ever accepted: grants may be given from now on. */
  open(nowMs: number): void
  /** 0 where no grant stands in the way of a change with this fence. */
  blockedForMs(key: string, fence: readonly Fence[], nowMs: number): number
  /** The value accepted now has this generation. */
  accepted(key: string, generation: number): void
}

export interface AcceptorInput {
  readonly from: PeerId
  readonly message: ProposerMessage
}

export type AcceptorEffect =
  | { readonly kind: 'persist'; readonly key: string; readonly record: AcceptorRecord }
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: AcceptorMessage }

/** Registers of one acceptor; they are all in memory (64 KiB each at the very most, 1 KiB as a rule). */
const MAX_REGISTERS = 10_000

export class Acceptor implements Core<AcceptorInput, AcceptorEffect> {
  readonly #records: Map<string, AcceptorRecord>
  readonly #guard: LeaseGuard

  constructor(records: ReadonlyMap<string, AcceptorRecord>, guard: LeaseGuard) {
    this.#records = new Map(records)
    this.#guard = guard
    for (const [key, { accepted }] of records) if (accepted !== null) guard.accepted(key, accepted.generation)
  }

  keys(): string[] {
    return [...this.#records.keys()]
  }

  step({ from, message }: AcceptorInput, nowMs: number): AcceptorEffect[] {
    const { key } = message
    const record = this.#records.get(key)
    if (message.kind === 'read') {
      return [
        {
          kind: 'send',
          to: from,
          message: { kind: 'state', key, ballot: message.ballot, accepted: record?.accepted ?? null }
        }
      ]
    }
    if (record === undefined && this.#records.size >= MAX_REGISTERS) return []
    return message.kind === 'prepare'
      ? this.#prepare(from, key, message.ballot, record ?? EMPTY)
      : this.#accept(from, message, record ?? EMPTY, nowMs)
  }

  #prepare(to: PeerId, key: string, ballot: Ballot, record: AcceptorRecord): AcceptorEffect[] {
    const { promised, accepted } = record
    if (compareBallots(ballot, promised) < 0 || (accepted !== null && compareBallots(ballot, accepted.ballot) <= 0)) {
      return [{ kind: 'send', to, message: { kind: 'conflict', key, ballot, of: 'prepare', seen: highest(record) } }]
    }
    const answer: AcceptorEffect = { kind: 'send', to, message: { kind: 'promised', key, ballot, accepted } }
    if (compareBallots(ballot, promised) === 0) return [answer]
    return [this.#store(key, { promised: ballot, accepted }), answer]
  }

  #accept(
    to: PeerId,
    message: Extract<ProposerMessage, { kind: 'accept' }>,
    record: AcceptorRecord,
    nowMs: number
  ): AcceptorEffect[] {
    const { key, accepted: proposal } = message
    const { ballot } = proposal
    const answer: AcceptorEffect = { kind: 'send', to, message: { kind: 'accepted', key, ballot } }
    const last = record.accepted?.ballot ?? ZERO_BALLOT
    // The same accept again: it was accepted, and a ballot carries one value only.
    if (compareBallots(ballot, last) === 0) return [answer]
    if (compareBallots(ballot, record.promised) < 0 || compareBallots(ballot, last) < 0) {
      return [{ kind: 'send', to, message: { kind: 'conflict', key, ballot, of: 'accept', seen: highest(record) } }]
    }
    const retryMs = this.#guard.blockedForMs(key, proposal.fence, nowMs)
    if (retryMs > 0) return [{ kind: 'send', to, message: { kind: 'leased', key, ballot, retryMs } }]
    this.#guard.accepted(key, proposal.generation)
    const promised = compareBallots(message.promise, ballot) > 0 ? message.promise : ballot
    return [this.#store(key, { promised, accepted: proposal }), answer]
  }

  #store(key: string, record: AcceptorRecord): AcceptorEffect {
    this.#records.set(key, record)
    return { kind: 'persist', key, record }
  }
}

const EMPTY: AcceptorRecord = { promised: ZERO_BALLOT, accepted: null }

function highest({ promised, accepted }: AcceptorRecord): Ballot {
  return accepted !== null && compareBallots(accepted.ballot, promised) > 0 ? accepted.ballot : promised
}
