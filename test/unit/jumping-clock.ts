/** A clock for agents that wait for hours: time is what the test says, and what is due by then happens. */
import type { Clock } from '../../node/ports.ts'

/** Goes from timer to timer. */
export class JumpingClock implements Clock {
  nowMs = 5_000
  #timers: { atMs: number; fn: () => void }[] = []

  now(): number {
    return this.nowMs
  }

  after(ms: number, fn: () => void): () => void {
    const timer = { atMs: this.nowMs + ms, fn }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter(other => other !== timer)
    }
  }

  async until(ms: number): Promise<void> {
    await settled()
    for (;;) {
      const [next] = this.#timers.sort((a, b) => a.atMs - b.atMs)
      if (next === undefined || next.atMs > ms) break
      this.#timers.shift()
      this.nowMs = next.atMs
      next.fn()
      await settled()
    }
    this.nowMs = ms
  }
}

/** Everything that needs no time is done. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate)
}
