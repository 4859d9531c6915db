import type { DetectorSettings } from '../../config/schema.ts'
import type { Liveness } from '../../node/ports.ts'
import type { PeerId, Random } from '../core.ts'
import type { Fact } from '../decisions/facts.ts'
import { MAX_INCARNATION, type Update } from './messages.ts'
import { Rumours } from './rumours.ts'
import { Suspicion, wantedConfirmations } from './suspicion.ts'

/**
 * A member that came up less than SETTLE_MS ago, or never since this process started, is itself starting: compiling,
 * shaking hands with everyone. Its suspicion lasts this much longer, unless its connection broke.
 */
const STARTING_FACTOR = 10
const SETTLE_MS = 5_000
/**
 * A process that is starved or stopped keeps its connections, one that was killed does not. Unless ours broke, what we
 * asked will be read and answered some time: we wait `suspicionMinMs` longer for it before anybody is told (`patienceMs`),
 * and the suspicion lasts this much longer. Measured: five peers on two cores at a load of 7 are silent for over 400 ms at
 * times. Waiting first, and not only suspecting longer, is what keeps rumours few where many are slow: of 1,000 members
 * 100 that stop for half a second again and again made 227 messages of 10 claims a second for each, and now make 14.
 */
const UNBROKEN_FACTOR = 1.5
/** The highest that a message may have. */
const LAST_INCARNATION = MAX_INCARNATION - 1

/** What is on beyond SWIM itself: everything, but in a simulation that compares. */
export interface Extensions {
  /** Lifeguard, all three parts. Without it suspicions last `suspicionMinMs`, which is the paper's baseline (β = 1). */
  readonly lifeguard: boolean
  /** Ours: more time for members that start or keep their connections, for what waits to be read, and after a stall. */
  readonly allowances: boolean
}

export interface Change {
  readonly peer: PeerId
  readonly liveness: Liveness
  readonly why: string
}

export interface MemberView {
  readonly id: PeerId
  state: Liveness
  /** When its state was another. */
  changedMs: number
  incarnation: number
  /** When its first message or a connection to it came; Infinity before. */
  upSinceMs: number
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
 *
 * No call looks at all members, but `setMembers`: the suspects and the dead are kept apart.
 */
export class View {
  readonly self: PeerId
  readonly rumours: Rumours
  readonly #settings: DetectorSettings
  readonly #random: Random
  readonly #extensions: Extensions
  readonly #members = new Map<PeerId, MemberView>()
  /** The same members, in an order that means nothing. */
  #others: MemberView[] = []
  readonly #suspects = new Set<MemberView>()
  readonly #dead = new Set<MemberView>()
  /** No suspicion wants attention before; it may be that none does then. */
  #dueMs = Number.POSITIVE_INFINITY
  #incarnation = 0
  #changes: Change[] = []
  #facts: Fact[] = []

  constructor(
    self: PeerId,
    members: readonly PeerId[],
    settings: DetectorSettings,
    random: Random,
    extensions: Extensions
  ) {
    this.self = self
    this.#settings = settings
    this.#random = random
    this.#extensions = extensions
    this.rumours = new Rumours(members.length)
    this.setMembers(members, 0)
  }

  /** This peer's own. */
  get incarnation(): number {
    return this.#incarnation
  }

  get others(): readonly MemberView[] {
    return this.#others
  }

  get(id: PeerId): MemberView | undefined {
    return this.#members.get(id)
  }

