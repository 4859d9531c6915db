/**
 * Failure detection by SWIM (Das, Gupta, Motivala, DSN 2002) with Lifeguard (Dadgar, Phillips, Currey, arXiv 1707.00788).
 *
 * Each protocol period one member is pinged: all in a random order, then in another (SWIM 4.3), so that everyone is
 * probed within two rounds. Where no ack comes within the probe timeout, k others are asked to ping it (SWIM 3.1); where
 * none comes by the period's end it is *suspected*, told so, and declared dead only if it does not refute in time (SWIM
 * 4.2). Claims ride on the messages of the detector (SWIM 4.1), so its load on a peer does not depend on the size of the
 * cluster.
 *
 * Lifeguard asks whether it is not oneself who is slow. The *local health* counter goes up with signs of that (a probe
 * that failed although nobody said why, missing nacks, having to refute, a timer that came late) and down with each
 * answered probe; probe interval and timeout are multiplied by it plus one (IV-A). Suspicions shrink with independent
 * confirmations (IV-B). A suspected member is told so first in every message to it (buddy system, IV-C).
 *
 * Ours, and in no paper:
 *   - A broken connection makes a probe at once, through others. If everyone asked has lost its connection too and says
 *     so, the member is suspected then and there, a few milliseconds after a `kill -9`. A connection never kills by itself,
 *     but while ours stands we wait longer, for the ack and in the suspicion: a starved process keeps its connections
 *     (view.ts).
 *   - News is also told to k members at once (and by them to k more), not only with the next probe, at a bounded pace. The
 *     suspect itself is told by whoever suspects it, at once.
 *   - Pings and acks carry their sender's incarnation: a process that has just started knows nobody's, and its claims would
 *     count for nothing.
 *   - A timer that comes later than asked by STALL_MS or more means that this process stood still (stopped, or starved):
 *     time in which it could not listen is given back to every probe and suspicion, and after a long stall all probes
 *     are forgotten. Thus a peer that was stopped for ten seconds accuses nobody on waking.
 *   - The dead are pinged now and then, with the claim that they are dead first, so that they refute if they are back. A
 *     connection that is there again makes a ping, too, to whomever: it says our incarnation to one that may hold us for dead.
 *   - Who holds half of all members or more for dead is cut off itself, or in a cluster that can decide nothing: it tells that to
 *     themselves, and to nobody else. Else its verdicts came back with the network, and others believed them.
 *   - Members are given from outside (`members`), not learned from rumours: in and out is decided in a register.
 */
import type { DetectorSettings } from '../../config/schema.ts'
import type { Core, PeerId, Random } from '../core.ts'
import type { Fact } from '../decisions/facts.ts'
import { MAX_UPDATES, type SwimMessage } from './messages.ts'
import { ProbeOrder } from './order.ts'
import { Pending, type Probe, type Relay } from './pending.ts'
import { type Change, type Extensions, View } from './view.ts'

export type Input =
  | { readonly kind: 'start' }
  | { readonly kind: 'message'; readonly from: PeerId; readonly message: SwimMessage }
  | { readonly kind: 'timer' }
  /** A hint of the transport. Without hints every member counts as connected. */
  | { readonly kind: 'connection'; readonly peer: PeerId; readonly connected: boolean }
  /** All members from now on, oneself among them or not. Who is new counts as alive; who is gone is forgotten. */
  | { readonly kind: 'members'; readonly ids: readonly PeerId[] }

export type Effect =
  | { readonly kind: 'send'; readonly to: PeerId; readonly message: SwimMessage }
  | ({ readonly kind: 'changed' } & Change)
  /** For the decision log. */
  | { readonly kind: 'note'; readonly fact: Fact }
  /** Replaces the timer set before. */
  | { readonly kind: 'timer'; readonly atMs: number }

export interface CoreOptions {
  readonly self: PeerId
  /** Oneself among them or not. */
  readonly members: readonly PeerId[]
  readonly settings: DetectorSettings
  readonly random: Random
  /** All, unless told. */
  readonly extensions?: Extensions
}

