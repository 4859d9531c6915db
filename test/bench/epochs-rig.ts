/**
 * The cluster of `epochs`: five peers with a busy bank in three VMs. Every six seconds one peer, each in its turn, is asked
 * for an epoch; hosts die, mostly owners of VMs, and come back; new hosts join by invitation. What every committed epoch
 * left on the peers' disks is archived at its commit.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { configSchema } from '../../config/schema.ts'
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import { apiSocketPath } from '../../node/edge/api.ts'
import { DiapauseError } from '../../node/errors.ts'
import { readSecret } from '../../node/host/secret.ts'
import { type ClusterPeer, codeFor, loopback } from '../demo/cluster.ts'
import type { SeenEvent } from '../demo/events.ts'
import { Bank, calm, GROUP } from '../scenarios/bank.ts'
import { Member } from '../scenarios/member.ts'
import { type PortLog, readLog } from './cut-checker-log.ts'
import { Archive } from './epochs-archive.ts'

const PEERS = 5
const VMS = 3
/** Enough for the guest, and fast to fill again. */
const MEMORY_MIB = 96
/**
 * On each of six connections 2,400 bytes every 20 ms in segments of 76: 9,600 frames a second and their acknowledgements. So
 * many frames cost a guest without KVM least when they leave together. Pages: something to copy.
 */
const LOAD = { intervalUs: 20_000, burst: 60, mtu: 128, dirtyPagesPerSecond: 100 }
/** Ten a minute. */
export const TICK_MS = 6_000
/** Not a multiple of it, so that hosts die at all stages of an epoch. */
const KILL_EVERY_MS = 37_000
/** Longer than a takeover: a host that was repaired. */
const DEAD_MS = 9_000
/** Parts of the run's time at which a host joins. */
const JOIN_AT = [0.3, 0.65]
const LIMIT_MS = 60_000
const RETRY_MS = 500
/** What a recorder writes; with the peer's process. */
const LOG_NAME = /(?:^|\/)frames-(\d+)\.log$/
/** For the last epoch's decision and the last frames. */
const SETTLE_MS = 2_000

export interface Fate {
  readonly epoch: number
  readonly openedMs: number
  readonly decidedMs: number | undefined
  readonly outcome: 'committed' | 'aborted' | 'contradicted' | 'undecided'
  readonly reason: string
}

export class EpochsRig {
  readonly bank: Bank
  readonly archive = new Archive()
  readonly killed: string[] = []
  readonly joined: string[] = []
  readonly #progress: (line: string) => void
  /** Process → when it was killed, CLOCK_MONOTONIC. */
  readonly #killedMs = new Map<number, number>()
  #archivedEvents = 0
  #over = false
  #specs: readonly VmSpec[] = []
  #nonces: readonly string[] = []
  #secret: Uint8Array = new Uint8Array(0)

  private constructor(bank: Bank, progress: (line: string) => void) {
    this.bank = bank
    this.#progress = progress
  }

  /** `preload`: the module that records what the checker of the cuts is to see. */
  static async start(progress: (line: string) => void, preload: string): Promise<EpochsRig> {
    const bank = await Bank.start({
      peers: PEERS,
      vms: VMS,
      memoryMiB: MEMORY_MIB,
      load: LOAD,
      settings: { ...calm, shards: codeFor(PEERS), epochs: { intervalMs: 0 } },
      preload
    })
    const rig = new EpochsRig(bank, progress)
    try {
      // Without one, a group whose owner dies early would boot again, and rightly so.
      await bank.until('a first epoch', async () => {
        const taken = await bank
          .peer('p1')
          .client.takeEpoch(GROUP)
          .catch(() => undefined)
        return taken?.outcome === 'committed' ? true : undefined
      })
      rig.#archiveNew()
      rig.#specs = (await bank.record()).vms
      rig.#nonces = [...bank.consoles.latest.values()].map(({ latest }) => latest.nonce)
      rig.#secret = await readSecret(join(bank.cluster.dir, 'secret'))
      return rig
    } catch (error) {
      await rig.stop()
      throw error
    }
  }

