/**
 * The kernel of a simulated world: one queue of events in virtual time and one source of chance, both from a seed. After
 * each event every promise that it settled has had its consequences, and only then comes the next; so a run is a list of
 * events, the same at every run of the seed.
 *
 * What waits for that are ticks of the process and not turns of its event loop: Node runs a tick when no microtask is left,
 * and it costs a microsecond.
 */
import type { Random } from '../../protocols/core.ts'

/** What an event is, for people. Made only where somebody listens. */
export type What = string | (() => string)

interface Event {
  readonly atMs: number
  readonly order: number
  readonly what: What
  readonly run: () => void
}

export class Kernel {
  readonly random: Random
  nowMs = 0
  events = 0
  /** A running hash of all that happened: equal for equal seeds. */
  digest = 0
  /** Is told of every event, before it happens, and of every note. */
  listener: ((atMs: number, what: string) => void) | undefined
  readonly #queue: Event[] = []
  #order = 0

  constructor(seed: number) {
    this.random = generator(seed)
  }

  /** Uniform in [low, high). */
  between(low: number, high: number): number {
    return low + this.random() * (high - low)
  }

  chance(probability: number): boolean {
    return this.random() < probability
  }

  pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.random() * from.length)] as T
  }

  at(delayMs: number, what: What, run: () => void): void {
    push(this.#queue, { atMs: this.nowMs + delayMs, order: this.#order++, what, run })
  }

  note(what: What): void {
    this.listener?.(this.nowMs, typeof what === 'string' ? what : what())
  }

  /** Runs events until `untilMs`, each followed by `check`; ends before that where `check` says so. */
  async run(untilMs: number, check: () => boolean): Promise<void> {
    const queue = this.#queue
    // From here on this runs in a microtask: in any other place a tick would come before the microtasks, not after.
    await Promise.resolve()
    for (let event = queue[0]; event !== undefined && event.atMs <= untilMs; event = queue[0]) {
      pop(queue)
      this.nowMs = event.atMs
      this.events += 1
      this.digest = (Math.imul(this.digest, 31) + Math.floor(event.atMs * 1024) + event.order) | 0
      this.note(event.what)
      event.run()
      await new Promise<void>(resolve => process.nextTick(resolve))
      if (check()) return
    }
    this.nowMs = Math.max(this.nowMs, untilMs)
  }
}

/** mulberry32: small, fast, good enough to choose faults. */
export function generator(seed: number): Random {
  let a = seed >>> 0
  return () => {
    a = (a + 0x6d2b79f5) >>> 0
    let t = Math.imul(a ^ (a >>> 15), a | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

// ---------------------------------------------------------------------------------------------- a binary heap

function before(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}

function push(queue: Event[], event: Event): void {
  let i = queue.push(event) - 1
  while (i > 0) {
    const up = (i - 1) >> 1
    const parent = queue[up] as Event
    if (before(parent, event)) break
    queue[i] = parent
    i = up
  }
  queue[i] = event
}

/** Takes out the first. */
function pop(queue: Event[]): void {
  const last = queue.pop() as Event
  if (queue.length === 0) return
  let i = 0
  for (;;) {
    let child = 2 * i + 1
    let least = queue[child]
    if (least === undefined) break
    const right = queue[child + 1]
    if (right !== undefined && before(right, least)) {
      least = right
      child += 1
    }
    if (before(last, least)) break
    queue[i] = least
    i = child
  }
  queue[i] = last
}
