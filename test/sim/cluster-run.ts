/**
 * One seed of a whole simulated cluster: groups of banks run, epochs are taken, faults happen; then the faults end and all
 * must heal. The same seed is the same run, event by event.
 */
import { hasCode } from '../../node/errors.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import { type ClusterRecord, memberById, wantedVoters } from '../../protocols/membership/record.ts'
import { type GroupRecord, groupKey, type NicSpec, UPLINK_NETWORK, type VmSpec } from '../../protocols/group.ts'
import { type ClusterWiring, HONEST } from './cluster-bugs.ts'
import { makeGroup } from './cluster-groups.ts'
import { helpRested } from './cluster-rest.ts'
import { helpMembers } from './cluster-members.ts'
import { type FaultyWorld, Faults } from './cluster-faults.ts'
import { Judge } from './cluster-invariants.ts'
import { type ClusterSettings, type PeerWorld, SimPeer } from './cluster-peer.ts'
import { guarded } from './guarded.ts'
import { Kernel } from './kernel.ts'
import { macOf } from './world-bank.ts'
import { Book } from './world-book.ts'
import { Host, type Life } from './world-host.ts'
import { outsideMacOf } from './world-outside.ts'
import type { Refused } from './world-shards.ts'
import { Network } from './world-network.ts'
import { describeMessage } from './world-words.ts'

export interface ClusterOutcome {
  readonly seed: number
  /** Members that it begins with. */
  readonly peers: number
  /** The first violation, or null. */
  readonly violation: string | null
  readonly events: number
  readonly digest: number
  readonly epochs: number
  readonly takeovers: number
  /** How often a group came to rest. */
  readonly rests: number
  readonly frames: number
  /** Frames that somebody outside has heard. */
  readonly heard: number
  /** Members that were held for dead and refuted it. */
  readonly refuted: number
  /** The longest that one that could refute it was held for dead, in virtual milliseconds. */
  readonly refutedMs: number
  /** Virtual milliseconds from the end of the faults until all had healed. */
  readonly convergedMs: number
}

export interface ClusterOptions {
  readonly peers?: number | undefined
  /** What is wired otherwise than it should be. */
  readonly wiring?: Partial<ClusterWiring> | undefined
  /** Told of every event. */
  readonly listener?: Kernel['listener']
}

const CLUSTER = 'simulated'
const FAULTS_MS = 4_000
/** A VM that failed again and again is tried after at most 32 s (group-agent.ts); then once more. */
const CONVERGE_MS = 60_000
const POLL_MS = 25
/** Housekeeping forgets 2 s after a record has changed, and again with the next. */
const COLLECTED_MS = 5_000

export async function runClusterSeed(seed: number, options: ClusterOptions = {}): Promise<ClusterOutcome> {
  return new ClusterRun(seed, options).run()
}

function settingsOf(kernel: Kernel, seed: number): ClusterSettings {
  return {
    // Twice as quick as by default, and five times the drift: what depends on it happens often.
    detector: { periodMs: 100, probeTimeoutMs: 50, indirectProbes: 2, suspicionMinMs: 200, suspicionMaxMs: 600 },
    lease: { durationMs: 400, renewEveryMs: 100, driftPerMille: 100 },
    register: { roundTimeoutMs: 100, giveUpMs: 1_000 },
    epochs: {
      intervalMs: kernel.pick([100, 250, 600]),
      deadlineMs: kernel.pick([500, 900, 2_500]),
      forgetRemovedMs: 300,
      // By the seed, and not by chance: the runs of those that keep one epoch stay as they were.
      retention: { keepLast: seed % 3 === 0 ? 3 : 1, hourly: seed % 2, daily: 0, weekly: 0 }
    },
    capture: kernel.pick(['dirty', 'portable']),
    tickMs: kernel.pick([10, 25])
  }
}

class ClusterRun {
  readonly #seed: number
  readonly #kernel: Kernel
  readonly #book = new Book()
  readonly #network: Network
  readonly #hosts: readonly Host[]
  readonly #peers = new Map<Life, SimPeer>()
  /** Host and stream → when it was first seen there as void. */
  readonly #voidSince = new Map<string, number>()
  readonly #genesis: ClusterRecord
  readonly #spare: Host | undefined
  readonly #changing: boolean
  readonly #removing: boolean
  /** Groups that somebody is about to make. */
  readonly #making = new Set<string>()
  readonly #judge: Judge
  readonly #world: PeerWorld
  readonly #groups: ReadonlyMap<string, readonly VmSpec[]>

