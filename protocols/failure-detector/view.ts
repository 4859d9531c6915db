import type { DetectorSettings } from '../../config/schema.ts'
import type { Liveness } from '../../node/ports.ts'
import type { PeerId } from '../core.ts'
import { MAX_INCARNATION, type Update } from './messages.ts'
import { Rumours } from './rumours.ts'
import { suspicionTimeoutMs, wantedConfirmations } from './suspicion.ts'

/**
 * A member that was first heard less than SETTLE_MS ago, or never since this process started, is itself starting:
 * compiling, shaking hands with everyone. Its suspicion lasts this much longer, unless its connection broke.
 */
const STARTING_FACTOR = 10
const SETTLE_MS = 5_000
/**
 * A process that is starved or stopped keeps its connections, one that was killed does not: unless ours broke, the
 * suspicion lasts this much longer. Measured: five peers on two cores at a load of 7 are silent for over 400 ms at times.
 */
const UNBROKEN_FACTOR = 2.5

export interface Change {
  readonly peer: PeerId
  readonly liveness: Liveness
  readonly why: string
}

interface Suspicion {
  startMs: number
  /** Multiplies the settings: how sure we may be. Fixed at the start, and again where the connection breaks. */
  factor: number
  readonly wanted: number
  /** All who suspect, the first included. */
  readonly by: Set<PeerId>
  /** Time during which this process stood still does not count. */
  stalledMs: number
  deadlineMs: number
}

export interface MemberView {
  readonly id: PeerId
  state: Liveness
  incarnation: number
  /** When its first message came; Infinity before. */
  heardSinceMs: number
  /** We can send to it, as far as the transport tells. */
  connected: boolean
  /** There was a connection and it is gone: more than not having one yet. */
  broken: boolean
  suspicion: Suspicion | undefined
}

/**
 * What this peer believes of each member, and the order of claims (SWIM, section 4.2):
 *   alive(i)   overrides anything older than i
 *   suspect(i) overrides alive(j) for i ≥ j, suspect(j) and dead(j) for i > j
 *   dead(i)    overrides alive(j) and suspect(j) for i ≥ j
 * In the paper dead is final. Here members are given and come back, so a higher incarnation revives; only the member
 * itself makes one, so it can only be alive. Claims about oneself are answered by a higher incarnation at once.
 */
export class View {
  readonly self: PeerId
  readonly rumours: Rumours
  readonly #settings: DetectorSettings
  readonly #members: ReadonlyMap<PeerId, MemberView>
  #incarnation = 0
  #changes: Change[] = []

  constructor(self: PeerId, members: readonly PeerId[], settings: DetectorSettings) {
    this.self = self
    this.#settings = settings
    const others = members.filter(id => id !== self)
    this.#members = new Map(others.map(id => [id, newMember(id)]))
    this.rumours = new Rumours(others.length + 1)
  }