/** Lifeguard's S (IV-A): probes slow down to a ninth at most. */
export const MAX_LOCAL_HEALTH = 8
/** A timer this late is a stall. A guess: garbage collection and a busy event loop stay below it. */
const STALL_MS = 25
/** News waits this long for other news. */
const GOSSIP_DELAY_MS = 5
/**
 * News is told to k members at once so many times, and in the long run so many times a period: where much happens, it
 * waits and goes together. So the load has a bound, whatever happens in the cluster.
 */
const GOSSIP_BURST = 5
const GOSSIPS_A_PERIOD = 2
/** One of the dead is pinged each so many periods. */
const DEAD_EVERY = 5
/** A helper says "no ack" after this part of the probe timeout (Lifeguard, section IV-A). */
const NACK_FRACTION = 0.8

export class FailureDetectorCore implements Core<Input, Effect> {
  readonly #settings: DetectorSettings
  readonly #random: Random
  readonly #extensions: Extensions
  readonly #view: View
  readonly #order: ProbeOrder
  readonly #pending = new Pending()
  #period = 0
  #seq = 0
  #localHealth = 0
  #roundAtMs = Number.POSITIVE_INFINITY
  #gossipAtMs = Number.POSITIVE_INFINITY
  /** When all that was told would have been told at the steady pace. */
  #gossipPaidMs = 0
  #timerAtMs = Number.POSITIVE_INFINITY
  #effects: Effect[] = []

