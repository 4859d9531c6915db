/**
 * The cluster that `failover` breaks: five peers with default settings on five hosts, three real VMs with the bank in
 * them, an observer at the hosts' switch, and the faults. One round after the other in the same cluster.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { hasCode } from '../../node/errors.ts'
import { type ClusterPeer, HOST_PORT } from '../demo/cluster.ts'
import type { SeenEvent } from '../demo/events.ts'
import { naming, waitUntil } from '../demo/processes.ts'
import { wallMs } from '../demo/story.ts'
import { bankTotal } from '../guest/build.ts'
import { type BankReport, type TcpCounts, tcpCounts } from '../guest/console.ts'
import { type Host, Hosts } from '../hosts/hosts.ts'
import { Wire } from '../hosts/wire.ts'
import { Bank, GROUP } from '../scenarios/bank.ts'
import type { Fault, Observed } from './failover-judge.ts'
import { Traces } from './failover-trace.ts'

const PEERS = 5
const VMS = 3
/** Enough for the guest, and fast to fill again. */
const MEMORY_MIB = 96
/** How long a fault lasts at least. Connections are given up after 5 s of silence (SILENT_TICKS, protocols/transport.ts). */
const LASTS_MS = { kill: 0, stop: 10_000, pause: 0, partition: 4_000 } as const
/** Enough for a VM that runs to send something. */
const SPEAKS_MS = 100
/** On every channel, between a cut and a fault, so that there is something to go back on. */
const WORK_TRANSFERS = 20
const ASK_AGAIN_MS = 1_000
/** Longest wait for what must come soon; several times what a busy machine took. */
const LIMIT_MS = 60_000

/** The link dials its connections one after the other (protocols/link.ts): control, bulk, frames. */
const FRAMES_AT = 2
const CONNECTIONS = 3

const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6
/** Peers tell wall-clock times; the wall clock and the monotonic one differ by a constant unless somebody sets the former. */
const WALL_OFFSET_MS = wallMs() - monotonicMs()

interface Copy {
  /** Name of its peer. */
  readonly by: string
  readonly generation: number
  /** Since then, on the wall clock. */
  readonly atMs: number
}

export class Rig {
  readonly bank: Bank
  readonly #hosts: Hosts
  readonly #wire: Wire
  readonly #traces: Traces
  readonly #standby: boolean
  readonly #known = new Map<string, Copy>()
  #eventsRead = 0
  #questions = 0
  /** Of each VM, before the newest epoch: an image holds as much or a little more. */
  #tcpBefore: ReadonlyMap<string, TcpCounts> = new Map()
  #nonces: readonly string[] = []

  private constructor(parts: { bank: Bank; hosts: Hosts; wire: Wire; traces: Traces; standby: boolean }) {
    this.#standby = parts.standby
    this.bank = parts.bank
    this.#hosts = parts.hosts
    this.#wire = parts.wire
    this.#traces = parts.traces
  }

  /** Resolves when the bank works and its first epoch is committed. `standby`: copies of all VMs are kept. */
  static async start({ standby = false } = {}): Promise<Rig> {
    const hosts = await Hosts.make(PEERS)
    try {
      const wire = await Wire.watch(hosts, HOST_PORT)
      const traceOf = (dir: string) => join(dir, 'frames')
      const bank = await Bank.start({
        peers: PEERS,
        hosts,
        vms: VMS,
        memoryMiB: MEMORY_MIB,
        ...(standby && { standby: 1 }),
        settings: ({ dir }) => ({ epochs: { intervalMs: 0 }, switch: { traceFile: traceOf(dir) } })
      })
      const files = bank.cluster.peers.map(({ name }) => ({ peer: name, path: traceOf(join(bank.cluster.dir, name)) }))
      const rig = new Rig({ bank, hosts, wire, traces: new Traces(files), standby })
      await rig.audit()
      rig.#tcpBefore = await rig.#tcp()
      await rig.#epoch(0)
      return rig
    } catch (error) {
      await hosts.remove()
      throw error
    }
  }

  async hypervisor(): Promise<string> {
    return (await this.bank.peer('p1').client.status()).hypervisor
  }

