/** Small messages, who lives, who belongs, and leases. */
import type { PeerId } from '../../protocols/core.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import type { VoterSet } from '../../protocols/register/voters.ts'

/** Typed small messages over the control channel. `protocol` is e.g. "register"; one handler a protocol. */
export interface ControlBus {
  readonly self: PeerId
  /** To oneself too (delivered in a later turn). False where not connected: the message is lost, as any message may be. */
  send(to: PeerId, protocol: string, message: object): boolean
  /** `parse` checks shape and limits and throws on anything else; such messages are counted, logged and dropped. */
  on<T>(protocol: string, parse: (message: unknown) => T, handler: (from: PeerId, message: T) => void): void
}

export type Liveness = 'alive' | 'suspect' | 'dead'

export interface FailureDetector {
  /** Members not declared dead, oneself included, sorted. */
  alive(): PeerId[]
  livenessOf(peer: PeerId): Liveness
  onChange(handler: (peer: PeerId, liveness: Liveness, why: string) => void): void
  start(): void
  stop(): void
}

/** Who belongs to the cluster, as this peer knows it: the newest record of register `cluster` that is on its disk. */
export interface Membership {
  readonly self: PeerId
  record(): ClusterRecord
  /** Called with every newer record and the one before it, in order; not for the present one. */
  onChange(handler: (record: ClusterRecord, before: ClusterRecord) => void): void
}

/**
 * The right to run VMs: per register key and generation, granted by a majority of voters for `durationMs`. A voter that
 * has accepted a newer generation of the key never grants an older one again, and accepts no change that names this
 * holder in its fence before its grant has run out (plus drift). So: while `remainingMs` is positive nobody else owns.
 */
export interface Leases {
  /** Claims and keeps renewing. Resolves with the first majority; LEASE_REFUSED where the register is of another generation. */
  acquire(key: string, generation: number): Promise<void>
  /** Stops renewing; voters forget the grant, so that a successor need not wait. */
  release(key: string): Promise<void>
  /** Milliseconds for which this peer may still act under `generation`; 0 where it may not. */
  remainingMs(key: string, generation: number): number
  /** The lease ends unrenewed in a moment: pause now. Called before it ends. */
  onLapse(handler: (key: string, generation: number) => void): void
  /** A majority granted the same generation again: going on is safe. */
  onRegained(handler: (key: string, generation: number) => void): void
  /** The register has another generation, or is deleted (`newer` may be 0 then): this one is over for good. */
  onLost(handler: (key: string, generation: number, newer: number) => void): void
  /** Takes a set that was *chosen*, as `RegisterVoters.setVoters`: all leases are claimed anew at once. */
  setVoters(set: VoterSet): void
  start(): void
  stop(): void
}
