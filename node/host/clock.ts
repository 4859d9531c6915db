/** The clocks of this machine. */
import type { Clock } from '../ports.ts'

/** Monotonic: `performance.now` is CLOCK_MONOTONIC, which goes on while this process is stopped. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, fn) {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  }
}

/** Wall clock in milliseconds since 1970 with a fraction; it may jump, so it is for reports only. */
export const wallMs = (): number => performance.timeOrigin + performance.now()
