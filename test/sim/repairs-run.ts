/**
 * One seed of simulated repairs: members hold the columns of streams, and vanish, come back empty, leave, rot, fill up and lose
 * each other, while new streams are stored. Never do more columns of a stream go than it has to spare: so nothing may be lost, and
 * when the faults end repair must end, too. The same seed is the same run, event by event.
 */
import { hash } from 'node:crypto'
import { placeColumns } from '../../node/planning/holders.ts'
import { bears, bearsAtBest } from '../../node/planning/spread.ts'
import type { StreamManifest } from '../../node/ports.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { foundersRecord } from '../../protocols/membership/genesis.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { guarded, type Stray } from './guarded.ts'
import { Kernel } from './kernel.ts'
import { HONEST, type RepairWiring } from './repairs-bugs.ts'
import { RIGHT, RepairsPeer, type RepairsWorld } from './repairs-peer.ts'
import { Host, type Life } from './world-host.ts'
import { Network } from './world-network.ts'

export interface RepairsOutcome {
  readonly seed: number
  /** The first violation, or null. */
  readonly violation: string | null
  readonly events: number
  readonly digest: number
  /** Columns of a grid that peers have rebuilt, disks that were lost, and columns that have rotted. */
  readonly rebuilt: number
  readonly disksLost: number
  readonly rotted: number
  readonly convergedMs: number
}

type Invariant = 'noColumnIsMadeWrong' | 'noStreamIsLost' | 'repairEnds' | 'repairRests' | Stray

const [K, M, GRIDS] = [3, 2, 2]
/** Fewer that stay could not hold k + m columns, one each. */
const LEAST_STAYING = K + M
const FAULTS_MS = 6_000
const CONVERGE_MS = 20_000
/** What somebody has begun to rebuild in vain may still end; then nobody rebuilds anything. */
const SETTLE_MS = 2_000
const REST_MS = 2_000
const POLL_MS = 50
/** Streams that the newest image leans on. */
const LEANS = 3

export async function runRepairsSeed(
  seed: number,
  options: { readonly wiring?: RepairWiring | undefined; readonly listener?: Kernel['listener'] } = {}
): Promise<RepairsOutcome> {
  return await new RepairsRun(seed, options).run()
}

class RepairsRun implements RepairsWorld {
  readonly network: Network
  readonly wiring: RepairWiring
  readonly spoiled = new Set<string>()
  readonly #seed: number
  readonly #kernel: Kernel
  readonly #hosts: readonly Host[]
  readonly #peers = new Map<Life, RepairsPeer>()
  /** Hosts that never come back. */
  readonly #gone = new Set<PeerId>()
  #cluster: ClusterRecord
  #streams: readonly StreamManifest[] = []
  #image = ''
  #epoch = 0
  #faulty = true
  #violation: string | undefined
  readonly #counts = { rebuilt: 0, disksLost: 0, rotted: 0 }

