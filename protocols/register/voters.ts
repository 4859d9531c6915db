/**
 * Who votes: a set of peers with a version, the same for registers and leases.
 *
 * Voters change one at a time (as in Raft's single-server change, Ongaro's thesis, section 4.1; CASPaxos, section 2.3, needs
 * the same care). Sets whose versions are next to each other differ by one peer, so **any majority of one meets any
 * majority of the other**, and both may decide at once: to Paxos they are one system with two kinds of quorums. Sets that
 * are two versions apart need not meet. Therefore no set of version v + 2 is made before v + 1 is *settled*:
 *
 * (a) *A majority of v + 1 refuses v, durably.* It meets every majority of v, so nothing that was begun under v is
 *     finished any more. A voter answers messages of its own version only, and never goes back to an older one.
 * (b) *Every register is prepared and accepted anew under v + 1* (the identity change; settling.ts), so each majority of
 *     v + 1, and thereby of v + 2, meets the values and promises of v. The new prepare matters as much as the value: a
 *     proposer of v may have left its accept with one voter before (a). Its ballot was promised by a majority of v, which meets
 *     the majority that prepares now, so the new ballot is higher; and a proposer of v + 2, which might meet nobody who
 *     made that promise, meets this one. Registers are found by asking a majority of v + 1 that is at v + 1 for its keys, those with
 *     nothing but a promise included: it meets every majority that accepted or promised anything under v.
 * (c) *Leases counted under v are over* (lease/voter.ts, 7).
 *
 * `since` tells two terms of office of one peer apart. A peer that was removed and comes back may have missed that a
 * register was deleted and forgotten by all others. So what it has accepted belongs to one term, and is void in the next.
 */
import type { PeerId } from '../core.ts'

export interface VoterSet {
  /** Grows by one with each change; the first is 1. */
  readonly version: number
  readonly ids: readonly PeerId[]
  /** Voter → the version in which it became one, this time. */
  readonly since: Readonly<Record<PeerId, number>>
  /** (a), (b) and (c) are done: the next change may be made. */
  readonly settled: boolean
}

/** How many of `count` voters decide. */
export const majorityOf = (count: number): number => Math.floor(count / 2) + 1

/** The set that a cluster begins with. */
export function firstVoters(ids: readonly PeerId[]): VoterSet {
  return { version: 1, ids, since: Object.fromEntries(ids.map(id => [id, 1])), settled: true }
}

/** The next set, with these voters: one more or one less, which is the caller's to see to. */
export function nextVoters(set: VoterSet, ids: readonly PeerId[]): VoterSet {
  const version = set.version + 1
  return { version, ids, since: Object.fromEntries(ids.map(id => [id, set.since[id] ?? version])), settled: false }
}

/** The version in which this peer's present term as a voter began; 0 where it does not vote. */
export const termOf = (set: VoterSet, peer: PeerId): number =>
  set.ids.includes(peer) ? (set.since[peer] ?? set.version) : 0

export const sameVoters = (a: VoterSet, b: VoterSet): boolean =>
  a.ids.length === b.ids.length && a.ids.every(id => b.ids.includes(id))

/** As many as `parseVoterSet` takes. Each decision waits for a majority's disks: more would only make them slower. */
const MAX_IDS = 100

/** Also for sets read from disk. Throws a TypeError on anything that is not a voter set. */
export function parseVoterSet(raw: unknown): VoterSet {
  if (typeof raw !== 'object' || raw === null) throw new TypeError('no voter set')
  const { version, ids, since, settled } = raw as Record<string, unknown>
  const fits =
    isVersion(version) &&
    Array.isArray(ids) &&
    ids.length > 0 &&
    ids.length <= MAX_IDS &&
    ids.every(id => typeof id === 'string' && id.length > 0 && id.length <= 128) &&
    new Set(ids).size === ids.length &&
    typeof since === 'object' &&
    since !== null &&
    typeof settled === 'boolean'
  if (!fits) throw new TypeError('no voter set')
  const began = since as Record<string, unknown>
  const entries = (ids as PeerId[]).map(id => {
    const at = began[id]
    if (!isVersion(at) || at > version) throw new TypeError('no voter set')
    return [id, at] as const
  })
  return { version, ids: ids as PeerId[], since: Object.fromEntries(entries), settled }
}

function isVersion(raw: unknown): raw is number {
  return typeof raw === 'number' && Number.isSafeInteger(raw) && raw > 0
}
