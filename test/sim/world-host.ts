/**
 * Hosts and the peers' processes on them. A *life* is one run of a peer's process: when it ends, its timers, messages and
 * promises are dead, and nothing of it runs again. A process can be stopped and continued (SIGSTOP): what comes meanwhile
 * waits. A whole host can freeze (a laptop lid): then its virtual machines stand still as well, and so do its monotonic clock
 * and its timers, as CLOCK_MONOTONIC does in a machine that sleeps. Each host's clocks have a rate of their own within the
 * drift bound, and its wall clock jumps.
 */
import { type MachineClocks, SleepClock } from '../../node/host/sleep-clock.ts'
import type { Clock } from '../../node/ports.ts'
import type { PeerId } from '../../protocols/core.ts'
import { Disk } from './world-disk.ts'
import type { Kernel, What } from './kernel.ts'

/** What woke the process: it matters when it was stopped, for either may be handled first. */
export type Cause = 'io' | 'timer'

interface Deferred {
  readonly cause: Cause
  readonly what: What
  readonly run: () => void
}

/** Between the end of an event loop's wait and the callback. */
const LAG_MS = 0.2
/** Of floating-point numbers. */
const ROUNDING_MS = 0.001

export class Life {
  readonly host: Host
  readonly clock: Clock
  /** In the world's time. */
  readonly bornMs: number
  dead = false
  /** What listens on a path of this peer's run folder: NICs, streams of images, RAM. */
  readonly paths = new Map<string, unknown>()
  readonly deferred: Deferred[] = []

  constructor(host: Host) {
    this.host = host
    const { kernel } = host
    this.bornMs = kernel.nowMs
    const time = new SleepClock(host.clocks)
    this.clock = {
      now: () => time.now(),
      after: (ms, fn) => {
        let cancelled = false
        const dueMs = host.monotonicMs() + Math.max(0, ms)
        const wait = (lagMs: number): void =>
          this.after((dueMs - host.monotonicMs()) / host.rate + lagMs, 'timer', 'timer', () => {
            if (cancelled) return
            // The host has slept meanwhile.
            if (host.monotonicMs() < dueMs - ROUNDING_MS) wait(0)
            else fn()
          })
        wait(kernel.random() * LAG_MS)
        return () => {
          cancelled = true
        }
      }
    }
  }

  /** Runs now; later where the process is stopped; never where it has ended. */
  enter(cause: Cause, what: What, run: () => void): void {
    if (this.dead) return
    if (this.host.stopped === 'no') run()
    else this.deferred.push({ cause, what, run })
  }

  after(delayMs: number, cause: Cause, what: What, run: () => void): void {
    const { kernel, name } = this.host
    const label = (): string => `${name} ${typeof what === 'string' ? what : what()}`
    kernel.at(delayMs, label, () => this.enter(cause, what, run))
  }

  /** Settles after that time, in this life. */
  wait(delayMs: number, what: What): Promise<void> {
    return new Promise(resolve => this.after(delayMs, 'io', what, resolve))
  }

  /** A later turn of the event loop. */
  turn(run: () => void): void {
    this.after(0.01, 'io', 'turn', run)
  }
}

export class Host {
  readonly name: PeerId
  readonly kernel: Kernel
  /** Milliseconds of this host's clocks in one of the world's. */
  readonly rate: number
  readonly #offsetMs: number
  readonly disk: Disk
  life: Life | undefined
  /** 'process': the peer's, while its VMs go on. 'all': the whole host. */
  stopped: 'no' | 'process' | 'all' = 'no'
  wallOffsetMs = 0
  /** As a process here can read them. /proc/uptime has no steps here: how it is read is tested in `clock.test.ts`. */
  clocks: MachineClocks = {
    monotonicMs: () => this.monotonicMs(),
    wallMs: () => this.wallMs(),
    ahead: () => ({ leastMs: this.#sleptMs(), mostMs: this.#sleptMs() })
  }
  /** Called with every life that has ended, with how. */
  onEnd: (life: Life, how: 'killed' | 'power') => void = () => {}
  #frozen: (() => void)[] = []
  #asleepMs = 0
  #frozenAtMs = 0

  constructor(name: PeerId, kernel: Kernel, driftPerMille: number) {
    this.name = name
    this.kernel = kernel
    const half = Math.sqrt(1 + driftPerMille / 1000)
    // Extremes are likelier than in nature: they are what the bound is for.
    this.rate = half ** (kernel.chance(0.5) ? Math.sign(kernel.random() - 0.5) : kernel.between(-1, 1))
    this.#offsetMs = kernel.between(0, 1e6)
    this.disk = new Disk(kernel)
  }

  monotonicMs(): number {
    return this.#offsetMs + this.kernel.nowMs * this.rate - this.#sleptMs()
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#offsetMs + this.kernel.nowMs * this.rate + this.wallOffsetMs
  }

  start(): Life {
    this.stopped = 'no'
    this.life = new Life(this)
    return this.life
  }

  /** The process is gone at once; with the power, also what was on its way to the network. */
  end(how: 'killed' | 'power'): void {
    const { life } = this
    if (life === undefined) return
    life.dead = true
    this.life = undefined
    this.#goOn()
    this.#frozen = []
    this.disk.crash()
    this.onEnd(life, how)
  }

  stop(what: 'process' | 'all'): void {
    if (this.life === undefined || this.stopped !== 'no') return
    this.stopped = what
    this.#frozenAtMs = this.kernel.nowMs
  }

  continue(): void {
    const { life, kernel } = this
    if (life === undefined || this.stopped === 'no') return
    this.#goOn()
    for (const run of this.#frozen.splice(0)) kernel.at(kernel.random(), () => `${this.name} guest thaws`, run)
    // A process that was stopped in its wait for input finds input first, one stopped elsewhere its timers.
    const first = kernel.pick(['io', 'timer', undefined] as const)
    const waiting = life.deferred.splice(0)
    const ordered = [
      ...waiting.filter(({ cause }) => cause === first),
      ...waiting.filter(({ cause }) => cause !== first)
    ]
    for (const { cause, what, run } of ordered) life.after(0, cause, what, run)
  }

  #sleptMs(): number {
    return this.#asleepMs + (this.stopped === 'all' ? (this.kernel.nowMs - this.#frozenAtMs) * this.rate : 0)
  }

  #goOn(): void {
    this.#asleepMs = this.#sleptMs()
    this.stopped = 'no'
  }

  /** Runs `run` in the hardware's time: VMs stand still while the host does. */
  hardware(delayMs: number, what: What, run: () => void): void {
    this.kernel.at(delayMs, what, () => {
      if (this.stopped === 'all') this.#frozen.push(run)
      else run()
    })
  }
}
