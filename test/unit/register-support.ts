/** Several peers' registers and leases in one process: production shells on a clock that the test moves and disks in memory. */
import { DiapauseError } from '../../node/errors.ts'
import type { Clock, ControlBus, Leases, Log, RegisterStore } from '../../node/ports.ts'
import { createLeases, type LeaseTrace } from '../../protocols/lease/shell.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import { createRegisters, type RegisterShell } from '../../protocols/register/shell.ts'
import type { DecisionTrace } from '../../protocols/register/trace.ts'
import { firstVoters } from '../../protocols/register/voters.ts'

export const SETTINGS = { roundTimeoutMs: 500, giveUpMs: 5_000 }
export const LEASE = { durationMs: 1_000, renewEveryMs: 200, driftPerMille: 20 }
const silent: Log = { debug() {}, info() {}, warn() {}, error() {} }

/** Time stands still until `pass`. */
export class ManualClock implements Clock {
  #nowMs = 1
  #timers: { atMs: number; fn: () => void }[] = []

  now(): number {
    return this.#nowMs
  }

  after(ms: number, fn: () => void): () => void {
    const timer = { atMs: this.#nowMs + ms, fn }
    this.#timers.push(timer)
    return () => {
      this.#timers = this.#timers.filter(other => other !== timer)
    }
  }

  /** Millisecond by millisecond, with time for messages and disks in each. */
  async pass(ms: number): Promise<void> {
    for (let i = 0; i < ms; i++) {
      this.#nowMs += 1
      const due = this.#timers.filter(({ atMs }) => atMs <= this.#nowMs)
      this.#timers = this.#timers.filter(timer => !due.includes(timer))
      for (const { fn } of due) fn()
      for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
    }
  }
}

/** A bus of several peers in one process; each message arrives in a later turn. */
function network(): (self: string) => ControlBus {
  const handlers = new Map<string, (from: string, message: unknown) => void>()
  return self => ({
    self,
    send: (to, protocol, message) => {
      setImmediate(() => handlers.get(`${to} ${protocol}`)?.(self, message))
      return true
    },
    on: (protocol, parse, handler) => {
      handlers.set(`${self} ${protocol}`, (from, message) => handler(from, parse(message)))
    }
  })
}

export class MemoryStore implements RegisterStore {
  readonly entries: Map<string, Uint8Array>
  full = false

  constructor(entries = new Map<string, Uint8Array>()) {
    this.entries = entries
  }

  async load(): Promise<(readonly [string, Uint8Array])[]> {
    return [...this.entries]
  }
  async persist(entries: readonly (readonly [string, Uint8Array | null])[]): Promise<void> {
    if (this.full) throw new DiapauseError('REGISTER_STORE_WRITE', 'full')
    for (const [name, bytes] of entries) {
      if (bytes === null) this.entries.delete(name)
      else this.entries.set(name, bytes)
    }
  }
  async close(): Promise<void> {}
}

export interface Peer {
  readonly store: MemoryStore
  readonly registers: RegisterShell
  readonly leases: Leases
  readonly clock: ManualClock
  readonly bus: ControlBus
  /** What it was told. */
  readonly broken: DiapauseError[]
  readonly newer: string[]
  readonly decisions: DecisionTrace[]
  readonly traces: LeaseTrace[]
}

/** Peers that know of these voters, or of those in `stores`, where a peer's store is given from an earlier life. */
export function cluster(
  names: readonly string[],
  voters = firstVoters(names),
  stores: Record<string, MemoryStore> = {},
  lease = LEASE
) {
  const bus = network()
  const clock = new ManualClock()
  return names.map((self): Peer => {
    const store = stores[self] ?? new MemoryStore()
    const told = { broken: [] as DiapauseError[], newer: [] as string[] }
    const [decisions, traces]: [DecisionTrace[], LeaseTrace[]] = [[], []]
    const voter = new LeaseVoter(lease)
    const onNewer = (from: string, version: number): void => void told.newer.push(`${from} ${version}`)
    const common = { self, voters, bus: bus(self), clock, random: Math.random, log: silent, onNewer }
    const registers = createRegisters({
      ...common,
      store,
      guard: voter,
      settings: SETTINGS,
      onBroken: error => told.broken.push(error),
      onDecision: trace => decisions.push(trace)
    })
    const leases = createLeases({
      ...common,
      settings: lease,
      voter,
      generationOf: key => registers.generationOf(key),
      onTrace: trace => traces.push(trace)
    })
    return { store, registers, leases, clock, bus: common.bus, decisions, traces, ...told }
  })
}

export async function started(...args: Parameters<typeof cluster>): Promise<Peer[]> {
  const peers = cluster(...args)
  for (const { registers, leases } of peers) {
    await registers.start()
    leases.start()
  }
  await settled()
  return peers
}

export const peer = (peers: readonly Peer[], i: number): Peer => {
  const found = peers[i]
  if (found === undefined) throw new Error(`no peer ${i}`)
  return found
}

/** Messages and disks have had their turns. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate)
}

/** Lets time pass until the promise has settled: a conflict, for one, is followed by a pause. */
export async function inTime<T>(clock: ManualClock, promise: Promise<T>): Promise<T> {
  let over = false
  const end = (): void => {
    over = true
  }
  promise.then(end, end)
  for (let i = 0; i < 10_000 && !over; i++) await clock.pass(1)
  return promise
}
