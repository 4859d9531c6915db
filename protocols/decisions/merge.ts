/**
 * The entries of several peers as one story. Order is by wall clock, but entries of one peer never change places: its
 * clock may have been set while it noted them. A peer whose clock is plainly wrong is shown by ours, as its answer told
 * how far off it is; else its suspicion would come after the takeover that it led to.
 */
import type { PeerId } from '../core.ts'
import type { Entry, Told } from './facts.ts'

/** One peer's answer. `aheadMs`: its wall clock less ours; 0 of ourselves. */
export interface Account {
  readonly by: PeerId
  readonly aheadMs: number
  readonly entries: readonly Entry[]
}

/** Clocks that agree better than this are left alone: hosts that keep time by NTP are within some 10 ms. A guess. */
export const CLOCK_TOLERANCE_MS = 100

/**
 * How far another's wall clock is ahead of ours: it was `theirMs` there at some moment between `askedMs` and
 * `answeredMs` here (Cristian 1989). 0 where that may be chance.
 */
export function clockAheadMs(askedMs: number, theirMs: number, answeredMs: number): number {
  const errorMs = Math.max(0, answeredMs - askedMs) / 2
  const aheadMs = theirMs - (askedMs + errorMs)
  return Math.abs(aheadMs) > CLOCK_TOLERANCE_MS + errorMs ? aheadMs : 0
}

/** All entries in our time, the oldest first. */
export function mergeAccounts(accounts: readonly Account[]): Told[] {
  const queues = accounts.map(({ by, aheadMs, entries }) => ({
    at: 0,
    told: entries
      .toSorted((a, b) => a.seq - b.seq)
      .map(entry => ({ ...entry, atMs: entry.atMs - aheadMs, lastAtMs: entry.lastAtMs - aheadMs, by }))
  }))
  const merged: Told[] = []
  for (;;) {
    let next: (typeof queues)[number] | undefined
    for (const queue of queues) {
      const head = queue.told[queue.at]
      if (head !== undefined && head.atMs < (next?.told[next.at]?.atMs ?? Number.POSITIVE_INFINITY)) next = queue
    }
    const head = next?.told[next.at]
    if (next === undefined || head === undefined) return merged
    merged.push(head)
    next.at += 1
  }
}

/** Farther back than any log reaches: 100 years. */
export const MAX_AGO_MS = 3_155_760_000_000

/** About one VM of a group, and how far back. `here`: only what the peer that is asked noted itself. */
export interface WhyQuestion {
  readonly group: string
  readonly vm: string
  readonly agoMs: number
  readonly here: boolean
}

/** All that is known about one VM: what `why` shows. Times are of the wall clock of `by`. */
export interface Story {
  readonly group: string
  readonly vm: string
  /** The peer that was asked, and collected. */
  readonly by: PeerId
  readonly nowMs: number
  readonly names: Readonly<Record<PeerId, string>>
  /** As `by` knows the group's record; null where it knows none. */
  readonly record: {
    readonly owner: PeerId | null
    readonly generation: number
    readonly epoch: number
    readonly removed: boolean
  } | null
  readonly told: readonly Told[]
  /** Who has told; `left`: older entries that did not fit; `aheadMs`: how wrong its clock is, 0 where it is not. */
  readonly tellers: readonly { readonly peer: PeerId; readonly left: number; readonly aheadMs: number }[]
  readonly silent: readonly { readonly peer: PeerId; readonly why: string }[]
}
