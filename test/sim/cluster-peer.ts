/**
 * One peer in a simulated world: the production parts joined as `node/peer.ts` joins them, on simulated hardware. Where
 * that file changes what it joins, so must this one.
 */
import type { DetectorSettings, LeaseSettings, RegisterSettings } from '../../config/schema.ts'
import { createDecisionLog, type DecisionLog } from '../../node/agents/decisions.ts'
import { DataKeyRing } from '../../node/agents/data-keys.ts'
import { GroupDirectory } from '../../node/agents/directory.ts'
import { EpochClock } from '../../node/agents/epoch-clock.ts'
import { EpochRecorder } from '../../node/agents/epoch-history.ts'
import { Forgetting } from '../../node/agents/forgetting.ts'
import type { Report } from '../../node/agents/group-agent.ts'
import { Groups } from '../../node/agents/groups.ts'
import { HistoryRoom } from '../../node/agents/history-room.ts'
import { Housekeeping } from '../../node/agents/housekeeping.ts'
import { LostMembers } from '../../node/agents/lost-members.ts'
import { gatherFacts, leanReader } from '../../node/agents/membership-facts.ts'
import { MembershipSteps } from '../../node/agents/membership-steps.ts'
import { MembershipAgent } from '../../node/agents/membership.ts'
import { Placing } from '../../node/agents/placing.ts'
import { RestoreLine } from '../../node/agents/restore-line.ts'
import { TakeoverAgent } from '../../node/agents/takeover.ts'
import type { ControlBus, Leases, Liveness, Log } from '../../node/ports.ts'
import { keepBy } from '../../node/planning/retention-policy.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { RetentionPolicy } from '../../protocols/group.ts'
import { createFailureDetector, type FailureDetectorShell } from '../../protocols/failure-detector/shell.ts'
import { createLeases } from '../../protocols/lease/shell.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import { type ClusterRecord, leavingHosts, memberById, placeable } from '../../protocols/membership/record.ts'
import { createRegisters, type RegisterShell } from '../../protocols/register/shell.ts'
import { createControlBus } from '../../protocols/service.ts'
import type { ClusterWiring } from './cluster-bugs.ts'
import { openSimBody, type SimBody } from './cluster-body.ts'
import type { Book, Run } from './world-book.ts'
import type { Host, Life } from './world-host.ts'
import type { Refused } from './world-shards.ts'
import { plainBox } from './world-keys.ts'
import type { Network, SimTransport } from './world-network.ts'

export interface ClusterSettings {
  readonly detector: DetectorSettings
  readonly lease: LeaseSettings
  readonly register: RegisterSettings
  readonly epochs: {
    readonly intervalMs: number
    readonly deadlineMs: number
    readonly forgetRemovedMs: number
    readonly retention: RetentionPolicy
  }
  readonly capture: 'dirty' | 'portable'
  /** How often a VM computes. */
  readonly tickMs: number
}

/** What a peer shares with the world around it. */
export interface PeerWorld {
  readonly network: Network
  readonly book: Book
  readonly settings: ClusterSettings
  readonly wiring: ClusterWiring
  /** What each life refuses: it is told over the network. */
  readonly refused: WeakMap<Life, Refused>
  /** A peer's detector believes something new of another. */
  onLiveness(life: Life, peer: PeerId, liveness: Liveness): void
  /** A frame comes out of the cluster. */
  onTold(life: Life, id: number): void
  /** A VM takes a frame. */
  onTake(run: Run, id: number): void
}

/** As in `node/peer.ts`. */
const FAREWELL_MS = 250
/** A few restores long. */
const TOGETHER_MS = 300
/** Longer than any run: what a member that is gone for good takes with it is not what is looked for. */
const LOST_AFTER_MS = 600_000

