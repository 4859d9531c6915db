/**
 * Who tells people of what happened, and when: each thing to each target once.
 *
 * All peers that can tell a target, and live, stand in a row (by their ids), the same at each of them. Whoever sees a thing holds
 * it, and so does whoever hears of it from who saw it alone. The first in the row tells; who stands r places behind him does it
 * when r turns have passed and nobody has said that he is at it. So a thing outlives the peer that saw it, and he who was to tell
 * it. One peer tells of everything, and not each of what it decided, because a host's death moves a hundred groups to many owners:
 * told by one, it is one message, and what an hour may bring is counted in one place.
 *
 * Told twice: where he dies between telling and saying so, or where a network is cut so that two rows do not hear each other.
 * Told never: where all who hold a thing end before one has told it, or nobody could for GIVE_UP_MS.
 */
import type { NoticeKind } from '../../config/notices.ts'
import type { Core, PeerId } from '../core.ts'
import { Delay } from './delay.ts'
import type { Mark, Notice, NoticeState, NotificationMessage } from './messages.ts'
import { MAX_LISTED } from './messages.ts'
import { Told } from './told.ts'

/** What comes within this is told in one message. A guess: the restores of a host's groups are decided within it. */
export const GATHER_MS = 2_000
/** What each place in the row waits for the one before it to say that it is at it. A guess: longer than a host hesitates. */
export const TURN_MS = 5_000
/** Who has said that he is at it, and lives, has so long. Longer than his tries (`node/agents/notifications.ts`). */
export const CLAIM_MS = 180_000
/** When nobody in the row could, all try again after this, doubled up to sixteen times it. A guess. */
export const ROUND_MS = 30_000
/** What could not be told for so long is let go. A guess: who looks after an hour looks at the dashboard. */
export const GIVE_UP_MS = 3_600_000
/** Notices that wait for a target; above that the oldest go, counted. A guess: more than anybody reads. */
export const MAX_WAITING = 200

export interface TargetSettings {
  readonly name: string
  readonly on: readonly NoticeKind[]
  /** Messages an hour. */
  readonly perHour: number
}

export type NoticeInput =
  /** Seen here. `holdMs`: it is told only if it lasts so long. `alone`: nobody else may have seen it. */
  | { readonly kind: 'notice'; readonly notice: Notice; readonly holdMs?: number; readonly alone?: boolean }
  | { readonly kind: 'message'; readonly from: PeerId; readonly message: NotificationMessage }
  | { readonly kind: 'connected'; readonly peer: PeerId }
  /** Members that are not dead, this peer included. */
  | { readonly kind: 'alive'; readonly peers: readonly PeerId[] }
  /** What became of a `deliver`. */
  | { readonly kind: 'delivered' | 'failed'; readonly target: string }
  | { readonly kind: 'timer' }

export type NoticeEffect =
  /** To one, or to all others. */
  | { readonly kind: 'send'; readonly to: PeerId | 'all'; readonly message: NotificationMessage }
  /** Answered by `delivered` or `failed`; one at a time a target. `left`: older ones that there was no room for. */
  | { readonly kind: 'deliver'; readonly target: string; readonly notices: readonly Notice[]; readonly left: number }
  /** Nobody was told of them. */
  | { readonly kind: 'lost'; readonly target: string; readonly notices: readonly Notice[] }
  | { readonly kind: 'timer'; readonly atMs: number }

interface Waiting {
  readonly notice: Notice
  /** Since when it is known here, and from when the row counts its turns. */
  readonly sinceMs: number
  fromMs: number
  claim?: { readonly by: PeerId; readonly untilMs: number } | undefined
  /** Who could not tell it, in this round. */
  readonly failed: Set<PeerId>
  rounds: number
}

interface Target extends TargetSettings {
  /** By key, in the order in which they came. */
  readonly waiting: Map<string, Waiting>
  readonly delay: Delay
  left: number
  /** Being told by this peer. */
  telling: readonly Notice[] | undefined
}

export class NoticeCore implements Core<NoticeInput, NoticeEffect> {
  readonly #self: PeerId
  readonly #targets: readonly Target[]
  readonly #told = new Told()
  readonly #others = new Map<PeerId, ReadonlyMap<string, ReadonlySet<NoticeKind>>>()
  #alive: readonly PeerId[]

