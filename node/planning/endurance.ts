/** What may be lost of those who live, for people: of voters, and of who holds a new snapshot. Pure. */
import type { PeerId } from '../../protocols/core.ts'
import { majorityOf } from '../../protocols/register/voters.ts'
import { domainsOf, LEVELS, type Level, type StoragePeer } from './domains.ts'
import { type Bounds, boundsOf, placeColumns, tolerates, withRoom } from './holders.ts'

export interface Endurance {
  /** So many members, whichever, may vanish. */
  readonly tolerates: number
  /** Of each level that some member has a label of, the largest first. */
  readonly domains: readonly DomainEndurance[]
}

export interface DomainEndurance {
  readonly level: Level
  /** So many domains of that level, whichever, may vanish. */
  readonly tolerates: number
  /** Labelled domains that may vanish alone, by name: all of them where `tolerates` is 1 or more. */
  readonly alone: readonly string[]
}

/** Of all streams that could be placed now, whichever peers they get: what holds for the worst of them. */
export function enduranceOf(
  all: readonly StoragePeer[],
  { k, m }: { readonly k: number; readonly m: number }
): Endurance {
  const peers = withRoom(all, { k, m })
  if (peers.length === 0) return { tolerates: 0, domains: [] }
  const bounds = boundsOf(peers, { k, m })
  const labelled = LEVELS.filter(level => peers.some(({ labels }) => labels?.[level] !== undefined))
  return {
    tolerates: tolerates(placeColumns(all, { k, m, key: '' }), m),
    domains: labelled.map(level => {
      const most = mostColumns(peers, bounds, level)
      const names = new Map(peers.map(each => [domainsOf(each)[level], nameOf(each, level)]))
      const columns = [...most].flatMap(([domain, count]) => new Array<string>(count).fill(domain))
      const alone = [...most].flatMap(([domain, count]) => (count <= m ? (names.get(domain) ?? []) : []))
      return { level, tolerates: tolerates(columns, m), alone: alone.sort() }
    })
  }
}

/** Of `all` storage members, whose snapshots go to those of them who live. */
export function enduranceNow(
  all: readonly StoragePeer[],
  living: readonly PeerId[],
  code: { readonly k: number; readonly m: number }
): Endurance & { readonly storage: number; readonly live: number } {
  const there = all.filter(({ peer }) => living.includes(peer))
  return { storage: all.length, live: there.length, ...enduranceOf(there, code) }
}

/** `tolerates`: so many of those who live, whichever, may fail, and the others still decide. */
export function votesNow(
  voters: readonly PeerId[],
  living: readonly PeerId[]
): { readonly count: number; readonly live: number; readonly tolerates: number } {
  const live = voters.filter(voter => living.includes(voter)).length
  return { count: voters.length, live, tolerates: Math.max(0, live - majorityOf(voters.length)) }
}

/** As people know it: a rack by its site and its own name. */
function nameOf({ labels = {} }: StoragePeer, level: Level): string[] {
  if (labels[level] === undefined) return []
  const path = LEVELS.slice(0, LEVELS.indexOf(level) + 1).flatMap(each => labels[each] ?? [])
  return [path.join('/')]
}

/** Columns that each domain of a level can have at most, by what it holds within. */
function mostColumns(peers: readonly StoragePeer[], bounds: Bounds, level: Level): Map<string, number> {
  let parts = peers.map(peer => ({ peer, columns: bounds.peer }))
  for (const each of LEVELS.slice(LEVELS.indexOf(level)).toReversed()) {
    parts = [...Map.groupBy(parts, ({ peer }) => domainsOf(peer)[each]).values()].map(group => ({
      peer: (group[0] as (typeof parts)[number]).peer,
      columns: Math.min(
        bounds[each],
        group.reduce((sum, { columns }) => sum + columns, 0)
      )
    }))
  }
  return new Map(parts.map(({ peer, columns }) => [domainsOf(peer)[level], columns]))
}

/** What one peer has said of itself, as it is shown. */
export function placeOf([found]: readonly StoragePeer[]): Pick<StoragePeer, 'labels' | 'freeBytes'> {
  const { labels, freeBytes } = found ?? {}
  return { ...(labels && { labels }), ...(freeBytes === undefined ? {} : { freeBytes }) }
}