export class SimPeer {
  readonly life: Life
  readonly transport: SimTransport
  readonly registers: RegisterShell
  readonly leases: Leases
  readonly detector: FailureDetectorShell
  readonly directory: GroupDirectory
  readonly membership: MembershipAgent
  readonly groups: Groups
  readonly epochClock: EpochClock
  readonly body: SimBody
  readonly #decisions: DecisionLog
  readonly #agents: readonly { stop(): void }[]
  readonly #steps: MembershipSteps
  readonly #report: Report
  readonly #history: EpochRecorder
  #stopping: Promise<void> | undefined
  /** All that is to be ready has been started. */
  started = false

  /** Starts `host` as the member that `cluster` says. */
  static async create(life: Life, world: PeerWorld, cluster: ClusterRecord): Promise<SimPeer> {
    const { host, clock } = life
    const log = logOf(host)
    const transport = world.network.transport(life)
    const bus = world.wiring.bus(createControlBus(transport, log, cluster.name, run => life.turn(run)))
    const now = (): ClusterRecord => peer.membership.record()
    const decisions = await createDecisionLog({
      self: host.name,
      bus,
      clock,
      wallMs: () => host.wallMs(),
      log,
      version: 'simulated',
      store: undefined,
      members: () => now().members,
      voters: () => now().voters.ids
    })
    const peer = new SimPeer({ life, world, cluster, log, transport, bus, decisions })
    return peer
  }

  private constructor(parts: {
    readonly life: Life
    readonly world: PeerWorld
    readonly cluster: ClusterRecord
    readonly log: Log
    readonly transport: SimTransport
    readonly bus: ControlBus
    readonly decisions: DecisionLog
  }) {
    const { life, world, cluster, log, transport, bus, decisions } = parts
    const { host, clock } = life
    const { settings, wiring } = world
    const { random } = host.kernel
    const self = host.name
    this.life = life
    this.transport = transport
    this.#decisions = decisions
    const report: Report = (kind, fields) => {
      decisions.noteReport(kind, fields)
      this.#history?.noteReport(kind, fields)
      host.kernel.note(() => `${self} report: ${kind} ${JSON.stringify(fields)}`)
    }
    this.#report = report
    const { note, noteBallot, noteLease } = decisions
    const voter = new LeaseVoter(settings.lease)
    const onNewer = (from: PeerId): void => this.membership.askOf(from)
    const onBroken = (): void => this.life.after(1, 'io', 'registers are broken', () => void this.stop())
    const shared = { self, voters: cluster.voters, bus, clock, random, log, onNewer }
    const guard = wiring.guard(voter)
    const registerParts = { store: host.disk.registerStore(life), guard, onBroken, onDecision: noteBallot }
    const registers = createRegisters({ ...shared, ...registerParts, settings: settings.register })
    const generationOf = (key: string): Promise<number> => registers.generationOf(key)
    const leases = createLeases({ ...shared, settings: settings.lease, voter, generationOf, onTrace: noteLease })
    const save = (record: ClusterRecord): Promise<void> => host.disk.saveCluster(life, record)
    const membership = new MembershipAgent({ ...shared, initial: cluster, transport, registers, save })
    const ids = (): PeerId[] => membership.record().members.map(member => member.id)
    const detector = createFailureDetector({ ...shared, members: ids(), settings: settings.detector, transport, note })
    detector.onChange((peer, liveness, why) => {
      world.onLiveness(life, peer, liveness)
      report('liveness', { peer, liveness, why })
    })
    const lost = new LostMembers({ detector, clock, lostAfterMs: LOST_AFTER_MS })
    const floor = (): number => membership.record().groupFloor
    const directory = new GroupDirectory({ ...shared, members: ids, floor, transport, registers })
    decisions.follow(directory)
    const history = new EpochRecorder(
      { directory, clock, wallMs: () => host.wallMs(), log, store: undefined },
      new HistoryRoom()
    )
    this.#history = history
    const body = openSimBody({ life, world, log, transport, leases, directory, membership })
    const agents = { self, directory, detector, clock, log, report, note }
    const storage = (): PeerId[] => placeable(membership.record())
    const leaving = (): PeerId[] => leavingHosts(membership.record())
    const takeover = new TakeoverAgent({ ...agents, hosts: storage, leaving })
    const { network, hosting, store } = body
    const placing = new Placing({ self, transport, about: peers => peers.map(peer => ({ peer })) })
    const line = new RestoreLine({ self, bus, clock, directory, togetherMs: TOGETHER_MS })
    const where = { members: ids, storage, leaving, older: () => [], placing, line, nameOf: (peer: PeerId) => peer }
    const keeping = () => keepBy(settings.epochs.retention, host.wallMs())
    this.groups = new Groups({ ...agents, ...where, hosting, leases, network, keeping })
    const describeManifest = hosting && body.describeManifest
    const fetchManifest = hosting && ((name: string) => hosting.shards.getManifest(name))
    const stored = { store, floor, describeManifest, fetchManifest, directory: wiring.retained(directory) }
    const housekeeping = new Housekeeping({ ...agents, ...settings.epochs, registers, ...stored })
    const wallMs = (): number => host.wallMs()
    this.epochClock = new EpochClock({ ...agents, ...settings.epochs, history, wallMs })
    const forgetting = new Forgetting({ ...agents, ...settings.epochs, membership, registers })
    const box = plainBox(self, random)
    const dataKeys = new DataKeyRing({ self, membership, box, secret: new Uint8Array(32), wallMs })
    const seen = {
      membership,
      directory,
      detector,
      lost,
      transport,
      dataKeys,
      readManifest: hosting && leanReader(hosting.readManifest)
    }
    const facts = async () => wiring.facts(await gatherFacts({ ...seen, wallMs }))
    const leaseMs = (): number => voter.longestMs
    this.#steps = new MembershipSteps({ ...agents, random, membership, dataKeys, registers, facts, leaseMs })
    this.registers = registers
    this.leases = leases
    this.membership = membership
    this.detector = detector
    this.directory = directory
    this.body = body
    this.#agents = [takeover, this.epochClock, housekeeping, forgetting, directory, membership, lost, this.#steps, line]
    this.#follow(takeover)
  }

