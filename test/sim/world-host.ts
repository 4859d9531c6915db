/**
 * Hosts and the peers' processes on them. A *life* is one run of a peer's process: when it ends, its timers, messages and
 * promises are dead, and nothing of it runs again. A process can be stopped and continued (SIGSTOP): what comes meanwhile
 * waits. A whole host can freeze (a laptop lid): then its virtual machines stand still as well. Each host's monotonic
 * clock has a rate of its own within the drift bound, and its wall clock jumps.
 */
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
    this.clock = {
      now: () => host.nowMs(),
      after: (ms, fn) => {
        let cancelled = false
        const delayMs = Math.max(0, ms) / host.rate + kernel.random() * LAG_MS
        this.after(delayMs, 'timer', 'timer', () => {
          if (!cancelled) fn()
        })
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
  /** Milliseconds of this host's clock in one of the world's. */
  readonly rate: number
  readonly #offsetMs: number
  readonly disk: Disk
  life: Life | undefined
  /** 'process': the peer's, while its VMs go on. 'all': the whole host. */
  stopped: 'no' | 'process' | 'all' = 'no'
  wallOffsetMs = 0
  /** Called with every life that has ended, with how. */
  onEnd: (life: Life, how: 'killed' | 'power') => void = () => {}
  #frozen: (() => void)[] = []

  constructor(name: PeerId, kernel: Kernel, driftPerMille: number) {
    this.name = name
    this.kernel = kernel
    const half = Math.sqrt(1 + driftPerMille / 1000)
    // Extremes are likelier than in nature: they are what the bound is for.
    this.rate = half ** (kernel.chance(0.5) ? Math.sign(kernel.random() - 0.5) : kernel.between(-1, 1))
    this.#offsetMs = kernel.between(0, 1e6)
    this.disk = new Disk(kernel)
  }

  nowMs(): number {
    return this.#offsetMs + this.kernel.nowMs * this.rate
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.nowMs() + this.wallOffsetMs
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
    this.stopped = 'no'
    this.#frozen = []
    this.disk.crash()
    this.onEnd(life, how)
  }

  stop(what: 'process' | 'all'): void {
    if (this.life !== undefined && this.stopped === 'no') this.stopped = what
  }

  continue(): void {
    const { life, kernel } = this
    if (life === undefined || this.stopped === 'no') return
    this.stopped = 'no'
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

  /** Runs `run` in the hardware's time: VMs stand still while the host does. */
  hardware(delayMs: number, what: What, run: () => void): void {
    this.kernel.at(delayMs, what, () => {
      if (this.stopped === 'all') this.#frozen.push(run)
      else run()
    })
  }
}
