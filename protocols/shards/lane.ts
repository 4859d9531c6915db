/** At most so many requests under way to one peer; the rest wait in order. Pure: a counter and a queue. */
export class Lane {
  readonly #limit: number
  readonly #waiting: (() => void)[] = []
  #inFlight = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Calls `operation` when there is room. */
  async run<T>(operation: () => Promise<T>): Promise<T> {
    if (this.#inFlight < this.#limit) this.#inFlight++
    else await new Promise<void>(resolve => this.#waiting.push(resolve))
    try {
      return await operation()
    } finally {
      // The place goes to who has waited longest, and is never free in between.
      const next = this.#waiting.shift()
      if (next === undefined) this.#inFlight--
      else next()
    }
  }
}
