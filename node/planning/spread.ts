/** Which peer each column of a stream counts for, where several have it: pure. */
import type { PeerId } from '../../protocols/core.ts'
import { tolerates } from './holders.ts'

/**
 * Column → one of the peers that have it, so that no peer counts for more than need be: no other choice has a smaller sum of the
 * largest one, two, three, … counts. Undefined where nobody has it. The same for all who know the same.
 *
 * Source: an optimal semi-matching, by cost-reducing paths (N. Harvey, R. Ladner, L. Lovász, T. Tamir, "Semi-Matchings for
 * Bipartite Graphs and Load Balancing", WADS 2003).
 */
export function spreadOf(places: readonly (readonly PeerId[])[]): (PeerId | undefined)[] {
  const sorted = places.map(peers => [...new Set(peers)].sort())
  const chosen = sorted.map(peers => peers[0])
  while (lightenOne(chosen, sorted));
  return chosen
}

const loadsOf = (chosen: readonly (PeerId | undefined)[]): Map<PeerId, number> => {
  const loads = new Map<PeerId, number>()
  for (const peer of chosen) if (peer !== undefined) loads.set(peer, (loads.get(peer) ?? 0) + 1)
  return loads
}

/** Takes a column from a peer with many, perhaps by way of others, to one that has at least two fewer. False: there is none. */
function lightenOne(chosen: (PeerId | undefined)[], places: readonly (readonly PeerId[])[]): boolean {
  const loads = loadsOf(chosen)
  for (const [first, load] of [...loads].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))) {
    const cameBy = new Map<PeerId, number>([[first, -1]])
    for (const peer of cameBy.keys()) {
      if ((loads.get(peer) ?? 0) <= load - 2) {
        hand(peer, chosen, cameBy)
        return true
      }
      for (const [column, holder] of chosen.entries()) {
        if (holder !== peer) continue
        for (const next of places[column] ?? []) if (!cameBy.has(next)) cameBy.set(next, column)
      }
    }
  }
  return false
}

/** Each column on the way to `last` goes one on. */
function hand(last: PeerId, chosen: (PeerId | undefined)[], cameBy: ReadonlyMap<PeerId, number>): void {
  for (let peer: PeerId | undefined = last; peer !== undefined; ) {
    const column: number = cameBy.get(peer) ?? -1
    if (column === -1) return
    const before: PeerId | undefined = chosen[column]
    chosen[column] = peer
    peer = before
  }
}

/** How many peers, whichever, may vanish without loss of a stream with `m` columns to spare. Below 0: it is lost. */
export function bears(places: readonly (readonly PeerId[])[], m: number): number {
  const spread = spreadOf(places)
  const alive = [...new Set(spread.flatMap(peer => peer ?? []))]
  return tolerates(
    spread.map(peer => peer ?? ''),
    m,
    alive
  )
}

/** As `bears`, of so many columns spread evenly over so many peers. */
export function bearsAtBest(columns: number, peers: number, m: number): number {
  if (peers === 0) return 0
  const [each, more] = [Math.floor(columns / peers), columns % peers]
  const heavy = Math.min(more, Math.floor(m / (each + 1)))
  if (heavy < more || each === 0) return heavy
  return heavy + Math.min(peers - more, Math.floor((m - heavy * (each + 1)) / each))
}