  constructor(self: PeerId, targets: readonly TargetSettings[]) {
    this.#self = self
    this.#alive = [self]
    this.#targets = targets.map(target => ({
      ...target,
      waiting: new Map(),
      delay: new Delay(target.perHour),
      left: 0,
      telling: undefined
    }))
  }

  /** For people: how many wait for each target. */
  waiting(): ReadonlyMap<string, number> {
    return new Map(this.#targets.map(({ name, waiting }) => [name, waiting.size]))
  }

  /** Who tells this kind of thing to the target, if nothing comes between: the first of the row. */
  speaker(target: string, kind: NoticeKind): PeerId | undefined {
    return this.#row(target, kind)[0]
  }

  step(input: NoticeInput, nowMs: number): NoticeEffect[] {
    return [...this.#take(input, nowMs), ...this.#turn(nowMs)]
  }

  #take(input: NoticeInput, nowMs: number): NoticeEffect[] {
    switch (input.kind) {
      case 'notice': {
        this.#hold(input.notice, input.holdMs ?? 0, nowMs)
        if (input.alone !== true) return []
        return [{ kind: 'send', to: 'all', message: { kind: 'notice', notice: input.notice } }]
      }
      case 'message':
        this.#onMessage(input.from, input.message, nowMs)
        return []
      case 'connected': {
        const targets = this.#targets.map(({ name, on }) => ({ name, on: [...on] }))
        const message = { kind: 'hello' as const, targets, told: this.#told.newest(MAX_LISTED) }
        return [{ kind: 'send', to: input.peer, message }]
      }
      case 'alive':
        this.#alive = [...new Set([...input.peers, this.#self])].toSorted()
        for (const { waiting } of this.#targets) {
          for (const item of waiting.values())
            if (!this.#alive.includes(item.claim?.by ?? this.#self)) free(item, nowMs)
        }
        return []
      case 'delivered':
      case 'failed':
        return this.#onOutcome(input.target, input.kind, nowMs)
      case 'timer':
        return []
    }
  }

  // -------------------------------------------------------------------------------------------- what there is to tell

  #hold(notice: Notice, holdMs: number, nowMs: number): void {
    for (const target of this.#targets) {
      if (!target.on.includes(notice.kind)) continue
      const { key, state } = notice
      const before = target.waiting.get(key)
      if (before?.notice.state === state) continue
      const isBeingTold = before?.claim !== undefined
      // What began and ended before anybody was told of it, and what ended and began again, is nothing to tell.
      if (before !== undefined && !isBeingTold) target.waiting.delete(key)
      const told = isBeingTold ? before.notice.state : this.#told.of(target.name, key)
      if (!isNews(told, state)) continue
      const fromMs = nowMs + holdMs + GATHER_MS
      target.waiting.set(key, { notice, sinceMs: nowMs, fromMs, failed: new Set(), rounds: 0 })
      this.#bound(target)
    }
  }

  #bound(target: Target): void {
    for (const [key, { claim }] of target.waiting) {
      if (target.waiting.size <= MAX_WAITING) return
      if (claim !== undefined) continue
      target.waiting.delete(key)
      target.left++
    }
  }

  #onMessage(from: PeerId, message: NotificationMessage, nowMs: number): void {
    if (message.kind === 'notice') return this.#hold(message.notice, 0, nowMs)
    if (message.kind === 'hello') {
      this.#others.set(from, new Map(message.targets.map(({ name, on }) => [name, new Set(on)])))
      for (const { target, ...mark } of message.told) this.#onTold(target, mark)
      return
    }
    const target = this.#targets.find(({ name }) => name === message.target)
    for (const mark of message.marks) {
      if (message.kind === 'told') this.#onTold(message.target, mark)
      const item = target?.waiting.get(mark.key)
      if (item === undefined || item.notice.state !== mark.state) continue
      if (message.kind === 'claim' && item.claim?.by !== this.#self)
        item.claim = { by: from, untilMs: nowMs + CLAIM_MS }
      if (message.kind === 'gave-up') this.#giveUp(item, from, nowMs)
    }
  }

  #onTold(name: string, mark: Mark): void {
    this.#told.note(name, mark)
    const waiting = this.#targets.find(target => target.name === name)?.waiting
    const item = waiting?.get(mark.key)
    if (item !== undefined && !isNews(mark.state, item.notice.state)) waiting?.delete(mark.key)
  }

  #giveUp(item: Waiting, by: PeerId, nowMs: number): void {
    item.failed.add(by)
    free(item, nowMs)
  }

  // -------------------------------------------------------------------------------------------- whose turn it is

  #row(target: string, kind: NoticeKind): PeerId[] {
    const can = (peer: PeerId): boolean =>
      peer === this.#self
        ? this.#targets.some(({ name, on }) => name === target && on.includes(kind))
        : this.#others.get(peer)?.get(target)?.has(kind) === true
    return this.#alive.filter(can)
  }

  #dueMs(target: Target, item: Waiting): number {
    const row = this.#row(target.name, item.notice.kind).filter(peer => !item.failed.has(peer))
    const place = row.indexOf(this.#self)
    if (place < 0) return Number.POSITIVE_INFINITY
    return Math.max(item.fromMs, item.claim?.untilMs ?? 0) + place * TURN_MS
  }

  #turn(nowMs: number): NoticeEffect[] {
    const effects: NoticeEffect[] = []
    let nextMs = Number.POSITIVE_INFINITY
    for (const target of this.#targets) {
      effects.push(...this.#letGo(target, nowMs))
      this.#newRounds(target, nowMs)
      const due = [...target.waiting.values()].map(item => ({ item, dueMs: this.#dueMs(target, item) }))
      const firstMs = Math.min(...due.map(({ dueMs }) => dueMs))
      const atMs = Math.max(firstMs, target.delay.freeMs(nowMs))
      if (target.telling !== undefined) continue // what became of it comes back as an input
      if (atMs > nowMs) {
        nextMs = Math.min(nextMs, atMs)
        continue
      }
      const notices = due.flatMap(({ item, dueMs }) => (dueMs <= nowMs ? [item.notice] : []))
      effects.push(...this.#tell(target, notices, nowMs))
    }
    if (nextMs < Number.POSITIVE_INFINITY) effects.push({ kind: 'timer', atMs: nextMs })
    return effects
  }

  #tell(target: Target, notices: readonly Notice[], nowMs: number): NoticeEffect[] {
    const { name, left } = target
    target.delay.take(nowMs)
    target.telling = notices
    target.left = 0
    for (const { key } of notices) {
      const item = target.waiting.get(key)
      if (item !== undefined) item.claim = { by: this.#self, untilMs: Number.POSITIVE_INFINITY }
    }
    const message = { kind: 'claim' as const, target: name, marks: notices.map(markOf) }
    return [
      { kind: 'send', to: 'all', message },
      { kind: 'deliver', target: name, notices, left }
    ]
  }

  #onOutcome(name: string, outcome: 'delivered' | 'failed', nowMs: number): NoticeEffect[] {
    const target = this.#targets.find(each => each.name === name)
    const marks = target?.telling?.map(markOf) ?? []
    if (target === undefined || marks.length === 0) return []
    target.telling = undefined
    for (const mark of marks) {
      if (outcome === 'delivered') this.#onTold(name, mark)
      const item = target.waiting.get(mark.key)
      if (item?.notice.state !== mark.state) continue
      this.#giveUp(item, this.#self, nowMs)
    }
    const kind = outcome === 'delivered' ? 'told' : 'gave-up'
    return [{ kind: 'send', to: 'all', message: { kind, target: name, marks } }]
  }

  /** Nobody of the row could: all of it tries again, a while later. */
  #newRounds(target: Target, nowMs: number): void {
    for (const item of target.waiting.values()) {
      const row = this.#row(target.name, item.notice.kind)
      if (!row.every(peer => item.failed.has(peer))) continue
      item.failed.clear()
      item.fromMs = nowMs + ROUND_MS * 2 ** Math.min(item.rounds++, 4)
    }
  }

  #letGo(target: Target, nowMs: number): NoticeEffect[] {
    const old = [...target.waiting.values()].filter(
      ({ sinceMs, claim, rounds }) => rounds > 0 && claim === undefined && nowMs - sinceMs > GIVE_UP_MS
    )
    const notices = old.map(({ notice }) => notice)
    for (const { key } of notices) target.waiting.delete(key)
    return notices.length === 0 ? [] : [{ kind: 'lost', target: target.name, notices }]
  }
}

const markOf = ({ key, state }: Notice): Mark => ({ key, state })

function free(item: Waiting, nowMs: number): void {
  item.claim = undefined
  item.fromMs = Math.max(item.fromMs, nowMs)
}

/** A state has ended only for who was told that it began. */
function isNews(told: NoticeState | undefined, state: NoticeState): boolean {
  return state === 'ended' ? told === 'begun' : told !== state
}
