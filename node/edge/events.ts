/** What happened at this peer: the last events are kept for whoever asks later, and sent on to whoever listens. */

/** `atMs`: wall clock in milliseconds since 1970, with a fraction. Other fields depend on `kind`. */
export interface PeerEvent {
  readonly atMs: number
  readonly kind: string
  readonly [field: string]: unknown
}

/** What a late listener can still see. 1,000 events: a guess; a failover makes about thirty. */
export const KEPT_EVENTS = 1_000

export class EventFeed {
  readonly #wallMs: () => number
  readonly #kept: number
  readonly #ring: PeerEvent[] = []
  #oldest = 0
  readonly #listeners = new Set<(event: PeerEvent) => void>()

  /** `wallMs`: the wall clock, `wallMs` of `host/clock.ts` in a peer. */
  constructor(wallMs: () => number, kept = KEPT_EVENTS) {
    this.#wallMs = wallMs
    this.#kept = kept
  }

  emit(kind: string, fields: Readonly<Record<string, unknown>> = {}): void {
    const event: PeerEvent = Object.freeze({ ...fields, atMs: this.#wallMs(), kind })
    if (this.#ring.length < this.#kept) this.#ring.push(event)
    else {
      this.#ring[this.#oldest] = event
      this.#oldest = (this.#oldest + 1) % this.#kept
    }
    for (const listener of this.#listeners) listener(event)
  }

  /** The kept events, oldest first. */
  recent(): PeerEvent[] {
    return [...this.#ring.slice(this.#oldest), ...this.#ring.slice(0, this.#oldest)]
  }

  /** Calls `listener` with every event from now on; the result ends it. */
  subscribe(listener: (event: PeerEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
