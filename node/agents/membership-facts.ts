/** What this peer sees of the cluster, for the planner of membership. */
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
    neededKeys: undefined,
    reachable: new Set(
      ids.filter(id => id === membership.self || (detector.livenessOf(id) === 'alive' && transport.connected(id)))
    ),
    dead: new Set(ids.filter(id => detector.livenessOf(id) === 'dead')),
    lost,
    groupsKnown: directory.surveyed,
    owners: new Set(groups.flatMap(group => Object.values(group.owners))),
    needed: leaving ? neededStores(record, await imagesOf(deps), lost) : new Set(),
    wallMs: deps.wallMs()
  }
}

/** The committed images of all groups; undefined where one cannot be read here. */
async function imagesOf({ directory, readManifest }: FactsDeps): Promise<ImageManifest[] | undefined> {
  if (readManifest === undefined) return undefined
  const groups = directory.all().filter(group => !group.removed)
  const hashes = groups.flatMap(group => Object.values(group.committed?.images ?? {}))
  try {
    return await Promise.all(hashes.map(hash => readManifest(hash)))
  } catch {
    return undefined
  }
}
