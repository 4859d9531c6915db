import type { PeerId } from '../../protocols/core.ts'
import type { Observed } from './swim-world.ts'

/** Who holds whom dead, since when: kept from what is observed, so that nobody has to look at all views. */
export class Beliefs {
  /** Member → those who hold it dead, with the time. */
  readonly #dead = new Map<PeerId, Map<PeerId, number>>()

  take({ atMs, by, peer, liveness }: Observed): void {
    const holders = this.#dead.get(peer)
    if (liveness === 'dead') {
      if (holders === undefined) this.#dead.set(peer, new Map([[by, atMs]]))
      else holders.set(by, atMs)
    } else if (liveness === 'alive') this.#drop(peer, by)
  }

  /** How many hold it dead. */
  holders(peer: PeerId): number {
    return this.#dead.get(peer)?.size ?? 0
  }

  /** Since when `by` holds it dead; undefined where it does not. */
  since(peer: PeerId, by: PeerId): number | undefined {
    return this.#dead.get(peer)?.get(by)
  }

  /** Nobody is dead to anybody. */
  get clear(): boolean {
    return this.#dead.size === 0
  }

  /** It has begun a new life, which remembers nothing. */
  restarted(by: PeerId): void {
    for (const peer of this.#dead.keys()) this.#drop(peer, by)
  }

  #drop(peer: PeerId, by: PeerId): void {
    const holders = this.#dead.get(peer)
    holders?.delete(by)
    if (holders?.size === 0) this.#dead.delete(peer)
  }
}