  constructor(seed: number, { wiring = HONEST, listener }: Parameters<typeof runRepairsSeed>[1] = {}) {
    const kernel = new Kernel(seed)
    kernel.listener = listener
    this.#seed = seed
    this.#kernel = kernel
    this.wiring = wiring
    this.network = new Network(kernel, { left() {}, came() {}, lost() {}, describe: channel => channel })
    const names = Array.from({ length: kernel.pick([6, 7, 8]) }, (_, i) => `p${i}`)
    const founders = names.map(name => ({ id: name, name, address: `/ip4/${name}`, role: 'storage' as const }))
    this.#cluster = foundersRecord('simulated', founders)
    this.#hosts = names.map(name => new Host(name, kernel, 100))
    for (const host of this.#hosts) {
      this.network.add(host)
      const { onEnd } = host
      host.onEnd = (life, how) => {
        onEnd(life, how)
        kernel.at(kernel.random() * kernel.random() * 3_000, `${host.name} starts again`, () => this.#start(host))
      }
    }
  }

  cluster(): ClusterRecord {
    return this.#cluster
  }

  group(): GroupRecord {
    const record = { id: 'g', generation: 1, removed: false, committed: { images: { v: this.#image } } }
    return record as unknown as GroupRecord
  }

  peerAt(life: Life): RepairsPeer | undefined {
    return this.#peers.get(life)
  }

  put(host: PeerId, stream: string, place: string, bytes: Uint8Array): void {
    if (Buffer.compare(bytes, RIGHT) !== 0) this.#fail('noColumnIsMadeWrong', `${place} of ${stream} at ${host}`)
    this.#counts.rebuilt++
    this.#store(host, stream, place)
  }

  #store(host: PeerId, stream: string, place: string): void {
    const { columns } = this.#disk(host)
    columns.set(stream, (columns.get(stream) ?? new Set()).add(place))
    this.spoiled.delete(`${host} ${stream} ${place}`)
  }

  async run(): Promise<RepairsOutcome> {
    const convergedMs = await guarded(
      () => this.#live(),
      (invariant, what) => this.#fail(invariant, what)
    )
    const { events, digest } = this.#kernel
    const violation = this.#violation === undefined ? null : `seed ${this.#seed}: ${this.#violation}`
    return { seed: this.#seed, violation, events, digest, ...this.#counts, convergedMs: convergedMs ?? 0 }
  }

  async #live(): Promise<number> {
    const kernel = this.#kernel
    for (const host of this.#hosts) this.#start(host)
    this.#commitLater(20)
    this.#strikeLater()
    const failed = (): boolean => this.#violation !== undefined
    this.#watch()
    await kernel.run(FAULTS_MS, failed)
    this.#heal()
    const healedMs = kernel.nowMs
    let left: string[] = ['not looked yet']
    const poll = (): void => {
      left = this.#lacking()
      if (left.length > 0) kernel.at(POLL_MS, 'poll', poll)
    }
    kernel.at(POLL_MS, 'poll', poll)
    await kernel.run(healedMs + CONVERGE_MS, () => failed() || left.length === 0)
    if (left.length > 0) this.#fail('repairEnds', `after ${CONVERGE_MS} ms: ${left.join('; ')}`)
    const convergedMs = kernel.nowMs - healedMs
    await kernel.run(kernel.nowMs + SETTLE_MS, failed)
    const { rebuilt } = this.#counts
    await kernel.run(kernel.nowMs + REST_MS, failed)
    if (this.#counts.rebuilt > rebuilt) {
      this.#fail('repairRests', `${this.#counts.rebuilt - rebuilt} columns were rebuilt though all are there`)
    }
    return convergedMs
  }

  #start(host: Host): void {
    if (host.life !== undefined || this.#gone.has(host.name)) return
    const life = host.start()
    const peer = new RepairsPeer(life, this)
    this.#peers.set(life, peer)
    void peer.start()
  }

  #heal(): void {
    this.#faulty = false
    this.network.heal()
    for (const host of this.#hosts) {
      host.disk.full = false
      host.continue()
      this.#start(host)
    }
  }

  // ------------------------------------------------------------------------------------------ what is stored

  #commitLater(delayMs: number): void {
    this.#kernel.at(delayMs, 'a stream is stored', () => {
      if (this.#faulty) this.#commit()
      if (this.#faulty) this.#commitLater(this.#kernel.between(200, 1_500))
    })
  }

  /** Of some grids half of what may go is not stored, as the default of `shards.durability` lets it be. */
  #commit(): void {
    const kernel = this.#kernel
    const up = this.#hosts.filter(host => host.stopped === 'no' && host.life !== undefined && !host.disk.full)
    const staying = new Set(this.#staying())
    const peers = up.map(({ name }) => ({ peer: name })).filter(({ peer }) => staying.has(peer))
    if (peers.length < LEAST_STAYING) return
    const holders = placeColumns(peers, { k: K, m: M, key: 'g' })
    const stream = `g/v/1/${++this.#epoch}`
    const grids = Array.from({ length: GRIDS }, () => ({ symbolBytes: 65_536, hashes: new Uint8Array() }))
    const manifest: StreamManifest = { stream, k: K, m: M, holders, dataBytes: 1, grids }
    for (const grid of grids.keys()) {
      const late = kernel.chance(0.3) ? Math.floor(kernel.random() * holders.length) : -1
      for (const [column, holder] of holders.entries()) {
        if (column !== late) this.#store(holder, stream, `${grid}/${column}`)
      }
    }
    this.#streams = [...this.#streams, manifest].slice(-LEANS)
    const stored = this.#streams.map(each => encoded(each))
    const names = this.#streams.map((each, i) => ({ stream: each.stream, manifest: stored[i]?.name ?? '' }))
    const image = encoded({ group: 'g', vm: 'v', generation: 1, epoch: this.#epoch, streams: names })
    for (const { peer } of peers) {
      for (const { name, bytes } of [...stored, image]) this.#disk(peer).manifests.set(name, bytes)
    }
    this.#image = image.name
    const needed = new Set(this.#streams.map(each => each.stream))
    for (const { disk } of this.#hosts) {
      for (const each of disk.columns.keys()) if (!needed.has(each)) disk.columns.delete(each)
    }
  }

  #disk(host: PeerId): Host['disk'] {
    const found = this.network.hosts.get(host)
    if (found === undefined) throw new RangeError(`no host ${host}`)
    return found.disk
  }

  #staying(): PeerId[] {
    return this.#cluster.members.flatMap(({ id, leaving }) => (leaving || this.#gone.has(id) ? [] : [id]))
  }

  /** Column → who of `peers` has it right in these grids. */
  #places({ stream, holders }: StreamManifest, peers: readonly PeerId[], grids: readonly number[]): PeerId[][] {
    const has = (peer: PeerId, place: string): boolean =>
      this.#disk(peer).columns.get(stream)?.has(place) === true && !this.spoiled.has(`${peer} ${stream} ${place}`)
    return holders.map((_, column) => peers.filter(peer => grids.every(grid => has(peer, `${grid}/${column}`))))
  }

  /** Streams of which more columns of some grid are on no disk of a member than may go. */
  #lost(peers: readonly PeerId[] = this.#cluster.members.map(({ id }) => id)): string[] {
    return this.#streams.flatMap(stream =>
      [...stream.grids.keys()].flatMap(grid => {
        const missing = this.#places(stream, peers, [grid]).filter(places => places.length === 0).length
        return missing > stream.m ? [`${missing} columns of grid ${grid} of ${stream.stream} are nowhere`] : []
      })
    )
  }

