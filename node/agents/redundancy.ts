/**
 * What this peer sees of the redundancy of all that is kept: which streams there are, who has which columns, who is there.
 * Of it come the plan of repairs and what people are shown.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import type { StoragePeer } from '../planning/domains.ts'
import type { StoredImage } from '../planning/obstacles.ts'
import {
  type PeerStanding,
  planRepair,
  type RepairFacts,
  type RepairPlan,
  type StreamFacts
} from '../planning/repair.ts'
import { StoredColumns } from '../planning/stored-columns.ts'
import type { Clock, FailureDetector, Membership, StreamId, StreamManifest, Transport } from '../ports.ts'
import type { Holdings } from './holdings.ts'
import type { Kept, KeptStream, KeptStreams } from './kept-streams.ts'
import type { LostMembers } from './lost-members.ts'

export interface RedundancyDeps {
  readonly self: PeerId
  readonly kept: KeptStreams
  readonly holdings: Holdings
  readonly membership: Pick<Membership, 'record'>
  readonly detector: Pick<FailureDetector, 'livenessOf'>
  readonly transport: Pick<Transport, 'connected' | 'onConnection'>
  /** Who has been dead for longer than `repair.afterMs`. */
  readonly lost: Pick<LostMembers, 'has'>
  readonly clock: Pick<Clock, 'now'>
  /** What is known of members for placing columns. */
  hosts(): readonly StoragePeer[]
}

export interface LookOptions {
  /** Members that are dead count as gone at once. */
  readonly urgent?: boolean
  /** Everybody within reach is asked again. */
  readonly anew?: boolean
}

export type SeenStream = KeptStream & StreamFacts

export interface Sight {
  readonly kept: Kept
  readonly facts: Omit<RepairFacts, 'streams'> & { readonly streams: readonly SeenStream[] }
  readonly plan: RepairPlan
}

export class Redundancy {
  readonly #deps: RedundancyDeps
  #last: Sight | undefined
  readonly #stored = new StoredColumns()

  constructor(deps: RedundancyDeps) {
    this.#deps = deps
    deps.transport.onConnection((peer, connected) => {
      if (!connected) deps.holdings.disconnected(peer)
    })
  }

  /** What was seen when it was last looked. */
  get last(): Sight | undefined {
    return this.#last
  }

  async look({ urgent = false, anew = false }: LookOptions = {}): Promise<Sight> {
    const { kept: keptStreams, holdings, hosts } = this.#deps
    const kept = await keptStreams.read()
    const reachable = storageOf(this.#deps.membership.record()).flatMap(({ id }) => (this.#reached(id) ? [id] : []))
    const silent = await holdings.look(kept.streams, reachable, { staying: this.#staying(), anew })
    const standing = this.#standing(silent, urgent)
    const streams = kept.streams.map(stream => ({
      ...stream,
      places: holdings.places(stream),
      partly: holdings.partly(stream)
    }))
    const facts = { streams, standing, hosts: hosts().filter(({ peer }) => standing.get(peer) === 'up') }
    this.#last = { kept, facts, plan: planRepair(facts) }
    const members = this.#deps.membership.record().members.map(({ id }) => id)
    this.#stored.note({ ...facts, staying: this.#staying(), members }, this.#deps.clock.now())
    return this.#last
  }

  /** With the hashes of all symbols. MANIFEST_MISSING, MANIFEST_INVALID. */
  manifest(stream: KeptStream): Promise<StreamManifest> {
    return this.#deps.kept.manifest(stream)
  }

  /** How many grids of a column `peer` is known to have. */
  gridsAt(peer: PeerId, stream: StreamId, column: number): number {
    return this.#deps.holdings.gridsAt(peer, stream, column)
  }

  /**
   * Who has each column now: of those known to have it who stays, the planned holder first; else who leaves. The planned holder
   * where nobody is known to have it.
   */
  holdersNow(manifest: Pick<StreamManifest, 'stream' | 'holders'>): readonly PeerId[] {
    const stays = new Set(this.#staying())
    const seen = this.#last?.facts.streams.find(({ stream }) => stream === manifest.stream)
    return manifest.holders.map((planned, column) => {
      const known = seen?.places[column] ?? []
      const staying = known.filter(peer => stays.has(peer))
      const among = staying.length > 0 ? staying : known
      return among.includes(planned) ? planned : (among[0] ?? planned)
    })
  }

  /** As `StoredElsewhere` has it, when it was last looked; undefined: as planned as far as is known. */
  storedAt(stream: StreamId): readonly PeerId[] | undefined {
    return this.#stored.of(stream)
  }

  /** What a group would go back to. Images of which it cannot be read what they lean on are left out. */
  async imagesOf({ committed }: Pick<GroupRecord, 'committed'>): Promise<StoredImage[]> {
    const images = Object.entries(committed?.images ?? {}).map(async ([vm, image]): Promise<StoredImage[]> => {
      const streams = await this.#deps.kept.of(image).catch(() => undefined)
      return streams === undefined
        ? []
        : [{ vm, streams: streams.map(stream => ({ k: stream.k, places: this.#placesOf(stream) })) }]
    })
    return (await Promise.all(images)).flat()
  }

  /** Of each column: who is known to have it; where nobody is, who should, unless it was seen to lack. */
  #placesOf({ stream, holders }: KeptStream): (readonly PeerId[])[] {
    const seen = this.#last?.facts.streams.find(each => each.stream === stream)
    const stored = this.#stored.of(stream)
    return holders.map((planned, column) => {
      const known = seen?.places[column] ?? []
      if (known.length > 0) return known
      const has = stored === undefined ? planned : (stored[column] ?? '')
      return has === '' ? [] : [has]
    })
  }

  #staying(): PeerId[] {
    return storageOf(this.#deps.membership.record()).flatMap(({ id, leaving }) => (leaving ? [] : [id]))
  }

  #reached(peer: PeerId): boolean {
    const { self, detector, transport } = this.#deps
    return peer === self || (detector.livenessOf(peer) !== 'dead' && transport.connected(peer))
  }

  #standing(silent: ReadonlySet<PeerId>, urgent: boolean): Map<PeerId, PeerStanding> {
    const { self, membership, detector, lost } = this.#deps
    const standing = new Map<PeerId, PeerStanding>()
    for (const { id, leaving } of storageOf(membership.record())) {
      const there = this.#reached(id) && !silent.has(id)
      const gone = id !== self && (lost.has(id) || (urgent && detector.livenessOf(id) === 'dead'))
      if (there) standing.set(id, leaving ? 'leaving' : 'up')
      else if (!gone && !leaving) standing.set(id, 'away')
    }
    return standing
  }
}

const storageOf = ({ members }: ClusterRecord) => members.filter(({ role }) => role === 'storage')
