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
  #count = 0
  #run: string | undefined
  readonly #listeners = new Set<(event: PeerEvent, id: string) => void>()

  /** `wallMs`: the wall clock, `wallMs` of `host/clock.ts` in a peer. */
  constructor(wallMs: () => number, kept = KEPT_EVENTS) {
    this.#wallMs = wallMs
    this.#kept = kept
  }

  emit(kind: string, fields: Readonly<Record<string, unknown>> = {}): void {
    const event: PeerEvent = Object.freeze({ ...fields, atMs: this.#wallMs(), kind })
    this.#run ??= event.atMs.toString(36)
    this.#count++
    if (this.#ring.length < this.#kept) this.#ring.push(event)
    else {
      this.#ring[this.#oldest] = event
      this.#oldest = (this.#oldest + 1) % this.#kept
    }
    const id = this.#idOf(this.#count)
    for (const listener of this.#listeners) listener(event, id)
  }

  /** The kept events, oldest first. */
  recent(): PeerEvent[] {
    return [...this.#ring.slice(this.#oldest), ...this.#ring.slice(0, this.#oldest)]
  }

  /** Those of them that came after the one with this id, each with its own; all where it is of another run of the peer. */
  since(id: string | undefined): { readonly id: string; readonly event: PeerEvent }[] {
    const first = this.#count - this.#ring.length + 1
    const all = this.recent().map((event, index) => ({ id: this.#idOf(first + index), event }))
    const at = all.findIndex(each => each.id === id)
    return all.slice(at + 1)
  }

  /** Calls `listener` with every event from now on; the result ends it. */
  subscribe(listener: (event: PeerEvent, id: string) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** The time of the first event tells one run of the peer from another. */
  #idOf(count: number): string {
    return `${this.#run}-${count}`
  }
}
