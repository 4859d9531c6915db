/**
 * One round of a proposer: what it asks the voters under one ballot, what they have answered, and what follows from the
 * answers. A round sends nothing and starts nothing: the proposer does, by where the round stands.
 */
import type { PeerId } from '../core.ts'
import {
  type Accepted,
  type AcceptorMessage,
  type Ballot,
  compareBallots,
  type ProposerMessage,
  ZERO_BALLOT
} from './messages.ts'
import type { Request } from './request.ts'
import type { Vote } from './trace.ts'
import { majorityOf, type VoterSet } from './voters.ts'

/** A 'backoff' asks nothing: its ballot, never sent, names a pause. */
export type Phase = 'read' | 'prepare' | 'accept' | 'backoff'

/** What the voters are asked to accept. */
export interface Offer {
  readonly accepted: Accepted
  /** Promised by who accepts: the ballot of the next change. */
  readonly promise: Ballot
  /** The fence is of this change, not only carried on from another's. */
  readonly ownFence: boolean
  /** How many must accept it: a majority, or all. */
  readonly needed: number
}

/** Where the answers so far leave a round. */
export type Standing =
  | { readonly kind: 'open' }
  /**
   * `base` is what a change may build on. 'chosen': the answers themselves show that it is chosen (so it may be answered
   * as it is); 'unknown': it may be somebody's half-done change.
   */
  | { readonly kind: 'learned'; readonly base: Accepted | null; readonly known: 'chosen' | 'unknown' }
  | { readonly kind: 'accepted'; readonly offer: Offer }
  /** Leases that do not end in time keep a majority from accepting. */
  | { readonly kind: 'leased' }
  /** Newer ballots keep a majority from answering. */
  | { readonly kind: 'conflict' }
  /** As 'conflict', and some do not answer because they are of a newer voter set. */
  | { readonly kind: 'stale' }

const OPEN: Standing = Object.freeze({ kind: 'open' })

export class Round {
  readonly request: Request
  readonly ballot: Ballot
  readonly #voters: VoterSet
  readonly #majority: number
  #phase: Phase
  #endMs: number
  readonly #settleMs: number
  #settled = false
  #offer: Offer | null = null
  readonly #states = new Map<PeerId, Accepted | null>()
  readonly #conflicts = new Set<PeerId>()
  readonly #stale = new Set<PeerId>()
  readonly #accepts = new Set<PeerId>()
  /** Voter → when its grant ends and the accept is sent again. */
  readonly #leased = new Map<PeerId, { readonly endMs: number; resent: boolean }>()

  /** `endMs`: the end of its first phase. `settleMs`: until then more answers are waited for where a majority differs. */
  constructor(options: {
    request: Request
    phase: Exclude<Phase, 'accept'>
    ballot: Ballot
    voters: VoterSet
    endMs: number
    settleMs: number
  }) {
    this.request = options.request
    this.ballot = options.ballot
    this.#phase = options.phase
    this.#voters = options.voters
    this.#majority = majorityOf(options.voters.ids.length)
    this.#endMs = options.endMs
    this.#settleMs = options.settleMs
  }

  get phase(): Phase {
    return this.#phase
  }

  get version(): number {
    return this.#voters.version
  }

  /** Begins the accept phase. */
  offer(offer: Offer, endMs: number): void {
    this.#phase = 'accept'
    this.#endMs = endMs
    this.#conflicts.clear()
    this.#offer = offer
  }