  constructor(options: CoreOptions) {
    const { self, members, settings, random, extensions = { lifeguard: true, allowances: true } } = options
    this.#settings = settings
    this.#random = random
    this.#extensions = extensions
    this.#view = new View(self, members, settings, random, extensions)
    this.#order = new ProbeOrder(
      this.#view.others.map(member => member.id),
      random
    )
    this.#seq = Math.floor(random() * 2 ** 31)
  }

  /** What this peer believes. */
  get view(): Pick<View, 'self' | 'get' | 'others' | 'rumours'> {
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
    else if (input.kind === 'members') this.#onMembers(input.ids, nowMs)
    this.#runDue(nowMs)
    for (const fact of this.#view.takeFacts()) this.#effects.push({ kind: 'note', fact })
    for (const change of this.#view.takeChanges()) this.#effects.push({ kind: 'changed', ...change })
    if (this.#view.rumours.fresh && this.#gossipAtMs === Number.POSITIVE_INFINITY) {
      const paceMs = this.#settings.periodMs / GOSSIPS_A_PERIOD
      this.#gossipAtMs = Math.max(nowMs + GOSSIP_DELAY_MS, this.#gossipPaidMs - (GOSSIP_BURST - 1) * paceMs)
    }
    const nextMs = this.#nextDeadlineMs()
    if (nextMs !== this.#timerAtMs || input.kind === 'timer') {
      this.#timerAtMs = nextMs
      if (nextMs < Number.POSITIVE_INFINITY) this.#effects.push({ kind: 'timer', atMs: nextMs })
    }
    return this.#effects
  }

  // ------------------------------------------------------------------------------------------------------- local health

  /** Lifeguard's local health multiplier (IV-A). */
  #scale(): number {
    return this.#localHealth + 1
  }

  #adjustHealth(by: number): void {
    if (!this.#extensions.lifeguard) return
    this.#localHealth = Math.max(0, Math.min(MAX_LOCAL_HEALTH, this.#localHealth + by))
  }

  /** Compares now with the timer that should have come: the difference is time in which nothing could be heard. */
  #noticeStall(nowMs: number): void {
    const lateMs = nowMs - this.#timerAtMs
    if (!(lateMs >= STALL_MS) || !this.#extensions.allowances) return
    const { periodMs, probeTimeoutMs, suspicionMinMs } = this.#settings
    if (lateMs >= probeTimeoutMs / 2) this.#adjustHealth(lateMs >= periodMs ? 2 : 1)
    const graceMs = Math.min(lateMs, probeTimeoutMs)
    if (lateMs >= periodMs) {
      this.#pending.clear()
      this.#roundAtMs = nowMs + probeTimeoutMs * this.#random()
    }
    for (const probe of this.#pending.probes) {
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
    const answersMs = this.#pending.nextDeadlineMs()
    return Math.min(this.#roundAtMs, this.#gossipAtMs, this.#view.nextDueMs(), answersMs)
  }

  #runDue(nowMs: number): void {
    for (const relay of this.#pending.relays) {
      if (relay.nackAtMs <= nowMs) this.#nack(relay)
      if (relay.endMs <= nowMs) this.#pending.endRelay(relay)
    }
    for (const probe of this.#pending.probes) {
      if (probe.indirectAtMs <= nowMs) this.#askOthers(probe)
      if (probe.endMs <= nowMs) this.#fail(probe, nowMs)
    }
    this.#view.expire(nowMs)
    if (this.#roundAtMs <= nowMs) this.#startRound(nowMs)
    if (this.#gossipAtMs <= nowMs) this.#gossip(nowMs)
  }

  #startRound(nowMs: number): void {
    this.#roundAtMs = nowMs + this.#settings.periodMs * this.#scale()
    this.#period++
    if (this.#period % DEAD_EVERY === 0) this.#pingOneOfTheDead()
    for (let tries = this.#order.length; tries > 0; tries--) {
      const id = this.#order.next()
      if (id === undefined || this.#view.get(id)?.state === 'dead' || this.#pending.probeOf(id) !== undefined) continue
      this.#probe(id, this.#roundAtMs, nowMs)
      return
    }
  }

  #pingOneOfTheDead(): void {
    const chosen = this.#view.nextDead()
    if (chosen?.connected === true) this.#send(chosen.id, { kind: 'ping', seq: this.#nextSeq() })
  }

  // ------------------------------------------------------------------------------------------------------- probing

  #probe(target: PeerId, endMs: number, nowMs: number): void {
    const probe: Probe = {
      target,
      seq: this.#nextSeq(),
      indirectAtMs: nowMs + this.#settings.probeTimeoutMs * this.#scale(),
      endMs: endMs + this.#view.patienceMs(target),
      helpers: new Set(),
      nacks: new Set(),
      graced: false
    }
    this.#pending.addProbe(probe)
    if (this.#isCut(target)) this.#askOthers(probe)
    else this.#send(target, { kind: 'ping', seq: probe.seq })
  }

  #askOthers(probe: Probe): void {
    probe.indirectAtMs = Number.POSITIVE_INFINITY
    for (const helper of this.#ableMembers(this.#settings.indirectProbes, probe.target)) {
      probe.helpers.add(helper)
      this.#send(helper, { kind: 'ping-req', seq: probe.seq, target: probe.target })
    }
  }

  #fail(probe: Probe, nowMs: number): void {
    this.#pending.endProbe(probe)
    // As Hashicorp's memberlist: where all helpers answered that they got no ack either, the fault is not here.
    const missing = probe.helpers.size - probe.nacks.size
    const unreachable = this.#isCut(probe.target)
    if (probe.helpers.size > 0) this.#adjustHealth(missing)
    else if (!unreachable) this.#adjustHealth(1)
    const how = unreachable ? 'no connection' : 'no ack'
    const { size } = probe.helpers
    const others =
      size === 0 ? 'nobody else to ask' : `${probe.nacks.size} of ${size} others that were asked say the same`
    this.#view.suspect(probe.target, nowMs, `${how}, ${others}`)
    if (!unreachable && this.#extensions.lifeguard) this.#send(probe.target, { kind: 'ping', seq: this.#nextSeq() })
  }

  #isCut(target: PeerId): boolean {
    return this.#view.get(target)?.connected === false
  }

  // ------------------------------------------------------------------------------------------------------- inputs

  #onMembers(ids: readonly PeerId[], nowMs: number): void {
    const { added, gone } = this.#view.setMembers(ids, nowMs)
    this.#pending.forget(gone)
    for (const id of gone) this.#order.delete(id)
    for (const id of added) this.#order.add(id)
  }

  #onConnection(peer: PeerId, connected: boolean, nowMs: number): void {
    const member = this.#view.get(peer)
    if (member === undefined) return
    const isBack = !member.connected
    this.#view.connection(member, connected, nowMs)
    const probe = this.#pending.probeOf(peer)
    if (connected) {
      // Also to one who is alive to us, and from whom we heard meanwhile: connections are of one direction each, so that it may
      // hold us for dead, and have told us so before we could answer.
      if (probe !== undefined || member.state !== 'alive' || isBack) {
        this.#send(peer, { kind: 'ping', seq: probe?.seq ?? this.#nextSeq() })
      }
      return
    }
    for (const relay of this.#pending.relays) if (relay.target === peer) this.#nack(relay)
    if (member.state === 'dead' || !member.broken) return
    const untilMs = nowMs + 2 * this.#settings.probeTimeoutMs * this.#scale()
    if (probe === undefined) this.#probe(peer, untilMs, nowMs)
    else {
      probe.endMs = Math.min(probe.endMs, untilMs)
      if (probe.indirectAtMs < Number.POSITIVE_INFINITY) this.#askOthers(probe)
      else this.#failEarly(probe, nowMs)
    }
  }

  #onMessage(from: PeerId, message: SwimMessage, nowMs: number): void {
    const member = this.#view.get(from)
    if (member === undefined) return
    this.#view.heard(member, nowMs)
    if ('incarnation' in message) this.#view.learn(member, message.incarnation, nowMs)
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
      seq: this.#nextSeq(),
      origin: from,
      originSeq,
      target,
      nackAtMs: this.#extensions.lifeguard ? nowMs + NACK_FRACTION * probeTimeoutMs : Number.POSITIVE_INFINITY,
      nacked: false,
      endMs: nowMs + 4 * probeTimeoutMs
    }
    if (asked.broken) return this.#nack(relay)
    this.#pending.addRelay(relay)
    this.#send(target, { kind: 'ping', seq: relay.seq })
  }

  #nack(relay: Relay): void {
    relay.nackAtMs = Number.POSITIVE_INFINITY
    if (relay.nacked) return
    relay.nacked = true
    this.#send(relay.origin, { kind: 'nack', seq: relay.originSeq }, relay.target)
  }

  #onAck(from: PeerId, seq: number): void {
    const relay = this.#pending.relay(seq)
    if (relay?.target === from) {
      this.#pending.endRelay(relay)
      this.#send(relay.origin, { kind: 'ack', seq: relay.originSeq }, relay.target)
      return
    }
    const probe = this.#pending.probe(seq)
    if (probe === undefined || (probe.target !== from && !probe.helpers.has(from))) return
    this.#pending.endProbe(probe)
    this.#adjustHealth(-1)
  }

  #onNack(from: PeerId, seq: number, nowMs: number): void {
    const probe = this.#pending.probe(seq)
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

  #gossip(nowMs: number): void {
    this.#gossipAtMs = Number.POSITIVE_INFINITY
    if (!this.#view.rumours.fresh) return
    this.#gossipPaidMs = Math.max(this.#gossipPaidMs, nowMs) + this.#settings.periodMs / GOSSIPS_A_PERIOD
    for (const id of this.#ableMembers(Math.max(1, this.#settings.indirectProbes))) this.#send(id, { kind: 'gossip' })
  }

  #ableMembers(count: number, but?: PeerId): PeerId[] {
    return this.#view
      .sample(count, member => member.state !== 'dead' && member.connected && member.id !== but)
      .map(member => member.id)
  }

  /** Adds the claims: what `to` must know about itself (or the origin about the target it asked for) comes first. */
  #send(to: PeerId, message: Bare, about: PeerId = to): void {
    const updates = this.#view.rumours.take(MAX_UPDATES, this.#view.claimOf(about))
    const { incarnation } = this.#view
    const own = message.kind === 'ping' || message.kind === 'ack' ? { incarnation } : {}
    this.#effects.push({ kind: 'send', to, message: { ...message, ...own, updates } as SwimMessage })
  }

  #nextSeq(): number {
    this.#seq = (this.#seq + 1) % 2 ** 32
    return this.#seq
  }
}

/** A message without what its sender knows. */
type Bare = SwimMessage extends infer M ? (M extends SwimMessage ? Omit<M, 'updates' | 'incarnation'> : never) : never
