/** Who takes a column of a stream that nobody has any more: pure, by the same rules as new columns (`holders.ts`). */
import type { PeerId } from '../../protocols/core.ts'
import type { StreamId } from '../ports.ts'
import { domainsOf, isFull, rendezvousScore, type StoragePeer, weightsOf } from './domains.ts'

/**
 * The peer to which column `column` of `stream` is to go. `holdersNow[c]`: the peers that have column c, none where it is
 * lost; its length is the number of columns. Undefined where there is no peer. Whoever is left is asked for these things, the
 * first that tells two apart decides:
 *
 * 1. it has room; 2. it has the fewest of this stream's columns itself; 3. so has its site, its rack, its host; 4. the two
 * columns beside this one are in other racks; 5. the weighted rendezvous of free space.
 *
 * From the same facts all peers choose the same. Facts that differ make at worst a second copy.
 */
export function columnTarget(
  peers: readonly StoragePeer[],
  stream: StreamId,
  column: number,
  holdersNow: readonly (readonly PeerId[])[]
): PeerId | undefined {
  const domains = new Map(peers.map(each => [each.peer, domainsOf(each)]))
  const weights = weightsOf(peers)
  const counts = new Map<string, number>()
  for (const [at, holders] of holdersNow.entries()) {
    if (at === column) continue
    // A column that several have is lost only with all of them: it counts for the first.
    const holder = [...holders].sort().find(peer => domains.has(peer))
    if (holder !== undefined)
      for (const name of [holder, ...namesOf(holder)]) counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  const beside = new Set(
    [column - 1, column + 1].flatMap(
      at =>
        holdersNow[(at + holdersNow.length) % holdersNow.length]?.flatMap(peer => domains.get(peer)?.rack ?? []) ?? []
    )
  )

  function namesOf(peer: PeerId): string[] {
    const { site, rack, host } = domains.get(peer) ?? {}
    return [`site ${site}`, `rack ${rack}`, `host ${host}`]
  }
  const ranks = peers.map(each => ({
    peer: each.peer,
    rank: [
      isFull(each) ? 1 : 0,
      ...[each.peer, ...namesOf(each.peer)].map(name => counts.get(name) ?? 0),
      beside.has(domains.get(each.peer)?.rack ?? '') ? 1 : 0,
      -rendezvousScore(each.peer, `${stream} ${column}`, weights.get(each.peer) ?? 1)
    ]
  }))
  return ranks.sort((a, b) => compare(a.rank, b.rank))[0]?.peer
}

function compare(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((value, i) => value !== b[i])
  return at === -1 ? 0 : (a[at] ?? 0) - (b[at] ?? 0)
}