  /** How far the wall clock has moved against the monotonic one since the start: times of peers are wrong by that. */
  get clockStepMs(): number {
    return Math.abs(Date.now() - monotonicMs() - WALL_OFFSET_MS)
  }

  /** Breaks, waits until all is well again, takes an epoch. Rejects where something that must come never does. */
  async round(number: number, fault: Fault): Promise<Observed> {
    const { bank } = this
    const { generation, owners } = await bank.record()
    const owner = bank.cluster.peers.find(peer => peer.id === owners[`vm${1 + (number % VMS)}`]) as ClusterPeer
    const events = bank.cluster.events.length
    await this.#moving(generation, WORK_TRANSFERS)
    this.#wire.log.forgetBefore(monotonicMs() - 5_000)
    this.#traces.take()
    const wire = this.#framesOf(owner)

    const faultMs = monotonicMs()
    await this.#inject(fault, owner)
    const moving = this.#moving(generation + 1, 1)
    moving.catch(() => {}) // awaited below, if all goes well until then
    if (fault === 'pause') await this.#spoken(generation + 1)
    else if (fault !== 'stop') await moving
    await sleep(Math.max(0, faultMs + LASTS_MS[fault] - monotonicMs()))
    const endedMs = await this.#end(fault, owner)
    const healthyMs = await this.#healthy(owner)
    const movingMs = await moving
    const staleVms = await this.#staleVms(owner)
    await this.#complete()
    const reports = this.#reports()
    const tcp = await this.#tcp()
    const before = this.#tcpBefore
    this.#tcpBefore = tcp
    await bank.type('reset')
    await this.#epoch(number)
    return {
      number,
      fault,
      owner: { name: owner.name, id: owner.id, vms: Object.keys(owners).filter(vm => owners[vm] === owner.id) },
      vms: bank.vms,
      generation,
      faultMs,
      endedMs,
      healthyMs,
      movingMs,
      stallMs: Math.max(...reports.map(report => report.stallMs)),
      tcp: [...tcp].map(([vm, counts]) => ({ vm, ...since(counts, before.get(vm)) })),
      complaints: this.#complaints(reports),
      staleVms,
      events: bank.cluster.events.slice(events).map(onMonotonic),
      frames: this.#traces.take(),
      wire
    }
  }

  /** Undoes every fault, whatever happened, and waits until the cluster is well: the next round begins there. */
  async mend(): Promise<void> {
    const { cluster } = this.bank
    await this.#hosts.heal()
    for (const peer of cluster.peers) {
      if (cluster.alive.includes(peer)) cluster.continuePeer(peer)
      else cluster.startPeer(peer)
    }
    await cluster.allConnected(LIMIT_MS)
    await this.bank.working()
    this.#tcpBefore = await this.#tcp()
    await this.#epoch(0)
  }

  /** Faults of the workload; empty: every coin is there, every transfer came once, no connection broke, no VM booted. */
  async audit(): Promise<string[]> {
    const { money, gaps, broken, faults, nonces } = await this.bank.audit()
    const first = this.#nonces
    if (first.length === 0) this.#nonces = nonces
    const sound = money === bankTotal({ total: VMS }) && gaps === 0 && broken === 0
    const booted = first.length > 0 && nonces.join() !== first.join()
    return [
      ...faults,
      ...(sound ? [] : [`${money} coins, ${gaps} gaps, ${broken} broken connections`]),
      ...(booted ? ['a VM has booted again'] : [])
    ]
  }

