/**
 * Who rebuilds which column: pure. A column is lost when nobody who stays has it; it then goes to exactly one of those who are
 * up, who rebuilds it from the others and puts it into its own store (`node/agents/repair.ts`). Nobody is asked and nothing
 * is agreed: all compute the same from the same facts, and facts that differ make at worst a second copy, since a column is
 * what its manifest says, wherever it lies.
 *
 * A column that is there is rebuilt at a second place, too, where its stream bears the loss of fewer peers than it could: after a
 * repair among few, one may have two columns, and a newcomer none. What is there twice goes when no image needs it any more.
 *
 * Order: what bears the fewest further losses first (as HDFS does, whose queue is by live replicas), then the oldest.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { StreamId } from '../ports.ts'
import { columnTarget } from './column-target.ts'
import { isFull, type StoragePeer } from './domains.ts'
import { bears, bearsAtBest, spreadOf } from './spread.ts'

/**
 * up: a member that answers and stays. away: one that does not answer and is waited for; what it has counts as there.
 * leaving: one that answers and is about to go: it can be read from, and what only it has is lost with it. Others are gone.
 */
export type PeerStanding = 'up' | 'away' | 'leaving'

/** A stream that some kept image leans on. */
export interface StreamFacts {
  readonly stream: StreamId
  readonly k: number
  readonly m: number
  /** Planned holder of each column. */
  readonly holders: readonly PeerId[]
  /** Who has been heard to have each column whole: asked now where they are up or leaving, and before where they are away. */
  readonly places: readonly (readonly PeerId[])[]
  /** Who has been heard to have some grids of each column, and not all. */
  readonly partly: readonly (readonly PeerId[])[]
}

export interface RepairFacts {
  /** The oldest first. */
  readonly streams: readonly StreamFacts[]
  readonly standing: ReadonlyMap<PeerId, PeerStanding>
  /** What is known of members for placing columns; of those that are up. */
  readonly hosts: readonly StoragePeer[]
}

export interface ColumnRepair {
  readonly stream: StreamId
  readonly column: number
  readonly target: PeerId
  /** lost: nobody who stays has it. crowded: its holder has others of this stream, and the target has none or fewer. */
  readonly why: 'lost' | 'crowded'
  /** Columns that may still be lost before the stream is; 0 also where it can be read only grid by grid. */
  readonly spare: number
}

/** Columns that cannot be rebuilt now, and why. */
export interface Unrepairable {
  readonly stream: StreamId
  readonly columns: readonly number[]
  /** unreadable: fewer than k columns are within reach, whole or in part, `readable`. full: nobody who is up has room. */
  readonly why: 'unreadable' | 'full'
  readonly readable: number
  readonly k: number
}

export interface RepairPlan {
  readonly repairs: readonly ColumnRepair[]
  readonly impossible: readonly Unrepairable[]
}

/** A column is in one entry at most. What is lost goes before what is crowded. */
export function planRepair(facts: RepairFacts): RepairPlan {
  const repairs: ColumnRepair[] = []
  const impossible: Unrepairable[] = []
  const roomy = facts.hosts.filter(host => facts.standing.get(host.peer) === 'up' && !isFull(host))
  for (const stream of facts.streams) {
    const kept = keptPlaces(stream, facts.standing)
    const columns = kept.flatMap((places, column) => (places.length === 0 ? [column] : []))
    const [whole, parts] = withinReach(stream, facts.standing)
    const readable = countOf(parts)
    const { stream: name, k } = stream
    const possible = readable >= k && roomy.length > 0
    if (!possible) {
      const why = readable < k ? 'unreadable' : 'full'
      if (columns.length > 0) impossible.push({ stream: name, columns, why, readable, k })
      continue
    }
    const spare = Math.max(0, countOf(whole) - k)
    const lost = targetsOf(stream, kept, columns, roomy)
    for (const { column, target } of lost) repairs.push({ stream: name, column, target, why: 'lost', spare })
    for (const { column, target } of lighten(stream, kept, lost, roomy)) {
      repairs.push({ stream: name, column, target, why: 'crowded', spare })
    }
  }
  const rank = ({ why, spare }: ColumnRepair): number => (why === 'lost' ? 0 : MAX_SPARE) + spare
  repairs.sort((a, b) => rank(a) - rank(b)) // a stable sort: what is older stays before what is younger
  return { repairs, impossible }
}

