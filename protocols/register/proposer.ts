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
import type { Core, PeerId, Random } from '../core.ts'
import { Ballots } from './ballots.ts'
import { ChangeQueue, MAX_WAITING } from './change-queue.ts'
import type { Accepted, AcceptorMessage, Ballot, ProposerMessage } from './messages.ts'
import { compose } from './proposal.ts'
import {
  busy,
  done,
  failed,
  gaveUp,
  NEXT,
  type ProposerRequest,
  type Request,
  type Result,
  stillLeased,
  uncollected
} from './request.ts'
import { type Offer, type Phase, Round, type Standing } from './round.ts'
import { type DecisionTrace, type Ending, traceOf } from './trace.ts'
import { isTombstone, valueOf } from './value.ts'
import { majorityOf, type VoterSet } from './voters.ts'

export type ProposerInput =
  | ProposerRequest
  | { readonly kind: 'answer'; readonly from: PeerId; readonly message: AcceptorMessage }
  /** A set that was chosen. Older ones than the present are ignored. */
  | { readonly kind: 'voters'; readonly set: VoterSet }
  /** Due at `wakeAtMs()`. */
  | { readonly kind: 'tick' }

export type ProposerEffect =
  /** On disk before anything of this step is sent: counters up to this one may have been used. */
  | { readonly kind: 'reserve'; readonly counter: number }
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: ProposerMessage }
  /** `from` counts in a newer voter set than ours: what was asked waits for it. */
  | { readonly kind: 'newer'; readonly from: PeerId; readonly version: number }
  | { readonly kind: 'trace'; readonly trace: DecisionTrace }
  | Result

/** First step of the back-off after a conflict; doubled each time, full jitter. A guess: about one round trip and fsync. */
const BACKOFF_MS = 10

/** A promise of the majority, with the chosen value that it was given on: the one-round path. */
interface Prepared {
  readonly ballot: Ballot
  readonly base: Accepted | null
}

export class Proposer implements Core<ProposerInput, ProposerEffect> {
  readonly #self: PeerId
  readonly #settings: RegisterSettings
  readonly #traces: boolean
  readonly #random: Random
  readonly #ballots: Ballots
  readonly #queue = new ChangeQueue()
  /** By the counter of the ballot in use. */
  readonly #rounds = new Map<number, Round>()
  readonly #prepared = new Map<string, Prepared>()
  #voters: VoterSet
  #effects: ProposerEffect[] = []

