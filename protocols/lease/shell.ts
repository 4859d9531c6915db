/** Runs the holder and the voter of this peer on the control bus and a clock; implements the port `Leases`. */
import type { LeaseSettings } from '../../config/schema.ts'
import { DiapauseError, messageOf } from '../../node/errors.ts'
import type { Clock, ControlBus, Leases, Log } from '../../node/ports.ts'
import { Alarm } from '../alarm.ts'
import type { PeerId, Random } from '../core.ts'
import { type HolderInput, LeaseHolder } from './holder.ts'
import { LEASE_PROTOCOL, type LeaseMessage, parseLeaseMessage } from './messages.ts'
import type { LeaseVoter } from './voter.ts'

export interface LeaseOptions {
  readonly self: PeerId
  /** The same on every peer, and the same as of the registers. */
  readonly voters: readonly PeerId[]
  readonly bus: ControlBus
  readonly clock: Clock
  readonly random: Random
  readonly settings: LeaseSettings
  readonly log: Log
  /** The object that guards this peer's registers (`createRegisters({guard})`). Unused where this peer does not vote. */
  readonly voter: LeaseVoter
  /** Linearizable: `Registers.generationOf`. */
  readonly generationOf: (key: string) => Promise<number>
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
  readonly #votes: boolean
  readonly #acquiring = new Map<string, Acquiring>()
  readonly #lapse: LapseHandler[] = []
  readonly #regained: LapseHandler[] = []
  readonly #lost: LostHandler[] = []
  readonly #alarm: Alarm
  #running = false

  constructor(options: LeaseOptions) {
    this.#options = options
    this.#alarm = new Alarm(options.clock, () => this.#step({ kind: 'tick' }))
    const session = Math.floor(options.random() * 2 ** 48)
    this.#holder = new LeaseHolder({ voters: options.voters, settings: options.settings, session })
    this.#votes = options.voters.includes(options.self)
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
    if (message.kind === 'granted') return this.#step({ kind: 'granted', from, message })
    if (!this.#votes) return
    const { bus, clock, voter, settings, log } = this.#options
    if (message.kind === 'claim' && message.durationMs > settings.durationMs) {
      log.warn(
        { peer: from, theirMs: message.durationMs, ourMs: settings.durationMs },
        'a peer claims leases longer than this voter grants: set lease.durationMs to the same value on all peers'
      )
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
      if (effect.kind === 'send') continue
      if (effect.kind === 'verify') {
        this.#verify(effect.key)
        continue
      }
      const { key, generation } = effect
      if (effect.kind === 'acquired') this.#settle(key, generation)?.resolve()
      else if (effect.kind === 'lapsing') for (const handler of this.#lapse) handler(key, generation)
      else if (effect.kind === 'regained') for (const handler of this.#regained) handler(key, generation)
      else {
        const acquiring = this.#settle(key, generation)
        if (acquiring !== undefined) acquiring.reject(refused(key, generation, effect.newer))
        else for (const handler of this.#lost) handler(key, generation, effect.newer)
      }
    }
  }

  #verify(key: string): void {
    this.#options.generationOf(key).then(
      generation => this.#step({ kind: 'register', key, generation }),
      (error: unknown) => {
        this.#options.log.debug(
          { key, error: messageOf(error) },
          'a voter knows a newer generation; the register cannot be read'
        )
        this.#step({ kind: 'register', key, generation: undefined })
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
  const message = `generation ${generation} of ${key} is over, it is at ${newer}: read the register before acting`
  return new DiapauseError('LEASE_REFUSED', message, { details: { key, generation, newer } })
}

function stopped(): DiapauseError {
  return new DiapauseError('LEASE_STOPPED', 'leases are not running on this peer')
}