  get others(): readonly MemberView[] {
    return [...this.#members.values()]
  }

  get(id: PeerId): MemberView | undefined {
    return this.#members.get(id)
  }

  /** The changes since the last call. */
  takeChanges(): Change[] {
    const changes = this.#changes
    this.#changes = []
    return changes
  }

  /** What we hold of a member that is not alive: told to itself (Lifeguard's buddy system) and to who asks about it. */
  claimOf(id: PeerId): Update | undefined {
    const member = this.#members.get(id)
    if (member === undefined || member.state === 'alive') return undefined
    const from = member.suspicion?.by.has(this.self) === false ? ([...member.suspicion.by][0] as PeerId) : this.self
    return { peer: id, state: member.state, incarnation: member.incarnation, from }
  }

  /** Takes in a claim. True where it made this peer refute one about itself. */
  apply(update: Update, nowMs: number): boolean {
    if (update.peer === this.self) return this.#applyToSelf(update)
    const member = this.#members.get(update.peer)
    if (member === undefined) return false
    if (update.state === 'alive') this.#alive(member, update.incarnation)
    else if (update.state === 'suspect') this.#suspect(member, update, nowMs, `suspected by ${update.from}`)
    else this.#dead(member, update, `declared dead by ${update.from}`)
    return false
  }

  /** This peer's own finding. */
  suspect(id: PeerId, nowMs: number, why: string): void {
    const member = this.#members.get(id)
    if (member === undefined || member.state === 'dead') return
    const update: Update = { peer: id, state: 'suspect', incarnation: member.incarnation, from: this.self }
    this.#suspect(member, update, nowMs, why)
  }

  heard(member: MemberView, nowMs: number): void {
    member.heardSinceMs = Math.min(member.heardSinceMs, nowMs)
  }

  /** The transport's hint. A break makes a running suspicion shorter, counted anew from now. */
  connection(member: MemberView, connected: boolean, nowMs: number): void {
    member.broken = !connected && (member.broken || member.heardSinceMs <= nowMs)
    member.connected = connected
    const suspicion = member.suspicion
    if (suspicion === undefined || !member.broken) return
    suspicion.startMs = nowMs
    suspicion.stalledMs = 0
    suspicion.factor = 1
    suspicion.deadlineMs = Math.min(suspicion.deadlineMs, this.#deadlineOf(suspicion))
  }

  /** The moment at which the next suspicion runs out; Infinity where there is none. */
  nextDeadlineMs(): number {
    let next = Number.POSITIVE_INFINITY
    for (const { suspicion } of this.#members.values()) {
      if (suspicion !== undefined && suspicion.deadlineMs < next) next = suspicion.deadlineMs
    }
    return next
  }

  /** Declares dead whose suspicion has run out. */
  expire(nowMs: number): void {
    for (const member of this.#members.values()) {
      const suspicion = member.suspicion
      if (suspicion === undefined || suspicion.deadlineMs > nowMs) continue
      const update: Update = { peer: member.id, state: 'dead', incarnation: member.incarnation, from: this.self }
      const ranMs = Math.round(nowMs - suspicion.startMs)
      this.#dead(member, update, `not refuted for ${ranMs} ms, suspected by ${[...suspicion.by].join(', ')}`)
    }
  }

  /** This process stood still for `lateMs`: suspicions move by that, and end no sooner than `graceMs` from now. */
  stalled(lateMs: number, graceMs: number, nowMs: number): void {
    for (const { suspicion } of this.#members.values()) {
      if (suspicion === undefined) continue
      suspicion.stalledMs += lateMs
      suspicion.deadlineMs = Math.max(suspicion.deadlineMs + lateMs, nowMs + graceMs)
    }
  }

  #applyToSelf(update: Update): boolean {
    if (update.state === 'alive') {
      this.#incarnation = Math.max(this.#incarnation, update.incarnation)
      return false
    }
    const refuted = update.incarnation >= this.#incarnation
    if (refuted) this.#incarnation = Math.min(update.incarnation + 1, MAX_INCARNATION - 1)
    // A claim older than our last refutation means that somebody has missed it: it is told again.
    this.rumours.add({ peer: this.self, state: 'alive', incarnation: this.#incarnation, from: this.self })
    return refuted
  }

  #alive(member: MemberView, incarnation: number): void {
    if (incarnation <= member.incarnation) return
    const was = member.state
    member.state = 'alive'
    member.incarnation = incarnation
    member.suspicion = undefined
    this.rumours.add({ peer: member.id, state: 'alive', incarnation, from: member.id })
    if (was !== 'alive') this.#changes.push({ peer: member.id, liveness: 'alive', why: `refuted as ${incarnation}` })
  }

  #suspect(member: MemberView, update: Update, nowMs: number, why: string): void {
    if (update.incarnation < member.incarnation) return
    const newer = update.incarnation > member.incarnation
    if (member.state === 'dead' && !newer) return
    const suspicion = member.suspicion
    if (suspicion !== undefined && !newer) {
      // An independent confirmation (Lifeguard, LHA-Suspicion): worth passing on while it still shortens the wait.
      if (suspicion.by.has(update.from) || suspicion.by.size > suspicion.wanted) return
      suspicion.by.add(update.from)
      suspicion.deadlineMs = Math.min(suspicion.deadlineMs, this.#deadlineOf(suspicion))
      this.rumours.add(update)
      return
    }
    const nonDead = 1 + this.others.filter(other => other.state !== 'dead' || other === member).length
    const started: Suspicion = {
      startMs: nowMs,
      factor: member.broken ? 1 : nowMs - member.heardSinceMs >= SETTLE_MS ? UNBROKEN_FACTOR : STARTING_FACTOR,
      wanted: wantedConfirmations(nonDead),
      by: new Set([update.from]),
      stalledMs: 0,
      deadlineMs: 0
    }
    started.deadlineMs = this.#deadlineOf(started)
    const was = member.state
    member.state = 'suspect'
    member.incarnation = update.incarnation
    member.suspicion = started
    this.rumours.add(update)
    if (was !== 'suspect') this.#changes.push({ peer: member.id, liveness: 'suspect', why })
  }

  #deadlineOf({ startMs, stalledMs, factor, by, wanted }: Suspicion): number {
    const { suspicionMinMs, suspicionMaxMs } = this.#settings
    return startMs + stalledMs + factor * suspicionTimeoutMs(by.size - 1, wanted, suspicionMinMs, suspicionMaxMs)
  }

  #dead(member: MemberView, update: Update, why: string): void {
    if (update.incarnation < member.incarnation) return
    if (member.state === 'dead') {
      member.incarnation = update.incarnation
      return
    }
    member.state = 'dead'
    member.incarnation = update.incarnation
    member.suspicion = undefined
    this.rumours.add(update)
    this.#changes.push({ peer: member.id, liveness: 'dead', why })
  }
}

function newMember(id: PeerId): MemberView {
  return {
    id,
    state: 'alive',
    incarnation: 0,
    heardSinceMs: Number.POSITIVE_INFINITY,
    connected: true,
    broken: false,
    suspicion: undefined
  }
}
