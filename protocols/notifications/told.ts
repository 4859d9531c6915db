/** What people were told, to which target: the newest of each key, bounded. */
import type { Mark, NoticeState } from './messages.ts'

/** Above this the oldest are forgotten: they may be told again, if they are still seen. A guess: a cluster's states and a month of failovers. */
const MAX_TOLD = 4_096

export class Told {
  /** `TARGET KEY`, oldest first. */
  readonly #states = new Map<string, { readonly target: string } & Mark>()

  of(target: string, key: string): NoticeState | undefined {
    return this.#states.get(`${target} ${key}`)?.state
  }

  note(target: string, { key, state }: Mark): void {
    const name = `${target} ${key}`
    this.#states.delete(name)
    this.#states.set(name, { target, key, state })
    for (const [oldest] of this.#states) {
      if (this.#states.size <= MAX_TOLD) return
      this.#states.delete(oldest)
    }
  }

  newest(count: number): ({ readonly target: string } & Mark)[] {
    return [...this.#states.values()].slice(-count)
  }
}
