/**
 * The shards of the whole cluster, as the image pipeline sees them (`ShardCluster` in node/ports.ts): columns go to their
 * holders, bytes come back from whoever has them. It joins the shard protocol, the grid and the codec.
 */
import type { ShardSettings } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { ShardService, type ShardServiceStats } from '../../protocols/shards/service.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type {
  BootFiles,
  Clock,
  Codec,
  ColumnHolders,
  ColumnState,
  FailureDetector,
  Log,
  ShardCluster,
  ShardStore,
  StreamId,
  Transport
} from '../ports.ts'
import { allBut } from './all-but.ts'
import { DamageReports } from './damage.ts'
import { Fetcher, type OnDamaged, type ReadRanges } from './fetcher.ts'
import { Holders } from './holders.ts'
import { type AskColumns, ColumnPlaces } from './places.ts'
import { Reader } from './reader.ts'
import { Sources } from './sources.ts'
import { PATIENCE_MS, Uploads, type UploadStats } from './uploads.ts'

export interface ShardClusterOptions {
  readonly transport: Transport
  /** Undefined at a witness. */
  readonly store: ShardStore | undefined
  readonly codec: Codec
  readonly clock: Clock
  readonly log: Log
  /** Without `durability` and `m` everything that is put must be stored everywhere. */
  readonly settings: Pick<ShardSettings, 'forcedTimeoutMs'> & Partial<Pick<ShardSettings, 'm' | 'durability'>>
  readonly detector?: Pick<FailureDetector, 'livenessOf'>
  /** Whom to ask for a manifest that is not here; this peer may be among them. */
  peers(): readonly PeerId[]
  /** What another peer has found or asks for here: for the agent that repairs. */
  readonly repair?: RepairHooks
  /** What VMs of this peer boot from, for others that ask. */
  readonly files?: Pick<BootFiles, 'piece' | 'at'>
  /** For tests: how long a peer may owe an answer before it counts as unreachable. */
  readonly requestTimeoutMs?: number
}

export interface RepairHooks {
  /** A column of this peer's store was found damaged when another peer had it checked. */
  damaged(stream: StreamId, column: number): void
  /** Checks a column of a grid in this peer's store. Absent: by the store's checksums only. */
  verify?(stream: StreamId, grid: number, column: number): Promise<ColumnState>
  /** Somebody asks all peers to look at once for what they should rebuild. */
  asked(): void
}

export interface ShardStats extends ShardServiceStats, UploadStats {
  /** Diagonals read as they are, and decoded from others. */
  readonly directReads: number
  readonly degradedReads: number
  readonly wrongHashes: number
  /** Columns of a grid that came with a wrong hash, or that their holder found damaged as it read them. */
  readonly damagedColumns: number
  /** Requests for symbols that nobody waited for any more, as others had come. */
  readonly readsGivenUp: number
  /** The forced timeout of now. */
  readonly forcedTimeoutMs: number
}

export interface ClusterShards extends ShardCluster, ColumnHolders {
  /** From now on this peer refuses shards of older generations of the VM. */
  observeGeneration(group: string, vm: string, generation: number): void
  /** As `ShardService` has them. */
  file(peer: PeerId, hash: string, offset: number): Promise<Uint8Array>
  paths(peer: PeerId, paths: readonly string[]): Promise<Uint8Array>
  stats(): ShardStats
}

