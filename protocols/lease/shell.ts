/** Runs the holder and the voter of this peer on the control bus and a clock; implements the port `Leases`. */
import type { LeaseSettings } from '../../config/schema.ts'
import { DiapauseError, messageOf } from '../../node/errors.ts'
import type { Clock, ControlBus, Leases, Log } from '../../node/ports.ts'
import { Alarm } from '../alarm.ts'
import type { PeerId, Random } from '../core.ts'
import type { VoterSet } from '../register/voters.ts'
import { type HolderEffect, type HolderInput, LeaseHolder } from './holder.ts'
import { LongerClaims } from './longer-claims.ts'
import { LEASE_PROTOCOL, type LeaseMessage, parseLeaseMessage } from './messages.ts'
import type { LeaseVoter } from './voter.ts'

export interface LeaseOptions {
  readonly self: PeerId
  /** The newest set that this peer has been told, the same as the registers have. */
  readonly voters: VoterSet
  readonly bus: ControlBus
  readonly clock: Clock
  readonly random: Random
  readonly settings: LeaseSettings
  readonly log: Log
  /** The object that guards this peer's registers (`createRegisters({guard})`). Not asked where this peer does not vote. */
  readonly voter: LeaseVoter
  /** Linearizable: `Registers.generationOf`. */
  readonly generationOf: (key: string) => Promise<number>
  /** `from` counts in voter set `version`, which is newer than ours: ask it. Called with every message that shows it. */
  readonly onNewer?: (from: PeerId, version: number) => void
  /** What becomes of each lease of this peer. Costs nothing where it is absent. */
  readonly onTrace?: (trace: LeaseTrace) => void
}

/** A lease was granted by a majority for the first time, renewed in time, ends in a moment, was granted again, or is over for good. */
export interface LeaseTrace {
  readonly kind: 'acquired' | 'renewed' | 'lapsing' | 'regained' | 'lost'
  readonly key: string
  readonly generation: number
  /** For how long this peer may act; of 'renewed': could act without it; 0 once it is lost. */
  readonly remainingMs: number
  /** Voters of set `version` whose grants have not run out. */
  readonly grantedBy: readonly PeerId[]
  readonly version: number
  /** Of 'lost': the register's generation; 0 where it is deleted and forgotten. */
  readonly newer: number | undefined
}

interface Acquiring {
  readonly generation: number
  readonly promise: Promise<void>
  resolve(): void
  reject(error: unknown): void
}

type LapseHandler = Parameters<Leases['onLapse']>[0]
type LostHandler = Parameters<Leases['onLost']>[0]

export function createLeases(options: LeaseOptions): Leases {
  return new Shell(options)
}

class Shell implements Leases {
  readonly #options: LeaseOptions
  readonly #holder: LeaseHolder
  readonly #acquiring = new Map<string, Acquiring>()
  readonly #lapse: LapseHandler[] = []
  readonly #regained: LapseHandler[] = []
  readonly #lost: LostHandler[] = []
  readonly #alarm: Alarm
  readonly #longer: LongerClaims
  #running = false

  constructor(options: LeaseOptions) {
    this.#options = options
    this.#alarm = new Alarm(options.clock, () => this.#step({ kind: 'tick' }))
    const ourMs = options.settings.durationMs
    this.#longer = new LongerClaims((peer, theirMs, count) =>
      options.log.warn(
        { peer, theirMs, ourMs, count },
        'a peer claims leases longer than this voter grants: set lease.durationMs to the same value on all peers'
      )
    )
    const session = Math.floor(options.random() * 2 ** 48)
    const renewals = options.onTrace !== undefined
    this.#holder = new LeaseHolder({ voters: options.voters, settings: options.settings, session, renewals })
    options.bus.on(LEASE_PROTOCOL, parseLeaseMessage, (from, message) => this.#receive(from, message))
  }

  start(): void {
    this.#running = true
  }

