/**
 * Who holds whom for dead although nothing is in the way of knowing better. Counted from the belief, and anew from whatever
 * came between the two since: a crash, a stop, a partition, a broken connection, weather in which messages are lost.
 */
import type { Liveness } from '../../node/ports.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { JudgedWorld } from './cluster-invariants.ts'
import type { Life } from './world-host.ts'

interface Belief {
  readonly holder: Life
  readonly about: PeerId
  /** Since when nothing was in the way. */
  sinceMs: number
}

export class Beliefs {
  readonly #world: JudgedWorld
  readonly #dead = new Map<string, Belief>()
  /** The longest that one of them has lasted with nothing in the way. */
  longestMs = 0
  /** Those that ended by a refutation. */
  refuted = 0

  constructor(world: JudgedWorld) {
    this.#world = world
  }

  /** `holder` believes something else of `about` than before. */
  changed(holder: Life, about: PeerId, liveness: Liveness): void {
    const name = `${holder.host.name} ${about}`
    if (liveness === 'dead') this.#dead.set(name, { holder, about, sinceMs: this.#world.kernel.nowMs })
    else if (this.#dead.delete(name)) this.refuted += 1
  }

  /** To be called after every event. The belief that has lasted for more than `boundMs` of a member that could refute it. */
  lasting(boundMs: number): string | undefined {
    const { nowMs } = this.#world.kernel
    for (const [name, belief] of this.#dead) {
      const { holder, about, sinceMs } = belief
      if (holder.dead) this.#dead.delete(name)
      else if (!this.#connected(holder.host.name, about)) belief.sinceMs = nowMs
      else {
        this.longestMs = Math.max(this.longestMs, nowMs - sinceMs)
        if (nowMs - sinceMs > boundMs) return `${holder.host.name} holds ${about} for dead`
      }
    }
    return undefined
  }

  /** Both processes run, and all that one says to the other comes there on the connection that it has. */
  #connected(a: PeerId, b: PeerId): boolean {
    const { network } = this.#world
    return network.loss === 0 && network.talks(a, b) && network.talks(b, a)
  }
}
