/**
 * Which members this peer has held for dead for so long, without a break, that nobody waits for them any more. Counted by
 * timers, which wait while this machine sleeps: only time in which it could have heard of them counts.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { Clock, FailureDetector } from '../ports.ts'

export class LostMembers {
  readonly #lost = new Set<PeerId>()
  readonly #cancels = new Map<PeerId, () => void>()

  constructor(deps: {
    readonly detector: Pick<FailureDetector, 'onChange'>
    readonly clock: Clock
    readonly lostAfterMs: number
  }) {
    deps.detector.onChange((peer, liveness) => {
      this.#cancels.get(peer)?.()
      this.#cancels.delete(peer)
      this.#lost.delete(peer)
      if (liveness !== 'dead') return
      const cancel = deps.clock.after(deps.lostAfterMs, () => {
        this.#cancels.delete(peer)
        this.#lost.add(peer)
      })
      this.#cancels.set(peer, cancel)
    })
  }

  has(peer: PeerId): boolean {
    return this.#lost.has(peer)
  }

  stop(): void {
    for (const cancel of this.#cancels.values()) cancel()
    this.#cancels.clear()
  }
}
