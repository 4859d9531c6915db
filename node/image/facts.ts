/** What stays the same for all images of a VM. */
import { isBaseStream } from '../../protocols/base.ts'
import { DiapauseError } from '../errors.ts'
import type { CodeShape, StreamId } from '../ports.ts'
import type { Durability } from './durability.ts'
import { type PageStream, PAGES_PER_MIB } from './page-table.ts'
import { StreamSeal } from './seal.ts'

export interface VmFacts {
  readonly group: string
  readonly vm: string
  readonly memoryMiB: number
  readonly accel: 'kvm' | 'tcg'
  /** What content ids are made with, 32 bytes. */
  readonly key: Uint8Array
  /** What streams are sealed under, the newest last. Absent: `key` alone, as number 0. */
  readonly keys?: readonly StreamKey[] | undefined
  readonly shape: StoredShape
  /** In the order of the VM's specification; empty where it has none. A block has PAGE_BYTES bytes. */
  readonly disks: readonly { readonly blocks: number }[]
  /** Memory for contents of pages. Absent: as the setting `images.memoryMiB` is when nobody sets it. */
  readonly contentsMiB?: number | undefined
}

/** How streams are coded, and how much of each must be stored before an image counts as durable. Absent: all of it. */
export interface StoredShape extends CodeShape {
  readonly durability?: Durability | undefined
}

/** Where a disk's blocks stand among the pages of its VM. */
export interface DiskPlace {
  readonly firstPage: number
  readonly blocks: number
}

/** Where the blocks of each disk stand in the one space of pages and blocks: behind RAM, end to end. */
export function placesOf({ memoryMiB, disks }: Pick<VmFacts, 'memoryMiB' | 'disks'>): DiskPlace[] {
  let firstPage = memoryMiB * PAGES_PER_MIB
  return disks.map(({ blocks }) => {
    const place = { firstPage, blocks }
    firstPage += blocks
    return place
  })
}

/** A data key by its number, as far as it is for streams of the VM's group: 32 bytes. */
export interface StreamKey {
  readonly id: number
  readonly key: Uint8Array
  /** The same for streams of bases, which all groups read. Absent: none are read or stored. */
  readonly baseKey?: Uint8Array | undefined
}

/** What a new stream is sealed under. */
export function newestKey(facts: Pick<VmFacts, 'key' | 'keys'>): StreamKey {
  const newest = keysOf(facts).at(-1)
  if (newest === undefined) throw new TypeError('a VM without a data key')
  return newest
}

/** What a stream is sealed under. IMAGE_KEY where this peer does not have it. */
export function keyOf(facts: Pick<VmFacts, 'key' | 'keys'>, id: number, stream: StreamId): Uint8Array {
  const keys = keysOf(facts)
  const found = keys.find(each => each.id === id)
  const key = isBaseStream(stream) ? found?.baseKey : found?.key
  if (key !== undefined) return key
  const newest = newestKey(facts).id
  const why =
    id > newest
      ? `the newest here is ${newest}: was this peer removed from the cluster (diapause members)?`
      : 'it was dropped when no committed image was known to need it, or went with all members that had it'
  throw new DiapauseError(
    'IMAGE_KEY',
    `a part of the image is sealed under data key ${id}, which is not here: ${why}`,
    {
      details: { key: id, newest }
    }
  )
}

const keysOf = ({ key, keys = [{ id: 0, key }] }: Pick<VmFacts, 'key' | 'keys'>): readonly StreamKey[] => keys

/** Blocks of all disks. */
export const blocksOf = ({ disks }: Pick<VmFacts, 'disks'>): number =>
  disks.reduce((sum, { blocks }) => sum + blocks, 0)

export const streamIdOf = ({ group, vm }: VmFacts, generation: number, epoch: number): StreamId =>
  `${group}/${vm}/${generation}/${epoch}`

/** Opens what lies in a stream of this VM. */
export const sealOf = (facts: VmFacts, { manifest, salt }: Pick<PageStream, 'manifest' | 'salt'>): StreamSeal =>
  new StreamSeal(keyOf(facts, manifest.key ?? 0, manifest.stream), manifest.stream, salt)
