/** The listings that are under way at this peer, each with somebody who waits for its end. */
import type { ControlBus, Clock } from '../../node/ports.ts'
import { Listing, type ListingInput } from './listing.ts'
import { REGISTER_PROTOCOL } from './messages.ts'
import { overtaken } from './settling.ts'
import type { VoterSet } from './voters.ts'

interface Run {
  readonly core: Listing
  readonly resolve: (keys: readonly string[]) => void
  readonly reject: (error: unknown) => void
}

export class Listings {
  readonly #bus: ControlBus
  readonly #clock: Clock
  readonly #settings: { readonly retryMs: number; readonly giveUpMs: number }
  readonly #runs = new Set<Run>()

  constructor(bus: ControlBus, clock: Clock, settings: { readonly retryMs: number; readonly giveUpMs: number }) {
    this.#bus = bus
    this.#clock = clock
    this.#settings = settings
  }

  /** REGISTER_UNAVAILABLE, REGISTER_VOTERS_CHANGED, or what `stop` is given. */
  begin(voters: VoterSet): Promise<readonly string[]> {
    const core = new Listing(voters, this.#settings, this.#clock.now())
    return new Promise((resolve, reject) => {
      const run = { core, resolve, reject }
      this.#runs.add(run)
      this.#step(run, { kind: 'tick' })
    })
  }

  step(input: ListingInput): void {
    for (const run of this.#runs) this.#step(run, input)
  }

  wakeAtMs(): number {
    return Math.min(...Array.from(this.#runs, ({ core }) => core.wakeAtMs()))
  }

  /** Those of an older set than `version` can be answered no more. */
  voters(version: number): void {
    for (const run of this.#runs) {
      if (run.core.version >= version) continue
      this.#runs.delete(run)
      run.reject(overtaken(run.core.version, version))
    }
  }

  stop(error: unknown): void {
    for (const { reject } of this.#runs) reject(error)
    this.#runs.clear()
  }

  #step(run: Run, input: ListingInput): void {
    for (const effect of run.core.step(input, this.#clock.now())) {
      if (effect.kind === 'send') {
        this.#bus.send(effect.to, REGISTER_PROTOCOL, effect.message)
        continue
      }
      this.#runs.delete(run)
      if (effect.kind === 'listed') run.resolve(effect.keys)
      else run.reject(effect.error)
    }
  }
}