  stop(): void {
    this.#running = false
    this.#alarm.set(Number.POSITIVE_INFINITY)
    for (const { reject } of this.#acquiring.values()) reject(stopped())
    this.#acquiring.clear()
  }

  acquire(key: string, generation: number): Promise<void> {
    if (!this.#running) return Promise.reject(stopped())
    const earlier = this.#acquiring.get(key)
    if (earlier?.generation === generation) return earlier.promise
    if (earlier !== undefined && earlier.generation < generation)
      this.#drop(key, refused(key, earlier.generation, generation))
    if (earlier !== undefined && earlier.generation > generation) {
      return Promise.reject(refused(key, generation, earlier.generation))
    }
    const acquiring = { generation, ...Promise.withResolvers<void>() }
    this.#acquiring.set(key, acquiring)
    this.#step({ kind: 'acquire', key, generation })
    return acquiring.promise
  }

  async release(key: string): Promise<void> {
    this.#drop(key, new DiapauseError('LEASE_RELEASED', `the lease of ${key} was released before it was granted`))
    this.#step({ kind: 'release', key })
  }

  remainingMs(key: string, generation: number): number {
    return this.#running ? this.#holder.remainingMs(key, generation, this.#options.clock.now()) : 0
  }

  setVoters(set: VoterSet): void {
    if (this.#running) this.#step({ kind: 'voters', set })
    else this.#holder.step({ kind: 'voters', set }, this.#options.clock.now())
  }

  onLapse(handler: LapseHandler): void {
    this.#lapse.push(handler)
  }

  onRegained(handler: LapseHandler): void {
    this.#regained.push(handler)
  }

  onLost(handler: LostHandler): void {
    this.#lost.push(handler)
  }

  #receive(from: PeerId, message: LeaseMessage): void {
    if (!this.#running) return
    const { bus, clock, voter, settings, onNewer } = this.#options
    if (message.kind === 'granted') return this.#step({ kind: 'granted', from, message })
    if (message.kind === 'stale') {
      if (message.version > this.#holder.version) onNewer?.(from, message.version)
      return
    }
    if (message.kind === 'claim' && message.version > voter.version) onNewer?.(from, message.version)
    if (message.kind === 'claim' && message.durationMs > settings.durationMs) {
      this.#longer.take(from, message.durationMs, clock.now())
    }
    for (const effect of voter.step({ from, message }, clock.now())) bus.send(effect.to, LEASE_PROTOCOL, effect.message)
  }

  #step(input: HolderInput): void {
    if (!this.#running) return
    const effects = this.#holder.step(input, this.#options.clock.now())
    for (const effect of effects)
      if (effect.kind === 'send') this.#options.bus.send(effect.to, LEASE_PROTOCOL, effect.message)
    this.#alarm.set(this.#holder.wakeAtMs())
    for (const effect of effects) {
      if (effect.kind === 'verify') this.#verify(effect.key, effect.generation)
      else if (effect.kind !== 'send') this.#tell(effect)
    }
  }

  #tell(effect: Exclude<HolderEffect, { kind: 'send' | 'verify' }>): void {
    const { key, generation } = effect
    if (this.#options.onTrace !== undefined) this.#options.onTrace(this.#traceOf(effect))
    if (effect.kind === 'renewed') return
    if (effect.kind === 'lapsing') {
      for (const handler of this.#lapse) handler(key, generation)
      return
    }
    const acquiring = this.#settle(key, generation)
    if (effect.kind === 'lost') {
      acquiring?.reject(refused(key, generation, effect.newer))
      if (effect.acted) for (const handler of this.#lost) handler(key, generation, effect.newer)
      return
    }
    // An `acquire` of a lapsed lease is answered when it is regained.
    acquiring?.resolve()
    if (effect.kind === 'regained') for (const handler of this.#regained) handler(key, generation)
  }

  #traceOf(effect: Exclude<HolderEffect, { kind: 'send' | 'verify' }>): LeaseTrace {
    const { kind, key, generation } = effect
    const nowMs = this.#options.clock.now()
    return {
      kind,
      key,
      generation,
      remainingMs: kind === 'renewed' ? effect.leftMs : this.#holder.remainingMs(key, generation, nowMs),
      grantedBy: this.#holder.grantedBy(key, generation, nowMs),
      version: this.#holder.version,
      newer: kind === 'lost' ? effect.newer : undefined
    }
  }

  #verify(key: string, of: number): void {
    this.#options.generationOf(key).then(
      now => this.#step({ kind: 'register', key, of, now }),
      (error: unknown) => {
        this.#options.log.debug(
          { key, error: messageOf(error) },
          'a voter knows a newer generation, or none; the register cannot be read'
        )
        this.#step({ kind: 'register', key, of, now: undefined })
      }
    )
  }

  #settle(key: string, generation: number): Acquiring | undefined {
    const acquiring = this.#acquiring.get(key)
    if (acquiring?.generation !== generation) return undefined
    this.#acquiring.delete(key)
    return acquiring
  }

  #drop(key: string, error: DiapauseError): void {
    this.#acquiring.get(key)?.reject(error)
    this.#acquiring.delete(key)
  }
}

function refused(key: string, generation: number, newer: number): DiapauseError {
  const is = newer === 0 ? 'the register is deleted' : `it is at ${newer}`
  const message = `generation ${generation} of ${key} is over, ${is}: read the register before acting`
  return new DiapauseError('LEASE_REFUSED', message, { details: { key, generation, newer } })
}

function stopped(): DiapauseError {
  return new DiapauseError('LEASE_STOPPED', 'leases are not running on this peer')
}
