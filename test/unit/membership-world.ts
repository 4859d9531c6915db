/** Peers with the real registers, directory and membership agents, on a bus and disks in memory, in the time of a clock told to go on. */
import { DataKeyRing } from '../../node/agents/data-keys.ts'
import { GroupDirectory } from '../../node/agents/directory.ts'
import { MembershipAgent } from '../../node/agents/membership.ts'
import { neededImages, gatherFacts } from '../../node/agents/membership-facts.ts'
import { MembershipSteps } from '../../node/agents/membership-steps.ts'
import type { ImageLean, MembershipFacts } from '../../node/planning/membership.ts'
import type { Clock, ControlBus, FailureDetector, ImageManifest, Log, RegisterStore } from '../../node/ports.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { type ClusterRecord, memberById } from '../../protocols/membership/record.ts'
import { createRegisters, type RegisterShell } from '../../protocols/register/shell.ts'
import { plainBox } from '../sim/world-keys.ts'

export const LEASE_MS = 60
const REGISTER = { roundTimeoutMs: 20, giveUpMs: 200 }

export const founder = (name: string) =>
  ({ id: `id${name}`, name, address: `/ip4/10.0.0.1/tcp/${1_000 + name.charCodeAt(0)}`, role: 'witness' }) as const

export class WorldPeer {
  readonly self: string
  readonly registers: RegisterShell
  readonly membership: MembershipAgent
  readonly directory: GroupDirectory
  readonly detector: FailureDetector
  readonly steps: MembershipSteps
  readonly dataKeys: DataKeyRing
  readonly facts: () => Promise<MembershipFacts>
  readonly neededImages: () => Promise<ImageLean[] | undefined>
  /** What is on its disk, newest last. */
  readonly saved: ClusterRecord[] = []
  /** Versions that it was told of, and when. */
  readonly told: { readonly version: number; readonly atMs: number }[] = []
  diskFails = false
  /** Its register store. */
  readonly entries: Map<string, Uint8Array>

  /** `entries`: of an earlier life, where there was one. */
  constructor(world: MembershipWorld, self: string, initial: ClusterRecord, entries = new Map<string, Uint8Array>()) {
    this.self = self
    this.entries = entries
    const { clock, log } = world
    const shared = { self, bus: world.bus(self), clock, random: () => 0.5, log }
    const store: RegisterStore = {
      load: async () => [...entries],
      persist: async changed => {
        for (const [name, bytes] of changed) {
          if (bytes === null) entries.delete(name)
          else entries.set(name, bytes)
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
    const { membership, registers } = this
    const liveness = (id: string) => (world.down.has(id) ? 'dead' : 'alive')
    const detector = { alive: () => up().sort(), livenessOf: liveness } as unknown as FailureDetector
    const transport = { connected: (id: string) => !world.down.has(id), onConnection: () => {} }
    const floor = (): number => membership.record().groupFloor
    const directory = new GroupDirectory({ ...shared, members: ids, floor, transport: transport as never, registers })
    const readManifest = async (hash: string): Promise<ImageManifest> => {
      const found = world.manifests.get(hash)
      if (found === undefined) throw new Error(`no manifest ${hash}`)
      return found
    }
    const wallMs = (): number => clock.now()
    const box = plainBox(self, Math.random)
    const dataKeys = new DataKeyRing({ self, membership, box, secret: new Uint8Array(32), wallMs })
    const seen = { membership, directory, detector, dataKeys, lost: world.lost, transport, wallMs, readManifest }
    this.facts = () => gatherFacts(seen)
    this.neededImages = () => neededImages(seen)
    const agents = { ...shared, ...seen, registers, facts: this.facts }
    this.steps = new MembershipSteps({ ...agents, leaseMs: () => LEASE_MS })
    this.detector = detector
    this.dataKeys = dataKeys
    this.directory = directory
  }

  async start(): Promise<void> {
    await this.registers.start()
    this.membership.start()
    this.steps.start()
    void this.directory.start()
  }

  /** Loses power. */
  stop(): void {
    this.steps.stop()
    this.membership.stop()
    this.directory.stop()
    this.registers.stop()
  }
}

export class MembershipWorld {
  nowMs = 1_000
  readonly down = new Set<string>()
  /** Down for so long that nobody waits for them. */
  readonly lost = new Set<string>()
  /** Messages that are lost on their way. */
  drop: (from: string, to: string, kind: string, protocol: string) => boolean = () => false
  /** Peer → who is a member as far as it knows: it speaks with nobody else. */
  readonly knows = new Map<string, (id: string) => boolean>()
  /** On every disk, by hash. */
  readonly manifests = new Map<string, ImageManifest>()
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
          if (this.drop(self, to, (message as { kind: string }).kind, protocol)) return
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

  /** With no turn for messages and promises. */
  pass(ms: number): void {
    this.nowMs += ms
    for (const timer of this.#timers) if (timer.atMs <= this.nowMs && this.#timers.delete(timer)) timer.fn()
  }

  /** Millisecond by millisecond, with turns for messages and promises in each; until `done` or so long. True: done. */
  async run(ms: number, done: () => boolean = () => false): Promise<boolean> {
    for (let i = 0; i < ms && !done(); i++) {
      this.pass(1)
      for (let turn = 0; turn < 8; turn++) await new Promise(setImmediate)
    }
    return done()
  }
}
