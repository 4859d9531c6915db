/**
 * Settles a voter set (voters.ts says what for): asks its voters for their keys until a majority has listed all
 * (listing.ts), then has every register rewritten, a few at once. A pure core: it says which register is next.
 *
 * A voter that lists anything is of this version, on disk, so the majority that has answered is also the one that
 * refuses the version before. Keys that come up while pages are read were written under this version already. Any peer
 * may settle a set, several at once, any number of times; one that fails is begun again from the start.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { Core, PeerId } from '../core.ts'
import { Listing, type ListingInput } from './listing.ts'
import type { ProposerMessage } from './messages.ts'
import type { VoterSet } from './voters.ts'

export interface Settled {
  /** The voter set that was settled. */
  readonly version: number
  readonly keys: number
  /** When a majority was known to refuse the version before, on this peer's clock: leases of it run on from here. */
  readonly refusedSinceMs: number
}

export type SettlingInput = ListingInput | { readonly kind: 'rewritten'; readonly key: string }

export type SettlingEffect =
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: ProposerMessage }
  /** Answer with `rewritten`. */
  | { readonly kind: 'rewrite'; readonly key: string }
  | { readonly kind: 'progress'; readonly done: number; readonly total: number }
  | { readonly kind: 'settled'; readonly settled: Settled }
  | { readonly kind: 'failed'; readonly error: DiapauseError }

/** Registers rewritten at the same time: enough that they share fsyncs, few enough to leave room for others. A guess. */
const AT_ONCE = 16

export class Settling implements Core<SettlingInput, SettlingEffect> {
  readonly #listing: Listing
  /** Those to be rewritten; null while they are being listed. */
  #waiting: string[] | null = null
  #total = 0
  #refusedSinceMs = 0
  #done = 0

  /** `retryMs`: after which a voter that does not answer is asked again. `giveUpMs`: for the listing. */
  constructor(set: VoterSet, settings: { retryMs: number; giveUpMs: number }, nowMs: number) {
    this.#listing = new Listing(set, settings, nowMs)
  }

  get version(): number {
    return this.#listing.version
  }

  wakeAtMs(): number {
    return this.#listing.wakeAtMs()
  }

  step(input: SettlingInput, nowMs: number): SettlingEffect[] {
    if (input.kind === 'rewritten') {
      this.#done += 1
      return [{ kind: 'progress', done: this.#done, total: this.#total }, ...this.#next(1)]
    }
    return this.#listing
      .step(input, nowMs)
      .flatMap(effect => (effect.kind === 'listed' ? this.#listed(effect.keys, nowMs) : [effect]))
  }

  #listed(keys: readonly string[], nowMs: number): SettlingEffect[] {
    this.#refusedSinceMs = nowMs
    this.#waiting = [...keys]
    this.#total = keys.length
    return this.#next(AT_ONCE)
  }

  #next(count: number): SettlingEffect[] {
    if (this.#waiting !== null && this.#done === this.#total) {
      const settled = { version: this.version, keys: this.#total, refusedSinceMs: this.#refusedSinceMs }
      return [{ kind: 'settled', settled }]
    }
    return (this.#waiting ?? []).splice(0, count).map(key => ({ kind: 'rewrite', key }))
  }
}

/** REGISTER_VOTERS_CHANGED: voters have changed meanwhile, so somebody has settled the set. */
export function overtaken(version: number, newer: number): DiapauseError {
  const message = `voter set ${version} is over: set ${newer} is in use`
  return new DiapauseError('REGISTER_VOTERS_CHANGED', message, { details: { version, newer } })
}
