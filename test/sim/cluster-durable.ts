/** Of what an epoch has written, is no more missing when it is committed than `shards.durability` allows? */
import { spareColumns } from '../../node/image/durability.ts'
import type { SimManifest } from './world-images.ts'
import type { Network } from './world-network.ts'
import { DURABILITY, missingColumns } from './world-shards.ts'

/** What lacks too much, whoever is away now; undefined: nothing. */
export function lackingAtCommit(network: Network, manifests: readonly SimManifest[]): string | undefined {
  for (const { streams } of manifests) {
    const own = streams.at(-1)
    if (own === undefined) continue
    const missing = missingColumns(network, own, () => true, false) // what rots later was durable, too
    const spare = spareColumns(own.holders, own.m, DURABILITY)
    if (missing > spare) return `${own.stream} lacks ${missing} columns, and may lack ${spare}`
  }
  return undefined
}
