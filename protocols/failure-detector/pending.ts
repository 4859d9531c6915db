import type { PeerId } from '../core.ts'

/** A member was pinged, or others were asked to. */
export interface Probe {
  readonly target: PeerId
  readonly seq: number
  /** When others are asked; Infinity once they are. */
  indirectAtMs: number
  endMs: number
  readonly helpers: Set<PeerId>
  readonly nacks: Set<PeerId>
  graced: boolean
}

/** A member was pinged in another's stead. */
export interface Relay {
  readonly seq: number
  readonly origin: PeerId
  readonly originSeq: number
  readonly target: PeerId
  /** When the origin is told that no ack came; Infinity once it is, or where time alone does not tell. */
  nackAtMs: number
  nacked: boolean
  readonly endMs: number
}

const pairOf = ({ origin, target }: Relay): string => `${origin} ${target}`

/** The answers that a peer waits for: to its own probes, at most one a target, and to those for others, one for each of them. */
export class Pending {
  readonly #probes = new Map<number, Probe>()
  readonly #probeOf = new Map<PeerId, Probe>()
  readonly #relays = new Map<number, Relay>()
  /** By origin and target. */
  readonly #relayOf = new Map<string, Relay>()

  get probes(): Iterable<Probe> {
    return this.#probes.values()
  }

  get relays(): Iterable<Relay> {
    return this.#relays.values()
  }

  probe(seq: number): Probe | undefined {
    return this.#probes.get(seq)
  }

  probeOf(target: PeerId): Probe | undefined {
    return this.#probeOf.get(target)
  }

  relay(seq: number): Relay | undefined {
    return this.#relays.get(seq)
  }

  addProbe(probe: Probe): void {
    this.#probes.set(probe.seq, probe)
    this.#probeOf.set(probe.target, probe)
  }

  /** Who asks about a member anew has given up what it asked before: so there are few, however often it asks. */
  addRelay(relay: Relay): void {
    const before = this.#relayOf.get(pairOf(relay))
    if (before !== undefined) this.#relays.delete(before.seq)
    this.#relays.set(relay.seq, relay)
    this.#relayOf.set(pairOf(relay), relay)
  }

  endProbe(probe: Probe): void {
    this.#probes.delete(probe.seq)
    this.#probeOf.delete(probe.target)
  }

  endRelay(relay: Relay): void {
    this.#relays.delete(relay.seq)
    this.#relayOf.delete(pairOf(relay))
  }

  clear(): void {
    this.#probes.clear()
    this.#probeOf.clear()
    this.#relays.clear()
    this.#relayOf.clear()
  }

  /** Nothing is expected any more of those who are gone. */
  forget(gone: ReadonlySet<PeerId>): void {
    for (const probe of this.#probes.values()) {
      if (gone.has(probe.target)) this.endProbe(probe)
      for (const helper of probe.helpers) {
        if (gone.has(helper)) probe.helpers.delete(helper)
      }
    }
    for (const relay of this.#relays.values()) {
      if (gone.has(relay.target) || gone.has(relay.origin)) this.endRelay(relay)
    }
  }

  /** Looks at what is under way, which is one probe and a few relays unless members are failing. */
  nextDeadlineMs(): number {
    let next = Number.POSITIVE_INFINITY
    for (const probe of this.#probes.values()) next = Math.min(next, probe.indirectAtMs, probe.endMs)
    for (const relay of this.#relays.values()) next = Math.min(next, relay.nackAtMs, relay.endMs)
    return next
  }
}
