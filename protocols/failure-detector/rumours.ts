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
  readonly #limit: number
  readonly #rumours = new Map<string, Rumour>()

  constructor(members: number) {
    this.#limit = retransmissions(members)
  }

  /** True while something has not been told to anyone. */
  get fresh(): boolean {
    for (const rumour of this.#rumours.values()) if (rumour.told === 0) return true
    return false
  }

  add(update: Update): void {
    for (const [key, { update: old }] of this.#rumours) {
      const sideBySide =
        old.state === 'suspect' &&
        update.state === 'suspect' &&
        old.incarnation === update.incarnation &&
        old.from !== update.from
      if (old.peer === update.peer && !sideBySide) this.#rumours.delete(key)
    }
    this.#rumours.set(`${update.peer} ${update.from}`, { update, told: 0 })
  }

  /** At most `max` claims for one message, counted as told. `first` is put before them, and not counted. */
  take(max: number, first: Update | undefined): Update[] {
    const list: Update[] = first === undefined ? [] : [first]
    const byTold = [...this.#rumours].sort(([, a], [, b]) => a.told - b.told)
    for (const [key, rumour] of byTold) {
      if (list.length >= max) break
      if (first !== undefined && rumour.update.peer === first.peer && rumour.update.from === first.from) continue
      list.push(rumour.update)
      if (++rumour.told >= this.#limit) this.#rumours.delete(key)
    }
    return list
  }
}
