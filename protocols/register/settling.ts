/**
 * Settles a voter set (voters.ts says what for): asks its voters for their keys until a majority has listed all, then
 * has every register rewritten, a few at once. A pure core: it sends questions and says which register is next.
 *
 * A voter that lists anything is of this version, on disk, so the majority that has answered is also the one that
 * refuses the version before. Keys that come up while pages are read were written under this version already. Any peer
 * may settle a set, several at once, any number of times; one that fails is begun again from the start.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { Core, PeerId } from '../core.ts'
import type { AcceptorMessage, ProposerMessage } from './messages.ts'
import { majorityOf, type VoterSet } from './voters.ts'

export interface Settled {
  /** The voter set that was settled. */
  readonly version: number
  readonly keys: number
  /** When a majority was known to refuse the version before, on this peer's clock: leases of it run on from here. */
  readonly refusedSinceMs: number
}

export type SettlingInput =
  | { readonly kind: 'keys'; readonly from: PeerId; readonly message: Extract<AcceptorMessage, { kind: 'keys' }> }
  | { readonly kind: 'rewritten'; readonly key: string }
  /** Due at once, and at `wakeAtMs()`. */
  | { readonly kind: 'tick' }

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
  readonly #set: VoterSet
  readonly #retryMs: number
  readonly #giveUpMs: number
  readonly #deadlineMs: number
  /** Voter → the last key that it has listed; null: it has listed all. */
  readonly #cursors: Map<PeerId, string | null>
  readonly #keys = new Set<string>()
  /** Those to be rewritten; null while they are being listed. */
  #waiting: string[] | null = null
  #askAtMs: number
  #refusedSinceMs = 0
  #done = 0

  /** `retryMs`: after which a voter that does not answer is asked again. `giveUpMs`: for the listing. */
  constructor(set: VoterSet, settings: { retryMs: number; giveUpMs: number }, nowMs: number) {
    this.#set = set
    this.#retryMs = settings.retryMs
    this.#giveUpMs = settings.giveUpMs
    this.#deadlineMs = nowMs + settings.giveUpMs
    this.#askAtMs = nowMs
    this.#cursors = new Map(set.ids.map(id => [id, '']))
  }

  get version(): number {
    return this.#set.version
  }

  wakeAtMs(): number {
    return this.#waiting === null ? Math.min(this.#askAtMs, this.#deadlineMs) : Number.POSITIVE_INFINITY
  }

  step(input: SettlingInput, nowMs: number): SettlingEffect[] {
    switch (input.kind) {
      case 'keys':
        return this.#listed(input.from, input.message, nowMs)
      case 'rewritten': {
        this.#done += 1
        const progress: SettlingEffect = { kind: 'progress', done: this.#done, total: this.#keys.size }
        return [progress, ...this.#next(1)]
      }
      case 'tick':
        if (this.#waiting !== null) return []
        if (nowMs >= this.#deadlineMs) return [{ kind: 'failed', error: this.#unavailable() }]
        if (nowMs < this.#askAtMs) return []
        this.#askAtMs = nowMs + this.#retryMs
        return [...this.#cursors].flatMap(([to, after]) => (after === null ? [] : [this.#ask(to, after)]))
    }
  }

  #listed(from: PeerId, message: Extract<AcceptorMessage, { kind: 'keys' }>, nowMs: number): SettlingEffect[] {
    // Also one to an earlier question for this page, of whatever life of ours, tells what is to be known.
    const fits = message.version === this.#set.version && message.after === this.#cursors.get(from)
    if (this.#waiting !== null || !fits) return []
    for (const key of message.keys) this.#keys.add(key)
    if (message.more) {
      const last = message.keys.at(-1) ?? ''
      this.#cursors.set(from, last)
      return [this.#ask(from, last)]
    }
    this.#cursors.set(from, null)
    const complete = [...this.#cursors.values()].filter(after => after === null)
    if (complete.length < majorityOf(this.#set.ids.length)) return []
    this.#refusedSinceMs = nowMs
    this.#waiting = [...this.#keys].sort()
    return this.#next(AT_ONCE)
  }

  #next(count: number): SettlingEffect[] {
    if (this.#done === this.#keys.size) {
      const { version } = this.#set
      const settled = { version, keys: this.#keys.size, refusedSinceMs: this.#refusedSinceMs }
      return [{ kind: 'settled', settled }]
    }
    return (this.#waiting ?? []).splice(0, count).map(key => ({ kind: 'rewrite', key }))
  }

  #ask(to: PeerId, after: string): SettlingEffect {
    return { kind: 'send', to, message: { kind: 'list', version: this.#set.version, after } }
  }

  #unavailable(): DiapauseError {
    const { version, ids } = this.#set
    return new DiapauseError(
      'REGISTER_UNAVAILABLE',
      `no majority of the ${ids.length} voters of set ${version} listed its registers within ${this.#giveUpMs} ms: are enough of them running and connected?`,
      { details: { version, voters: ids.length } }
    )
  }
}

/** REGISTER_VOTERS_CHANGED: voters have changed meanwhile, so somebody has settled the set. */
export function overtaken(version: number, newer: number): DiapauseError {
  const message = `voter set ${version} need not be settled any more: set ${newer} is in use`
  return new DiapauseError('REGISTER_VOTERS_CHANGED', message, { details: { version, newer } })
}
