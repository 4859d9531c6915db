import type { PeerId } from '../core.ts'
import type { Update } from './messages.ts'

/** SWIM's λ (section 4.1): a rumour rides on λ·ln(n + 1) messages; 3 makes missing a member improbable at 10 % loss. */
const LAMBDA = 3

export const retransmissions = (members: number): number => Math.ceil(LAMBDA * Math.log(members + 1))

interface Rumour {
  readonly update: Update
  told: number
}

/**
 * Claims on their way through the cluster, piggybacked on the messages of the detector. The least told go first (SWIM,
 * section 4.1). A claim about a member replaces those that it overrides; suspicions of the same incarnation by different
 * peers stand side by side, because Lifeguard counts them.
 */
export class Rumours {
  #limit: number
  /** By the member that they are about. */
  readonly #about = new Map<PeerId, Rumour[]>()
  /** By how often they were told. */
  readonly #byTold: Set<Rumour>[] = []

  constructor(members: number) {
    this.#limit = retransmissions(members)
  }

  /** True while something has not been told to anyone. */
  get fresh(): boolean {
    return (this.#byTold[0]?.size ?? 0) > 0
  }

  get size(): number {
    return this.#byTold.reduce((sum, rumours) => sum + rumours.size, 0)
  }

  /** What is not `urgent` waits for the next message and is told half as often. */
  add(update: Update, urgent = true): void {
    const about = this.#about.get(update.peer) ?? []
    const kept = about.filter(({ update: old }) => sideBySide(old, update))
    for (const rumour of about) if (!kept.includes(rumour)) this.#byTold[rumour.told]?.delete(rumour)
    const rumour = { update, told: urgent ? 0 : this.#limit >> 1 }
    this.#about.set(update.peer, [...kept, rumour])
    this.#put(rumour)
  }

  /** At most `max` claims for one message, counted as told. `first` is put before them, and not counted. */
  take(max: number, first: Update | undefined): Update[] {
    const taken: Rumour[] = []
    const room = first === undefined ? max : max - 1
    for (const rumours of this.#byTold) {
      for (const rumour of rumours) {
        if (taken.length >= room) break
        if (rumour.update.peer !== first?.peer || rumour.update.from !== first.from) taken.push(rumour)
      }
    }
    for (const rumour of taken) this.#told(rumour)
    const updates = taken.map(({ update }) => update)
    return first === undefined ? updates : [first, ...updates]
  }

  /** The cluster has `members` now; nothing about `gone` or by them is told any more. */
  resize(members: number, gone: ReadonlySet<PeerId>): void {
    this.#limit = retransmissions(members)
    if (gone.size === 0) return
    for (const rumours of this.#byTold) {
      for (const rumour of rumours) {
        if (gone.has(rumour.update.peer) || gone.has(rumour.update.from)) this.#delete(rumour)
      }
    }
  }

  /** Nothing is told any more but who is alive. */
  withdraw(): void {
    for (const rumours of this.#byTold) {
      for (const rumour of rumours) if (rumour.update.state !== 'alive') this.#delete(rumour)
    }
  }

  #told(rumour: Rumour): void {
    this.#byTold[rumour.told]?.delete(rumour)
    rumour.told++
    if (rumour.told < this.#limit) this.#put(rumour)
    else this.#delete(rumour)
  }

  #put(rumour: Rumour): void {
    while (this.#byTold.length <= rumour.told) this.#byTold.push(new Set())
    this.#byTold[rumour.told]?.add(rumour)
  }

  #delete(rumour: Rumour): void {
    this.#byTold[rumour.told]?.delete(rumour)
    const { peer } = rumour.update
    const rest = this.#about.get(peer)?.filter(other => other !== rumour) ?? []
    if (rest.length > 0) this.#about.set(peer, rest)
    else this.#about.delete(peer)
  }
}

const sideBySide = (old: Update, update: Update): boolean =>
  old.state === 'suspect' &&
  update.state === 'suspect' &&
  old.incarnation === update.incarnation &&
  old.from !== update.from