  /** Who is a member and votes: everybody here is told when it changes. */
  #follow(takeover: TakeoverAgent): void {
    const { membership, registers, leases, detector, transport, life } = this
    membership.onChange((record, before) => {
      registers.setVoters(record.voters)
      leases.setVoters(record.voters)
      detector.setMembers(record.members.map(member => member.id))
      // Who was removed hears of it before the line is cut.
      const gone = before.members.filter(member => memberById(record, member.id) === undefined)
      const idsOf = (members: readonly { readonly id: PeerId }[]): PeerId[] => members.map(({ id }) => id)
      transport.setMembers(idsOf([...record.members, ...gone]))
      if (gone.length > 0) {
        life.clock.after(FAREWELL_MS, () => transport.setMembers(idsOf(membership.record().members)))
      }
      takeover.considerAll()
      if (memberById(record, life.host.name) === undefined) void this.stop()
    })
  }

  async start(): Promise<void> {
    const { life, registers, leases, transport, detector, membership, directory } = this
    transport.setMembers(membership.record().members.map(member => member.id))
    await registers.start()
    if (life.dead) return
    leases.start()
    await transport.start()
    detector.start()
    membership.start()
    this.#steps.start()
    this.started = true
    this.#report('peer.started', {})
    await directory.start()
  }

  /** In order, as a service is stopped. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  async #stop(): Promise<void> {
    await this.groups.stop()
    for (const agent of this.#agents.toReversed()) agent.stop()
    this.detector.stop()
    await this.transport.stop()
    this.leases.stop()
    this.registers.stop()
    await this.#decisions.stop()
    if (!this.life.dead) this.life.host.end('killed')
  }
}

/** Log lines are notes among the events. */
function logOf(host: Host): Log {
  const say = (level: string) => (fields: object, message: string) =>
    host.kernel.note(() => `${host.name} ${level}: ${message} ${JSON.stringify(fields)}`)
  return { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') }
}
