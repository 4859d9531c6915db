/**
 * A monotonic clock that goes on while the machine sleeps.
 *
 * CLOCK_MONOTONIC, the clock of `performance.now`, stands still from the moment a laptop is shut until it wakes. A holder
 * that trusted it would find its lease as young as it left it, long after another took over. CLOCK_BOOTTIME goes on, and
 * is CLOCK_MONOTONIC plus the time slept, exactly; but a program on Node can only read it from /proc/uptime, in steps of
 * 10 ms, for some microseconds each time. So we count with the former and add what it is seen to have missed.
 *
 * **When to look.** A check of a lease in the first instant after waking must see what was slept. The wall clock costs
 * nothing to read and jumps ahead of the monotonic one by that very time before any program runs again; so each call
 * compares the two, and looks at CLOCK_BOOTTIME where they have moved against each other. Only a wall clock that is set
 * back in the same moment by the time that was slept could hide it, and no longer than until the next regular look.
 *
 * **How exact.** Every look gives bounds, which hold also where the process was stopped in the middle of it, and what is
 * certain is added, never more: this clock never runs ahead of real time. It is behind by what cannot be told from the
 * step of /proc/uptime: less than 10 ms in all while the machine never sleeps for longer, and a fraction of a millisecond
 * after it did, because then a look waits for the next step.
 *
 * Not seen: a peer that is in a virtual machine itself, when that is stopped with all its clocks.
 */

/** How far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC, as far as one look at both can tell. */
export interface Ahead {
  readonly leastMs: number
  readonly mostMs: number
}

export interface MachineClocks {
  /** CLOCK_MONOTONIC. */
  monotonicMs(): number
  /** CLOCK_REALTIME: may be set. */
  wallMs(): number
  /** `exact`: takes up to a step of CLOCK_BOOTTIME and tells more. */
  ahead(exact: boolean): Ahead
}

/** Reading two clocks takes a moment, and `Date.now` has whole milliseconds: less is no news. */
const WALL_NOISE_MS = 2
/** For the wall clock that hides a sleep. A guess: no lease is so short, and 15 µs in it are nothing. */
const LOOK_EVERY_MS = 100
/** What a look must find for an exact one: not the rounding of floating-point numbers. A guess. */
const NEWS_MS = 0.1

export class SleepClock {
  readonly #clocks: MachineClocks
  /** How far ahead CLOCK_BOOTTIME was when we began, at the most. */
  #beganMs = Number.POSITIVE_INFINITY
  #sleptMs = 0
  #lookedMs = 0
  #wallAheadMs = 0

  /** May take up to a step of CLOCK_BOOTTIME. */
  constructor(clocks: MachineClocks) {
    this.#clocks = clocks
    this.#count(clocks.ahead(true))
    this.#looked()
  }

  now(): number {
    const nowMs = this.#clocks.monotonicMs()
    const movedMs = Math.abs(this.#clocks.wallMs() - nowMs - this.#wallAheadMs)
    if (movedMs < WALL_NOISE_MS && nowMs - this.#lookedMs < LOOK_EVERY_MS) return nowMs + this.#sleptMs
    const knownMs = this.#sleptMs
    this.#count(this.#clocks.ahead(false))
    if (this.#sleptMs > knownMs + NEWS_MS) this.#count(this.#clocks.ahead(true))
    this.#looked()
    return this.#clocks.monotonicMs() + this.#sleptMs
  }

  #count({ leastMs, mostMs }: Ahead): void {
    this.#beganMs = Math.min(this.#beganMs, mostMs - this.#sleptMs)
    this.#sleptMs = Math.max(this.#sleptMs, leastMs - this.#beganMs)
  }

  #looked(): void {
    this.#lookedMs = this.#clocks.monotonicMs()
    this.#wallAheadMs = this.#clocks.wallMs() - this.#lookedMs
  }
}