  constructor(seed: number, { peers = 5, wiring, listener }: ClusterOptions) {
    this.#seed = seed
    const kernel = new Kernel(seed)
    this.#kernel = kernel
    kernel.listener = listener
    this.#network = new Network(kernel, {
      left: (life, message) => this.#judge.ownersSpeakInTurn(life, message),
      came: (life, message) => {
        this.#book.come(life, message)
        this.#judge.nobodyIsDeaf(life, message)
      },
      lost: (message, why) => this.#book.lose(message, why),
      describe: describeMessage
    })
    const members = Array.from({ length: peers }, (_, i) => `p${i}`)
    const settings = settingsOf(kernel, seed)
    const witness = peers > 3 && kernel.chance(0.3) ? members.at(-1) : undefined
    this.#genesis = foundersRecord(
      CLUSTER,
      members.map((name, i) => ({
        id: name,
        name,
        address: `/ip4/10.0.0.${i + 1}/tcp/7400`,
        role: name === witness ? 'witness' : 'storage'
      }))
    )
    const spare = kernel.chance(0.4)
    this.#changing = spare || kernel.chance(0.3)
    this.#removing = kernel.chance(0.3)
    this.#spare = spare ? new Host(`p${peers}`, kernel, settings.lease.driftPerMille) : undefined
    const founders = members.map(name => new Host(name, kernel, settings.lease.driftPerMille))
    for (const host of founders) host.disk.cluster = this.#genesis
    this.#hosts = [...founders, ...(this.#spare ? [this.#spare] : [])]
    const peerOf = (life: Life | undefined) => (life === undefined ? undefined : this.#peers.get(life))
    const shared = { kernel, network: this.#network, book: this.#book, settings }
    this.#judge = new Judge({ ...shared, genesis: this.#genesis, peerOf })
    for (const host of this.#hosts) {
      this.#network.add(host)
      host.disk.onRegister = (name, bytes) => this.#judge.onRegister(host, name, bytes)
      host.disk.onForget = name => this.#judge.neededDataIsKept(host, name)
      host.clocks = { ...HONEST, ...wiring }.clocks(host.clocks)
    }
    this.#world = {
      ...shared,
      wiring: { ...HONEST, ...wiring },
      refused: new WeakMap<Life, Refused>(),
      onLiveness: (life, peer, liveness) => this.#judge.beliefs.changed(life, peer, liveness),
      onTold: (life, id) => this.#judge.nothingHeardIsTakenBack(life, id),
      onTake: (run, id) => {
        this.#judge.generationsDoNotMix(run, id)
        this.#judge.channels.took(run, id)
      }
    }
    const sizes = kernel.chance(0.3) ? { bank: 3, shop: 2 } : { bank: kernel.pick([3, 4]) }
    this.#groups = new Map(Object.entries(sizes).map(([name, size]) => [name, specs(name, size, kernel.chance(0.5))]))
  }

  async run(): Promise<ClusterOutcome> {
    const judge = this.#judge
    const convergedMs = await guarded(
      () => this.#live(),
      (invariant, what) => judge.fail(invariant, what)
    )
    const { violation, committed, takeovers, beliefs, rests } = judge
    return {
      seed: this.#seed,
      peers: this.#genesis.members.length,
      violation: violation === undefined ? null : `seed ${this.#seed}: ${violation}`,
      events: this.#kernel.events,
      digest: this.#kernel.digest,
      epochs: committed,
      takeovers,
      rests: rests.count,
      frames: this.#book.frames.length,
      heard: judge.outside.heard,
      refuted: beliefs.refuted,
      refutedMs: beliefs.longestMs,
      convergedMs: convergedMs ?? 0
    }
  }

  /** Faults, and then the healing: how long that took. */
  async #live(): Promise<number> {
    const kernel = this.#kernel
    for (const host of this.#hosts) kernel.at(kernel.between(0, 30), 'power on', () => this.#start(host))
    for (const id of this.#groups.keys()) this.#create(id)
    const faults = new Faults(this.#faulty())
    const check = (): boolean => {
      this.#judge.leasesDoNotOverlap()
      this.#judge.nobodyIsTakenForDead()
      this.#judge.rests.standStill()
      return this.#judge.violation !== undefined
    }
    await kernel.run(FAULTS_MS, check)
    faults.end()
    return this.#judge.violation === undefined ? await this.#converge(check) : 0
  }

  #faulty(): FaultyWorld {
    return {
      kernel: this.#kernel,
      network: this.#network,
      hosts: this.#hosts,
      groups: [...this.#groups.keys()],
      spare: this.#spare,
      members: this.#changing,
      removals: this.#removing,
      epochs: this.#seed % 4 === 3,
      rests: this.#seed % 4 === 1,
      make: id => this.#create(id),
      cluster: () => this.#judge.cluster,
      peerOf: life => (life === undefined ? undefined : this.#peers.get(life)),
      start: host => this.#start(host),
      peers: () => this.#up().filter(({ started }) => started)
    }
  }

  #start(host: Host): void {
    const { cluster } = host.disk
    // A peer that has learned that it is no member does not start any more.
    if (host.life !== undefined || cluster === undefined || memberById(cluster, host.name) === undefined) return
    const life = host.start()
    SimPeer.create(life, this.#world, cluster)
      .then(peer => {
        this.#peers.set(life, peer)
        return peer.start()
      })
      .catch((error: unknown) => {
        if (!life.dead && hasCode(error, 'REGISTER_STORE_CORRUPT')) host.end('killed')
        else if (!life.dead) this.#judge.fail('peersStart', `${host.name}: ${String(error)}`)
      })
  }

  /** By whoever is up, until the group is there. */
  #create(id: string): void {
    const kernel = this.#kernel
    const there = (): boolean => this.#judge.record(id)?.removed === false
    if (this.#making.has(id) || there()) return
    this.#making.add(id)
    kernel.at(
      50,
      () => `group ${id} is made`,
      () => {
        this.#making.delete(id)
        if (there()) return
        this.#create(id)
        const peer = this.#peers.get(kernel.pick(this.#hosts).life as Life)
        if (peer?.started === true)
          makeGroup(peer, id, this.#groups.get(id) ?? [], this.#world.wiring.groupFloor).catch(() => {})
      }
    )
  }

  // ------------------------------------------------------------------------------------------ after the faults

  async #converge(check: () => boolean): Promise<number> {
    const kernel = this.#kernel
    const healedMs = kernel.nowMs
    const before = new Map([...this.#groups.keys()].map(id => [id, this.#judge.record(id)]))
    const missing = (): string[] => [
      ...this.membershipViewsAgree(),
      ...this.wishesComeTrue(),
      ...[...this.#groups.keys()].flatMap(id => [
        ...this.groupsRun(id),
        ...this.epochsGoOn(id, before.get(id)),
        ...this.outsideHears(id, healedMs)
      ]),
      ...(this.#seed % 8 === 0 ? this.voidDataIsCollected(healedMs) : [])
    ]
    let left: string[] = []
    const poll = (): void => {
      left = missing()
      if (left.length > 0) kernel.at(POLL_MS, 'poll', poll)
    }
    kernel.at(POLL_MS, 'poll', poll)
    this.#help()
    left = ['not asked yet']
    await kernel.run(healedMs + CONVERGE_MS, () => check() || left.length === 0)
    if (left.length > 0) this.#judge.fail('clusterConverges', `after ${CONVERGE_MS} ms: ${left.join('; ')}`)
    return kernel.nowMs - healedMs
  }

  /** Every member is up and holds every other, and nobody else, for alive. */
  membershipViewsAgree(): string[] {
    const { version, members } = this.#judge.cluster
    const ids = members.map(({ id }) => id).sort()
    const up = this.#up()
    if (up.length < ids.length) return [`${up.length} of ${ids.length} members are up`]
    return up.flatMap(({ life, detector, membership }) => {
      const alive = detector.alive()
      const known = membership.record().version
      if (known !== version) return [`${life.host.name} knows version ${known} of the cluster, it is at ${version}`]
      return alive.join() === ids.join() ? [] : [`${life.host.name} holds ${alive.join(', ')} for alive`]
    })
  }

  /** Who was wished to vote votes, who was to leave has left, and the voters are settled. */
  wishesComeTrue(): string[] {
    const { voters, members } = this.#judge.cluster
    const wanted = wantedVoters(this.#judge.cluster).map(({ id }) => id)
    const leaving = members.filter(member => member.leaving).map(({ id }) => id)
    if (leaving.length > 0) return [`${leaving.join(', ')} should have left`]
    const right = voters.settled && voters.ids.toSorted().join() === wanted.toSorted().join()
    return right ? [] : [`${voters.ids.join(', ')} vote, and ${wanted.join(', ')} should; settled: ${voters.settled}`]
  }

  /** Every VM runs at its owner, in the newest generation, and its transfers are taken. */
  groupsRun(id: string): string[] {
    const record = this.#judge.record(id)
    if (record === undefined) return [`${id} is not there`]
    return record.vms.flatMap(({ id: vm }) => {
      const owner = this.#up().find(({ life }) => life.host.name === record.owners[vm])
      const local = owner?.groups.vmsOf(id).find(({ spec }) => spec.id === vm)
      if (local?.running !== true || local.generation !== record.generation)
        return [`${id}/${vm} does not run at ${record.owners[vm]}`]
      const leftMs = owner?.leases.remainingMs(groupKey(id), record.generation) ?? 0
      return leftMs > 0 ? [] : [`${record.owners[vm]} has no lease of ${id}`]
    })
  }

  /** An epoch that was opened after all healed is committed, and none is open for longer than it may. */
  epochsGoOn(id: string, before: GroupRecord | undefined): string[] {
    const { epoch, generation } = this.#judge.record(id)?.committed ?? { epoch: 0, generation: 0 }
    // In a group that was made again epochs count anew.
    const anew = generation > (before?.generation ?? 0) && epoch > 0
    return anew || epoch > (before?.lastEpoch ?? 0) ? [] : [`no epoch of ${id} was committed since all healed`]
  }

  /** What waits for an epoch leaves with it. */
  outsideHears(id: string, sinceMs: number): string[] {
    const { outside } = this.#judge
    const telling = (this.#groups.get(id) ?? []).filter(vm => vm.nics !== undefined)
    const silent = telling.filter(vm => !outside.hasHeardOf(id, vm.id, sinceMs))
    return silent.map(vm => `nobody outside has heard of ${id}/${vm.id} since all healed`)
  }

  /** Nothing is kept of epochs that came to nothing, nor of those that no restore can ask for. */
  voidDataIsCollected(healedMs: number): string[] {
    const { nowMs } = this.#kernel
    for (const { name, disk, stopped } of this.#hosts) {
      if (memberById(this.#judge.cluster, name) === undefined) continue
      for (const stream of disk.columns.keys()) {
        if (!this.#judge.isVoid(stream)) continue
        // Who stands still collects nothing.
        const sinceMs = (stopped === 'no' ? this.#voidSince.get(`${name} ${stream}`) : undefined) ?? nowMs
        this.#voidSince.set(`${name} ${stream}`, sinceMs)
        if (nowMs - sinceMs > COLLECTED_MS)
          this.#judge.fail('voidDataIsCollected', `${name} keeps ${stream}, void for ${nowMs - sinceMs} ms`)
      }
    }
    return nowMs > healedMs + 1.2 * COLLECTED_MS ? [] : ['it is too early to tell what is collected']
  }

  /** Nobody does what it takes without people: groups that were removed are made again, those that rest started, members let go and let in. */
  #help(): void {
    for (const id of this.#groups.keys()) this.#create(id)
    helpRested(this.#faulty())
    if (this.#changing) this.#helpMembers()
    this.#kernel.at(500, 'people help', () => this.#help())
  }

  #helpMembers(): void {
    helpMembers(
      this.#faulty(),
      this.#up().find(({ started }) => started)
    )
  }

  #up(): SimPeer[] {
    return this.#hosts.flatMap(({ name, life }) =>
      life === undefined || memberById(this.#judge.cluster, name) === undefined ? [] : (this.#peers.get(life) ?? [])
    )
  }
}

const nicsOutside = (group: string, place: number): NicSpec[] => [
  { mac: macOf(place), network: 'default' },
  { mac: outsideMacOf(group, place), network: UPLINK_NETWORK }
]

/** `outside`: they tell it something, with output commit. */
const specs = (group: string, size: number, outside: boolean): VmSpec[] =>
  Array.from({ length: size }, (_, place) => ({
    id: `${group[0]}${place}`,
    ...(outside ? { nics: nicsOutside(group, place) } : { mac: macOf(place) }),
    memoryMiB: 16,
    kernel: '/boot/kernel',
    initrd: '/boot/initrd',
    append: CLUSTER
  }))
