/**
 * Simulated shards of a cluster: the port `ShardCluster`. A column on a disk stands for a part of what its stream says, which
 * is in the world's book; a stream can be read where at most m of its columns are out of reach.
 */
import { DiapauseError } from '../../node/errors.ts'
import type { ShardCluster, StreamManifest } from '../../node/ports.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { Life } from './world-host.ts'
import type { Network } from './world-network.ts'

export const SHAPE = { k: 2, m: 2 }
/** The default of `shards.durability`. */
export const DURABILITY = 'most'

export interface SimShards extends ShardCluster {
  observeGeneration(group: string, vm: string, generation: number): void
  /** SHARD_LOST where too many columns of a stream are out of reach. */
  read(streams: readonly StreamManifest[]): Promise<void>
}

/** Generations below which a peer takes no shards; a part of its process. */
export type Refused = Map<string, number>

export function simShards(options: {
  readonly network: Network
  readonly life: Life
  readonly refused: WeakMap<Life, Refused>
  /** Whom to ask for a manifest. */
  peers(): readonly PeerId[]
}): SimShards {
  const { network, life, refused } = options
  const self = life.host.name
  const mine: Refused = new Map()
  refused.set(life, mine)
  const call = <T>(to: PeerId, what: string, answer: (at: Life) => Promise<T>): Promise<T> =>
    network.call(life, to, what, answer)
  return {
    observeGeneration: (group, vm, generation) => {
      const name = `${group}/${vm}`
      mine.set(name, Math.max(generation, mine.get(name) ?? 0))
    },
    putColumn: async ({ stream, holders }, grid, column) => {
      const [group, vm, generation] = stream.split('/')
      await call(holders[column] as PeerId, `column ${stream}`, async at => {
        if (Number(generation) < (refused.get(at)?.get(`${group}/${vm}`) ?? 0))
          throw new DiapauseError('SHARD_GENERATION', `${stream} is of an older generation`)
        await at.host.disk.putColumn(at, stream, `${grid}/${column}`)
      })
    },
    putManifest: async (name, bytes, peers) => {
      await Promise.all(peers.map(peer => call(peer, 'manifest', at => at.host.disk.putManifest(at, name, bytes))))
    },
    getManifest: async name => {
      for (const peer of [self, ...options.peers()]) {
        const bytes = await call(peer, 'manifest?', async at => at.host.disk.manifests.get(name)).catch(() => undefined)
        if (bytes !== undefined) return bytes
      }
      throw new DiapauseError('MANIFEST_MISSING', `no peer within reach has manifest ${name}`)
    },
    readData: async () => new Uint8Array(),
    read: async streams => {
      await life.wait(network.kernel.between(2, 15), 'shards')
      const within = (peer: PeerId): boolean =>
        peer === self || (network.reaches(self, peer) && network.listening(peer)?.host.stopped === 'no')
      for (const stream of streams) {
        if (missingColumns(network, stream, within) <= stream.m) continue
        await life.wait(100, 'shards')
        throw new DiapauseError('SHARD_LOST', `too few columns of ${stream.stream} are within reach`)
      }
    }
  }
}

/** Of the grid that lacks most. `rotCounts`: what cannot be read any more is missing, too. */
export function missingColumns(
  network: Network,
  stream: StreamManifest,
  within: (peer: PeerId) => boolean,
  rotCounts = true
): number {
  let most = 0
  for (const grid of stream.grids.keys()) {
    const missing = stream.holders.filter((peer, column) => {
      const disk = network.hosts.get(peer)?.disk
      const there = disk?.columns.get(stream.stream)?.has(`${grid}/${column}`) === true
      return !there || (rotCounts && disk.rotten.has(stream.stream)) || !within(peer)
    }).length
    most = Math.max(most, missing)
  }
  return most
}
