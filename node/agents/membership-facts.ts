/** What this peer sees of the cluster, for the planner of membership. */
import { KEPT_KEYS } from '../../protocols/membership/keys.ts'
import type { ClusterRecord } from '../../protocols/membership/record.ts'
import type { ImageManifest, FailureDetector, Transport } from '../ports.ts'
import { type MembershipFacts, neededStores } from '../planning/membership.ts'
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
  readonly readManifest: ((hash: string) => Promise<ImageManifest>) | undefined
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
    neededKeys: directory.surveyed && crowdedKeys(record) ? neededKeys(await committedImages(deps)) : undefined,
    reachable: new Set(
      ids.filter(id => id === membership.self || (detector.livenessOf(id) === 'alive' && transport.connected(id)))
    ),
    dead: new Set(ids.filter(id => detector.livenessOf(id) === 'dead')),
    lost,
    groupsKnown: directory.surveyed,
    owners: new Set(groups.flatMap(group => Object.values(group.owners))),
    needed: leaving ? neededStores(record, await committedImages(deps), lost) : new Set(),
    wallMs: deps.wallMs()
  }
}

/** Only then may older ones be dropped, and it matters which are needed. */
const crowdedKeys = ({ keys }: ClusterRecord): boolean => (keys?.older.length ?? 0) >= KEPT_KEYS

const neededKeys = (images: readonly ImageManifest[] | undefined): ReadonlySet<number> | undefined =>
  images && new Set(images.flatMap(({ streams }) => streams.map(({ key = 0 }) => key)))

/** The committed images of all groups; undefined where one cannot be read here. */
export async function committedImages({
  directory,
  readManifest
}: Pick<FactsDeps, 'directory' | 'readManifest'>): Promise<ImageManifest[] | undefined> {
  if (readManifest === undefined) return undefined
  const groups = directory.all().filter(group => !group.removed)
  const hashes = groups.flatMap(group => Object.values(group.committed?.images ?? {}))
  try {
    return await Promise.all(hashes.map(hash => readManifest(hash)))
  } catch {
    return undefined
  }
}
