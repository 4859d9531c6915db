/**
 * Events of all peers as they happen. Whoever wants them says so to each peer again and again (`follow`), and is sent those that the
 * peer still keeps and those that come; a message that is lost is made good by the next `follow`, which says what is there already.
 * Whoever falls too far behind misses some.
 */
import type { Clock } from '../../node/ports.ts'
import type { PeerId } from '../core.ts'
import { clockAheadMs } from '../decisions/merge.ts'
import { MAX_EVENT_BYTES, MAX_EVENTS, MAX_EVENTS_BYTES, type MessageOf, type OverviewMessage } from './messages.ts'

/** What a late follower still gets. As the feed of one peer keeps. */
export const KEPT_EVENTS = 1_000
/** Events that come together go together. A guess: nobody sees the difference. */
const FLUSH_MS = 20
/** Followers say so again after this, and are sent events for three times as long: two of these messages may be lost. A guess. */
const FOLLOW_EVERY_MS = 5_000
const FOLLOW_MS = 3 * FOLLOW_EVERY_MS
/** Peers are followed for so long after the last one who wanted it. A guess: a page that is loaded again finds all there. */
const LINGER_MS = 60_000

/** What happened, with a time of the teller's wall clock and a kind; other fields depend on that. */
export interface ToldEvent {
  readonly atMs: number
  readonly kind: string
  readonly [field: string]: unknown
}

export interface SharedEvent {
  /** `BY/RUN/SEQ`: of this event alone. */
  readonly id: string
  readonly by: PeerId
  /** By our wall clock, as well as can be told. */
  readonly atMs: number
  readonly event: ToldEvent
}

export interface SharedEventsOptions {
  readonly self: PeerId
  /** A word for this life of the process. */
  readonly run: string
  readonly clock: Clock
  wallMs(): number
  /** All members but this peer. */
  others(): readonly PeerId[]
  send(to: PeerId, message: OverviewMessage): boolean
}

interface Follower {
  untilMs: number
  /** The last that was sent. */
  seq: number
}

interface Followed {
  run: string
  seq: number
  aheadMs: number
  /** When it was last asked, by our wall clock; undefined: it has answered since. */
  askedMs: number | undefined
}

export class SharedEvents {
  readonly #options: SharedEventsOptions
  readonly #own: { readonly seq: number; readonly json: string }[] = []
  readonly #followers = new Map<PeerId, Follower>()
  readonly #followed = new Map<PeerId, Followed>()
  readonly #listeners = new Set<(event: SharedEvent) => void>()
  /** Of all peers, in the order in which they came. */
  #kept: SharedEvent[] = []
  #seq = 0
  #cancelFlush: (() => void) | undefined
  #cancelFollow: (() => void) | undefined
  #lastWantedMs = 0

  constructor(options: SharedEventsOptions) {
    this.#options = options
  }

