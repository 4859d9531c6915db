/** What stays the same for all images of a VM. */
import type { CodeShape, StreamId } from '../ports.ts'
import { type PageStream, PAGES_PER_MIB } from './page-table.ts'
import { StreamSeal } from './seal.ts'

export interface VmFacts {
  readonly group: string
  readonly vm: string
  readonly memoryMiB: number
  readonly accel: 'kvm' | 'tcg'
  /** 32 bytes. */
  readonly key: Uint8Array
  readonly shape: CodeShape
  /** In the order of the VM's specification; empty where it has none. A block has PAGE_BYTES bytes. */
  readonly disks: readonly { readonly blocks: number }[]
  /** Memory for contents of pages. Absent: as the setting `images.memoryMiB` is when nobody sets it. */
  readonly contentsMiB?: number | undefined
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

/** Blocks of all disks. */
export const blocksOf = ({ disks }: Pick<VmFacts, 'disks'>): number =>
  disks.reduce((sum, { blocks }) => sum + blocks, 0)

export const streamIdOf = ({ group, vm }: VmFacts, generation: number, epoch: number): StreamId =>
  `${group}/${vm}/${generation}/${epoch}`

/** Opens what lies in a stream of this VM. */
export const sealOf = ({ key }: VmFacts, { manifest, salt }: Pick<PageStream, 'manifest' | 'salt'>): StreamSeal =>
  new StreamSeal(key, manifest.stream, salt)
