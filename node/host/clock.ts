/** The clocks of this machine. */
import { uptime } from 'node:os'
import type { Clock } from '../ports.ts'
import { type Ahead, SleepClock } from './sleep-clock.ts'

/** A look at CLOCK_BOOTTIME that took longer than this was interrupted. Ten times what it takes. */
const UNDISTURBED_MS = 0.2
/** Ten steps of /proc/uptime: on a host so busy that no look is undisturbed, the best of them must do. */
const PATIENCE_MS = 100

/** `uptime` is CLOCK_BOOTTIME, rounded down to 10 ms (Linux, fs/proc/uptime.c). */
const sources = { monotonicMs: () => performance.now(), uptimeMs: () => uptime() * 1000 }

export function bootAhead(exact: boolean, { monotonicMs, uptimeMs } = sources): Ahead {
  let beforeMs = monotonicMs()
  const startMs = beforeMs
  let bootMs = uptimeMs()
  let afterMs = monotonicMs()
  let best: Ahead = { leastMs: bootMs - afterMs, mostMs: Number.POSITIVE_INFINITY }
  while (exact && best.mostMs - best.leastMs > UNDISTURBED_MS && afterMs - startMs < PATIENCE_MS) {
    const lastMs = bootMs
    bootMs = uptimeMs()
    const nowMs = monotonicMs()
    // At a moment since the look before this one it was just `bootMs`.
    const found = { leastMs: bootMs - nowMs, mostMs: bootMs - beforeMs }
    if (bootMs !== lastMs && found.mostMs - found.leastMs < best.mostMs - best.leastMs) best = found
    beforeMs = afterMs
    afterMs = nowMs
  }
  return best
}

let machine: SleepClock | undefined

/** Monotonic; goes on while this process is stopped and while the machine sleeps. Timers wait until it is awake. */
export const systemClock: Clock = {
  now() {
    machine ??= new SleepClock({
      monotonicMs: sources.monotonicMs,
      wallMs: () => Date.now(),
      ahead: exact => bootAhead(exact)
    })
    return machine.now()
  },
  after(ms, fn) {
    const timer = setTimeout(fn, ms)
    return () => clearTimeout(timer)
  }
}

/** Less is left to add up, so that differences keep their fractions while NTP slews the clock. A guess. */
const WALL_STEP_MS = 20
let wallAheadMs = performance.timeOrigin

/**
 * Wall clock in milliseconds since 1970 with a fraction, within 20 ms of what the system says now: it jumps where somebody
 * sets the clock, and where the machine has slept. For dates, as in invitations and reports; never for leases.
 */
export function wallMs(): number {
  const nowMs = performance.now()
  const systemMs = Date.now()
  if (Math.abs(systemMs - nowMs - wallAheadMs) > WALL_STEP_MS) wallAheadMs = systemMs - nowMs
  return nowMs + wallAheadMs
}
