/**
 * The holder's side of leases: claims (key, generation) with all voters, renews all claims in one message, and knows at
 * every moment for how long it may act.
 *
 * A grant counts from the moment its claim was *sent*, on our clock; the lease ends when fewer than a majority of
 * grants are younger than the duration. Timers only *tell* of the end: `remainingMs` is computed from the clock at each
 * call, so a process that was stopped (SIGSTOP, a laptop lid) and continues finds it 0 before any timer has fired, and
 * whoever acts asks first. `lapsing` comes a margin before the end, because pausing a VM takes time.
 *
 * **When is a lease lost?** A voter that refuses with a newer generation has *accepted* a takeover; that is no proof that
 * one was chosen. A takeover that a minority accepted may be overwritten (lease/voter.ts, 4), and an owner that gave up
 * on the word of one voter would stop its VMs for nothing; even the refusals of a majority may be of takeovers that
 * failed one by one. Waiting is safe meanwhile, because acting needs a majority's grants in any case. So a refusal is
 * a reason to *read the register*, which is linearizable, and only its answer ends a lease for good. A returning peer
 * learns its fate in one round trip, and a healthy one reads every `renewEveryMs` until the dead takeover is overwritten,
 * which this read itself brings about (register/proposer.ts, 3). A voter that knows of no value lags behind, or the
 * register was deleted: read as well, and if all others grant, not often. A generation that is *lower* than ours means that
 * the register was deleted, for it falls in no other way.
 *
 * **A lease that has ended is claimed again only after the register was read.** A holder without a majority that went on
 * claiming would keep its grant at the few voters that it reaches, and a takeover out of reach there for good, although
 * nobody acts: a takeover that waits for a minority's grants must get through when the lease ends (register/proposer.ts, 3,
 * counts on it). Who can read has a majority within reach. The same goes for a first claim that got no majority for D.
 *
 * **Voter sets.** Grants are counted in one voter set (lease/voter.ts, 7). With a new set all is claimed anew at once, and what
 * the old majority granted is kept as the time at which it ends.
 */
import type { LeaseSettings } from '../../config/schema.ts'
import type { Core, PeerId } from '../core.ts'
import { majorityOf, type VoterSet } from '../register/voters.ts'
import { type Claim, type LeaseMessage, MAX_CLAIMS } from './messages.ts'

export type HolderInput =
  | { readonly kind: 'acquire'; readonly key: string; readonly generation: number }
  | { readonly kind: 'release'; readonly key: string }
  | { readonly kind: 'granted'; readonly from: PeerId; readonly message: Extract<LeaseMessage, { kind: 'granted' }> }
  /** The answer to `verify` about generation `of`; `now` is undefined where the register could not be read. */
  | { readonly kind: 'register'; readonly key: string; readonly of: number; readonly now: number | undefined }
  /** A set that was chosen. Older ones than the present are ignored. */
  | { readonly kind: 'voters'; readonly set: VoterSet }
  /** Due at `wakeAtMs()`. */
  | { readonly kind: 'tick' }

export type HolderEffect =
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: LeaseMessage }
  /** The first majority. */
  | { readonly kind: 'acquired'; readonly key: string; readonly generation: number }
  /** A majority granted it again in time, with `leftMs` left. Only where `renewals` asks for it. */
  | { readonly kind: 'renewed'; readonly key: string; readonly generation: number; readonly leftMs: number }
  /** Ends in `marginMs` or has ended: stop now. */
  | { readonly kind: 'lapsing'; readonly key: string; readonly generation: number }
  /** A majority again, after `lapsing`. The answer to an `acquire` made since then, too. */
  | { readonly kind: 'regained'; readonly key: string; readonly generation: number }
  /** The register is of generation `newer`, or deleted (then it may be lower): over for good. `acted`: it was acquired. */
  | {
      readonly kind: 'lost'
      readonly key: string
      readonly generation: number
      readonly newer: number
      readonly acted: boolean
    }
  /** Read the generation of register `key`, and answer with `register`. */
  | { readonly kind: 'verify'; readonly key: string; readonly generation: number }

interface Held {
  readonly generation: number
  /** Answers to earlier rounds are about another claim. */
  readonly sinceRound: number
  /** Voter of the present set → when the claim that it granted last was sent. */
  readonly grants: Map<PeerId, number>
  /** The end of what a majority of an earlier set granted. */
  earlierEndMs: number
  /** When fewer than a majority of grants will be running. Kept, because it is asked for with each frame. */
  endMs: number
  state: 'claiming' | 'held' | 'lapsed'
  /** Claimed until then without a majority. */
  claimUntilMs: number
  verifying: boolean
  verifyAtMs: number
}

interface Round {
  readonly sentAtMs: number
  readonly claims: readonly Claim[]
}

