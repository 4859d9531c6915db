/**
 * The proposer of CASPaxos (Rystsov 2018, arXiv 1802.07000): changes a register by a function of its value.
 *
 * A change takes two rounds: *prepare* learns the value from a majority, *accept* writes next(value) to a majority.
 * After a success the next change of the same register by this proposer is one round (section 2.2.1): the accept also
 * carried the promise of the ballot after it. A read asks a majority what it has accepted; where a majority holds the
 * same ballot its value is chosen and is the answer, with nothing written and nobody's promise broken; else the read
 * becomes the identity change of section 2.2, which finishes what somebody left half done.
 *
 * Three things are not in the paper.
 *
 * 1. *Unknown outcomes.* An accept that met no majority may live on in a minority and be chosen later, by us in the
 *    next round or by anyone. Then `next` is called on a value that already holds its own effect. So **`next` must be
 *    idempotent by content**: it compares (a version, a state) before it changes, and returns `undefined` where there is
 *    nothing left to do. `n => n + 1` counts twice some day.
 *
 * 2. *Fences travel with values.* An accept with a fence waits, at each voter, until the fenced holders' leases have run
 *    out. Whoever finishes a half-done change for another proposer must wait for the same leases, so the fence is stored
 *    with the value and carried along until the value is known to be chosen.
 *
 * 3. *Half-done fenced changes must not stop the register.* One voter may have accepted a takeover that the others
 *    refuse for as long as the owner is well: every proposer that finds it would carry it and be refused. But any
 *    majority of promises is a legal base (Paxos asks for the highest value of *a* majority, not of all answers). So
 *    a proposer that meets such a value waits a little for more answers and builds on the majority whose highest ballot
 *    is lowest. If no majority without the takeover answers, then the owner has no majority to renew with either, its
 *    lease ends, and the takeover goes through. One of the two always happens.
 */
import type { RegisterSettings } from '../../config/schema.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { Core, PeerId, Random } from '../core.ts'
import {
  type Accepted,
  type AcceptorMessage,
  type Ballot,
  compareBallots,
  type ProposerMessage,
  ZERO_BALLOT
} from './messages.ts'
import { type ChangeOptions, compose, done, type Request, type Result } from './proposal.ts'
import { decodeValue } from './value.ts'

export type ProposerInput =
  | { readonly kind: 'read'; readonly id: number; readonly key: string }
  | {
      readonly kind: 'change'
      readonly id: number
      readonly key: string
      /** `undefined`: leave it. Throwing rejects the change with that error. */
      readonly next: (current: unknown) => unknown
      readonly options: ChangeOptions
    }
  | { readonly kind: 'answer'; readonly from: PeerId; readonly message: AcceptorMessage }
  /** Due at `wakeAtMs()`. */
  | { readonly kind: 'tick' }

export type ProposerEffect =
  /** On disk before anything of this step is sent: counters up to this one may have been used. */
  | { readonly kind: 'reserve'; readonly counter: number }
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: ProposerMessage }
  | Result

/** Ballots are reserved on disk by this many at once, so that one fsync serves many rounds. A guess. */
const RESERVE_BLOCK = 10_000
/** Changes of one register that may wait for their turn. A guess: each is a closure of this process, not data. */
const MAX_WAITING = 256
/** First step of the back-off after a conflict; doubled each time, full jitter. A guess: about one round trip and fsync. */
const BACKOFF_MS = 10

type Phase = 'read' | 'prepare' | 'accept' | 'backoff'

interface Round {
  readonly request: Request
  phase: Phase
  ballot: Ballot
  /** The end of the phase. */
  endMs: number
  /** Until then more answers are waited for where a majority differs. */
  settleMs: number
  settled: boolean
  readonly states: Map<PeerId, Accepted | null>
  readonly conflicts: Set<PeerId>
  readonly accepts: Set<PeerId>
  /** Voter → when its grant ends and the accept is sent again. */
  readonly leased: Map<PeerId, { endMs: number; resent: boolean }>
  proposal: Accepted | null
  promise: Ballot
  ownFence: boolean
}

/** A promise of the majority, with the chosen value that it was given on: the one-round path. */
interface Prepared {
  readonly ballot: Ballot
  readonly base: Accepted | null
}

export class Proposer implements Core<ProposerInput, ProposerEffect> {
  readonly #self: PeerId
  readonly #voters: readonly PeerId[]
  readonly #majority: number
  readonly #settings: RegisterSettings
  readonly #random: Random
  /** By the counter of the ballot in use; changes are one a register, the others wait in `#waiting`. */
  readonly #rounds = new Map<number, Round>()
  readonly #waiting = new Map<string, Request[]>()
  readonly #prepared = new Map<string, Prepared>()
  #counter: number
  #reserved: number
  #effects: ProposerEffect[] = []

