/** Peers with stores in memory that look after the redundancy of one image: the agents of repair on a network of fakes. */
import { createHash } from 'node:crypto'
import { Holdings } from '../../node/agents/holdings.ts'
import { type ImageHead, KeptStreams } from '../../node/agents/kept-streams.ts'
import { Redundancy } from '../../node/agents/redundancy.ts'
import { RepairAgent } from '../../node/agents/repair.ts'
import { decodeStreamManifest, encodeStreamManifest } from '../../node/image/stream-manifest.ts'
import type { Clock, Liveness, StreamManifest } from '../../node/ports.ts'
import { rebuilding } from '../../node/shards/rebuild.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { ClusterRecord, MemberRecord } from '../../protocols/membership/record.ts'
import { cluster, codec, MemoryStore, type Peer } from './shards-network.ts'
import { clock } from './store-support.ts'

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export interface Body extends Peer {
  readonly memory: MemoryStore
  readonly redundancy: Redundancy
  readonly repair: RepairAgent
  readonly reports: { kind: string; fields: object }[]
}

export interface WorldOptions {
  readonly checkEveryMs?: number
  readonly megabytesPerSecond?: number
  /** Of the agents that repair; messages take their time all the same. */
  readonly clock?: Clock
}

export class RepairWorld {
  readonly bodies: readonly Body[]
  readonly network: ReturnType<typeof cluster>['network']
  readonly liveness = new Map<string, Liveness>()
  /** Dead for longer than `repair.afterMs`. */
  readonly lost = new Set<string>()
  readonly leaving = new Set<string>()
  readonly removed = new Set<string>()
  readonly full = new Set<string>()
  /** What some peer was told to be damaged in its store. */
  readonly damaged: string[] = []
  #images: string[] = []
  readonly #onRecord: ((record: GroupRecord) => void)[] = []
  readonly #onForgotten: ((id: string) => void)[] = []

  constructor(count: number, more: WorldOptions = {}) {
    const stores = Array.from({ length: count }, () => new MemoryStore())
    // Hooks are those of all: whoever is asked to repair asks everybody, as `diapause repair` does anyway.
    const asked = (): void => {
      for (const { repair } of this.bodies) repair.now()
    }
    const hooks = { asked, damaged: (stream: string, column: number) => void this.damaged.push(`${stream} ${column}`) }
    const settings = { forcedTimeoutMs: 50 }
    const { network, peers } = cluster(stores, { requestTimeoutMs: 200, settings, repair: hooks })
    this.network = network
    this.bodies = peers.map((peer, i) => this.#body(peer, stores[i] ?? new MemoryStore(), more))
  }

  body(i: number): Body {
    const body = this.bodies[i]
    if (body === undefined) throw new RangeError(`no peer ${i}`)
    return body
  }

  /** Commits an image that leans on these streams: its manifests go to `peers`. */
  async commit(streams: readonly StreamManifest[], peers: readonly Body[] = this.bodies): Promise<void> {
    const stored = streams.map(stream => encodeStreamManifest(stream))
    const names = streams.map(({ stream }, i) => ({ stream, manifest: stored[i]?.hash ?? '' }))
    const bytes = Buffer.from(JSON.stringify({ group: 'g', vm: 'v', generation: 1, epoch: 1, streams: names }))
    const objects = [...stored, { hash: hashOf(bytes), bytes }]
    for (const { memory } of peers) for (const each of objects) await memory.putManifest(each.hash, each.bytes)
    this.#images = [hashOf(bytes)]
  }

  kill(i: number): void {
    const { id } = this.body(i)
    this.network.kill(id)
    this.liveness.set(id, 'dead')
  }

  /** All peers hear that the group is of this generation. */
  hear(generation: number): void {
    for (const handler of this.#onRecord) handler({ id: 'g', generation } as GroupRecord)
  }

  /** All peers hear that the group is no more. */
  forget(): void {
    for (const handler of this.#onForgotten) handler('g')
  }

  /** Columns of a stream that `i` has whole, of all grids. */
  async columnsAt(i: number, { stream, grids }: StreamManifest): Promise<number[]> {
    const columns = await this.body(i).memory.columns(stream)
    return columns.flatMap(each => (each.grids === grids.length ? [each.column] : []))
  }

  group(): GroupRecord {
    const committed = { images: imagesOf(this.#images) }
    return { id: 'g', generation: 1, removed: false, committed } as unknown as GroupRecord
  }

  stop(): void {
    for (const { repair } of this.bodies) repair.stop()
  }

  record(): ClusterRecord {
    const members = this.bodies
      .filter(({ id }) => !this.removed.has(id))
      .map(({ id }): Partial<MemberRecord> => ({ id, name: id, role: 'storage', leaving: this.leaving.has(id) }))
    return { members } as unknown as ClusterRecord
  }

  #body(peer: Peer, memory: MemoryStore, { clock: time = clock, ...more }: WorldOptions): Body {
    const { id: self, shards, transport, log } = peer
    const reports: Body['reports'] = []
    const onRecord = (handler: (record: GroupRecord) => void): void => void this.#onRecord.push(handler)
    const onForgotten = (handler: (id: string) => void): void => void this.#onForgotten.push(handler)
    const directory = { all: () => [this.group()], onRecord, onForgotten }
    const kept = new KeptStreams({
      directory,
      store: memory,
      shards,
      log,
      decodeImage: bytes => JSON.parse(Buffer.from(bytes).toString()) as ImageHead,
      decodeStream: decodeStreamManifest
    })
    const holdings = new Holdings({ have: (...question) => shards.have(...question), log })
    const redundancy = new Redundancy({
      self,
      kept,
      holdings,
      membership: { record: () => this.record() },
      detector: { livenessOf: each => this.liveness.get(each) ?? 'alive' },
      transport,
      lost: this.lost,
      clock: time,
      hosts: () => this.bodies.map(({ id }) => (this.full.has(id) ? { peer: id, freeBytes: 0 } : { peer: id }))
    })
    const repair = new RepairAgent({
      self,
      redundancy,
      kept,
      holdings,
      store: memory,
      rebuilding: manifest => rebuilding(manifest, codec, (...range) => shards.readData(...range)),
      directory,
      clock: time,
      log,
      report: (kind, fields) => void reports.push({ kind, fields }),
      settings: { afterMs: 1_000, checkEveryMs: 10, megabytesPerSecond: 1_000, ...more }
    })
    return { ...peer, memory, redundancy, repair, reports }
  }
}

const imagesOf = (hashes: readonly string[]) => Object.fromEntries(hashes.map((hash, i) => [`v${i}`, hash]))