/** Takes the channel 'bulk': call it before `transport.start`. */
export function createShardCluster(options: ShardClusterOptions): ClusterShards {
  const { transport, clock, log, settings, detector, codec, repair } = options
  const service = new ShardService({
    ...options,
    verify: (...place) => repair?.verify?.(...place),
    onDamaged: (stream, column) => repair?.damaged(stream, column),
    onRepair: () => repair?.asked()
  })
  const holders = new Holders({ transport, detector, clock, floorMs: settings.forcedTimeoutMs })
  const { places, sources, fetcher, damage } = readingOf(options, service, holders)
  const reader = new Reader(codec, sources, fetcher, clock)
  const uploads = new Uploads({ put: (...column) => service.put(...column), clock, log })

  return {
    putColumn: (to, grid, column, bytes) => uploads.put(to, grid, column, bytes),

    readData: (manifest, offset, length, how) => reader.read(manifest, offset, length, how),

    async putManifest(hash, bytes, peers) {
      const puts = [...new Set(peers)].map(peer => service.putManifest(peer, hash, bytes))
      await allBut(spareManifests(puts.length, settings), puts, clock, PATIENCE_MS)
    },

    async getManifest(hash) {
      const others = options.peers().filter(peer => !holders.isSelf(peer) && holders.standing(peer) !== 'gone')
      const good = others.filter(peer => holders.standing(peer) === 'good')
      const doubtful = others.filter(peer => holders.standing(peer) !== 'good')
      const order = [...(options.store === undefined ? [] : [transport.self]), ...good, ...doubtful]
      return await firstOf(order, peer => service.getManifest(peer, hash), {
        clock,
        patienceMs: () => holders.forcedTimeoutMs(),
        failed: reasons => {
          const details = { hash, reasons }
          return new DiapauseError('MANIFEST_MISSING', `no peer within reach has manifest ${hash}`, { details })
        }
      })
    },

    forgetStream(stream) {
      places.forget(stream)
      uploads.forget(stream)
    },

    async have(peer, stream) {
      const columns = await service.have(peer, stream)
      places.note(stream, peer, columns) // whoever asks, reads go by it, too
      return columns
    },
    check: (...what) => service.check(...what),
    askRepair: peer => service.repair(peer),
    file: (...which) => service.file(...which),
    paths: (...which) => service.paths(...which),

    observeGeneration: (group, vm, generation) => service.observeGeneration(group, vm, generation),

    stats: () => ({
      ...service.stats(),
      ...uploads.stats(),
      directReads: reader.directReads,
      degradedReads: reader.degradedReads,
      wrongHashes: fetcher.wrongHashes,
      damagedColumns: damage.count,
      readsGivenUp: fetcher.cancelled,
      forcedTimeoutMs: holders.forcedTimeoutMs()
    })
  }
}

/** Who has what, and how symbols come from there. */
function readingOf({ clock, log, peers }: ShardClusterOptions, service: ShardService, holders: Holders) {
  const places = new ColumnPlaces()
  const askColumns: AskColumns = (peer, stream) => service.have(peer, stream)
  const sources = new Sources({ places, holders, clock, log, peers, askColumns })
  const damage = new DamageReports({
    log,
    check: (peer, stream, column, grid) => service.check(peer, stream, column, grid, 1)
  })
  const read: ReadRanges = (...request) => service.get(...request)
  const onDamaged: OnDamaged = (...where) => damage.report(...where)
  return { places, sources, damage, fetcher: new Fetcher({ read, holders, sources, clock, log, onDamaged }) }
}

/** How many of so many peers may lack a manifest: as columns, and at least m + 1 have it, so that any m may be lost. */
function spareManifests(peers: number, { m = 0, durability = 'all' }: ShardClusterOptions['settings']): number {
  return durability === 'all' ? 0 : Math.max(0, Math.min(Math.floor(m / 2), peers - m - 1))
}

/** Asks one after the other; the next one as soon as the last has failed or taken too long. The first answer wins. */
function firstOf<T>(
  peers: readonly PeerId[],
  ask: (peer: PeerId) => Promise<T>,
  how: { clock: Clock; patienceMs(): number; failed(reasons: Record<string, string>): Error }
): Promise<T> {
  return new Promise((resolve, reject) => {
    const reasons: Record<string, string> = {}
    let next = 0
    let open = 0
    const step = (): void => {
      const peer = peers[next++]
      if (peer === undefined) {
        if (open === 0) reject(how.failed(reasons))
        return
      }
      open++
      let moved = false
      const goOn = (): void => {
        if (moved) return
        moved = true
        cancel()
        step()
      }
      const cancel = how.clock.after(how.patienceMs(), goOn)
      ask(peer).then(
        value => {
          moved = true
          cancel()
          resolve(value)
        },
        error => {
          reasons[peer] = messageOf(error)
          open--
          if (moved && open === 0 && next >= peers.length) reject(how.failed(reasons))
          else goOn()
        }
      )
    }
    step()
  })
}