  /** `reserved`: as remembered from disk; counters start above it, so a restart never uses a ballot twice. */
  constructor(options: {
    self: PeerId
    voters: readonly PeerId[]
    settings: RegisterSettings
    random: Random
    reserved: number
  }) {
    this.#self = options.self
    this.#voters = options.voters
    this.#majority = Math.floor(options.voters.length / 2) + 1
    this.#settings = options.settings
    this.#random = options.random
    this.#counter = options.reserved
    this.#reserved = options.reserved
  }

  wakeAtMs(): number {
    let at = Number.POSITIVE_INFINITY
    for (const round of this.#rounds.values()) {
      at = Math.min(at, round.endMs, round.request.deadlineMs)
      if (!round.settled && (round.phase === 'read' || round.phase === 'prepare')) at = Math.min(at, round.settleMs)
      for (const { endMs, resent } of round.leased.values()) if (!resent) at = Math.min(at, endMs)
    }
    return at
  }

  step(input: ProposerInput, nowMs: number): ProposerEffect[] {
    this.#effects = []
    switch (input.kind) {
      case 'read':
      case 'change':
        this.#request(input, nowMs)
        break
      case 'answer':
        this.#answer(input.from, input.message, nowMs)
        break
      case 'tick': {
        // A copy: a tick ends rounds and begins others.
        const rounds = Array.from(this.#rounds.values())
        for (const round of rounds) this.#tick(round, nowMs)
      }
    }
    return this.#effects
  }

  // -------------------------------------------------------------------------------------------- starting and ending

  #request(input: Extract<ProposerInput, { kind: 'read' | 'change' }>, nowMs: number): void {
    const request: Request = {
      id: input.id,
      key: input.key,
      next: input.kind === 'change' ? input.next : null,
      options: input.kind === 'change' ? input.options : {},
      deadlineMs: nowMs + this.#settings.giveUpMs,
      attempts: 0,
      contended: false,
      uncertain: false
    }
    if (request.next === null) this.#begin(request, 'read', nowMs)
    else this.#enqueue(request, nowMs)
  }