  /** What a restore elsewhere needs to know. */
  get facts() {
    const shards = configSchema.shape.shards.parse(codeFor(PEERS))
    return { group: GROUP, specs: this.#specs, nonces: this.#nonces, secret: this.#secret, shards }
  }

  async hypervisor(): Promise<string> {
    return (await this.bank.peer('p1').client.status()).hypervisor
  }

  /** Epochs, deaths and arrivals, all at the same time. Rejects where a peer ended unasked or something never came. */
  async run(durationMs: number): Promise<void> {
    const parts = [this.#epochs(durationMs), this.#deaths(durationMs), this.#arrivals(durationMs)]
    const archiving = this.#archiving()
    try {
      await Promise.race([Promise.all(parts), archiving])
      await this.bank.cluster.allConnected(LIMIT_MS)
      await this.bank.until('the last epoch to be decided', () =>
        this.fates().every(({ outcome }) => outcome !== 'undecided') ? true : undefined
      )
    } finally {
      this.#over = true
      await Promise.allSettled([...parts, archiving]) // nobody may die or join later
    }
  }

  /** Every epoch that a peer has seen opened or decided. */
  fates(): Fate[] {
    const { events } = this.bank.cluster
    const epochs = new Map<number, SeenEvent['event'][]>()
    for (const { event } of events) {
      if (event.kind !== 'epoch.opened' && event.kind !== 'epoch.committed' && event.kind !== 'epoch.aborted') continue
      epochs.set(event.epoch, [...(epochs.get(event.epoch) ?? []), event])
    }
    return [...epochs].sort(([a], [b]) => a - b).map(([epoch, told]) => fateOf(epoch, told))
  }

  /** Ends the VMs and reads what the recorders of all peers have written. */
  async frames(): Promise<PortLog[]> {
    const { cluster } = this.bank
    await cluster.alive[0]?.client.removeGroup(GROUP).catch(() => {}) // then the last frames may have no sender
    await sleep(SETTLE_MS)
    const names = readdirSync(cluster.dir, { recursive: true, encoding: 'utf8' })
    const logs = names.filter(name => LOG_NAME.test(name)).sort()
    const pidOf = (name: string): number => Number(LOG_NAME.exec(name)?.[1])
    return logs.flatMap(name => readLog(readFileSync(join(cluster.dir, name)), this.#killedMs.get(pidOf(name))))
  }

  async stop(): Promise<string[]> {
    return await this.bank.cluster.stop()
  }

  // -------------------------------------------------------------------------------------------- epochs

  async #epochs(durationMs: number): Promise<void> {
    const startMs = performance.now()
    for (let tick = 0; tick * TICK_MS < durationMs; tick++) {
      await this.#sleepUntil(startMs + tick * TICK_MS)
      await this.#open(tick)
    }
  }

  /** Asks until there is one more than before: who is asked may be dying, and an older epoch may be open yet. */
  async #open(tick: number): Promise<void> {
    const before = this.#known.size
    let [asked, askMs] = [0, 0]
    await this.bank.until('an epoch to be opened', () => {
      if (this.#known.size > before) return true
      if (performance.now() < askMs) return undefined
      askMs = performance.now() + RETRY_MS
      const { alive } = this.bank.cluster
      const peer = alive[(tick + asked++) % alive.length] as ClusterPeer
      peer.client.takeEpoch(GROUP).catch(() => {}) // what comes of it, the events of all peers tell
      return undefined
    })
  }

  /** Numbers of epochs that a peer has told of. */
  get #known(): ReadonlySet<number> {
    const kinds = ['epoch.opened', 'epoch.committed', 'epoch.aborted'] as const
    return new Set(kinds.flatMap(kind => this.bank.events(kind).map(({ epoch }) => epoch)))
  }

  async #archiving(): Promise<void> {
    for (; !this.#over; await sleep(20)) this.#archiveNew()
    this.#archiveNew()
  }

  #archiveNew(): void {
    const { events, peers } = this.bank.cluster
    const fresh = events.slice(this.#archivedEvents)
    this.#archivedEvents = events.length
    if (fresh.some(({ event }) => event.kind === 'epoch.committed')) this.archive.keep(peers)
  }

  // -------------------------------------------------------------------------------------------- deaths and arrivals

  async #deaths(durationMs: number): Promise<void> {
    const startMs = performance.now()
    const everyMs = Math.min(KILL_EVERY_MS, durationMs / 2)
    for (let death = 1; death * everyMs + DEAD_MS < durationMs; death++) {
      await this.#sleepUntil(startMs + death * everyMs)
      const victim = await this.#victim(death)
      this.killed.push(victim.name)
      this.#progress(`kill -9 of ${victim.name}`)
      this.#killedMs.set(this.bank.cluster.pidOf(victim), Number(process.hrtime.bigint()) / 1e6)
      await this.bank.cluster.killPeer(victim)
      await this.#sleepUntil(startMs + death * everyMs + DEAD_MS)
      this.bank.cluster.startPeer(victim)
    }
  }

  /** Owners of VMs twice out of three times. */
  async #victim(death: number): Promise<ClusterPeer> {
    const { peers, alive } = this.bank.cluster
    const { owners } = await this.#record()
    const owner = peers.find(({ id }) => id === owners[`vm${1 + (death % VMS)}`])
    const idle = alive.filter(({ id }) => !Object.values(owners).includes(id))
    return (death % 3 === 0 ? idle[death % idle.length] : owner) ?? (alive[0] as ClusterPeer)
  }