/**
 * How long before its end a lease counts as over, because pausing VMs takes time. A tenth: 100 ms by default, five times
 * a slow `stop` as measured (20 ms); a guess.
 */
export const leaseMarginMs = ({ durationMs }: LeaseSettings): number => durationMs / 10

export class LeaseHolder implements Core<HolderInput, HolderEffect> {
  #voters: VoterSet
  readonly #settings: LeaseSettings
  readonly #marginMs: number
  readonly #session: number
  readonly #renewals: boolean
  readonly #held = new Map<string, Held>()
  readonly #rounds = new Map<number, Round>()
  #round = 0
  #renewAtMs = Number.POSITIVE_INFINITY

  /** `session`: a random integer, so that an answer to an earlier life of this peer is not taken for one to this. */
  constructor(options: { voters: VoterSet; settings: LeaseSettings; session: number; renewals?: boolean }) {
    this.#renewals = options.renewals === true
    this.#voters = options.voters
    this.#settings = options.settings
    this.#session = options.session
    this.#marginMs = leaseMarginMs(options.settings)
  }

  /** Of the voter set that grants are counted in. */
  get version(): number {
    return this.#voters.version
  }

  /** The voters whose grants of (key, generation) have not run out. */
  grantedBy(key: string, generation: number, nowMs: number): PeerId[] {
    const held = this.#held.get(key)
    if (held?.generation !== generation) return []
    return [...held.grants].flatMap(([voter, sentAtMs]) =>
      sentAtMs + this.#settings.durationMs > nowMs ? [voter] : []
    )
  }

  /** For how long this peer may act under (key, generation). */
  remainingMs(key: string, generation: number, nowMs: number): number {
    const held = this.#held.get(key)
    return held?.generation === generation ? Math.max(0, held.endMs - nowMs) : 0
  }