  /** `reserved`: as remembered from disk. `traces`: whether to tell how requests end. */
  constructor(options: {
    self: PeerId
    voters: VoterSet
    settings: RegisterSettings
    random: Random
    reserved: number
    traces: boolean
  }) {
    this.#self = options.self
    this.#voters = options.voters
    this.#settings = options.settings
    this.#random = options.random
    this.#traces = options.traces
    this.#ballots = new Ballots(options.self, options.reserved, counter =>
      this.#effects.push({ kind: 'reserve', counter })
    )
  }

  get voters(): VoterSet {
    return this.#voters
  }

  wakeAtMs(): number {
    let at = Number.POSITIVE_INFINITY
    for (const round of this.#rounds.values()) at = Math.min(at, round.wakeAtMs())
    return at
  }

  step(input: ProposerInput, nowMs: number): ProposerEffect[] {
    this.#effects = []
    switch (input.kind) {
      case 'voters':
        this.#adopt(input.set, nowMs)
        break
      case 'answer':
        this.#answer(input.from, input.message, nowMs)
        break
      case 'tick': {
        // A copy: a tick ends rounds and begins others.
        const rounds = Array.from(this.#rounds.values())
        for (const round of rounds) this.#tick(round, nowMs)
        break
      }
      default:
        this.#request(input, nowMs)
    }
    return this.#effects
  }

  // -------------------------------------------------------------------------------------------- requests

  #request(input: ProposerRequest, nowMs: number): void {
    const { id, kind, key } = input
    const request: Request = {
      id,
      kind,
      key,
      next: 'next' in input ? input.next : NEXT[input.kind],
      options: 'options' in input ? input.options : {},
      startedMs: nowMs,
      deadlineMs: nowMs + this.#settings.giveUpMs,
      rounds: 0,
      attempts: 0,
      contended: false,
      uncertain: false,
      refusedFor: 0,
      last: undefined
    }
    if (request.next === null) return this.#begin(request, 'read', nowMs)
    const turn = this.#queue.add(request)
    if (turn === 'now') this.#startChange(request, nowMs)
    else if (turn === 'full') this.#effects.push(failed(request, busy(request, MAX_WAITING)))
  }

  #startChange(request: Request, nowMs: number): void {
    if (nowMs >= request.deadlineMs) return this.#giveUp(request, nowMs)
    const prepared = this.#prepared.get(request.key)
    this.#prepared.delete(request.key)
    // What is remembered may be of before a deletion by others: a collection looks for itself.
    if (prepared === undefined || request.kind === 'collect') return this.#begin(request, 'prepare', nowMs)
    this.#propose(this.#open(request, 'prepare', prepared.ballot, nowMs), prepared.base, 'cached', nowMs)
  }

  #finish(request: Request, result: Result, ending: Ending, nowMs: number): void {
    if (this.#traces) this.#effects.push({ kind: 'trace', trace: traceOf(request, ending, nowMs) })
    this.#effects.push(result)
    if (request.next === null) return
    const next = this.#queue.next(request.key)
    if (next !== undefined) this.#startChange(next, nowMs)
  }

  #giveUp(request: Request, nowMs: number): void {
    const { version, ids } = this.#voters
    const error = gaveUp(request, this.#settings.giveUpMs, { version, voters: ids.length })
    const outcome = request.contended ? 'conflict' : 'unavailable'
    this.#finish(request, failed(request, error), { outcome, round: request.last }, nowMs)
  }

  /** What is under way begins anew: a ballot is asked about, and counted, in one voter set only. */
  #adopt(set: VoterSet, nowMs: number): void {
    if (set.version < this.#voters.version) return
    const newer = set.version > this.#voters.version
    this.#voters = set
    if (!newer) return
    this.#prepared.clear()
    const rounds = [...this.#rounds.values()]
    this.#rounds.clear()
    for (const { request } of rounds) {
      if (nowMs >= request.deadlineMs) this.#giveUp(request, nowMs)
      else if (request.kind === 'collect') this.#uncollected(request, 'unavailable', nowMs)
      else this.#begin(request, request.next === null && request.attempts === 0 ? 'read' : 'prepare', nowMs)
    }
  }

  // -------------------------------------------------------------------------------------------- rounds

  #begin(request: Request, phase: 'read' | 'prepare', nowMs: number): void {
    this.#ask(this.#open(request, phase, this.#ballots.next(), nowMs))
  }

  #open(
    request: Request,
    phase: Exclude<Phase, 'accept'>,
    ballot: Ballot,
    nowMs: number,
    lastsMs = this.#settings.roundTimeoutMs
  ): Round {
    const [endMs, settleMs] = [nowMs + lastsMs, nowMs + this.#settings.roundTimeoutMs / 4]
    const round = new Round({ request, phase, ballot, voters: this.#voters, endMs, settleMs })
    if (phase !== 'backoff') request.rounds += 1
    this.#rounds.set(ballot.counter, round)
    return round
  }

  #close(round: Round): void {
    this.#rounds.delete(round.ballot.counter)
  }

  #ask(round: Round, voters = this.#voters.ids): void {
    const message = round.question()
    if (message !== undefined) for (const to of voters) this.#effects.push({ kind: 'send', to, message })
  }

  #answer(from: PeerId, message: AcceptorMessage, nowMs: number): void {
    if (message.kind === 'keys') return
    const { version } = this.#voters
    if (message.kind === 'stale' && message.version > version) {
      this.#effects.push({ kind: 'newer', from, version: message.version })
    }
    const round = message.ballot === null ? undefined : this.#rounds.get(message.ballot.counter)
    if (round === undefined || message.ballot?.peer !== this.#self || !this.#voters.ids.includes(from)) return
    if (message.kind === 'stale') round.request.refusedFor = Math.max(round.request.refusedFor, message.version)
    else if (message.key !== round.request.key) return
    // Of voters only, who answer what was asked: nobody else moves our ballots.
    if (message.kind === 'conflict') this.#ballots.passed(message.seen)
    if (round.take(from, message, nowMs)) this.#advance(round, nowMs)
  }

  #tick(round: Round, nowMs: number): void {
    if (this.#rounds.get(round.ballot.counter) !== round) return
    if (nowMs >= round.request.deadlineMs) {
      this.#close(round)
      if (round.phase !== 'backoff') round.request.last = round
      return this.#giveUp(round.request, nowMs)
    }
    if (round.hasEnded(nowMs)) return this.#expire(round, nowMs)
    this.#ask(round, round.wake(nowMs))
    this.#advance(round, nowMs)
  }

  #advance(round: Round, nowMs: number): void {
    const standing = round.standing()
    switch (standing.kind) {
      case 'open':
        return
      case 'learned':
        return this.#learned(round, standing, nowMs)
      case 'accepted':
        return this.#accepted(round, standing.offer, nowMs)
      case 'leased':
        return this.#leased(round, nowMs)
      case 'conflict':
        return this.#retry(round, true, this.#backoffMs(round.request), nowMs)
      case 'stale':
        // Nothing can be done before the newer set is told us, and then everything begins anew.
        return this.#retry(round, false, this.#settings.roundTimeoutMs, nowMs)
    }
  }

  #expire(round: Round, nowMs: number): void {
    const { request, phase } = round
    if (phase === 'backoff') {
      this.#close(round)
      return this.#begin(request, request.next === null && request.attempts === 0 ? 'read' : 'prepare', nowMs)
    }
    if (round.endedByLeases()) return this.#leased(round, nowMs)
    // Messages were lost or voters are away. The first pause is short, for a lost message is the likelier.
    this.#retry(round, false, this.#random() * BACKOFF_MS, nowMs)
  }

  /** The round is over without a result: another after a while. */
  #retry(round: Round, contended: boolean, delayMs: number, nowMs: number): void {
    this.#close(round)
    const { request } = round
    request.contended = contended
    request.last = round
    if (request.kind === 'collect') return this.#uncollected(request, contended ? 'conflict' : 'unavailable', nowMs)
    if (nowMs >= request.deadlineMs) return this.#giveUp(request, nowMs)
    this.#open(request, 'backoff', this.#ballots.next(), nowMs, delayMs)
  }

  #backoffMs(request: Request): number {
    request.attempts += 1
    const ceiling = Math.min(this.#settings.roundTimeoutMs, BACKOFF_MS * 2 ** Math.min(request.attempts, 16))
    return 1 + this.#random() * ceiling
  }

  // -------------------------------------------------------------------------------------------- what rounds lead to

  #learned(round: Round, { base, known }: Extract<Standing, { kind: 'learned' }>, nowMs: number): void {
    if (round.phase !== 'read') return this.#propose(round, base, known, nowMs)
    if (known === 'chosen') return this.#answered(round, base, nowMs)
    // The identity change: what is half done is finished, or overwritten.
    this.#close(round)
    this.#begin(round.request, 'prepare', nowMs)
  }

  /** The request ends with the value that was there. */
  #answered(round: Round, base: Accepted | null, nowMs: number): void {
    this.#close(round)
    const { request } = round
    const ending: Ending = { outcome: 'learned', round, generation: base?.generation ?? 0 }
    this.#finish(request, done(request, base), ending, nowMs)
  }

  /** `known`: as where a round stands; 'cached' where `base` was chosen when we were last told. */
  #propose(round: Round, base: Accepted | null, known: 'chosen' | 'cached' | 'unknown', nowMs: number): void {
    const { request, ballot } = round
    let offer: Offer
    try {
      const current = valueOf(base)
      const next = request.next?.(current)
      if (next === undefined && this.#mayLeave(request, base, known)) {
        if (request.next !== null && base !== null && known !== 'unknown') {
          this.#prepared.set(request.key, { ballot, base })
        }
        return this.#answered(round, base, nowMs)
      }
      const carried = known === 'unknown' ? (base?.fence ?? []) : []
      offer = this.#offer(compose(request, ballot, base, carried, current, next), request, base)
    } catch (error) {
      this.#close(round)
      return this.#finish(request, failed(request, error), { outcome: 'rejected', round }, nowMs)
    }
    round.offer(offer, nowMs + this.#settings.roundTimeoutMs)
    request.uncertain ||= request.next !== null
    this.#ask(round)
  }

  #offer(accepted: Accepted, { kind }: Request, base: Accepted | null): Offer {
    const { ids } = this.#voters
    const ownFence = accepted.fence.some(({ below }) => below > (base?.generation ?? 0))
    // What has a promise beyond its ballot is not forgotten.
    if (kind === 'collect') return { accepted, promise: accepted.ballot, ownFence, needed: ids.length }
    return { accepted, promise: this.#ballots.next(), ownFence, needed: majorityOf(ids.length) }
  }

  /**
   * Whether a change that wants nothing else leaves what it found as it is. A rewrite does where nothing is: its prepare is
   * what matters then. A collection leaves a value to others, half done or not.
   */
  #mayLeave({ kind }: Request, base: Accepted | null, known: 'chosen' | 'cached' | 'unknown'): boolean {
    if (kind === 'collect') return true
    return known === 'chosen' && (kind !== 'rewrite' || base === null)
  }

  #accepted(round: Round, { accepted, promise }: Offer, nowMs: number): void {
    this.#close(round)
    const { request, ballot, version } = round
    const { key } = request
    const base = { ...accepted, fence: [] }
    if (request.kind === 'collect') {
      for (const to of this.#voters.ids) {
        this.#effects.push({ kind: 'send', to, message: { kind: 'forget', version, key, ballot } })
      }
    } else if (!isTombstone(accepted)) this.#prepared.set(key, { ballot: promise, base })
    const ending: Ending = { outcome: 'chosen', round, generation: accepted.generation }
    this.#finish(request, done(request, base), ending, nowMs)
  }

  /** Leases stand in the way. Whoever brought the fence is told; who only carries another's tries again. */
  #leased(round: Round, nowMs: number): void {
    const { ours, retryMs } = round.leases(nowMs)
    if (!ours) {
      const delayMs = Math.min(retryMs, this.#settings.roundTimeoutMs) + this.#random() * BACKOFF_MS
      return this.#retry(round, true, delayMs, nowMs)
    }
    this.#close(round)
    const error = failed(round.request, stillLeased(round.request, retryMs))
    this.#finish(round.request, error, { outcome: 'leased', round, retryMs }, nowMs)
  }

  #uncollected(request: Request, outcome: Ending['outcome'], nowMs: number): void {
    this.#finish(request, failed(request, uncollected(request)), { outcome, round: request.last }, nowMs)
  }
}
