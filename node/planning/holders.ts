/**
 * Who holds which column of a new stream: pure. What a plan promises, the first before the others:
 *
 * 1. Full peers get no columns while enough others are there: so many that any one of them may still be lost.
 * 2. Each peer has at most ⌈columns / peers⌉ columns, and none a second one while another could take a first.
 * 3. Domains (`domains.ts`). The loss of any one site is borne (it has at most m columns) if 2 lets that be, by any number of
 *    columns from k + m on; then that of any one rack; then that of any one host. Of what is left the worst rack has as few
 *    columns as can be, then the worst site, then the worst host. That is exact: these bounds are nested, so a choice that is
 *    within them can always be completed (they are a laminar matroid).
 * 4. As many columns as that allows, up to one a peer and MAX_COLUMNS: reads then spread over more peers.
 * 5. Balance, where there are more peers than columns: who gets one is a weighted rendezvous of free space and `key`, so that over
 *    many keys a peer with twice the space has about twice the columns, as far as 2 and 3 let it; else each has as many as any.
 * 6. A peer that comes or goes changes who is chosen by the columns that it has itself, as long as the bounds of 3 and the number
 *    of columns stay (a matroid's best basis changes by one exchange for each element).
 * 7. Columns beside each other are in different racks if they can be, then in different hosts, peers and sites (`arrange.ts`). Who
 *    was chosen `before` stays at its columns, but for those that change places to keep this: with one peer that comes or goes
 *    these were never more than 2 in 24,000 random clusters, and the test allows 4.
 */
import type { PeerId } from '../../protocols/core.ts'
import { arrange } from './arrange.ts'
import { domainsOf, isFull, LEVELS, type Level, rendezvousScore, type StoragePeer, weightsOf } from './domains.ts'

/**
 * More columns than this only make grids larger (a grid is columns × k symbols), not safer: tolerance is m columns.
 * 12 × 3 × 64 KiB = 2.25 MiB a grid; a guess.
 */
export const MAX_COLUMNS = 12

export interface HoldersWish {
  readonly k: number
  readonly m: number
  /** Whose columns they are: others have others first. */
  readonly key: string
  /** Holders of the last stream of the same. */
  readonly before?: readonly PeerId[] | undefined
}

/** Column c → peer, for C ≥ k + m columns; none where there is no peer. `tolerates` says how many may really be lost. */
export function placeColumns(all: readonly StoragePeer[], wish: HoldersWish): PeerId[] {
  const peers = withRoom(all, wish).toSorted((a, b) => (a.peer < b.peer ? -1 : 1))
  if (peers.length === 0) return []
  const chosen = choose(peers, boundsOf(peers, wish), wish.key)
  return arrange(chosen, wish.before ?? [], new Map(peers.map(each => [each.peer, domainsOf(each)])))
}

/** As `placeColumns`, where nothing is known of the peers. `turn`: images of different VMs begin with different peers. */
export function planHolders(peers: readonly PeerId[], k: number, m: number, turn: number): PeerId[] {
  return placeColumns(
    peers.map(peer => ({ peer })),
    { k, m, key: String(turn) }
  )
}

/**
 * Those that get columns: not the full ones, while enough others are there. With N peers one of them has ⌈(k + m) / N⌉ columns,
 * whose loss is borne where that is at most m.
 */
export function withRoom(all: readonly StoragePeer[], { k, m }: Pick<HoldersWish, 'k' | 'm'>): readonly StoragePeer[] {
  const roomy = all.filter(each => !isFull(each))
  return roomy.length * m >= k + m ? roomy : all
}

/** Columns at most: of each peer, and of each domain of a level. */
export interface Bounds extends Readonly<Record<Level, number>> {
  readonly columns: number
  readonly peer: number
}

/** Promises 2 to 4. */
export function boundsOf(peers: readonly StoragePeer[], { k, m }: Pick<HoldersWish, 'k' | 'm'>): Bounds {
  const most = Math.max(k + m, Math.min(peers.length, MAX_COLUMNS))
  let best: Bounds | undefined
  for (let columns = most; columns >= k + m; columns--) {
    const free: Bounds = {
      columns,
      peer: Math.ceil(columns / peers.length),
      site: columns,
      rack: columns,
      host: columns
    }
    // The levels whose loss is borne, from the largest on: with equally many of them more columns are better.
    const bearing = LEVELS.reduce((bounds, level) => lowered(peers, bounds, level, m), free)
    if (best === undefined || compareBorne(bearing, best, m) < 0) best = bearing
  }
  const bearing = best as Bounds
  return (['rack', 'site', 'host'] as const).reduce((bounds, level) => {
    let tight = bounds
    while (holdsAll(peers, { ...tight, [level]: tight[level] - 1 })) tight = { ...tight, [level]: tight[level] - 1 }
    return tight
  }, bearing)
}

function lowered(peers: readonly StoragePeer[], bounds: Bounds, level: Level, to: number): Bounds {
  const lower = { ...bounds, [level]: Math.min(bounds[level], to) }
  return holdsAll(peers, lower) ? lower : bounds
}

/** Negative: `a` bears the loss of a domain of the largest level in which they differ, and `b` does not. */
function compareBorne(a: Bounds, b: Bounds, m: number): number {
  const level = LEVELS.find(each => a[each] <= m !== b[each] <= m)
  return level === undefined ? 0 : a[level] <= m ? -1 : 1
}

/** There is a plan within these bounds. */
function holdsAll(peers: readonly StoragePeer[], bounds: Bounds): boolean {
  let rooms = new Map<string, { parents: string[]; columns: number }>()
  for (const each of peers) {
    const { host, rack, site } = domainsOf(each)
    const room = rooms.get(host) ?? { parents: [rack, site, ''], columns: 0 }
    rooms.set(host, { ...room, columns: room.columns + bounds.peer })
  }
  for (const level of ['host', 'rack', 'site'] as const) {
    const outer: typeof rooms = new Map()
    for (const { parents, columns } of rooms.values()) {
      const [parent = '', ...beyond] = parents
      const room = outer.get(parent) ?? { parents: beyond, columns: 0 }
      outer.set(parent, { ...room, columns: room.columns + Math.min(columns, bounds[level]) })
    }
    rooms = outer
  }
  return (rooms.get('')?.columns ?? 0) >= bounds.columns
}

/** Each as often as it gets a column, the best first: first columns before second ones, then by score. */
function choose(peers: readonly StoragePeer[], bounds: Bounds, key: string): PeerId[] {
  const weights = weightsOf(peers)
  const score = new Map(peers.map(({ peer }) => [peer, rendezvousScore(peer, key, weights.get(peer) ?? 1)]))
  const order = peers.toSorted((a, b) => (score.get(b.peer) ?? 0) - (score.get(a.peer) ?? 0))
  const used = new Map<string, number>()
  const chosen: PeerId[] = []
  for (let copy = 0; copy < bounds.peer; copy++) {
    for (const each of order) {
      const domains = domainsOf(each)
      const names = LEVELS.map(level => [level, `${level} ${domains[level]}`] as const)
      const fits = names.every(([level, name]) => (used.get(name) ?? 0) < bounds[level])
      if (!fits || chosen.length === bounds.columns) continue
      for (const [, name] of names) used.set(name, (used.get(name) ?? 0) + 1)
      chosen.push(each.peer)
    }
  }
  return chosen
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
 * peers that are not in `alive` have vanished already; below 0: too many have. The same for domains, given those of the holders.
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