  /** What the voters are asked now; `undefined` in a pause. */
  question(): ProposerMessage | undefined {
    const { version } = this
    const { key } = this.request
    if (this.#phase === 'backoff') return undefined
    if (this.#phase !== 'accept') return { kind: this.#phase, version, key, ballot: this.ballot }
    if (this.#offer === null) return undefined
    return { kind: 'accept', version, key, accepted: this.#offer.accepted, promise: this.#offer.promise }
  }

  // -------------------------------------------------------------------------------------------- time

  wakeAtMs(): number {
    let at = Math.min(this.#endMs, this.request.deadlineMs)
    if (!this.#settled && (this.#phase === 'read' || this.#phase === 'prepare')) at = Math.min(at, this.#settleMs)
    for (const { endMs, resent } of this.#leased.values()) if (!resent) at = Math.min(at, endMs)
    return at
  }

  hasEnded(nowMs: number): boolean {
    return nowMs >= this.#endMs
  }

  /** Time has passed: whom to ask once more, because their grants have ended. */
  wake(nowMs: number): PeerId[] {
    if (nowMs >= this.#settleMs) this.#settled = true
    const again: PeerId[] = []
    for (const [voter, lease] of this.#leased) {
      if (lease.resent || nowMs < lease.endMs) continue
      lease.resent = true
      again.push(voter)
    }
    return again
  }

  // -------------------------------------------------------------------------------------------- answers

  /** False where the message is no answer to what the round asks now. */
  take(from: PeerId, message: AcceptorMessage, nowMs: number): boolean {
    switch (message.kind) {
      case 'state':
      case 'promised':
        if (this.#phase !== (message.kind === 'state' ? 'read' : 'prepare') || this.#states.has(from)) return false
        this.#states.set(from, message.accepted)
        return true
      case 'accepted':
        if (this.#phase !== 'accept') return false
        this.#accepts.add(from)
        this.#leased.delete(from)
        return true
      case 'leased':
        if (this.#phase !== 'accept' || this.#accepts.has(from)) return false
        this.#leased.set(from, { endMs: nowMs + message.retryMs, resent: false })
        return true
      case 'conflict':
        if (this.#phase !== message.of || this.#accepts.has(from)) return false
        this.#conflicts.add(from)
        this.#leased.delete(from)
        return true
      case 'stale':
        if (this.#phase === 'backoff' || this.#accepts.has(from)) return false
        this.#stale.add(from)
        this.#leased.delete(from)
        return true
      case 'keys':
        return false
    }
  }

  standing(): Standing {
    if (!this.#inReach(this.#refusals())) return { kind: this.#stale.size > 0 ? 'stale' : 'conflict' }
    if (this.#phase === 'accept') return this.#voted()
    return this.#phase === 'backoff' ? OPEN : this.#learned()
  }

  /** Whether, at its end, leases are what a majority waits for. */
  endedByLeases(): boolean {
    return this.#phase === 'accept' && this.#accepts.size + this.#leased.size >= this.#majority
  }

  /** Whether this round's own change brought the fence, and after how many ms a majority may be free to accept it. */
  leases(nowMs: number): { ours: boolean; retryMs: number } {
    const ends = [...this.#leased.values()].map(({ endMs }) => endMs).sort((a, b) => a - b)
    const missing = Math.max(1, this.#majority - this.#accepts.size)
    const needed = ends[Math.min(ends.length, missing) - 1] ?? nowMs
    return { ours: this.#offer?.ownFence === true, retryMs: Math.max(1, Math.ceil(needed - nowMs)) }
  }

  /** What each voter answered last, and for how long leases run that it refused for. */
  votes(nowMs: number): { votes: Record<PeerId, Vote>; leaseMs: Record<PeerId, number> } {
    const votes: Record<PeerId, Vote> = {}
    const learned = this.#phase === 'read' ? 'state' : 'promised'
    for (const voter of this.#states.keys()) votes[voter] = learned
    for (const voter of this.#accepts) votes[voter] = 'accepted'
    for (const voter of this.#leased.keys()) votes[voter] = 'leased'
    for (const voter of this.#conflicts) votes[voter] = 'conflict'
    for (const voter of this.#stale) votes[voter] = 'stale'
    const leases = [...this.#leased].map(([voter, { endMs }]) => [voter, Math.max(0, endMs - nowMs)])
    return { votes, leaseMs: Object.fromEntries(leases) as Record<PeerId, number> }
  }

  #learned(): Standing {
    const majority = this.#majority
    if (this.#states.size < majority) return OPEN
    const sorted = [...this.#states.values()].sort((a, b) =>
      compareBallots(a?.ballot ?? ZERO_BALLOT, b?.ballot ?? ZERO_BALLOT)
    )
    const chosen = this.#agreed(sorted)
    if (chosen !== undefined) return { kind: 'learned', base: chosen, known: 'chosen' }
    // The majority whose highest ballot is lowest, so that half-done fenced changes do not stop the register.
    const base = sorted[majority - 1] ?? null
    const all = this.#settled || this.#states.size === this.#voters.ids.length
    const fenced = base !== null && base.fence.length > 0
    return !all && (this.#phase === 'read' || fenced) ? OPEN : { kind: 'learned', base, known: 'unknown' }
  }

  /** What a majority of these holds under one ballot; undefined where they differ. */
  #agreed(sorted: readonly (Accepted | null)[]): Accepted | null | undefined {
    const majority = this.#majority
    for (let i = majority - 1; i < sorted.length; i++) {
      const [low, high] = [sorted[i - majority + 1] ?? null, sorted[i] ?? null]
      if (compareBallots(low?.ballot ?? ZERO_BALLOT, high?.ballot ?? ZERO_BALLOT) === 0) return high
    }
    return undefined
  }

  #voted(): Standing {
    if (this.#offer === null) return OPEN
    if (this.#accepts.size >= this.#offer.needed) return { kind: 'accepted', offer: this.#offer }
    // A grant that ends within this round is waited for; with the others enough must be in reach.
    let hopeless = this.#refusals()
    for (const { endMs } of this.#leased.values()) if (endMs >= this.#endMs) hopeless += 1
    return this.#inReach(hopeless) ? OPEN : { kind: 'leased' }
  }

  #refusals(): number {
    let refusals = this.#conflicts.size
    for (const voter of this.#stale) if (!this.#conflicts.has(voter)) refusals += 1
    return refusals
  }

  #inReach(hopeless: number): boolean {
    const needed = this.#phase === 'accept' && this.#offer !== null ? this.#offer.needed : this.#majority
    return this.#voters.ids.length - hopeless >= needed
  }
}
