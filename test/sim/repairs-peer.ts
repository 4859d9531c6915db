/**
 * One peer of a simulated world of repairs: the production agents that look after redundancy, joined as `node/composition/repairing.ts` joins
 * them, on simulated disks. Where that file changes what it joins, so must this one. A column has no bytes here: it says
 * RIGHT, or what a bad disk or a bad repair has made of it.
 */
import type { RepairSettings } from '../../config/schema.ts'
import { Holdings } from '../../node/agents/holdings.ts'
import { type ImageHead, KeptStreams } from '../../node/agents/kept-streams.ts'
import { LostMembers } from '../../node/agents/lost-members.ts'
import { Redundancy } from '../../node/agents/redundancy.ts'
import { RepairAgent } from '../../node/agents/repair.ts'
import { DiapauseError } from '../../node/errors.ts'
import type { ColumnState, Liveness, Log, ShardStore, StreamManifest } from '../../node/ports.ts'
import { countGrids } from '../../node/store/inventory.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { type ClusterRecord, placeable } from '../../protocols/membership/record.ts'
import type { HeldColumn } from '../../protocols/shards/messages.ts'
import type { RepairWiring } from './repairs-bugs.ts'
import type { Life } from './world-host.ts'
import type { Network, SimTransport } from './world-network.ts'

export const RIGHT = Buffer.from('right')
const SETTINGS: RepairSettings = { afterMs: 400, checkEveryMs: 150, megabytesPerSecond: 500 }
/** How often a peer asks itself who is there, and how often it reads all that it has. */
const PROBE_MS = 80
const SCRUB_MS = 700

/** What peers share with the world around them. */
export interface RepairsWorld {
  readonly network: Network
  readonly wiring: RepairWiring
  cluster(): ClusterRecord
  group(): GroupRecord
  /** Host and `STREAM GRID/COLUMN` of what a disk has spoiled. */
  readonly spoiled: Set<string>
  /** A column is on a disk from now on. */
  put(host: PeerId, stream: string, place: string, bytes: Uint8Array): void
  peerAt(life: Life): RepairsPeer | undefined
}

export class RepairsPeer {
  readonly life: Life
  readonly transport: SimTransport
  readonly redundancy: Redundancy
  readonly repair: RepairAgent
  readonly #world: RepairsWorld
  readonly #store: ShardStore
  /** What this life has found damaged: it counts as not here. */
  readonly #found = new Set<string>()

