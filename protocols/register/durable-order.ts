/**
 * Persist, then speak, in order. What a step wants on disk and what it wants said after go in together; things are said
 * in the order of the steps, each when its own entries *and those of every step before it* are on disk. So an answer
 * without entries may still wait: it tells of state that is only now being written. Steps that come while the disk is
 * busy share the next fsync (group commit).
 */
import { DiapauseError } from '../../node/errors.ts'

/**
 * Steps that may wait for the disk; with one more it counts as failed, for one that hangs would never say so. 10,000: a guess;
 * 10 MB as a rule, and ten seconds at a thousand messages a second.
 */
export const MAX_WAITING_STEPS = 10_000

/** Null removes it. */
export type Entry = readonly [string, Uint8Array | null]

export class DurableOrder {
  readonly #persist: (entries: readonly Entry[]) => Promise<void>
  readonly #onBroken: (cause: unknown) => void
  #entries = new Map<string, Uint8Array | null>()
  #then: (() => void)[] = []
  #writing = false
  #broken = false

  /** After a `persist` that failed, or does not end, nothing is said any more: what is on disk is unknown. */
  constructor(persist: (entries: readonly Entry[]) => Promise<void>, onBroken: (cause: unknown) => void) {
    this.#persist = persist
    this.#onBroken = onBroken
  }

  submit(entries: readonly Entry[], then: () => void): void {
    if (this.#broken) return
    if (this.#then.length >= MAX_WAITING_STEPS) return this.#break(hanging())
    // Of two states of one key only the later is written; both answers wait for it.
    for (const [name, bytes] of entries) this.#entries.set(name, bytes)
    this.#then.push(then)
    if (!this.#writing) this.#flush()
  }

  /** Nothing more is said. */
  stop(): void {
    this.#broken = true
    this.#then = []
    this.#entries.clear()
  }

  #flush(): void {
    const then = this.#then
    this.#then = []
    if (this.#entries.size === 0) {
      for (const say of then) say()
      return
    }
    const entries = [...this.#entries]
    this.#entries.clear()
    this.#writing = true
    this.#persist(entries).then(
      () => {
        // What is said may submit more: that is written next, not in between.
        for (const say of then) if (!this.#broken) say()
        this.#writing = false
        if (!this.#broken && this.#then.length > 0) this.#flush()
      },
      (cause: unknown) => {
        if (!this.#broken) this.#break(cause)
      }
    )
  }

  #break(cause: unknown): void {
    this.stop()
    this.#onBroken(cause)
  }
}

const hanging = (): DiapauseError =>
  new DiapauseError(
    'REGISTER_STORE_HANGS',
    `${MAX_WAITING_STEPS} steps wait for a write that does not end: is the disk stuck?`
  )