/** More than any stream has columns. */
const MAX_SPARE = 1_000

/** Of each column: who has it and stays. */
function keptPlaces({ holders, places }: StreamFacts, standing: RepairFacts['standing']): PeerId[][] {
  return holders.map((planned, column) => {
    const kept = (places[column] ?? []).filter(peer => ['up', 'away'].includes(standing.get(peer) ?? 'gone'))
    return standing.get(planned) === 'away' && !kept.includes(planned) ? [...kept, planned] : kept
  })
}

/**
 * Of each column those who have it and can be read from now: whole, and at least in part. Different columns may lack different
 * grids, so that a stream can be read with fewer than k that are whole: whether each grid has k of them shows only when it is read.
 */
export function withinReach(
  { holders, places, partly }: Pick<StreamFacts, 'holders' | 'places' | 'partly'>,
  standing: RepairFacts['standing']
): [whole: PeerId[][], parts: PeerId[][]] {
  const reached = (peers: readonly PeerId[] = []): PeerId[] =>
    peers.filter(peer => ['up', 'leaving'].includes(standing.get(peer) ?? 'gone'))
  const whole = holders.map((_, column) => reached(places[column]))
  return [whole, whole.map((peers, column) => [...peers, ...reached(partly[column])])]
}

const countOf = (places: readonly (readonly PeerId[])[]): number => places.filter(peers => peers.length > 0).length

/** Each lost column to one peer: its planned holder, unless another that is up has fewer columns of this stream. */
function targetsOf(
  { stream, holders }: StreamFacts,
  kept: readonly (readonly PeerId[])[],
  columns: readonly number[],
  roomy: readonly StoragePeer[]
): { column: number; target: PeerId }[] {
  const now: (readonly PeerId[])[] = [...kept]
  const countOf = (peer: PeerId): number => now.filter(places => places.includes(peer)).length
  const isRoomy = (peer: PeerId): boolean => roomy.some(host => host.peer === peer)
  const targets: { column: number; target: PeerId }[] = []
  const own = columns.filter(column => isRoomy(holders[column] ?? ''))
  for (const column of [...own, ...columns.filter(each => !own.includes(each))]) {
    const planned = holders[column] ?? ''
    const least = Math.min(...roomy.map(({ peer }) => countOf(peer)))
    const candidates = roomy.filter(({ peer }) => countOf(peer) === least)
    const isPlanned = candidates.some(({ peer }) => peer === planned)
    const target = isPlanned ? planned : columnTarget(candidates, stream, column, now)
    if (target === undefined) continue
    now[column] = [target]
    targets.push({ column, target })
  }
  return targets.sort((a, b) => a.column - b.column)
}

/** Columns that get a second place, until the stream bears as many losses as it could over those who are up and have room. */
function lighten(
  { stream, m }: StreamFacts,
  kept: readonly (readonly PeerId[])[],
  lost: readonly { readonly column: number; readonly target: PeerId }[],
  roomy: readonly StoragePeer[]
): { column: number; target: PeerId }[] {
  const now: (readonly PeerId[])[] = [...kept]
  for (const { column, target } of lost) now[column] = [target]
  const best = bearsAtBest(now.length, roomy.length, m)
  const moved: { column: number; target: PeerId }[] = []
  while (bears(now, m) < best && moved.length < now.length) {
    const spread = spreadOf(now)
    const countOf = (peer: PeerId): number => spread.filter(each => each === peer).length
    const most = Math.max(...spread.map(peer => countOf(peer ?? '')))
    const least = Math.min(...roomy.map(({ peer }) => countOf(peer)))
    if (most - least < 2) break
    const movable = (at: number): boolean => !lost.some(({ column }) => column === at)
    const column = spread.findIndex((peer, at) => peer !== undefined && countOf(peer) === most && movable(at))
    const candidates = roomy.filter(({ peer }) => countOf(peer) === least)
    const target = column === -1 ? undefined : columnTarget(candidates, stream, column, now)
    if (target === undefined) break
    now[column] = [...(now[column] ?? []), target]
    moved.push({ column, target })
  }
  return moved
}