  wakeAtMs(): number {
    let at = this.#renewAtMs
    for (const held of this.#held.values()) if (held.state === 'held') at = Math.min(at, held.endMs - this.#marginMs)
    return at
  }

  step(input: HolderInput, nowMs: number): HolderEffect[] {
    // Before anything else: after a stop of the process any input may be the first.
    const effects = this.#lapse(nowMs)
    switch (input.kind) {
      case 'acquire':
        effects.push(...this.#acquire(input.key, input.generation, nowMs))
        break
      case 'release':
        effects.push(...this.#release(input.key))
        break
      case 'granted':
        effects.push(...this.#granted(input.from, input.message, nowMs))
        break
      case 'register':
        effects.push(...this.#verified(input.key, input.of, input.now, nowMs))
        break
      case 'voters':
        effects.push(...this.#adopt(input.set, nowMs))
        break
      case 'tick':
        if (nowMs >= this.#renewAtMs) effects.push(...this.#renew(nowMs))
    }
    return effects
  }

  #lapse(nowMs: number): HolderEffect[] {
    const effects: HolderEffect[] = []
    for (const [key, held] of this.#held) {
      if (held.state !== 'held' || nowMs < held.endMs - this.#marginMs) continue
      held.state = 'lapsed'
      effects.push({ kind: 'lapsing', key, generation: held.generation })
      if (!this.#mayClaim(held, nowMs)) effects.push(...this.#verify(key, held))
    }
    return effects
  }

  #acquire(key: string, generation: number, nowMs: number): HolderEffect[] {
    const held = this.#held.get(key)
    if (held !== undefined && held.generation >= generation) {
      if (held.generation > generation) {
        return [{ kind: 'lost', key, generation, newer: held.generation, acted: false }]
      }
      if (held.state === 'held') return [{ kind: 'acquired', key, generation }]
      return this.#mayClaim(held, nowMs) ? this.#claim([{ key, generation }], nowMs) : this.#verify(key, held)
    }
    this.#held.set(key, {
      generation,
      sinceRound: this.#round + 1,
      grants: new Map(),
      earlierEndMs: Number.NEGATIVE_INFINITY,
      endMs: Number.NEGATIVE_INFINITY,
      state: 'claiming',
      claimUntilMs: nowMs + this.#settings.durationMs,
      verifying: false,
      verifyAtMs: 0
    })
    if (this.#renewAtMs === Number.POSITIVE_INFINITY) this.#renewAtMs = nowMs + this.#settings.renewEveryMs
    return this.#claim([{ key, generation }], nowMs)
  }

  #release(key: string): HolderEffect[] {
    if (!this.#held.delete(key)) return []
    if (this.#held.size === 0) this.#renewAtMs = Number.POSITIVE_INFINITY
    const message: LeaseMessage = { kind: 'release', session: this.#session, round: this.#round, key }
    return this.#voters.ids.map(to => ({ kind: 'send', to, message }))
  }

  #adopt(set: VoterSet, nowMs: number): HolderEffect[] {
    if (set.version <= this.#voters.version) return []
    for (const held of this.#held.values()) {
      held.earlierEndMs = held.endMs
      held.grants.clear()
    }
    this.#voters = set
    // Answers to what was claimed under the old set say nothing about the new one.
    this.#rounds.clear()
    return this.#held.size === 0 ? [] : this.#renew(nowMs)
  }

  #renew(nowMs: number): HolderEffect[] {
    this.#renewAtMs = nowMs + this.#settings.renewEveryMs
    for (const [round, { sentAtMs }] of this.#rounds) {
      if (sentAtMs + this.#settings.durationMs <= nowMs) this.#rounds.delete(round)
    }
    const effects: HolderEffect[] = []
    const claims: Claim[] = []
    for (const [key, held] of this.#held) {
      if (this.#mayClaim(held, nowMs)) claims.push({ key, generation: held.generation })
      else effects.push(...this.#verify(key, held))
    }
    for (let i = 0; i < claims.length; i += MAX_CLAIMS)
      effects.push(...this.#claim(claims.slice(i, i + MAX_CLAIMS), nowMs))
    return effects
  }

  #claim(claims: readonly Claim[], nowMs: number): HolderEffect[] {
    this.#round += 1
    this.#rounds.set(this.#round, { sentAtMs: nowMs, claims })
    const { version, ids } = this.#voters
    const { durationMs } = this.#settings
    const session = this.#session
    const message: LeaseMessage = { kind: 'claim', version, session, round: this.#round, durationMs, claims }
    return ids.map(to => ({ kind: 'send', to, message }))
  }

  #granted(from: PeerId, message: Extract<LeaseMessage, { kind: 'granted' }>, nowMs: number): HolderEffect[] {
    const round = this.#rounds.get(message.round)
    if (round === undefined || message.session !== this.#session) return []
    if (!this.#voters.ids.includes(from)) return []
    const effects: HolderEffect[] = []
    for (const { key, generation } of round.claims) {
      const held = this.#held.get(key)
      if (held === undefined || held.generation !== generation || message.round < held.sinceRound) continue
      const refusal = message.refused.find(refused => refused.key === key)
      if (refusal !== undefined) {
        effects.push(...this.#refused(key, held, refusal.newer > generation, nowMs))
        continue
      }
      const untilMs = held.state === 'held' && this.#renewals ? held.endMs : Number.POSITIVE_INFINITY
      held.grants.set(from, Math.max(round.sentAtMs, held.grants.get(from) ?? Number.NEGATIVE_INFINITY))
      held.endMs = this.#endOf(held)
      if (held.endMs > untilMs) effects.push({ kind: 'renewed', key, generation, leftMs: untilMs - nowMs })
      if (held.state === 'held' || held.endMs - this.#marginMs <= nowMs) continue
      effects.push({ kind: held.state === 'claiming' ? 'acquired' : 'regained', key, generation })
      held.state = 'held'
    }
    return effects
  }

  #mayClaim(held: Held, nowMs: number): boolean {
    return nowMs < Math.max(held.endMs, held.claimUntilMs)
  }

  #refused(key: string, held: Held, byNewer: boolean, nowMs: number): HolderEffect[] {
    if (nowMs < held.verifyAtMs) return []
    const { renewEveryMs, durationMs } = this.#settings
    held.verifyAtMs = nowMs + (byNewer || held.state !== 'held' ? renewEveryMs : durationMs)
    return this.#verify(key, held)
  }

  #verify(key: string, held: Held): HolderEffect[] {
    if (held.verifying) return []
    held.verifying = true
    return [{ kind: 'verify', key, generation: held.generation }]
  }

  #verified(key: string, of: number, now: number | undefined, nowMs: number): HolderEffect[] {
    const held = this.#held.get(key)
    // A read that began before a newer generation was claimed says nothing about that one.
    if (held === undefined || held.generation !== of) return []
    held.verifying = false
    if (now === undefined) return []
    if (now === of) {
      if (this.#mayClaim(held, nowMs)) return []
      held.claimUntilMs = nowMs + this.#settings.durationMs
      return this.#claim([{ key, generation: of }], nowMs)
    }
    const acted = held.state !== 'claiming'
    return [{ kind: 'lost', key, generation: of, newer: now, acted }, ...this.#release(key)]
  }

  #endOf(held: Held): number {
    const majority = majorityOf(this.#voters.ids.length)
    if (held.grants.size < majority) return held.earlierEndMs
    const sent = [...held.grants.values()].sort((a, b) => b - a)
    const endMs = (sent[majority - 1] ?? Number.NEGATIVE_INFINITY) + this.#settings.durationMs
    return Math.max(endMs, held.earlierEndMs)
  }
}