  /** The newest that anybody knows; who has just been started may not answer yet. */
  async #record(): Promise<GroupRecord> {
    return await this.bank.until('a record of the group', async () => {
      const asked = this.bank.cluster.alive.map(({ client }) => client.groups().catch(() => []))
      return (await Promise.all(asked)).flat().sort((a, b) => b.version - a.version)[0]
    })
  }

  async #arrivals(durationMs: number): Promise<void> {
    const startMs = performance.now()
    for (const [i, part] of JOIN_AT.entries()) {
      await this.#sleepUntil(startMs + part * durationMs)
      const name = `p${PEERS + 1 + i}`
      await this.#join(name)
      this.joined.push(name)
      this.#progress(`${name} has joined`)
    }
  }

  async #join(name: string): Promise<void> {
    const { cluster } = this.bank
    const [address = ''] = await loopback(1)
    const home = join(cluster.dir, name)
    mkdirSync(join(home, 'data'), { recursive: true, mode: 0o700 })
    const member = new Member(home, name, address, 'data')
    const id = await this.bank.until(`${name} to be taken in`, async () => {
      const [host] = cluster.alive
      const invitation = await host?.client.invite({}).catch(() => undefined) // so soon after a death the voters may be busy
      if (invitation === undefined) return undefined
      const { code, out, err } = await member.run('join', invitation.token, ...member.setup)
      const found = /12D3Koo\w+/.exec(out)?.[0]
      if (code !== 0 || found === undefined) this.#progress(`${name} tries again to join: ${err.trim()}`)
      return found
    })
    const { dataDir, configFile, client } = member
    const runDir = join(dataDir, 'run')
    const paths = { runDir, configFile, logFile: join(home, 'log'), socketPath: apiSocketPath(runDir) }
    const consoleDir = join(runDir, 'console')
    const peer = { name, id, role: 'storage' as const, host: undefined, dataDir, consoleDir, client, ...paths }
    cluster.adopt(peer)
    cluster.startPeer(peer)
  }

  async #sleepUntil(atMs: number): Promise<void> {
    do {
      if (this.#over) throw new DiapauseError('BENCH_OVER', 'the run has come to an early end')
      this.bank.cluster.check()
      await sleep(Math.min(500, Math.max(0, atMs - performance.now())))
    } while (performance.now() < atMs)
  }
}

function fateOf(epoch: number, told: readonly SeenEvent['event'][]): Fate {
  const first = (kind: string): number | undefined =>
    told
      .filter(event => event.kind === kind)
      .map(({ atMs }) => atMs)
      .sort((a, b) => a - b)[0]
  const [committedMs, abortedMs] = [first('epoch.committed'), first('epoch.aborted')]
  const aborted = told.find(event => event.kind === 'epoch.aborted')
  const reason = aborted !== undefined && 'reason' in aborted ? aborted.reason : ''
  const decidedMs = committedMs ?? abortedMs
  const outcome =
    committedMs !== undefined && abortedMs !== undefined
      ? 'contradicted'
      : committedMs !== undefined
        ? 'committed'
        : abortedMs !== undefined
          ? 'aborted'
          : 'undecided'
  return { epoch, openedMs: first('epoch.opened') ?? decidedMs ?? 0, decidedMs, outcome, reason }
}