  /** What repair has still to do. */
  #lacking(): string[] {
    const staying = this.#staying()
    return this.#streams.flatMap(stream => {
      const places = this.#places(stream, staying, [...stream.grids.keys()])
      const lacking = places.flatMap((peers, column) => (peers.length === 0 ? [column] : []))
      if (lacking.length > 0) return [`nobody who stays has columns ${lacking.join(', ')} of ${stream.stream}`]
      const [now, best] = [bears(places, M), bearsAtBest(places.length, staying.length, M)]
      return now < best ? [`${stream.stream} bears the loss of ${now}, and could of ${best}`] : []
    })
  }

  // ------------------------------------------------------------------------------------------ faults

  #watch(): void {
    const [lost] = this.#lost()
    if (lost !== undefined) this.#fail('noStreamIsLost', lost)
    this.#kernel.at(POLL_MS, 'looks', () => this.#watch())
  }

  #strikeLater(): void {
    const kernel = this.#kernel
    kernel.at(kernel.between(20, 250), 'fault', () => {
      if (!this.#faulty) return
      const [name, fault] = kernel.pick(FAULTS)
      const host = kernel.pick(this.#hosts)
      kernel.note(() => `FAULT ${host.name} ${name}`)
      fault(this, host)
      this.#strikeLater()
    })
  }

  kill(host: Host): void {
    host.end(this.#kernel.pick(['killed', 'power']))
  }

  pause(host: Host): void {
    const { life } = host
    host.stop('process')
    this.#kernel.at(this.#kernel.random() * 1_200, `${host.name} goes on`, () => {
      if (host.life === life) host.continue()
    })
  }

  cutOff(host: Host): void {
    for (const other of this.#hosts) if (other !== host) this.network.block(host.name, other.name)
    this.#kernel.at(this.#kernel.random() * 1_500, 'network heals', () => this.network.heal())
  }

  fill(host: Host): void {
    host.disk.full = true
    this.#kernel.at(this.#kernel.random() * 800, `${host.name} has room`, () => void (host.disk.full = false))
  }

  /** A column goes bad, and nobody is told. */
  rot({ name, disk }: Host): void {
    const [stream, places] = this.#kernel.pick([...disk.columns]) ?? []
    if (stream === undefined || places === undefined || places.size === 0) return
    const place = `${name} ${stream} ${this.#kernel.pick([...places])}`
    if (this.spoiled.has(place)) return
    this.spoiled.add(place)
    if (this.#lost().length > 0) this.spoiled.delete(place)
    else this.#counts.rotted++
  }

  /** It comes back empty, or never; then somebody removes it, or nobody does. */
  loseDisk(host: Host): void {
    const { name, disk } = host
    const members = this.#cluster.members.map(({ id }) => id).filter(id => id !== name)
    if (this.#gone.has(name) || this.#lost(members).length > 0) return
    this.#counts.disksLost++
    host.end('power')
    disk.columns.clear()
    disk.manifests.clear()
    for (const place of this.spoiled) if (place.startsWith(`${name} `)) this.spoiled.delete(place)
    if (!this.#kernel.chance(0.5) || !this.#canSpare(name)) return
    this.#gone.add(name)
    if (this.#kernel.chance(0.5)) this.#remove(name)
  }

  /** A member that leaves goes only when nothing is on it alone: here it stays to the end. */
  leave({ name }: Host): void {
    if (!this.#canSpare(name)) return
    const members = this.#cluster.members.map(member => (member.id === name ? { ...member, leaving: true } : member))
    this.#cluster = { ...this.#cluster, version: this.#cluster.version + 1, members }
  }

  #canSpare(name: PeerId): boolean {
    return this.#staying().filter(id => id !== name).length >= LEAST_STAYING
  }

  #remove(name: PeerId): void {
    const members = this.#cluster.members.filter(({ id }) => id !== name)
    this.#cluster = { ...this.#cluster, version: this.#cluster.version + 1, members }
    for (const { transport } of this.#peers.values()) transport.setMembers(members.map(({ id }) => id))
  }

  #fail(invariant: Invariant, what: string): void {
    this.#violation ??= `${invariant} at ${this.#kernel.nowMs.toFixed(1)} ms: ${what}`
    this.#kernel.note(() => `VIOLATION ${invariant}: ${what}`)
  }
}

type Fault = (run: RepairsRun, host: Host) => void

const FAULTS: readonly (readonly [string, Fault])[] = [
  ['is killed', (run, host) => run.kill(host)],
  ['stands still', (run, host) => run.pause(host)],
  ['is cut off', (run, host) => run.cutOff(host)],
  ['disk is full', (run, host) => run.fill(host)],
  ['disk rots', (run, host) => run.rot(host)],
  ['disk rots', (run, host) => run.rot(host)],
  ['disk is lost', (run, host) => run.loseDisk(host)],
  ['is to leave', (run, host) => run.leave(host)]
]

function encoded(value: object): { readonly name: string; readonly bytes: Uint8Array } {
  const bytes = Buffer.from(JSON.stringify(value))
  return { name: hash('sha256', bytes), bytes }
}
