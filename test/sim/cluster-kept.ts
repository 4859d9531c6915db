/** What the epochs that can be restored need, as it is on the disks of members, whoever is away now. */
import { keptEpochs } from '../../protocols/epoch/kept.ts'
import type { GroupRecord, KeptEpoch } from '../../protocols/group.ts'
import type { PeerId } from '../../protocols/core.ts'
import { decodeSimManifest, type SimManifest } from './world-images.ts'
import type { Network } from './world-network.ts'
import { missingColumns } from './world-shards.ts'

export interface Disks {
  readonly network: Network
  isMember(peer: PeerId): boolean
}

/** The manifests of an epoch's images, or what is lacking. */
export function manifestsOf(
  { network, isMember }: Disks,
  { id, vms }: GroupRecord,
  { epoch, images }: KeptEpoch
): SimManifest[] | string {
  const disks = [...network.hosts.values()].flatMap(({ name, disk }) => (isMember(name) ? [disk] : []))
  const manifests: SimManifest[] = []
  for (const vm of vms) {
    const hash = images[vm.id] ?? ''
    const bytes = disks.map(disk => disk.manifests.get(hash)).find(found => found !== undefined)
    const what = `epoch ${epoch} of ${id}: ${vm.id}`
    if (bytes === undefined) return `${what} has no manifest on any disk`
    const manifest = decodeSimManifest(bytes)
    manifests.push(manifest)
    for (const stream of manifest.streams) {
      const missing = missingColumns(network, stream, isMember)
      if (missing > stream.m) return `${what} lacks ${missing} columns of ${stream.stream}`
    }
  }
  return manifests
}

/** Streams and manifests that the group's epochs need, all that are kept; or what is lacking. */
export function neededBy(disks: Disks, record: GroupRecord): Set<string> | string {
  const needed = new Set<string>()
  for (const epoch of keptEpochs(record)) {
    const manifests = manifestsOf(disks, record, epoch)
    if (typeof manifests === 'string') return manifests
    for (const name of Object.values(epoch.images)) needed.add(name)
    for (const { stream } of manifests.flatMap(({ streams }) => streams)) needed.add(stream)
  }
  return needed
}

/** Between two records of one life of a group: what was committed is so, or is kept; and what is kept no more stays away. */
export function wrongOfEpochs(earlier: GroupRecord, later: GroupRecord): string | undefined {
  const [before, after] = [keptEpochs(earlier), keptEpochs(later)]
  const { committed: was, open, lastEpoch } = earlier
  const is = later.committed
  if (was === null) return undefined
  if (is === null || (is.epoch < was.epoch && !after.some(({ epoch }) => epoch === was.epoch))) {
    return `epoch ${was.epoch} is gone`
  }
  for (const { epoch, generation, images } of after) {
    const old = before.find(each => each.epoch === epoch)
    const isNew = epoch > lastEpoch || epoch === open?.epoch
    if (old === undefined && !isNew) return `epoch ${epoch} is back`
    const isSame =
      old === undefined || JSON.stringify([old.generation, old.images]) === JSON.stringify([generation, images])
    if (!isSame) return `epoch ${epoch} was replaced`
  }
  return undefined
}
