/**
 * The acceptor of CASPaxos (Rystsov 2018, arXiv 1802.07000, section 2.2): the memory of one voter. Every peer runs one;
 * one that does not vote is not asked.
 *
 * It keeps, per register, the highest ballot it promised and the last value it accepted, and obeys two rules: nothing
 * below the promise is accepted, and nothing is said before it is on disk. The second is the shell's duty, and wider
 * than it looks: an answer that changes nothing (a refusal, a repeated question, a read) still tells of state that an
 * earlier question may not have brought to disk yet. So answers leave in the order of the steps, each after all that
 * was to be persisted before it.
 *
 * A fenced accept asks the lease guard first. The acceptor tells the guard what it accepts in the same step, before
 * the disk knows: from that instant no lease of an older generation is granted here (see lease/voter.ts for why).
 *
 * **Voter sets.** Only questions of its own set's version are answered (voters.ts). A set that begins another term of office
 * makes void what was accepted in the one before.
 *
 * **Forgetting.** A deleted register is a tombstone, a value like others, and could be kept for ever. When every voter
 * has accepted the same tombstone (collector.ts), no value from before it is left anywhere, and its acceptors may drop
 * it: "deleted" and "never written" both read as null. What must not be dropped is the *promise*, or an accept that was sent
 * before the deletion and comes late would be taken, and the value be back. The paper (section 3.1) has acceptors
 * remember an *age* for every proposer, raised by each collection, and refuse messages of a younger one. Here one number
 * does: the highest promise that was forgotten with any register, at which all registers without a record begin. To
 * the forgotten register this is the promise it had, or a higher one; so every late message, and every proposer that
 * still trusts a promise from before (the paper's caches to be invalidated), meets a conflict as it would have before. A
 * proposer that meets it for the first time with a new register loses one round.
 */
import type { Core, PeerId } from '../core.ts'
import { Leaps } from './leaps.ts'
import {
  type Accepted,
  type AcceptorMessage,
  type Ballot,
  compareBallots,
  type Fence,
  MAX_LISTED,
  type ProposerMessage,
  ZERO_BALLOT
} from './messages.ts'
import type { AcceptorRecord } from './record.ts'
import { isTombstone } from './value.ts'
import { termOf, type VoterSet } from './voters.ts'

/** The voter's side of leases, as the acceptor needs it. */
export interface LeaseGuard {
  /** What this returned last in an earlier life, 0 in the first. To be on disk before `open`: the longest that grants run. */
  remember(longestMs: number): number
  /** The acceptor knows again all it ever accepted: grants may be given from now on. */
  open(nowMs: number): void
  /** From now on this voter counts in the voter set `version`, never in an older one again. */
  adopted(version: number): void
  /** 0 where no grant stands in the way of a change with this fence. */
  blockedForMs(key: string, fence: readonly Fence[], nowMs: number): number
  /** The value accepted last has this generation; null: there is none, or it was deleted. */
  accepted(key: string, generation: number | null): void
}

export type AcceptorInput =
  | { readonly kind: 'message'; readonly from: PeerId; readonly message: ProposerMessage }
  /** A set that was chosen. Older ones than the present are ignored. */
  | { readonly kind: 'voters'; readonly set: VoterSet }

export type AcceptorEffect =
  | { readonly kind: 'persist'; readonly key: string; readonly record: AcceptorRecord }
  | { readonly kind: 'adopt'; readonly set: VoterSet }
  /** Registers without a record refuse ballots up to this one. */
  | { readonly kind: 'forget'; readonly promise: Ballot }
  /** Records that are void when all that is to be persisted is on disk. To be removed then, unless there is one again. */
  | { readonly kind: 'erase'; readonly keys: readonly string[] }
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: AcceptorMessage }
  /** `from` counts in a newer set than we know. */
  | { readonly kind: 'newer'; readonly from: PeerId; readonly version: number }
  /** `from` has come with a ballot that nobody can have come to, and was not answered. */
  | { readonly kind: 'leap'; readonly from: PeerId; readonly counter: number }

