/** How much of a stream must be stored before anything may depend on it. Pure. */
import type { ShardSettings } from '../../config/schema.ts'
import { toleratedLosses } from './stream-choice.ts'

export type Durability = ShardSettings['durability']

/**
 * Columns of each grid that may be missing when a stream counts as durable: with `most` half of m, rounded down, so that
 * k + ceil(m / 2) are stored, and no more than leave ceil(m / 2) peers, whichever, that may then be lost; where not even all
 * columns bear so many losses, no more than leave as many as those do.
 */
export function spareColumns(holders: readonly string[], m: number, durability: Durability): number {
  if (durability === 'all') return 0
  const wanted = Math.min(Math.ceil(m / 2), toleratedLosses(holders, m, holders))
  let spare = Math.floor(m / 2)
  while (spare > 0 && toleratedLosses(holders, m - spare, holders) < wanted) spare--
  return spare
}
