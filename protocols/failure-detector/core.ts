/**
 * Failure detection by SWIM (Das, Gupta, Motivala, DSN 2002) with Lifeguard (Dadgar, Phillips, Currey, arXiv 1707.00788).
 *
 * Each protocol period one member is pinged: all in a random order, then in another (SWIM 4.3), so that everyone is
 * probed within two rounds. Where no ack comes within the probe timeout, k others are asked to ping it (SWIM 3.1); where
 * none comes by the period's end it is *suspected*, told so, and declared dead only if it does not refute in time. Claims
 * ride on the messages of the detector (SWIM 4.1), so its load on a peer does not depend on the size of the cluster.
 *
 * Lifeguard asks whether it is not oneself who is slow. The *local health* counter goes up with signs of that (a probe
 * that failed although nobody said why, missing nacks, having to refute, a timer that came late) and down with each
 * answered probe; probe interval and timeout are multiplied by it plus one. Suspicions shrink with independent
 * confirmations. A suspected member is told so first in every message to it (buddy system).
 *
 * Ours, and in no paper:
 *   - A broken connection makes a probe at once, through others. If everyone asked has lost its connection too and says
 *     so, the member is suspected then and there, a few milliseconds after a `kill -9`. A connection never kills by itself,
 *     but a suspicion lasts longer while ours stands: a starved process keeps its connections (view.ts).
 *   - News is also told to k members at once (and by them to k more), not only with the next probe.
 *   - A timer that comes later than asked by STALL_MS or more means that this process stood still (stopped, or starved):
 *     time in which it could not listen is given back to every probe and suspicion, and after a long stall all probes
 *     are forgotten. Thus a peer that was stopped for ten seconds accuses nobody on waking.
 *   - The dead are pinged now and then, with the claim that they are dead first, so that they refute if they are back.
 */
import type { DetectorSettings } from '../../config/schema.ts'
import type { Core, PeerId, Random } from '../core.ts'
import { MAX_UPDATES, type SwimMessage } from './messages.ts'
import { type Change, View } from './view.ts'

export type Input =
  | { readonly kind: 'start' }
  | { readonly kind: 'message'; readonly from: PeerId; readonly message: SwimMessage }
  | { readonly kind: 'timer' }
  /** A hint of the transport. Without hints every member counts as connected. */
  | { readonly kind: 'connection'; readonly peer: PeerId; readonly connected: boolean }

export type Effect =
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: SwimMessage }
  | ({ readonly kind: 'changed' } & Change)
  /** Replaces the timer set before. */
  | { readonly kind: 'timer'; readonly atMs: number }

/** Lifeguard's S: probes slow down to a ninth at most. */
export const MAX_LOCAL_HEALTH = 8
/** A timer this late is a stall. A guess: garbage collection and a busy event loop stay below it. */
const STALL_MS = 25
/** News waits this long for other news. */
const GOSSIP_DELAY_MS = 5
/** One of the dead is pinged each so many periods. */
const DEAD_EVERY = 5
/** A helper says "no ack" after this part of the probe timeout (Lifeguard, section IV-A). */
const NACK_FRACTION = 0.8

interface Probe {
  readonly target: PeerId
  readonly seq: number
  /** When others are asked; Infinity once they are. */
  indirectAtMs: number
  endMs: number
  readonly helpers: Set<PeerId>
  readonly nacks: Set<PeerId>
  graced: boolean
}

interface Relay {
  readonly origin: PeerId
  readonly originSeq: number
  readonly target: PeerId
  nackAtMs: number
  endMs: number
}

export class FailureDetectorCore implements Core<Input, Effect> {
  readonly #settings: DetectorSettings
  readonly #random: Random
  readonly #view: View
  readonly #probes = new Map<number, Probe>()
  readonly #relays = new Map<number, Relay>()
  #order: PeerId[] = []
  #period = 0
  #seq = 0
  #localHealth = 0
  #roundAtMs = Number.POSITIVE_INFINITY
  #gossipAtMs = Number.POSITIVE_INFINITY
  #timerAtMs = Number.POSITIVE_INFINITY
  #effects: Effect[] = []

