/**
 * What keeps up the redundancy of what a peer stores, joined: who has what, repair, scrub. A part of the composition root, as
 * `hosting.ts`, which opens it.
 */
import type { Config } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import { placeable } from '../../protocols/membership/record.ts'
import type { GroupDirectory } from '../agents/directory.ts'
import type { Report } from '../agents/group-agent.ts'
import { ColumnCheck } from '../agents/column-check.ts'
import { Holdings } from '../agents/holdings.ts'
import { KeptStreams } from '../agents/kept-streams.ts'
import { LostMembers } from '../agents/lost-members.ts'
import { Redundancy } from '../agents/redundancy.ts'
import { RepairAgent } from '../agents/repair.ts'
import { Scrub } from '../agents/scrub.ts'
import { wallMs } from '../host/clock.ts'
import { ScrubMarkFile } from '../host/scrub-mark.ts'
import { decodeManifest } from '../image/manifest.ts'
import { decodeStreamManifest } from '../image/stream-manifest.ts'
import type { StoragePeer } from '../planning/domains.ts'
import type { Clock, Codec, FailureDetector, Log, Membership, ShardStore, Transport } from '../ports.ts'
import type { ClusterShards, RepairHooks } from '../shards/cluster.ts'
import { columnMatches } from '../shards/damage.ts'
import { rebuilding } from '../shards/rebuild.ts'

export interface RepairingDeps {
  readonly config: Config
  readonly self: PeerId
  readonly store: ShardStore
  readonly shards: ClusterShards
  readonly codec: Codec
  readonly directory: GroupDirectory
  readonly membership: Membership
  readonly detector: FailureDetector
  readonly transport: Transport
  readonly clock: Clock
  readonly log: Log
  readonly report: Report
  /** What is known of these members for placing columns; absent: nothing but who they are. */
  readonly hostFacts?: (peers: readonly PeerId[]) => readonly StoragePeer[]
}

export interface Repairing extends Required<RepairHooks> {
  readonly shards: ClusterShards
  readonly redundancy: Redundancy
  readonly repair: RepairAgent
  readonly scrub: Scrub
  readonly holdersNow: (stream: Parameters<Redundancy['holdersNow']>[0]) => readonly PeerId[]
  start(): void
  stop(): void
}

export function openRepairing(deps: RepairingDeps): Repairing {
  const { config, store, shards, codec, membership, detector, clock, log } = deps
  const lost = new LostMembers({ detector, clock, lostAfterMs: config.repair.afterMs })
  const kept = new KeptStreams({ ...deps, decodeImage: decodeManifest, decodeStream: decodeStreamManifest })
  const holdings = new Holdings({ have: (...question) => shards.have(...question), log })
  const hosts = (): readonly StoragePeer[] => {
    const peers = placeable(membership.record())
    return deps.hostFacts?.(peers) ?? peers.map(peer => ({ peer }))
  }
  const redundancy = new Redundancy({ ...deps, kept, holdings, lost, hosts })
  const repair = new RepairAgent({
    ...deps,
    redundancy,
    kept,
    holdings,
    store,
    settings: config.repair,
    rebuilding: manifest => rebuilding(manifest, codec, (...range) => shards.readData(...range))
  })
  const check = new ColumnCheck({ store, kept, log, matches: columnMatches })
  const mark = new ScrubMarkFile(config.peer.dataDir)
  const scrub = new Scrub({
    ...deps,
    readMark: () => mark.read(),
    writeMark: now => mark.write(now),
    damaged: (stream, column) => repair.damaged(stream, column),
    refetch: hash => kept.bytes(hash),
    wallMs,
    periodMs: config.scrub.periodMs
  })
  return {
    shards,
    redundancy,
    repair,
    scrub,
    damaged: (stream, column) => repair.damaged(stream, column),
    verify: (...place) => check.verify(...place),
    asked: () => repair.now(),
    holdersNow: stream => redundancy.holdersNow(stream),
    start: () => {
      repair.start()
      scrub.start()
    },
    stop: () => {
      repair.stop()
      scrub.stop()
      lost.stop()
    }
  }
}
