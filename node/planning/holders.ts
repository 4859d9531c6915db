/** Who holds which column of an image: pure. */
import type { PeerId } from '../../protocols/core.ts'

/**
 * More columns than this only make grids larger (a grid is columns × k symbols), not safer: tolerance is m columns.
 * 12 × 3 × 64 KiB = 2.25 MiB a grid; a guess.
 */
export const MAX_COLUMNS = 12

/**
 * Column c → peer, for C ≥ k + m columns. Every living storage peer once (up to MAX_COLUMNS), starting at a place that
 * depends on `turn`, so that images of different VMs start at different peers. With fewer than k + m peers some hold
 * two columns: `tolerates` then says how many peers may really be lost.
 */
export function planHolders(peers: readonly PeerId[], k: number, m: number, turn: number): PeerId[] {
  const sorted = [...peers].sort()
  if (sorted.length === 0) return []
  const columns = Math.max(k + m, Math.min(sorted.length, MAX_COLUMNS))
  return Array.from({ length: columns }, (_, column) => sorted[(column + turn) % sorted.length] as PeerId)
}

/** How many peers, whichever, may vanish without loss: the largest number whose columns together are at most m. */
export function tolerates(holders: readonly PeerId[], m: number): number {
  const columns = new Map<PeerId, number>()
  for (const holder of holders) columns.set(holder, (columns.get(holder) ?? 0) + 1)
  let lost = 0
  let peers = 0
  for (const count of [...columns.values()].sort((a, b) => b - a)) {
    lost += count
    if (lost > m) return peers
    peers++
  }
  return peers
}