  /** It happened here. */
  tell(event: ToldEvent): void {
    const { self, run } = this.#options
    const seq = ++this.#seq
    const json = JSON.stringify(event)
    if (Buffer.byteLength(json) <= MAX_EVENT_BYTES) this.#own.push({ seq, json })
    if (this.#own.length > KEPT_EVENTS) this.#own.shift()
    this.#take({ id: `${self}/${run}/${seq}`, by: self, atMs: event.atMs, event })
    if (this.#followers.size > 0) this.#flushSoon()
  }

  /** What is kept of all peers; begins to follow them where nobody did before. By time. */
  recent(): SharedEvent[] {
    this.#follow()
    return this.#kept.toSorted((a, b) => a.atMs - b.atMs)
  }

  /** Peers that are followed and have not answered yet. */
  get unheard(): number {
    return this.#options.others().filter(peer => (this.#followed.get(peer)?.run ?? '') === '').length
  }

  /** Every event from now on, each once; the result ends it. */
  subscribe(listener: (event: SharedEvent) => void): () => void {
    this.#listeners.add(listener)
    this.#follow()
    return () => {
      this.#listeners.delete(listener)
      this.#lastWantedMs = this.#options.clock.now()
    }
  }

  /** A peer is within reach again, or for the first time. */
  connected(peer: PeerId): void {
    if (this.#cancelFollow !== undefined) this.#ask(peer)
  }

  onFollow(from: PeerId, { forMs, have }: MessageOf<'follow'>): void {
    const { clock, run, others } = this.#options
    if (!others().includes(from)) return
    const seq = have?.run === run ? have.seq : 0
    this.#followers.set(from, { untilMs: clock.now() + forMs, seq })
    this.#sendTo(from)
  }

  onEvents(from: PeerId, { run, nowMs, events }: MessageOf<'events'>): void {
    const known = this.#followed.get(from)
    if (known === undefined) return
    if (known.run !== run) Object.assign(known, { run, seq: 0 })
    if (known.askedMs !== undefined) known.aheadMs = clockAheadMs(known.askedMs, nowMs, this.#options.wallMs())
    known.askedMs = undefined
    for (const { seq, json } of events) {
      const event = seq > known.seq ? parseEvent(json) : undefined
      known.seq = Math.max(known.seq, seq)
      if (event === undefined) continue
      this.#take({ id: `${from}/${run}/${seq}`, by: from, atMs: event.atMs - known.aheadMs, event })
    }
  }

  stop(): void {
    this.#cancelFlush?.()
    this.#cancelFollow?.()
    this.#followers.clear()
    this.#listeners.clear()
  }

  #take(event: SharedEvent): void {
    this.#kept.push(event)
    if (this.#kept.length >= 2 * KEPT_EVENTS) this.#kept = this.#kept.slice(-KEPT_EVENTS)
    for (const listener of this.#listeners) listener(event)
  }

  // -------------------------------------------------------------------------------------------- to followers

  #flushSoon(): void {
    this.#cancelFlush ??= this.#options.clock.after(FLUSH_MS, () => {
      this.#cancelFlush = undefined
      for (const peer of this.#followers.keys()) this.#sendTo(peer)
    })
  }

  /** One message of what it does not have, which may be empty; the rest a little later, so that nothing waits behind it. */
  #sendTo(peer: PeerId): void {
    const { clock, run, wallMs, send } = this.#options
    const follower = this.#followers.get(peer)
    if (follower === undefined) return
    const events: { seq: number; json: string }[] = []
    let bytes = 0
    for (const each of this.#own) {
      if (each.seq <= follower.seq) continue
      bytes += Buffer.byteLength(each.json)
      if (events.length === MAX_EVENTS || (events.length > 0 && bytes > MAX_EVENTS_BYTES)) break
      events.push(each)
    }
    const isOver = clock.now() > follower.untilMs
    if (isOver || !send(peer, { kind: 'events', run, nowMs: wallMs(), events })) {
      this.#followers.delete(peer)
      return
    }
    follower.seq = events.at(-1)?.seq ?? follower.seq
    if (follower.seq < (this.#own.at(-1)?.seq ?? 0)) this.#flushSoon()
  }

  // -------------------------------------------------------------------------------------------- of others

  #follow(): void {
    const { clock, others } = this.#options
    this.#lastWantedMs = clock.now()
    if (this.#cancelFollow !== undefined) return
    const again = (): void => {
      if (this.#listeners.size > 0) this.#lastWantedMs = clock.now()
      if (clock.now() - this.#lastWantedMs > LINGER_MS) return this.#forget()
      const peers = others()
      for (const peer of this.#followed.keys()) if (!peers.includes(peer)) this.#followed.delete(peer)
      for (const peer of peers) this.#ask(peer)
      this.#cancelFollow = clock.after(FOLLOW_EVERY_MS, again)
    }
    again()
  }

  #ask(peer: PeerId): void {
    const { send, wallMs } = this.#options
    const known = this.#followed.get(peer)
    const { run, seq } = known ?? { run: '', seq: 0 }
    const askedMs = wallMs()
    if (!send(peer, { kind: 'follow', forMs: FOLLOW_MS, ...(run !== '' && { have: { run, seq } }) })) return
    if (known === undefined) this.#followed.set(peer, { run, seq, aheadMs: 0, askedMs })
    else known.askedMs = askedMs
  }

  /** Nobody looks any more. Ours alone are kept. */
  #forget(): void {
    this.#cancelFollow = undefined
    this.#followed.clear()
    this.#kept = this.#kept.filter(({ by }) => by === this.#options.self)
  }
}

function parseEvent(json: string): ToldEvent | undefined {
  try {
    const value: unknown = JSON.parse(json)
    if (typeof value !== 'object' || value === null || !('atMs' in value) || !('kind' in value)) return undefined
    const { atMs, kind, ...fields } = value
    if (typeof atMs !== 'number' || !Number.isFinite(atMs) || typeof kind !== 'string') return undefined
    return { ...fields, atMs, kind }
  } catch {
    return undefined
  }
}
