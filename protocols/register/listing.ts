/**
 * Asks the voters of one set for their keys until a majority has listed all of them: the union names every register with
 * a value that was chosen before the question was first sent, since every majority that accepted it meets this one, and
 * some that were only promised. (Where an earlier listing of this peer is still under way, an answer to that one is taken
 * too, and then the time of its question counts.) A pure core: it sends questions and takes answers.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { Core, PeerId } from '../core.ts'
import type { AcceptorMessage, ProposerMessage } from './messages.ts'
import { majorityOf, type VoterSet } from './voters.ts'

export type ListingInput =
  | { readonly kind: 'keys'; readonly from: PeerId; readonly message: Extract<AcceptorMessage, { kind: 'keys' }> }
  /** Due at once, and at `wakeAtMs()`. */
  | { readonly kind: 'tick' }

export type ListingEffect =
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: ProposerMessage }
  /** Sorted. The last effect. */
  | { readonly kind: 'listed'; readonly keys: readonly string[] }
  /** REGISTER_UNAVAILABLE. The last effect. */
  | { readonly kind: 'failed'; readonly error: DiapauseError }

export class Listing implements Core<ListingInput, ListingEffect> {
  readonly #set: VoterSet
  readonly #retryMs: number
  readonly #giveUpMs: number
  readonly #deadlineMs: number
  /** Voter → the last key that it has listed; null: it has listed all. */
  readonly #cursors: Map<PeerId, string | null>
  readonly #keys = new Set<string>()
  #askAtMs: number
  #over = false

  /** `retryMs`: after which a voter that does not answer is asked again. */
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
    return this.#over ? Number.POSITIVE_INFINITY : Math.min(this.#askAtMs, this.#deadlineMs)
  }

  step(input: ListingInput, nowMs: number): ListingEffect[] {
    if (this.#over) return []
    if (input.kind === 'keys') return this.#listed(input.from, input.message)
    if (nowMs >= this.#deadlineMs) {
      this.#over = true
      return [{ kind: 'failed', error: this.#unavailable() }]
    }
    if (nowMs < this.#askAtMs) return []
    this.#askAtMs = nowMs + this.#retryMs
    return [...this.#cursors].flatMap(([to, after]) => (after === null ? [] : [this.#ask(to, after)]))
  }

  #listed(from: PeerId, message: Extract<AcceptorMessage, { kind: 'keys' }>): ListingEffect[] {
    // Also one to an earlier question for this page, of whatever life of ours, will do.
    if (message.version !== this.#set.version || message.after !== this.#cursors.get(from)) return []
    for (const key of message.keys) this.#keys.add(key)
    if (message.more) {
      const last = message.keys.at(-1) ?? ''
      this.#cursors.set(from, last)
      return [this.#ask(from, last)]
    }
    this.#cursors.set(from, null)
    const complete = [...this.#cursors.values()].filter(after => after === null)
    if (complete.length < majorityOf(this.#set.ids.length)) return []
    this.#over = true
    return [{ kind: 'listed', keys: [...this.#keys].sort() }]
  }

  #ask(to: PeerId, after: string): ListingEffect {
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