  #enqueue(request: Request, nowMs: number): void {
    const waiting = this.#waiting.get(request.key)
    if (waiting === undefined) {
      this.#waiting.set(request.key, [])
      this.#startChange(request, nowMs)
    } else if (waiting.length < MAX_WAITING) {
      waiting.push(request)
    } else {
      const message = `${MAX_WAITING} changes of register ${request.key} wait already: slow down`
      this.#effects.push({ kind: 'failed', id: request.id, error: new DiapauseError('REGISTER_BUSY', message) })
    }
  }

  #startChange(request: Request, nowMs: number): void {
    if (nowMs >= request.deadlineMs) return this.#giveUp(request, nowMs)
    const prepared = this.#prepared.get(request.key)
    if (prepared === undefined) {
      this.#begin(request, 'prepare', nowMs)
      return
    }
    this.#prepared.delete(request.key)
    this.#propose(this.#round(request, 'accept', prepared.ballot, nowMs), prepared.base, 'cached', nowMs)
  }

  #begin(request: Request, phase: 'read' | 'prepare', nowMs: number): void {
    const round = this.#round(request, phase, this.#fresh(), nowMs)
    this.#broadcast({ kind: phase, key: request.key, ballot: round.ballot })
  }

  #round(request: Request, phase: Phase, ballot: Ballot, nowMs: number): Round {
    const { roundTimeoutMs } = this.#settings
    const round: Round = {
      request,
      phase,
      ballot,
      endMs: nowMs + roundTimeoutMs,
      settleMs: nowMs + roundTimeoutMs / 4,
      settled: false,
      states: new Map(),
      conflicts: new Set(),
      accepts: new Set(),
      leased: new Map(),
      proposal: null,
      promise: ZERO_BALLOT,
      ownFence: false
    }
    this.#rounds.set(ballot.counter, round)
    return round
  }

  #fresh(): Ballot {
    this.#counter += 1
    if (this.#counter > this.#reserved) {
      this.#reserved = this.#counter + RESERVE_BLOCK
      this.#effects.push({ kind: 'reserve', counter: this.#reserved })
    }
    return { counter: this.#counter, peer: this.#self }
  }

  #broadcast(message: ProposerMessage): void {
    for (const to of this.#voters) this.#effects.push({ kind: 'send', to, message })
  }

  #finish(request: Request, effect: ProposerEffect, nowMs: number): void {
    this.#effects.push(effect)
    if (request.next !== null) this.#startWaiting(request.key, nowMs)
  }

  #startWaiting(key: string, nowMs: number): void {
    const next = this.#waiting.get(key)?.shift()
    if (next === undefined) this.#waiting.delete(key)
    else this.#startChange(next, nowMs)
  }

  #fail(request: Request, error: unknown, nowMs: number): void {
    this.#finish(request, { kind: 'failed', id: request.id, error }, nowMs)
  }

  #giveUp(request: Request, nowMs: number): void {
    const { key, contended, uncertain } = request
    const { giveUpMs } = this.#settings
    const outcome = uncertain ? '; the change may still take effect, read before you rely on either' : ''
    const error = contended
      ? new DiapauseError(
          'REGISTER_CONTENDED',
          `other peers kept changing register ${key} for ${giveUpMs} ms${outcome}: try again`,
          { details: { key, uncertain } }
        )
      : new DiapauseError(
          'REGISTER_UNAVAILABLE',
          `no majority of the ${this.#voters.length} voters answered for register ${key} within ${giveUpMs} ms${outcome}: are enough peers running and connected?`,
          { details: { key, uncertain, voters: this.#voters.length } }
        )
    this.#fail(request, error, nowMs)
  }

  /** The round is over without a result: another after a while. */
  #retry(round: Round, contended: boolean, delayMs: number, nowMs: number): void {
    this.#rounds.delete(round.ballot.counter)
    const { request } = round
    request.contended = contended
    if (nowMs >= request.deadlineMs) return this.#giveUp(request, nowMs)
    // A ballot of its own, never sent, names the pause.
    const pause = this.#round(request, 'backoff', this.#fresh(), nowMs)
    pause.endMs = nowMs + delayMs
  }

  #backoffMs(request: Request): number {
    request.attempts += 1
    const ceiling = Math.min(this.#settings.roundTimeoutMs, BACKOFF_MS * 2 ** Math.min(request.attempts, 16))
    return 1 + this.#random() * ceiling
  }

  // -------------------------------------------------------------------------------------------- answers

  #answer(from: PeerId, message: AcceptorMessage, nowMs: number): void {
    if (message.kind === 'conflict') this.#counter = Math.max(this.#counter, message.seen.counter)
    const round = this.#rounds.get(message.ballot.counter)
    if (round === undefined || message.ballot.peer !== this.#self) return
    if (message.key !== round.request.key || !this.#voters.includes(from)) return
    switch (message.kind) {
      case 'state':
      case 'promised':
        if (round.phase !== (message.kind === 'state' ? 'read' : 'prepare') || round.states.has(from)) return
        round.states.set(from, message.accepted)
        return this.#learned(round, nowMs)
      case 'accepted':
        if (round.phase !== 'accept') return
        round.accepts.add(from)
        round.leased.delete(from)
        return this.#voted(round, nowMs)
      case 'leased':
        if (round.phase !== 'accept' || round.accepts.has(from)) return
        round.leased.set(from, { endMs: nowMs + message.retryMs, resent: false })
        return this.#voted(round, nowMs)
      case 'conflict':
        if (round.phase !== message.of || round.accepts.has(from)) return
        round.conflicts.add(from)
        round.leased.delete(from)
        if (this.#voters.length - round.conflicts.size < this.#majority) {
          this.#retry(round, true, this.#backoffMs(round.request), nowMs)
        } else if (round.phase === 'accept') this.#voted(round, nowMs)
    }
  }

  #tick(round: Round, nowMs: number): void {
    if (this.#rounds.get(round.ballot.counter) !== round) return
    const { request } = round
    if (nowMs >= request.deadlineMs) {
      this.#rounds.delete(round.ballot.counter)
      return this.#giveUp(request, nowMs)
    }
    if (nowMs >= round.endMs) return this.#expire(round, nowMs)
    if (round.phase === 'accept') {
      for (const [voter, lease] of round.leased) {
        if (lease.resent || nowMs < lease.endMs || round.proposal === null) continue
        lease.resent = true
        this.#effects.push({ kind: 'send', to: voter, message: this.#acceptMessage(round, round.proposal) })
      }
    } else if (!round.settled && nowMs >= round.settleMs && round.phase !== 'backoff') {
      round.settled = true
      this.#learned(round, nowMs)
    }
  }

  #expire(round: Round, nowMs: number): void {
    const { request, phase } = round
    if (phase === 'backoff') {
      this.#rounds.delete(round.ballot.counter)
      return this.#begin(request, request.next === null && request.attempts === 0 ? 'read' : 'prepare', nowMs)
    }
    if (phase === 'accept' && round.accepts.size + round.leased.size >= this.#majority)
      return this.#leased(round, nowMs)
    // Messages were lost or voters are away. The first pause is short, for a lost message is the likelier.
    this.#retry(round, false, this.#random() * BACKOFF_MS, nowMs)
  }

  // -------------------------------------------------------------------------------------------- prepare and read

  #learned(round: Round, nowMs: number): void {
    const { request, states } = round
    if (states.size < this.#majority) return
    const all = round.settled || states.size === this.#voters.length
    const sorted = [...states.values()].sort((a, b) =>
      compareBallots(a?.ballot ?? ZERO_BALLOT, b?.ballot ?? ZERO_BALLOT)
    )
    const chosen = this.#agreed(sorted)
    if (round.phase === 'read') {
      if (chosen !== undefined) {
        this.#rounds.delete(round.ballot.counter)
        return this.#finish(request, done(request, chosen), nowMs)
      }
      if (!all) return
      // The identity change: what is half done is finished, or overwritten.
      this.#rounds.delete(round.ballot.counter)
      return this.#begin(request, 'prepare', nowMs)
    }
    const base = chosen !== undefined ? chosen : (sorted[this.#majority - 1] ?? null)
    if (chosen === undefined && !all && base !== null && base.fence.length > 0) return
    this.#propose(round, base, chosen === undefined ? 'unknown' : 'chosen', nowMs)
  }

  /** What a majority of these holds under one ballot; undefined where they differ. */
  #agreed(sorted: readonly (Accepted | null)[]): Accepted | null | undefined {
    for (let i = this.#majority - 1; i < sorted.length; i++) {
      const [low, high] = [sorted[i - this.#majority + 1] ?? null, sorted[i] ?? null]
      if (compareBallots(low?.ballot ?? ZERO_BALLOT, high?.ballot ?? ZERO_BALLOT) === 0) return high
    }
    return undefined
  }

  // -------------------------------------------------------------------------------------------- accept

  /**
   * `known`: 'chosen' where the promises themselves show that `base` is chosen (so it may be answered as it is),
   * 'cached' where it was when we were last told, 'unknown' where it may be somebody's half-done change.
   */
  #propose(round: Round, base: Accepted | null, known: 'chosen' | 'cached' | 'unknown', nowMs: number): void {
    const { request, ballot } = round
    let proposal: Accepted
    try {
      const current = base === null ? null : decodeValue(base.value)
      const next = request.next?.(current)
      if (next === undefined && known === 'chosen') {
        this.#rounds.delete(ballot.counter)
        if (request.next !== null) this.#prepared.set(request.key, { ballot, base })
        return this.#finish(request, done(request, base), nowMs)
      }
      proposal = compose(request, ballot, base, known === 'unknown' ? (base?.fence ?? []) : [], current, next)
    } catch (error) {
      this.#rounds.delete(ballot.counter)
      return this.#fail(request, error, nowMs)
    }
    round.phase = 'accept'
    round.endMs = nowMs + this.#settings.roundTimeoutMs
    round.conflicts.clear()
    round.proposal = proposal
    round.promise = this.#fresh()
    round.ownFence = proposal.fence.some(({ below }) => below > (base?.generation ?? 0))
    request.uncertain ||= request.next !== null
    this.#broadcast(this.#acceptMessage(round, proposal))
  }

  #acceptMessage(round: Round, accepted: Accepted): ProposerMessage {
    return { kind: 'accept', key: round.request.key, accepted, promise: round.promise }
  }

  #voted(round: Round, nowMs: number): void {
    const { request, proposal, accepts, leased, conflicts } = round
    if (proposal === null) return
    if (accepts.size >= this.#majority) {
      this.#rounds.delete(round.ballot.counter)
      const base = { ...proposal, fence: [] }
      this.#prepared.set(request.key, { ballot: round.promise, base })
      return this.#finish(request, done(request, base), nowMs)
    }
    // A grant that ends within this round is waited for; with the others a majority must be in reach.
    let hopeless = conflicts.size
    for (const { endMs } of leased.values()) if (endMs >= round.endMs) hopeless += 1
    if (this.#voters.length - hopeless < this.#majority) this.#leased(round, nowMs)
  }

  /** Leases stand in the way. Whoever brought the fence is told; who only carries another's tries again. */
  #leased(round: Round, nowMs: number): void {
    const { request, leased, accepts } = round
    const ends = [...leased.values()].map(({ endMs }) => endMs).sort((a, b) => a - b)
    const needed = ends[Math.min(ends.length, Math.max(1, this.#majority - accepts.size)) - 1] ?? nowMs
    const retryMs = Math.max(1, Math.ceil(needed - nowMs))
    if (!round.ownFence) {
      const delayMs = Math.min(retryMs, this.#settings.roundTimeoutMs) + this.#random() * BACKOFF_MS
      return this.#retry(round, true, delayMs, nowMs)
    }
    this.#rounds.delete(round.ballot.counter)
    const message = `register ${request.key} is held by a peer whose lease runs for ${retryMs} ms more: try again then, and read first`
    this.#fail(
      request,
      new DiapauseError('REGISTER_LEASED', message, { details: { key: request.key, retryMs } }),
      nowMs
    )
  }
}