/** Registers of one acceptor; they are all in memory (64 KiB each at the very most, 1 KiB as a rule). */
const MAX_REGISTERS = 10_000

export class Acceptor implements Core<AcceptorInput, AcceptorEffect> {
  readonly #self: PeerId
  readonly #records: Map<string, AcceptorRecord>
  readonly #guard: LeaseGuard
  #version: number
  #term: number
  #forgotten: Ballot
  readonly #leaps = new Leaps()
  /** Of all ballots that were taken. */
  #highest: number

  /** All but `self` and `guard` as remembered from disk; `voters` is null in a store that has none yet. */
  constructor(options: {
    self: PeerId
    voters: VoterSet | null
    records: ReadonlyMap<string, AcceptorRecord>
    forgotten: Ballot
    guard: LeaseGuard
  }) {
    const { self, voters, records, forgotten, guard } = options
    this.#self = self
    this.#records = new Map(records)
    this.#guard = guard
    this.#version = voters?.version ?? 0
    this.#term = voters === null ? 1 : termOf(voters, self)
    this.#forgotten = forgotten
    this.#highest = forgotten.counter
    for (const record of records.values()) this.#highest = Math.max(this.#highest, highest(record).counter)
    guard.adopted(this.#version)
    for (const [key, { accepted }] of records) this.#tell(key, accepted)
  }

  get version(): number {
    return this.#version
  }

  knows(key: string): boolean {
    return this.#records.has(key)
  }

  /** Registers with a value. */
  keys(): string[] {
    return this.#where(({ accepted }) => accepted !== null && !isTombstone(accepted))
  }

  /** Registers with a record and no value: deleted, or prepared and never written. */
  empty(): string[] {
    return this.#where(({ accepted }) => accepted === null || isTombstone(accepted))
  }

  step(input: AcceptorInput, nowMs: number): AcceptorEffect[] {
    if (input.kind === 'voters') return this.#adopt(input.set)
    const { from, message } = input
    if (message.version > this.#version) return [{ kind: 'newer', from, version: message.version }]
    if (message.version < this.#version) return this.#stale(from, message)
    // Not a voter: whoever asks is wrong, and what is written here would count for nothing.
    if (this.#term === 0) return []
    if (message.kind === 'list') return [{ kind: 'send', to: from, message: this.#list(message.after) }]
    const { key } = message
    const record = this.#records.get(key)
    if (message.kind === 'read') {
      const accepted = record?.accepted ?? null
      return [{ kind: 'send', to: from, message: { kind: 'state', key, ballot: message.ballot, accepted } }]
    }
    if (message.kind === 'forget') return this.#forget(key, message.ballot, record)
    const [ballot, last] = ballotsOf(message)
    // Of another's, or of nobody's.
    if (ballot.peer !== from || last.peer !== from) return []
    const { counter } = last
    if (!this.#leaps.allows(from, counter, this.#highest, nowMs)) return [{ kind: 'leap', from, counter }]
    this.#highest = Math.max(this.#highest, counter)
    if (record === undefined) {
      const seen = this.#forgotten
      if (compareBallots(ballot, seen) <= 0) {
        return [{ kind: 'send', to: from, message: { kind: 'conflict', key, ballot, of: message.kind, seen } }]
      }
      if (this.#records.size >= MAX_REGISTERS) return []
    }
    const present = record ?? { term: this.#term, promised: ZERO_BALLOT, accepted: null }
    return message.kind === 'prepare'
      ? this.#prepare(from, key, message.ballot, present)
      : this.#accept(from, message, present, nowMs)
  }

  // -------------------------------------------------------------------------------------------- voter sets

  #adopt(set: VoterSet): AcceptorEffect[] {
    if (set.version <= this.#version) return []
    this.#version = set.version
    this.#guard.adopted(set.version)
    const adopt: AcceptorEffect = { kind: 'adopt', set }
    const term = termOf(set, this.#self)
    if (term === this.#term) return [adopt]
    this.#term = term
    const keys = [...this.#records.keys()]
    this.#records.clear()
    for (const key of keys) this.#guard.accepted(key, null)
    return [adopt, { kind: 'erase', keys }]
  }

  #stale(to: PeerId, message: ProposerMessage): AcceptorEffect[] {
    if (message.kind === 'forget') return []
    const ballot = message.kind === 'list' ? null : message.kind === 'accept' ? message.accepted.ballot : message.ballot
    return [{ kind: 'send', to, message: { kind: 'stale', ballot, version: this.#version } }]
  }

  #list(after: string): AcceptorMessage {
    const later = [...this.#records.keys()].filter(key => key > after).sort()
    const keys = later.slice(0, MAX_LISTED)
    return { kind: 'keys', version: this.#version, after, keys, more: later.length > keys.length }
  }

  // -------------------------------------------------------------------------------------------- registers

  #prepare(to: PeerId, key: string, ballot: Ballot, record: AcceptorRecord): AcceptorEffect[] {
    const { promised, accepted } = record
    if (compareBallots(ballot, promised) < 0 || (accepted !== null && compareBallots(ballot, accepted.ballot) <= 0)) {
      return [{ kind: 'send', to, message: { kind: 'conflict', key, ballot, of: 'prepare', seen: highest(record) } }]
    }
    const answer: AcceptorEffect = { kind: 'send', to, message: { kind: 'promised', key, ballot, accepted } }
    if (compareBallots(ballot, promised) === 0) return [answer]
    return [this.#store(key, { ...record, promised: ballot }), answer]
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
    const promised = compareBallots(message.promise, ballot) > 0 ? message.promise : ballot
    this.#tell(key, proposal)
    return [this.#store(key, { ...record, promised, accepted: proposal }), answer]
  }

  /** Only where nobody has asked about the register since: a promise to someone else must be found by `list`. */
  #forget(key: string, ballot: Ballot, record: AcceptorRecord | undefined): AcceptorEffect[] {
    if (record === undefined || record.accepted === null || !isTombstone(record.accepted)) return []
    if (compareBallots(record.accepted.ballot, ballot) !== 0 || compareBallots(record.promised, ballot) !== 0) return []
    this.#records.delete(key)
    this.#guard.accepted(key, null)
    const erase: AcceptorEffect = { kind: 'erase', keys: [key] }
    if (compareBallots(ballot, this.#forgotten) <= 0) return [erase]
    this.#forgotten = ballot
    return [{ kind: 'forget', promise: ballot }, erase]
  }

  #store(key: string, record: AcceptorRecord): AcceptorEffect {
    this.#records.set(key, record)
    return { kind: 'persist', key, record }
  }

  #tell(key: string, accepted: Accepted | null): void {
    this.#guard.accepted(key, accepted === null || isTombstone(accepted) ? null : accepted.generation)
  }

  #where(fits: (record: AcceptorRecord) => boolean): string[] {
    return [...this.#records].flatMap(([key, record]) => (fits(record) ? [key] : []))
  }
}

/** Of the message itself, and the highest that it asks a promise for. */
function ballotsOf(message: Extract<ProposerMessage, { kind: 'prepare' | 'accept' }>): readonly [Ballot, Ballot] {
  if (message.kind === 'prepare') return [message.ballot, message.ballot]
  const { accepted, promise } = message
  return [accepted.ballot, compareBallots(promise, accepted.ballot) > 0 ? promise : accepted.ballot]
}

function highest({ promised, accepted }: AcceptorRecord): Ballot {
  return accepted !== null && compareBallots(accepted.ballot, promised) > 0 ? accepted.ballot : promised
}
