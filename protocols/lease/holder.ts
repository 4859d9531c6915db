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
 * which this read itself brings about (register/proposer.ts, 3).
 */
import type { LeaseSettings } from '../../config/schema.ts'
import type { Core, PeerId } from '../core.ts'
import { type Claim, type LeaseMessage, MAX_CLAIMS } from './messages.ts'

export type HolderInput =
  | { readonly kind: 'acquire'; readonly key: string; readonly generation: number }
  | { readonly kind: 'release'; readonly key: string }
  | { readonly kind: 'granted'; readonly from: PeerId; readonly message: Extract<LeaseMessage, { kind: 'granted' }> }
  /** The answer to `verify`; undefined where the register could not be read. */
  | { readonly kind: 'register'; readonly key: string; readonly generation: number | undefined }
  /** Due at `wakeAtMs()`. */
  | { readonly kind: 'tick' }

export type HolderEffect =
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: LeaseMessage }
  /** The first majority. */
  | { readonly kind: 'acquired'; readonly key: string; readonly generation: number }
  /** Ends in `marginMs` or has ended: stop now. */
  | { readonly kind: 'lapsing'; readonly key: string; readonly generation: number }
  | { readonly kind: 'regained'; readonly key: string; readonly generation: number }
  /** The register is of generation `newer`: over for good. */
  | { readonly kind: 'lost'; readonly key: string; readonly generation: number; readonly newer: number }
  /** Read the generation of register `key`, and answer with `register`. */
  | { readonly kind: 'verify'; readonly key: string }

interface Held {
  readonly generation: number
  /** Answers to earlier rounds are about another claim. */
  readonly sinceRound: number
  /** Voter → when the claim that it granted last was sent. */
  readonly grants: Map<PeerId, number>
  state: 'claiming' | 'held' | 'lapsed'
  verifying: boolean
  verifyAtMs: number
}

interface Round {
  readonly sentAtMs: number
  readonly claims: readonly Claim[]
}

export class LeaseHolder implements Core<HolderInput, HolderEffect> {
  readonly #voters: readonly PeerId[]
  readonly #majority: number
  readonly #settings: LeaseSettings
  readonly #marginMs: number
  readonly #session: number
  readonly #held = new Map<string, Held>()
  readonly #rounds = new Map<number, Round>()
  #round = 0
  #renewAtMs = Number.POSITIVE_INFINITY

  /** `session`: a random integer, so that an answer to an earlier life of this peer is not taken for one to this. */
  constructor(options: { voters: readonly PeerId[]; settings: LeaseSettings; session: number }) {
    this.#voters = options.voters
    this.#majority = Math.floor(options.voters.length / 2) + 1
    this.#settings = options.settings
    this.#session = options.session
    // A tenth: 100 ms by default, five times a slow `stop` as measured (20 ms); a guess.
    this.#marginMs = options.settings.durationMs / 10
  }

  /** For how long this peer may act under (key, generation). */
  remainingMs(key: string, generation: number, nowMs: number): number {
    const held = this.#held.get(key)
    return held?.generation === generation ? Math.max(0, this.#endMs(held) - nowMs) : 0
  }

  wakeAtMs(): number {
    let at = this.#renewAtMs
    for (const held of this.#held.values())
      if (held.state === 'held') at = Math.min(at, this.#endMs(held) - this.#marginMs)
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
        effects.push(...this.#verified(input.key, input.generation))
        break
      case 'tick':
        if (nowMs >= this.#renewAtMs) effects.push(...this.#renew(nowMs))
    }
    return effects
  }

  #lapse(nowMs: number): HolderEffect[] {
    const effects: HolderEffect[] = []
    for (const [key, held] of this.#held) {
      if (held.state !== 'held' || nowMs < this.#endMs(held) - this.#marginMs) continue
      held.state = 'lapsed'
      effects.push({ kind: 'lapsing', key, generation: held.generation })
    }
    return effects
  }

  #acquire(key: string, generation: number, nowMs: number): HolderEffect[] {
    const held = this.#held.get(key)
    if (held !== undefined && held.generation >= generation) {
      if (held.generation > generation) return [{ kind: 'lost', key, generation, newer: held.generation }]
      return held.state === 'held' ? [{ kind: 'acquired', key, generation }] : []
    }
    this.#held.set(key, {
      generation,
      sinceRound: this.#round + 1,
      grants: new Map(),
      state: 'claiming',
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
    return this.#voters.map(to => ({ kind: 'send', to, message }))
  }

  #renew(nowMs: number): HolderEffect[] {
    this.#renewAtMs = nowMs + this.#settings.renewEveryMs
    for (const [round, { sentAtMs }] of this.#rounds) {
      if (sentAtMs + this.#settings.durationMs <= nowMs) this.#rounds.delete(round)
    }
    const claims = [...this.#held].map(([key, { generation }]) => ({ key, generation }))
    const effects: HolderEffect[] = []
    for (let i = 0; i < claims.length; i += MAX_CLAIMS)
      effects.push(...this.#claim(claims.slice(i, i + MAX_CLAIMS), nowMs))
    return effects
  }

  #claim(claims: readonly Claim[], nowMs: number): HolderEffect[] {
    this.#round += 1
    this.#rounds.set(this.#round, { sentAtMs: nowMs, claims })
    const { durationMs } = this.#settings
    const message: LeaseMessage = { kind: 'claim', session: this.#session, round: this.#round, durationMs, claims }
    return this.#voters.map(to => ({ kind: 'send', to, message }))
  }

  #granted(from: PeerId, message: Extract<LeaseMessage, { kind: 'granted' }>, nowMs: number): HolderEffect[] {
    const round = this.#rounds.get(message.round)
    if (round === undefined || message.session !== this.#session || !this.#voters.includes(from)) return []
    const effects: HolderEffect[] = []
    for (const { key, generation } of round.claims) {
      const held = this.#held.get(key)
      if (held === undefined || held.generation !== generation || message.round < held.sinceRound) continue
      if (message.refused.some(refusal => refusal.key === key && refusal.newer > generation)) {
        effects.push(...this.#refused(key, held, nowMs))
        continue
      }
      held.grants.set(from, Math.max(round.sentAtMs, held.grants.get(from) ?? Number.NEGATIVE_INFINITY))
      if (held.state === 'held' || this.#endMs(held) - this.#marginMs <= nowMs) continue
      effects.push({ kind: held.state === 'claiming' ? 'acquired' : 'regained', key, generation })
      held.state = 'held'
    }
    return effects
  }

  #refused(key: string, held: Held, nowMs: number): HolderEffect[] {
    if (held.verifying || nowMs < held.verifyAtMs) return []
    held.verifying = true
    held.verifyAtMs = nowMs + this.#settings.renewEveryMs
    return [{ kind: 'verify', key }]
  }

  #verified(key: string, newer: number | undefined): HolderEffect[] {
    const held = this.#held.get(key)
    if (held === undefined) return []
    held.verifying = false
    if (newer === undefined || newer <= held.generation) return []
    return [{ kind: 'lost', key, generation: held.generation, newer }, ...this.#release(key)]
  }

  /** When fewer than a majority of grants will be running. */
  #endMs(held: Held): number {
    if (held.grants.size < this.#majority) return Number.NEGATIVE_INFINITY
    const sent = [...held.grants.values()].sort((a, b) => b - a)
    return (sent[this.#majority - 1] ?? Number.NEGATIVE_INFINITY) + this.#settings.durationMs
  }
}
