/** Peers with the real registers and membership agents, on a bus and disks in memory, in the time of a clock told to go on. */
import { MembershipAgent } from '../../node/agents/membership.ts'
import { MembershipSteps } from '../../node/agents/membership-steps.ts'
import type { Clock, ControlBus, FailureDetector, Log, RegisterStore } from '../../node/ports.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'
import { createRegisters, type RegisterShell } from '../../protocols/register/shell.ts'

export const LEASE_MS = 60
const REGISTER = { roundTimeoutMs: 20, giveUpMs: 200 }

export const founder = (name: string) =>
  ({ id: `id${name}`, name, address: `/ip4/10.0.0.1/tcp/${1_000 + name.charCodeAt(0)}`, role: 'witness' }) as const

export class WorldPeer {
  readonly self: string
  readonly registers: RegisterShell
  readonly membership: MembershipAgent
  readonly steps: MembershipSteps
  /** What is on its disk, newest last. */
  readonly saved: ClusterRecord[] = []
  /** Versions that it was told of, and when. */
  readonly told: { readonly version: number; readonly atMs: number }[] = []
  diskFails = false
  readonly #entries = new Map<string, Uint8Array>()

  constructor(world: MembershipWorld, self: string, initial: ClusterRecord) {
    this.self = self
    const { clock, log } = world
    const shared = { self, bus: world.bus(self), clock, random: () => 0.5, log }
    const store: RegisterStore = {
      load: async () => [...this.#entries],
      persist: async entries => {
        for (const [name, bytes] of entries) {
          if (bytes === null) this.#entries.delete(name)
          else this.#entries.set(name, bytes)
        }
      },
      close: async () => {}
    }
    const guard = new LeaseVoter({ durationMs: LEASE_MS, renewEveryMs: 20, driftPerMille: 0 })
    const onNewer = (from: string): void => this.membership.askOf(from)
    this.registers = createRegisters({ ...shared, voters: initial.voters, store, guard, settings: REGISTER, onNewer })
    this.membership = new MembershipAgent({
      ...shared,
      initial,
      registers: this.registers,
      transport: { onConnection: () => {} },
      save: async record => {
        if (this.diskFails) throw new Error('the disk is full')
        this.saved.push(record)
      }
    })
    this.membership.onChange(record => {
      this.told.push({ version: record.version, atMs: clock.now() })
      this.registers.setVoters(record.voters)
    })
    world.knows.set(self, id => memberById(this.membership.record(), id) !== undefined)
    const ids = (): string[] => this.membership.record().members.map(member => member.id)
    const up = (): string[] => ids().filter(id => !world.down.has(id))
    const detector = { alive: () => up().sort() } as unknown as FailureDetector
    const facts = async () => {
      const dead = new Set(ids().filter(id => world.down.has(id)))
      return {
        reachable: new Set(up()),
        dead,
        owners: new Set<string>(),
        needed: new Set<string>(),
        wallMs: clock.now()
      }
    }
    const { membership, registers } = this
    this.steps = new MembershipSteps({ ...shared, membership, registers, detector, facts, leaseMs: LEASE_MS })
  }

  async start(): Promise<void> {
    await this.registers.start()
    this.membership.start()
    this.steps.start()
  }

  /** Loses power. */
  stop(): void {
    this.steps.stop()
    this.membership.stop()
    this.registers.stop()
  }
}

export class MembershipWorld {
  nowMs = 1_000
  readonly down = new Set<string>()
  /** Messages that are lost on their way. */
  drop: (from: string, to: string, kind: string) => boolean = () => false
  /** Peer → who is a member as far as it knows: it speaks with nobody else. */
  readonly knows = new Map<string, (id: string) => boolean>()
  readonly errors: string[] = []
  readonly #timers = new Set<{ readonly atMs: number; readonly fn: () => void }>()
  readonly #receivers = new Map<string, (from: string, message: unknown) => void>()
  /** Every message that was sent: `FROM TO PROTOCOL KIND`. */
  readonly sent: string[] = []

  readonly clock: Clock = {
    now: () => this.nowMs,
    after: (ms, fn) => {
      const timer = { atMs: this.nowMs + ms, fn }
      this.#timers.add(timer)
      return () => this.#timers.delete(timer)
    }
  }

  readonly log: Log = { debug() {}, info() {}, warn() {}, error: (_, message) => void this.errors.push(message) }

  bus(self: string): ControlBus {
    return {
      self,
      send: (to, protocol, message) => {
        if (this.knows.get(self)?.(to) === false) return false
        this.sent.push(`${self} ${to} ${protocol} ${(message as { kind: string }).kind}`)
        const copy: unknown = structuredClone(message)
        setImmediate(() => {
          if (this.drop(self, to, (message as { kind: string }).kind)) return
          const lost = this.down.has(to) || this.down.has(self) || this.knows.get(to)?.(self) === false
          if (!lost) this.#receivers.get(`${to} ${protocol}`)?.(self, copy)
        })
        return true
      },
      on: (protocol, parse, handler) =>
        void this.#receivers.set(`${self} ${protocol}`, (from, message) => handler(from, parse(message)))
    }
  }

  /** As if `from` had sent it. */
  deliver(from: string, to: string, protocol: string, message: unknown): void {
    this.#receivers.get(`${to} ${protocol}`)?.(from, message)
  }

  /** Founders of these names, started; others may be made with `new WorldPeer`. */
  async founders(...names: string[]): Promise<WorldPeer[]> {
    const record = foundersRecord('c', names.map(founder))
    const peers = names.map(name => new WorldPeer(this, `id${name}`, record))
    for (const peer of peers) await peer.start()
    await this.run(2)
    return peers
  }

  kill(peer: WorldPeer): void {
    this.down.add(peer.self)
    peer.stop()
  }

  /** Millisecond by millisecond, with turns for messages and promises in each; until `done` or so long. True: done. */
  async run(ms: number, done: () => boolean = () => false): Promise<boolean> {
    for (let i = 0; i < ms && !done(); i++) {
      this.nowMs += 1
      for (const timer of this.#timers) if (timer.atMs <= this.nowMs && this.#timers.delete(timer)) timer.fn()
      for (let turn = 0; turn < 8; turn++) await new Promise(setImmediate)
    }
    return done()
  }
}
