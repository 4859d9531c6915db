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

/**
 * Who of the living is to hold an image: those that its owner has a connection to, where they are as many as columns at
 * least. A member that is just joining or coming back is alive before everybody has reached it, and would cost one epoch
 * after the other. Where fewer are reached all stay: better an epoch later than one that tolerates less.
 */
export function withinReach(
  living: readonly PeerId[],
  reached: (peer: PeerId) => boolean,
  k: number,
  m: number
): readonly PeerId[] {
  const near = living.filter(reached)
  return near.length >= k + m ? near : living
}

/**
 * How many peers, whichever, may vanish without loss: the largest number whose columns together are at most m. Columns at
 * peers that are not in `alive` have vanished already; below 0: too many have.
 */
export function tolerates(holders: readonly PeerId[], m: number, alive: readonly PeerId[] = holders): number {
  const columns = new Map<PeerId, number>()
  let left = m
  for (const holder of holders) {
    if (alive.includes(holder)) columns.set(holder, (columns.get(holder) ?? 0) + 1)
    else left--
  }
  if (left < 0) return -1
  let peers = 0
  for (const count of [...columns.values()].sort((a, b) => b - a)) {
    left -= count
    if (left < 0) return peers
    peers++
  }
  return peers
}