  constructor(self: PeerId, members: readonly PeerId[], settings: DetectorSettings, random: Random) {
    this.#settings = settings
    this.#random = random
    this.#view = new View(self, members, settings)
    this.#seq = Math.floor(random() * 2 ** 31)
  }

  /** What this peer believes. */
  get view(): Pick<View, 'self' | 'get' | 'others'> {
    return this.#view
  }

  /** 0: healthy; up to MAX_LOCAL_HEALTH. */
  get localHealth(): number {
    return this.#localHealth
  }

  step(input: Input, nowMs: number): Effect[] {
    this.#effects = []
    this.#noticeStall(nowMs)
    if (input.kind === 'start') this.#roundAtMs = nowMs + this.#random() * this.#settings.periodMs
    else if (input.kind === 'message') this.#onMessage(input.from, input.message, nowMs)
    else if (input.kind === 'connection') this.#onConnection(input.peer, input.connected, nowMs)
    this.#runDue(nowMs)
    for (const change of this.#view.takeChanges()) this.#effects.push({ kind: 'changed', ...change })
    if (this.#view.rumours.fresh && this.#gossipAtMs === Number.POSITIVE_INFINITY) {
      this.#gossipAtMs = nowMs + GOSSIP_DELAY_MS
    }
    const nextMs = this.#nextDeadlineMs()
    if (nextMs !== this.#timerAtMs || input.kind === 'timer') {
      this.#timerAtMs = nextMs
      if (nextMs < Number.POSITIVE_INFINITY) this.#effects.push({ kind: 'timer', atMs: nextMs })
    }
    return this.#effects
  }

  // ------------------------------------------------------------------------------------------------------- local health

  #scale(): number {
    return this.#localHealth + 1
  }

