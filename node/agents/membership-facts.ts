/** What this peer sees of the cluster, for the planner of membership. */
import { KEPT_KEYS } from '../../protocols/membership/keys.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import { keptImages } from '../../protocols/group.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { ImageManifest, FailureDetector, StreamId, Transport } from '../ports.ts'
import { type ImageLean, type MembershipFacts, neededStores } from '../planning/membership.ts'
import type { DataKeyRing } from './data-keys.ts'
import type { GroupDirectory } from './directory.ts'
import type { LostMembers } from './lost-members.ts'
import type { MembershipAgent } from './membership.ts'

export interface FactsDeps {
  readonly membership: MembershipAgent
  readonly directory: GroupDirectory
  readonly detector: FailureDetector
  readonly lost: Pick<LostMembers, 'has'>
  readonly transport: Pick<Transport, 'connected'>
  readonly dataKeys: Pick<DataKeyRing, 'opens'>
  wallMs(): number
  /** Undefined at a witness, which has no manifests. */
  readonly readManifest: ((hash: string) => Promise<ImageLean>) | undefined
  /** Who has each column now, where a repair has put some elsewhere. Absent: the planned holders. */
  readonly holdersNow?: ((stream: StreamPlan) => readonly PeerId[]) | undefined
}

type StreamPlan = { readonly stream: StreamId; readonly holders: readonly PeerId[] }

/** Manifests whose streams are remembered: those of all that a group keeps, some times over. */
const REMEMBERED = 2_048

/** What images lean on, each read once: a manifest never changes, and those of epochs that are kept are asked for again and again. */
export function leanReader(
  readManifest: (hash: string) => Promise<ImageManifest>
): (hash: string) => Promise<ImageLean> {
  const known = new Map<string, ImageLean>()
  return async hash => {
    const found = known.get(hash)
    if (found !== undefined) return found
    const { streams } = await readManifest(hash)
    const lean = { streams: streams.map(({ stream, holders, k, m, key }) => ({ stream, holders, k, m, key })) }
    const [oldest] = known.keys()
    if (known.size >= REMEMBERED && oldest !== undefined) known.delete(oldest)
    known.set(hash, lean)
    return lean
  }
}

export async function gatherFacts(deps: FactsDeps): Promise<MembershipFacts> {
  const { membership, directory, detector, transport } = deps
  const record = membership.record()
  const ids = record.members.map(member => member.id)
  const lost = new Set(ids.filter(id => deps.lost.has(id)))
  const groups = directory.all().filter(group => !group.removed)
  const leaving = record.members.some(member => member.leaving && member.role === 'storage' && !lost.has(member.id))
  return {
    self: membership.self,
    opensKeys: deps.dataKeys.opens(),
    neededKeys: directory.surveyed && crowdedKeys(record) ? neededKeys(await neededImages(deps)) : undefined,
    reachable: new Set(
      ids.filter(id => id === membership.self || (detector.livenessOf(id) === 'alive' && transport.connected(id)))
    ),
    dead: new Set(ids.filter(id => detector.livenessOf(id) === 'dead')),
    lost,
    groupsKnown: directory.surveyed,
    owners: new Set(groups.flatMap(group => (group.resting ? [] : Object.values(group.owners)))),
    needed: leaving ? neededStores(record, asHeldNow(await neededImages(deps), deps), lost) : new Set(),
    wallMs: deps.wallMs()
  }
}

function asHeldNow(
  images: readonly ImageLean[] | undefined,
  { holdersNow }: FactsDeps
): readonly ImageLean[] | undefined {
  if (holdersNow === undefined) return images
  return images?.map(image => ({
    ...image,
    streams: image.streams.map(lean => {
      const { stream, holders } = lean
      return stream === undefined ? lean : { ...lean, holders: holdersNow({ stream, holders }) }
    })
  }))
}

/** Only then may older ones be dropped, and it matters which are needed. */
const crowdedKeys = ({ keys }: ClusterRecord): boolean => (keys?.older.length ?? 0) >= KEPT_KEYS

const neededKeys = (images: readonly ImageLean[] | undefined): ReadonlySet<number> | undefined =>
  images && new Set(images.flatMap(({ streams }) => streams.map(({ key = 0 }) => key)))

/** The images of all groups that are kept; undefined where one cannot be read here. */
export async function neededImages({
  directory,
  readManifest
}: Pick<FactsDeps, 'directory' | 'readManifest'>): Promise<ImageLean[] | undefined> {
  if (readManifest === undefined) return undefined
  const groups = directory.all().filter(group => !group.removed)
  const committed = new Set(groups.flatMap(group => Object.values(group.committed?.images ?? {})))
  const images: ImageLean[] = []
  try {
    // One after the other: a manifest may be large, and there may be many.
    for (const hash of new Set(groups.flatMap(keptImages))) {
      const { streams } = await readManifest(hash)
      images.push({ streams, ...(!committed.has(hash) && { older: true }) })
    }
    return images
  } catch {
    return undefined
  }
}