  /** What was left behind or passed unseen. */
  async stop(): Promise<{ leftovers: string[]; segmentsLost: number }> {
    const [peer] = this.bank.cluster.alive
    await peer?.client.removeGroup(GROUP).catch(() => {}) // a cluster that is not well stops without
    const leftovers = await this.bank.cluster.stop()
    const segmentsLost = await this.#wire.stop()
    return { leftovers: [...leftovers, ...(await this.#hosts.remove())], segmentsLost }
  }

  // -------------------------------------------------------------------------------------------- the fault

  async #inject(fault: Fault, owner: ClusterPeer): Promise<void> {
    const { cluster } = this.bank
    if (fault === 'kill') await cluster.killPeer(owner)
    else if (fault !== 'partition') cluster.stopPeer(owner)
    else await this.#hosts.cutOff(owner.host as Host)
  }

  /** When it did. */
  async #end(fault: Fault, owner: ClusterPeer): Promise<number> {
    const endedMs = monotonicMs()
    if (fault === 'kill') this.bank.cluster.startPeer(owner)
    else if (fault !== 'partition') this.bank.cluster.continuePeer(owner)
    else await this.#hosts.heal()
    return endedMs
  }

  // -------------------------------------------------------------------------------------------- what must come

  /** VM → the newest copy of it that runs, by the word of its peer. */
  get #copies(): ReadonlyMap<string, Copy> {
    const { events } = this.bank.cluster
    for (; this.#eventsRead < events.length; this.#eventsRead++) {
      const { by, event } = events[this.#eventsRead] as SeenEvent
      if (event.kind !== 'vm.started' && event.kind !== 'vm.resumed') continue
      const { vm, generation, atMs } = event
      if (generation > (this.#known.get(vm)?.generation ?? 0)) this.#known.set(vm, { by, generation, atMs })
    }
    return this.#known
  }

  /** A VM runs in this generation or a newer one, and has had time to say something. */
  async #spoken(generation: number): Promise<void> {
    await this.bank.until('a VM to run in a new generation', () =>
      [...this.#copies.values()].some(copy => copy.generation >= generation) ? true : undefined
    )
    await sleep(SPEAKS_MS)
  }

  async #complete(): Promise<void> {
    await this.bank.until('all pages of all VMs', () => {
      const complete = this.bank.events('vm.complete')
      const all = [...this.#copies].every(([vm, copy]) =>
        complete.some(event => event.vm === vm && event.generation === copy.generation)
      )
      return all ? true : undefined
    })
  }

  /** When every VM had got `transfers` from every other, all in one generation, at least this one. */
  #moving(least: number, transfers: number): Promise<number> {
    const first = new Map<string, BankReport>()
    return this.bank.until('money to move on every connection', () => {
      const generations = new Set([...this.#copies.values()].map(copy => copy.generation))
      const [generation = 0] = generations
      if (generations.size > 1 || generation < least) return undefined
      const moved = this.#reports().filter(report => {
        const key = `${report.vm} ${generation}`
        const then = first.get(key) ?? report
        first.set(key, then)
        const counts = [...report.received].map(([from, { count }]) => count - (then.received.get(from)?.count ?? 0))
        return report.conns === 2 * (VMS - 1) && counts.every(count => count >= transfers)
      })
      return moved.length === VMS ? monotonicMs() : undefined
    })
  }

  /** The latest report of each VM, of the copy that is the newest. */
  #reports(): BankReport[] {
    return this.bank.vms.flatMap((vm, i) => {
      const copy = this.#copies.get(vm)
      const peer = this.bank.cluster.peers.find(({ name }) => name === copy?.by)
      const seen = peer && this.bank.consoles.latestIn(peer.consoleDir, i + 1)
      return copy !== undefined && seen !== undefined && seen.atMs >= copy.atMs ? [seen.latest] : []
    })
  }