  /** `ids`: all members, oneself among them or not. New ones count as alive. Returns who came and who is gone. */
  setMembers(ids: readonly PeerId[], nowMs: number): { added: PeerId[]; gone: ReadonlySet<PeerId> } {
    const wanted = new Set(ids)
    wanted.delete(this.self)
    const gone = new Set([...this.#members.keys()].filter(id => !wanted.has(id)))
    const added = [...wanted].filter(id => !this.#members.has(id))
    for (const id of gone) this.#members.delete(id)
    for (const id of added) this.#members.set(id, newMember(id))
    this.#others = [...this.#members.values()]
    this.rumours.resize(this.#others.length + 1, gone)
    for (const member of [...this.#suspects, ...this.#dead]) {
      if (gone.has(member.id)) {
        this.#suspects.delete(member)
        this.#dead.delete(member)
      } else if (member.suspicion !== undefined) this.#acquit(member, gone, nowMs)
    }
    return { added, gone }
  }

  /** Up to `count` different members that fit, at random. Its cost follows `count`, where most members fit. */
  sample(count: number, fits: (member: MemberView) => boolean): MemberView[] {
    const chosen: MemberView[] = []
    const list = this.#others
    for (let at = 0; at < list.length && chosen.length < count; at++) {
      const drawn = at + Math.floor(this.#random() * (list.length - at))
      const member = list[drawn] as MemberView
      list[drawn] = list[at] as MemberView
      list[at] = member
      if (fits(member)) chosen.push(member)
    }
    return chosen
  }

  /** One of the dead, each in its turn. */
  nextDead(): MemberView | undefined {
    const [member] = this.#dead
    if (member === undefined) return undefined
    this.#dead.delete(member)
    this.#dead.add(member)
    return member
  }

  /** The changes since the last call. */
  takeChanges(): Change[] {
    const changes = this.#changes
    this.#changes = []
    return changes
  }

  /** What the decision log should know, since the last call: also what changes nobody's liveness. */
  takeFacts(): Fact[] {
    const facts = this.#facts
    this.#facts = []
    return facts
  }

  /** What we hold of a member that is not alive: told first to itself (Lifeguard's buddy system, section IV-C) and to who asks about it. */
  claimOf(id: PeerId): Update | undefined {
    const member = this.#members.get(id)
    if (member === undefined || member.state === 'alive') return undefined
    if (member.state === 'suspect' && !this.#extensions.lifeguard) return undefined
    const { suspicion, state, incarnation } = member
    const from = suspicion === undefined || suspicion.by.has(this.self) ? this.self : ([...suspicion.by][0] as PeerId)
    return { peer: id, state, incarnation, from }
  }

  /** Takes in a claim. True where it made this peer refute one about itself. */
  apply(update: Update, nowMs: number): boolean {
    if (update.peer === this.self) return this.#applyToSelf(update)
    const member = this.#members.get(update.peer)
    if (member === undefined || (update.from !== this.self && !this.#members.has(update.from))) return false
    if (update.state === 'alive') this.#alive(member, update.incarnation, nowMs)
    else if (update.state === 'suspect') this.#suspect(member, update, nowMs, `suspected by ${update.from}`)
    else this.#died(member, update, nowMs, `declared dead by ${update.from}`)
    return false
  }

  /** This peer's own finding. */
  suspect(id: PeerId, nowMs: number, why: string): void {
    const member = this.#members.get(id)
    if (member === undefined || member.state === 'dead') return
    const update: Update = { peer: id, state: 'suspect', incarnation: member.incarnation, from: this.self }
    this.#suspect(member, update, nowMs, why)
  }

  /** How much longer than a period a probe of it may take. */
  patienceMs(id: PeerId): number {
    const member = this.#members.get(id)
    return member?.broken === false && this.#extensions.allowances ? this.#settings.suspicionMinMs : 0
  }

  heard(member: MemberView, nowMs: number): void {
    if (nowMs < member.upSinceMs) member.upSinceMs = nowMs
  }

  /**
   * What a member says of itself. Who has just started knows nobody's incarnation, and no claim of it would count. News
   * only where the member was not alive: all others know. The last incarnation is reached by a lie alone, and cannot be gone
   * beyond: from then on a member refutes by its own voice, to each that hears it.
   */
  learn(member: MemberView, incarnation: number, nowMs: number): void {
    if (member.state !== 'alive') this.#alive(member, incarnation, nowMs, incarnation === LAST_INCARNATION)
    else member.incarnation = Math.max(member.incarnation, incarnation)
  }

  /** The transport's hint. A break makes a running suspicion shorter, counted anew from now. */
  connection(member: MemberView, connected: boolean, nowMs: number): void {
    member.broken = !connected && (member.broken || member.upSinceMs <= nowMs)
    member.connected = connected
    if (connected) this.heard(member, nowMs)
    if (member.suspicion === undefined || !member.broken || !this.#extensions.allowances) return
    member.suspicion.hasten(nowMs)
    this.#dueMs = Math.min(this.#dueMs, member.suspicion.dueMs)
  }

  /** No suspicion wants attention before; Infinity where there is none. */
  nextDueMs(): number {
    return this.#dueMs
  }

  /** Declares dead whose suspicion has run out. */
  expire(nowMs: number): void {
    if (nowMs < this.#dueMs) return
    for (const member of this.#suspects) {
      const suspicion = member.suspicion as Suspicion
      if (!suspicion.over(nowMs)) continue
      const update: Update = { peer: member.id, state: 'dead', incarnation: member.incarnation, from: this.self }
      const ranMs = Math.round(nowMs - suspicion.startMs)
      this.#died(member, update, nowMs, `not refuted for ${ranMs} ms, suspected by ${[...suspicion.by].join(', ')}`)
    }
    this.#findDue()
  }

  /** This process stood still for `lateMs`: suspicions move by that, and end no sooner than `graceMs` from now. */
  stalled(lateMs: number, graceMs: number, nowMs: number): void {
    for (const { suspicion } of this.#suspects) suspicion?.stalled(lateMs, graceMs, nowMs)
    this.#findDue()
  }

  #findDue(): void {
    this.#dueMs = Number.POSITIVE_INFINITY
    for (const { suspicion } of this.#suspects) {
      this.#dueMs = Math.min(this.#dueMs, suspicion?.dueMs ?? Number.POSITIVE_INFINITY)
    }
  }

  #applyToSelf(update: Update): boolean {
    if (update.state === 'alive') {
      this.#incarnation = Math.max(this.#incarnation, update.incarnation)
      return false
    }
    const refuted = update.incarnation >= this.#incarnation
    if (refuted) this.#facts.push({ kind: 'accused', peer: this.self, by: update.from, of: update.state })
    if (refuted) this.#incarnation = Math.min(update.incarnation + 1, LAST_INCARNATION)
    // A claim older than our last refutation means that somebody has missed it: it is told again.
    this.rumours.add({ peer: this.self, state: 'alive', incarnation: this.#incarnation, from: this.self })
    return refuted
  }

  #alive(member: MemberView, incarnation: number, nowMs: number, beyondDoubt = false): void {
    if (incarnation <= member.incarnation && !beyondDoubt) return
    const { id: peer, state: was, changedMs } = member
    member.incarnation = incarnation
    this.#become(member, 'alive', undefined, nowMs)
    this.rumours.add({ peer, state: 'alive', incarnation, from: peer })
    if (was === 'alive') return
    this.#changes.push({ peer, liveness: 'alive', why: `refuted as ${incarnation}` })
    this.#facts.push({ kind: 'refuted', peer, was, afterMs: nowMs - changedMs })
  }

  #suspect(member: MemberView, update: Update, nowMs: number, why: string): void {
    if (update.incarnation < member.incarnation) return
    const { id: peer, state: was } = member
    const newer = update.incarnation > member.incarnation
    if (was === 'dead' && !newer) return
    const running = newer ? undefined : member.suspicion
    if (running?.confirm(update.from) === false) return
    const suspicion = running ?? this.#newSuspicion(member, update.from, nowMs)
    member.incarnation = update.incarnation
    this.#become(member, 'suspect', suspicion, nowMs)
    this.#dueMs = Math.min(this.#dueMs, suspicion.dueMs)
    this.rumours.add(update, running === undefined)
    const about = { peer, by: update.from, deadInMs: Math.max(0, suspicion.deadlineMs - nowMs) }
    if (running !== undefined) this.#facts.push({ kind: 'confirmed', ...about })
    if (was === 'suspect') return
    this.#changes.push({ peer, liveness: 'suspect', why })
    this.#facts.push({ kind: 'suspected', ...about, why })
  }

  #newSuspicion(member: MemberView, by: PeerId, nowMs: number): Suspicion {
    const terms = {
      wanted: this.#wanted(member),
      factor: this.#factor(member, nowMs),
      lastLook: this.#extensions.allowances
    }
    return new Suspicion(this.#settings, by, terms, nowMs)
  }

  #wanted(member: MemberView): number {
    const dead = this.#dead.size - (member.state === 'dead' ? 1 : 0)
    return this.#extensions.lifeguard ? wantedConfirmations(1 + this.#others.length - dead) : 0
  }

  #factor(member: MemberView, nowMs: number): number {
    if (member.broken || !this.#extensions.allowances) return 1
    return nowMs - member.upSinceMs >= SETTLE_MS ? UNBROKEN_FACTOR : STARTING_FACTOR
  }

  #died(member: MemberView, update: Update, nowMs: number, why: string): void {
    if (update.incarnation < member.incarnation) return
    member.incarnation = update.incarnation
    if (member.state === 'dead') return
    const { id: peer, suspicion } = member
    this.#become(member, 'dead', undefined, nowMs)
    if (this.#isAlone) this.rumours.withdraw()
    else this.rumours.add(update)
    this.#changes.push({ peer, liveness: 'dead', why })
    const [suspectedBy, afterMs] = [[...(suspicion?.by ?? [])], nowMs - (suspicion?.startMs ?? nowMs)]
    this.#facts.push({ kind: 'declared-dead', peer, by: update.from, suspectedBy, afterMs })
  }

  /**
   * Half of all or more are dead to this peer: then it is cut off itself, or nothing can be decided anyway. What it holds of the others
   * is told to themselves alone, so that they refute. Told to others it came with the network, when that was back: who had been together
   * all the time held each other for dead until they had refuted.
   */
  get #isAlone(): boolean {
    return 2 * this.#dead.size > this.#others.length
  }

  /** Takes back what those who are gone said; a suspicion that nobody else shares is over. */
  #acquit(member: MemberView, gone: ReadonlySet<PeerId>, nowMs: number): void {
    const { by } = member.suspicion as Suspicion
    for (const id of by) if (gone.has(id)) by.delete(id)
    if (by.size > 0) return
    this.#become(member, 'alive', undefined, nowMs)
    this.#changes.push({ peer: member.id, liveness: 'alive', why: 'who suspected it is no member any more' })
  }

  #become(member: MemberView, state: Liveness, suspicion: Suspicion | undefined, nowMs: number): void {
    if (member.state !== state) member.changedMs = nowMs
    member.state = state
    member.suspicion = suspicion
    this.#suspects.delete(member)
    this.#dead.delete(member)
    if (state === 'suspect') this.#suspects.add(member)
    else if (state === 'dead') this.#dead.add(member)
  }
}

function newMember(id: PeerId): MemberView {
  return {
    id,
    state: 'alive',
    changedMs: 0,
    incarnation: 0,
    upSinceMs: Number.POSITIVE_INFINITY,
    connected: true,
    broken: false,
    suspicion: undefined
  }
}
