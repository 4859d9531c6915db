/** At most so many requests under way to one peer; the rest wait in order. Pure: a counter and a queue. */
export class Lane {
  readonly #limit: number
  readonly #waiting = new Set<() => void>()
  #inFlight = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Calls `operation` when there is room. Rejects with the signal's reason where it aborts before. */
  async run<T>(operation: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    if (this.#inFlight < this.#limit) this.#inFlight++
    else await this.#turn(signal)
    try {
      return await operation()
    } finally {
      // The place goes to who has waited longest, and is never free in between.
      const [next] = this.#waiting
      if (next === undefined) this.#inFlight--
      else next()
    }
  }

  #turn(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        this.#waiting.delete(go)
        signal?.removeEventListener('abort', abort)
      }
      const go = (): void => {
        leave()
        resolve()
      }
      const abort = (): void => {
        leave()
        reject(reasonOf(signal))
      }
      this.#waiting.add(go)
      signal?.addEventListener('abort', abort)
    })
  }
}

/** Why it was aborted. */
export function reasonOf(signal: AbortSignal | undefined): Error {
  const reason: unknown = signal?.reason
  return reason instanceof Error ? reason : new Error(String(reason))
}