  constructor(life: Life, world: RepairsWorld) {
    this.life = life
    this.#world = world
    const { network, wiring } = world
    const { host, clock } = life
    const self = host.name
    const log = logOf(life)
    this.transport = network.transport(life)
    this.#store = wiring.store(this.#openStore())
    const detector = new Oracle(life, network, () => world.cluster())
    const lost = wiring.lost(new LostMembers({ detector, clock, lostAfterMs: SETTINGS.afterMs }))
    const directory = { all: () => [world.group()], onRecord: () => {}, onForgotten: () => {} }
    const json = <T>(bytes: Uint8Array): T => JSON.parse(Buffer.from(bytes).toString()) as T
    const kept = new KeptStreams({
      directory,
      store: this.#store,
      shards: { getManifest: hash => this.#fetchManifest(hash) },
      log,
      decodeImage: bytes => json<ImageHead>(bytes),
      decodeStream: bytes => json<StreamManifest>(bytes)
    })
    const have = wiring.have((peer, stream) => network.call(life, peer, 'have', at => columnsOf(world, at, stream)))
    const holdings = new Holdings({ have, log })
    const record = (): ClusterRecord => wiring.record(world.cluster())
    const hosts = () => placeable(record()).map(peer => ({ peer, freeBytes: roomAt(network, peer) }))
    const redundancy = {
      self,
      kept,
      holdings,
      membership: { record },
      detector,
      transport: this.transport,
      lost,
      clock
    }
    this.redundancy = new Redundancy({ ...redundancy, hosts })
    this.repair = new RepairAgent({
      self,
      redundancy: this.redundancy,
      kept,
      holdings,
      store: this.#store,
      rebuilding: manifest => (grid, column) => this.#rebuild(manifest, grid, column),
      directory,
      clock,
      log,
      report: () => {},
      settings: SETTINGS
    })
  }

  async start(): Promise<void> {
    this.transport.setMembers(this.#world.cluster().members.map(({ id }) => id))
    await this.transport.start()
    this.repair.start()
    this.#scrubLater()
  }

  columns(stream: string): Promise<HeldColumn[]> {
    return this.#store.columns(stream)
  }

  /** What it reads of a grid: columns, and what each says. */
  read(stream: string, grid: number): { column: number; bytes: Uint8Array }[] {
    const places = [...(this.life.host.disk.columns.get(stream) ?? [])]
    return places.flatMap(place => {
      const [at, column] = place.split('/').map(Number)
      if (at !== grid || column === undefined) return []
      const spoiled = this.#world.spoiled.has(`${this.life.host.name} ${stream} ${place}`)
      return [{ column, bytes: spoiled ? Buffer.from('wrong') : RIGHT }]
    })
  }

  /** Somebody has got wrong bytes of it: it looks for itself. */
  async doubt(stream: string, grid: number, column: number): Promise<void> {
    if ((await this.#store.verifyColumn(stream, grid, column)) === 'damaged') this.repair.damaged(stream, column)
  }

  /** As the reader of shards does: any k columns that are what the manifest says. */
  async #rebuild({ stream, k }: StreamManifest, grid: number, column: number): Promise<Uint8Array> {
    const world = this.#world
    const { network } = world
    const found = new Map<number, Uint8Array>()
    for (const { id } of world.cluster().members) {
      const answer = async (at: Life) => world.peerAt(at)?.read(stream, grid) ?? []
      const columns = await network.call(this.life, id, 'get', answer).catch(() => [])
      for (const { column: each, bytes } of columns) {
        if (each === column || found.has(each)) continue
        if (!world.wiring.accepts(bytes)) {
          await network
            .call(this.life, id, 'check', async at => world.peerAt(at)?.doubt(stream, grid, each))
            .catch(() => {})
        } else found.set(each, bytes)
      }
    }
    const used = [...found.values()].slice(0, k)
    if (used.length < k) throw new DiapauseError('SHARD_LOST', `${found.size} columns are within reach`)
    return used.find(bytes => Buffer.compare(bytes, RIGHT) !== 0) ?? RIGHT
  }

  async #fetchManifest(hash: string): Promise<Uint8Array> {
    const { network } = this.#world
    for (const { id } of this.#world.cluster().members) {
      const ask = network.call(this.life, id, 'manifest?', async at => at.host.disk.manifests.get(hash))
      const bytes = await ask.catch(() => undefined)
      if (bytes !== undefined) return bytes
    }
    throw new DiapauseError('MANIFEST_MISSING', `no peer within reach has manifest ${hash}`)
  }

  #openStore(): ShardStore {
    const { life } = this
    const { disk, name } = life.host
    const isHere = (stream: string, place: string): boolean => disk.columns.get(stream)?.has(place) === true
    const verifyColumn = async (stream: string, grid: number, column: number): Promise<ColumnState> => {
      await life.wait(0.3, 'reads')
      const place = `${grid}/${column}`
      if (!isHere(stream, place)) return 'missing'
      if (!this.#world.spoiled.has(`${name} ${stream} ${place}`)) return 'whole'
      this.#found.add(`${stream} ${place}`)
      return 'damaged'
    }
    return {
      ...disk.shardStore(),
      verifyColumn,
      columns: async stream => {
        const whole = [...(disk.columns.get(stream) ?? [])].filter(place => !this.#found.has(`${stream} ${place}`))
        return countGrids(whole.map(place => ({ column: Number(place.split('/')[1]) })))
      },
      putColumn: async (stream, grid, column, bytes) => {
        const place = `${grid}/${column}`
        if (disk.full) throw new DiapauseError('STORE_FULL', 'no space left on device')
        if (isHere(stream, place) && !this.#found.has(`${stream} ${place}`)) return
        await disk.write(life, [() => this.#world.put(name, stream, place, bytes)])
        this.#found.delete(`${stream} ${place}`)
      },
      putManifest: (hash, bytes) => disk.putManifest(life, hash, bytes)
    }
  }

  #scrubLater(): void {
    this.life.clock.after(SCRUB_MS, () => {
      void this.#scrub().then(() => this.#scrubLater())
    })
  }

  async #scrub(): Promise<void> {
    for (const [stream, places] of this.life.host.disk.columns) {
      for (const place of places) {
        const [grid = 0, column = 0] = place.split('/').map(Number)
        await this.doubt(stream, grid, column)
      }
    }
  }
}

const columnsOf = async (world: RepairsWorld, at: Life, stream: string): Promise<HeldColumn[]> =>
  (await world.peerAt(at)?.columns(stream)) ?? []

const roomAt = (network: Network, peer: PeerId): number => (network.hosts.get(peer)?.disk.full === true ? 0 : 2 ** 40)

/** Who is there, as a detector finds it out: some time after it is so. */
class Oracle {
  readonly #alive = new Map<PeerId, Liveness>()
  readonly #handlers: ((peer: PeerId, liveness: Liveness, why: string) => void)[] = []

  constructor(life: Life, network: Network, cluster: () => ClusterRecord) {
    const self = life.host.name
    const look = (): void => {
      for (const { id } of cluster().members) {
        const there = id === self || (network.reaches(self, id) && network.listening(id)?.host.stopped === 'no')
        const liveness = there ? 'alive' : 'dead'
        if (liveness === this.livenessOf(id)) continue
        this.#alive.set(id, liveness)
        for (const handler of this.#handlers) handler(id, liveness, 'it was looked at')
      }
      life.clock.after(PROBE_MS, look)
    }
    life.clock.after(PROBE_MS, look)
  }

  livenessOf(peer: PeerId): Liveness {
    return this.#alive.get(peer) ?? 'alive'
  }

  onChange(handler: (peer: PeerId, liveness: Liveness, why: string) => void): void {
    this.#handlers.push(handler)
  }
}

function logOf({ host }: Life): Log {
  const say = (level: string) => (fields: object, message: string) =>
    host.kernel.note(() => `${host.name} ${level}: ${message} ${JSON.stringify(fields)}`)
  return { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') }
}