  #adjustHealth(by: number): void {
    this.#localHealth = Math.max(0, Math.min(MAX_LOCAL_HEALTH, this.#localHealth + by))
  }

  /** Compares now with the timer that should have come: the difference is time in which nothing could be heard. */
  #noticeStall(nowMs: number): void {
    const lateMs = nowMs - this.#timerAtMs
    if (!(lateMs >= STALL_MS)) return
    const { periodMs, probeTimeoutMs, suspicionMinMs } = this.#settings
    if (lateMs >= probeTimeoutMs / 2) this.#adjustHealth(lateMs >= periodMs ? 2 : 1)
    const graceMs = Math.min(lateMs, probeTimeoutMs)
    if (lateMs >= periodMs) {
      this.#probes.clear()
      this.#relays.clear()
      this.#roundAtMs = nowMs + probeTimeoutMs * this.#random()
    }
    for (const probe of this.#probes.values()) {
      probe.indirectAtMs += lateMs
      probe.endMs += lateMs
      if (!probe.graced) probe.endMs = Math.max(probe.endMs, nowMs + graceMs)
      probe.graced = true
    }
    this.#view.stalled(lateMs, lateMs >= periodMs ? suspicionMinMs : 0, nowMs)
    this.#timerAtMs = Number.POSITIVE_INFINITY // counted once
  }

  // ------------------------------------------------------------------------------------------------------- time

  #nextDeadlineMs(): number {
    let next = Math.min(this.#roundAtMs, this.#gossipAtMs, this.#view.nextDeadlineMs())
    for (const probe of this.#probes.values()) next = Math.min(next, probe.indirectAtMs, probe.endMs)
    for (const relay of this.#relays.values()) next = Math.min(next, relay.nackAtMs, relay.endMs)
    return next
  }

  #runDue(nowMs: number): void {
    for (const [seq, relay] of this.#relays) {
      if (relay.nackAtMs <= nowMs) this.#nack(relay)
      if (relay.endMs <= nowMs) this.#relays.delete(seq)
    }
    for (const probe of this.#probes.values()) {
      if (probe.indirectAtMs <= nowMs) this.#askOthers(probe)
      if (probe.endMs <= nowMs) this.#fail(probe, nowMs)
    }
    this.#view.expire(nowMs)
    if (this.#roundAtMs <= nowMs) this.#startRound(nowMs)
    if (this.#gossipAtMs <= nowMs) this.#gossip()
  }

  #startRound(nowMs: number): void {
    this.#roundAtMs = nowMs + this.#settings.periodMs * this.#scale()
    this.#period++
    if (this.#period % DEAD_EVERY === 0) this.#pingOneOfTheDead()
    for (let tries = this.#view.others.length; tries > 0; tries--) {
      if (this.#order.length === 0) this.#order = this.#shuffled(this.#view.others.map(member => member.id))
      const id = this.#order.pop()
      if (id === undefined || this.#view.get(id)?.state === 'dead' || this.#probing(id) !== undefined) continue
      this.#probe(id, this.#roundAtMs, nowMs)
      return
    }
  }

  #pingOneOfTheDead(): void {
    const dead = this.#view.others.filter(member => member.state === 'dead' && member.connected)
    const chosen = this.#shuffled(dead)[0]
    if (chosen !== undefined) this.#send(chosen.id, { kind: 'ping', seq: this.#nextSeq() })
  }

  // ------------------------------------------------------------------------------------------------------- probing

  #probe(target: PeerId, endMs: number, nowMs: number): void {
    const probe: Probe = {
      target,
      seq: this.#nextSeq(),
      indirectAtMs: nowMs + this.#settings.probeTimeoutMs * this.#scale(),
      endMs,
      helpers: new Set(),
      nacks: new Set(),
      graced: false
    }
    this.#probes.set(probe.seq, probe)
    if (this.#isCut(target)) this.#askOthers(probe)
    else this.#send(target, { kind: 'ping', seq: probe.seq })
  }

  #askOthers(probe: Probe): void {
    probe.indirectAtMs = Number.POSITIVE_INFINITY
    const able = this.#view.others.filter(
      member => member.id !== probe.target && member.state !== 'dead' && member.connected
    )
    for (const helper of this.#shuffled(able).slice(0, this.#settings.indirectProbes)) {
      probe.helpers.add(helper.id)
      this.#send(helper.id, { kind: 'ping-req', seq: probe.seq, target: probe.target })
    }
  }

  #fail(probe: Probe, nowMs: number): void {
    this.#probes.delete(probe.seq)
    // As Hashicorp's memberlist: where all helpers answered that they got no ack either, the fault is not here.
    const missing = probe.helpers.size - probe.nacks.size
    const unreachable = this.#isCut(probe.target)
    if (probe.helpers.size > 0) this.#adjustHealth(missing)
    else if (!unreachable) this.#adjustHealth(1)
    const how = unreachable ? 'no connection' : 'no ack'
    const others =
      probe.helpers.size === 0 ? 'nobody else to ask' : `${probe.nacks.size} of ${probe.helpers.size} others got none`
    this.#view.suspect(probe.target, nowMs, `${how}, ${others}`)
  }

  #isCut(target: PeerId): boolean {
    return this.#view.get(target)?.connected === false
  }

  #probing(target: PeerId): Probe | undefined {
    for (const probe of this.#probes.values()) if (probe.target === target) return probe
    return undefined
  }

  // ------------------------------------------------------------------------------------------------------- inputs

  #onConnection(peer: PeerId, connected: boolean, nowMs: number): void {
    const member = this.#view.get(peer)
    if (member === undefined) return
    this.#view.connection(member, connected, nowMs)
    if (connected) {
      const probe = this.#probing(peer)
      if (probe !== undefined) this.#send(peer, { kind: 'ping', seq: probe.seq })
      else if (member.state !== 'alive') this.#send(peer, { kind: 'ping', seq: this.#nextSeq() })
      return
    }
    for (const relay of this.#relays.values()) if (relay.target === peer) this.#nack(relay)
    if (member.state === 'dead' || !member.broken) return
    const probe = this.#probing(peer)
    if (probe === undefined) this.#probe(peer, nowMs + 2 * this.#settings.probeTimeoutMs * this.#scale(), nowMs)
    else if (probe.indirectAtMs < Number.POSITIVE_INFINITY) this.#askOthers(probe)
    else this.#failEarly(probe, nowMs)
  }

  #onMessage(from: PeerId, message: SwimMessage, nowMs: number): void {
    const member = this.#view.get(from)
    if (member === undefined) return
    this.#view.heard(member, nowMs)
    for (const update of message.updates) if (this.#view.apply(update, nowMs)) this.#adjustHealth(1)
    if (message.kind === 'ping') this.#send(from, { kind: 'ack', seq: message.seq })
    else if (message.kind === 'ping-req') this.#onPingReq(from, message.seq, message.target, nowMs)
    else if (message.kind === 'ack') this.#onAck(from, message.seq)
    else if (message.kind === 'nack') this.#onNack(from, message.seq, nowMs)
  }

  #onPingReq(from: PeerId, originSeq: number, target: PeerId, nowMs: number): void {
    const asked = this.#view.get(target)
    if (asked === undefined) return
    const { probeTimeoutMs } = this.#settings
    const relay: Relay = {
      origin: from,
      originSeq,
      target,
      nackAtMs: nowMs + NACK_FRACTION * probeTimeoutMs,
      endMs: nowMs + 4 * probeTimeoutMs
    }
    if (asked.broken) return this.#nack(relay)
    const seq = this.#nextSeq()
    this.#relays.set(seq, relay)
    this.#send(target, { kind: 'ping', seq })
  }

  #nack(relay: Relay): void {
    if (relay.nackAtMs === Number.POSITIVE_INFINITY) return
    relay.nackAtMs = Number.POSITIVE_INFINITY
    this.#send(relay.origin, { kind: 'nack', seq: relay.originSeq }, relay.target)
  }

  #onAck(from: PeerId, seq: number): void {
    const relay = this.#relays.get(seq)
    if (relay?.target === from) {
      this.#relays.delete(seq)
      this.#send(relay.origin, { kind: 'ack', seq: relay.originSeq }, relay.target)
      return
    }
    const probe = this.#probes.get(seq)
    if (probe === undefined || (probe.target !== from && !probe.helpers.has(from))) return
    this.#probes.delete(seq)
    this.#adjustHealth(-1)
  }

  #onNack(from: PeerId, seq: number, nowMs: number): void {
    const probe = this.#probes.get(seq)
    if (probe === undefined || !probe.helpers.has(from)) return
    probe.nacks.add(from)
    this.#failEarly(probe, nowMs)
  }

  /** No need to wait where our connection is broken and everyone asked has said no. */
  #failEarly(probe: Probe, nowMs: number): void {
    if (this.#view.get(probe.target)?.broken !== true || probe.helpers.size === 0) return
    if (probe.nacks.size === probe.helpers.size) this.#fail(probe, nowMs)
  }

  // ------------------------------------------------------------------------------------------------------- sending

  #gossip(): void {
    this.#gossipAtMs = Number.POSITIVE_INFINITY
    if (!this.#view.rumours.fresh) return
    const able = this.#view.others.filter(member => member.state !== 'dead' && member.connected)
    for (const member of this.#shuffled(able).slice(0, Math.max(1, this.#settings.indirectProbes))) {
      this.#send(member.id, { kind: 'gossip' })
    }
  }

  /** Adds the claims: what `to` must know about itself (or the origin about the target it asked for) comes first. */
  #send(to: PeerId, message: Bare, about: PeerId = to): void {
    const updates = this.#view.rumours.take(MAX_UPDATES, this.#view.claimOf(about))
    this.#effects.push({ kind: 'send', to, message: { ...message, updates } as SwimMessage })
  }

  #nextSeq(): number {
    this.#seq = (this.#seq + 1) % 2 ** 32
    return this.#seq
  }

  /** Fisher-Yates. */
  #shuffled<T>(list: readonly T[]): T[] {
    const copy = [...list]
    for (let i = copy.length - 1; i > 0; i--) {
      const j = Math.floor(this.#random() * (i + 1))
      const held = copy[i] as T
      copy[i] = copy[j] as T
      copy[j] = held
    }
    return copy
  }
}

/** A message without its claims. */
type Bare = SwimMessage extends infer M ? (M extends SwimMessage ? Omit<M, 'updates'> : never) : never