  /** When all see the peer and it sees all, and it knows what has become of the group. */
  async #healthy(owner: ClusterPeer): Promise<number> {
    await this.bank.cluster.allConnected(LIMIT_MS)
    return await this.bank.until(`${owner.name} to know the newest record`, async () => {
      const [{ version }, known] = await Promise.all([this.bank.record(), this.bank.at(owner)])
      return known.version === version ? monotonicMs() : undefined
    })
  }

  /** QEMUs of the old owner that have not ended by now, nor soon after. */
  async #staleVms(owner: ClusterPeer): Promise<string[]> {
    if ([...this.#copies.values()].some(({ by }) => by === owner.name)) return [] // it has got one back by right
    const left = () => naming(`${owner.runDir}/`)
    await waitUntil(() => left().length === 0, 2_000)
    return left().map(({ pid, command }) => `process ${pid}: ${command.slice(0, 60)}`)
  }

  async #epoch(turn: number): Promise<void> {
    const { alive } = this.bank.cluster
    const peer = alive[turn % alive.length] as ClusterPeer
    await this.bank.until('a committed epoch', async () => {
      try {
        return (await peer.client.takeEpoch(GROUP)).outcome === 'committed' ? true : undefined
      } catch (error) {
        if (hasCode(error, 'EPOCH_OPEN')) return undefined
        throw error
      }
    })
    if (this.#standby) await this.#copied()
  }

  /** Of every VM there are two copies that are of the newest epoch: its owner's, and one where it would go. */
  async #copied(): Promise<void> {
    const { bank } = this
    await bank.until('standby copies of all VMs', async () => {
      const { committed } = await bank.record()
      const all = (await Promise.all(bank.cluster.alive.map(peer => peer.client.status()))).flatMap(
        ({ standbys = [] }) => standbys
      )
      const ready = all.filter(({ state, epoch }) => state === 'ready' && epoch === committed?.epoch)
      return ready.length === 2 * VMS ? true : undefined
    })
  }

  /** What the TCP of every VM has counted. */
  async #tcp(): Promise<ReadonlyMap<string, TcpCounts>> {
    const id = ++this.#questions
    const found = new Map<string, TcpCounts>()
    let askedMs = -Infinity
    return await this.bank.until('a count of TCP of every VM', async () => {
      // Again, as a guest that is busy loses what its serial port has no room for.
      if (monotonicMs() - askedMs > ASK_AGAIN_MS) {
        askedMs = monotonicMs()
        await this.bank.type(`tcp ${id}`)
      }
      for (const [vm, { by }] of this.#copies) {
        const counts = tcpCounts(consoleOf(this.bank.peer(by), vm), id)
        if (counts) found.set(vm, counts)
      }
      return found.size === VMS ? found : undefined
    })
  }

  #complaints(reports: readonly BankReport[]): string[] {
    return reports.flatMap(({ vm, gaps, doubles, bad, broken, nonce }) => [
      ...(gaps + doubles + bad > 0 ? [`vm${vm} lost or doubled ${gaps + doubles + bad} transfers`] : []),
      ...(broken > 0 ? [`vm${vm} saw ${broken} connections break`] : []),
      ...(this.#nonces.includes(nonce) ? [] : [`vm${vm} has booted again`])
    ])
  }

  // -------------------------------------------------------------------------------------------- the wire

  /** The connections that carry the peer's frames to the others now. */
  #framesOf(owner: ClusterPeer): Observed['wire'] {
    const from = owner.host as Host
    const open = openTo(HOST_PORT, this.bank.cluster.pidOf(owner))
    return this.bank.cluster.peers
      .filter(peer => peer !== owner)
      .map(({ name, host }) => {
        const { address } = host as Host
        const lanes = this.#wire.log
          .connections(from.address, address)
          .filter(({ port }) => open.some(each => each.address === address && each.port === port))
        return { to: name, connection: lanes.length === CONNECTIONS ? lanes[FRAMES_AT] : undefined }
      })
  }
}

const consoleOf = ({ consoleDir }: ClusterPeer, vm: string): string =>
  readFileSync(join(consoleDir, `${GROUP}.${vm}.log`), 'latin1')

const since = (now: TcpCounts, { timeouts = 0, duplicates = 0 }: Partial<TcpCounts> = {}): TcpCounts => ({
  timeouts: now.timeouts - timeouts,
  duplicates: now.duplicates - duplicates
})

/** Connections that the host of a process has open to `port` of others: their addresses and its own ports (proc(5)). */
function openTo(port: number, pid: number): { address: string; port: number }[] {
  const ESTABLISHED = '01'
  const lines = readFileSync(`/proc/${pid}/net/tcp`, 'latin1').trim().split('\n').slice(1)
  return lines.flatMap(line => {
    const [, local = '', remote = '', state] = line.trim().split(/\s+/)
    const [address = '', remotePort = ''] = remote.split(':')
    if (state !== ESTABLISHED || Number.parseInt(remotePort, 16) !== port) return []
    // In the order of this machine's bytes, which is little-endian.
    const bytes = address.match(/../g)?.toReversed() ?? []
    return [
      {
        address: bytes.map(byte => Number.parseInt(byte, 16)).join('.'),
        port: Number.parseInt(local.split(':')[1] ?? '', 16)
      }
    ]
  })
}

const onMonotonic = ({ by, event }: SeenEvent): SeenEvent => ({
  by,
  event: { ...event, atMs: event.atMs - WALL_OFFSET_MS }
})
