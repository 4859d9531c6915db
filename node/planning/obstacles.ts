/**
 * What would keep a group from coming back if a host died: pure. All of it goes back together, so one VM that cannot be read, or
 * has no host, keeps all of them down; and without a majority nobody decides that they do.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { Obstacle } from '../../protocols/overview/outlook.ts'
import type { StreamFacts } from './repair.ts'

/** The committed image of a VM. */
export interface StoredImage {
  readonly vm: string
  /** All that it leans on. */
  readonly streams: readonly Pick<StreamFacts, 'k' | 'places'>[]
}

export interface ObstacleFacts {
  readonly voters: readonly PeerId[]
  /** Members that live now. */
  readonly living: readonly PeerId[]
  /** Of the group's VMs, as far as it is known what they are made of. */
  readonly images: readonly StoredImage[]
  /** Some VM of the group would find no host. */
  readonly hasHomeless: boolean
}

/** The first that stands in the way when `lost` is dead, in the order in which a restore would meet them. */
export function obstacleTo(lost: PeerId, facts: ObstacleFacts): Obstacle | undefined {
  const { voters, living, images, hasHomeless } = facts
  const left = new Set(living.filter(peer => peer !== lost))
  const live = voters.filter(voter => left.has(voter)).length
  if (2 * live <= voters.length) return { kind: 'no-majority', live, voters: voters.length }
  if (hasHomeless) return { kind: 'no-room' }
  const lacking = images.flatMap(({ vm, streams }) =>
    streams.flatMap(({ k: needs, places }) => {
      const at = places.filter(peers => peers.some(peer => left.has(peer))).length
      return at < needs ? [{ kind: 'columns' as const, vm, left: at, columns: places.length, needs }] : []
    })
  )
  return lacking.toSorted((a, b) => a.left - a.needs - (b.left - b.needs) || (a.vm < b.vm ? -1 : 1))[0]
}
