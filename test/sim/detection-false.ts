/** How often a live, connected member is declared dead. */
import type { PeerId } from '../../protocols/core.ts'
import type { Extensions } from '../../protocols/failure-detector/view.ts'
import { Beliefs } from './detection-beliefs.ts'
import { runUntil } from './detection-crashes.ts'
import { idOf, type Load, LoadMeter, WARM_UP_MS } from './detection-load.ts'
import { SwimWorld } from './swim-world.ts'

/**
 * What is wrong: so much of all messages is lost, or a tenth of the peers gets no CPU but for moments.
 *
 * The latter as in the interval experiments of the Lifeguard paper: a starved peer stands still for `stopMs`, handles for
 * GO_MS all that has come meanwhile (timers first, as Node does), and stands still again; each from a moment of its own.
 */
export type Trouble =
  | { readonly kind: 'loss'; readonly loss: number }
  | { readonly kind: 'starved'; readonly stopMs: number }

export const GO_MS = 4

export interface FalseDeaths {
  readonly peerHours: number
  /** Times that a live member was dead to anybody, by hour of a peer's life. */
  readonly deathsPerHour: number
  /** The same of members that are well, and of starved ones, by hour of such a member's life. */
  readonly wellPerHour: number
  readonly starvedPerHour: number
  /** How many views of other peers were wrong, by hour of a peer's life. */
  readonly viewsPerHour: number
  /** The longest time for which one peer held a live member dead. */
  readonly longestMs: number
  /** From the end of the trouble until all views are right; GIVE_UP_MS where they are not even then. */
  readonly convergedMs: number
  readonly load: Load
}

const GIVE_UP_MS = 30_000

export function measureFalseDeaths(
  seed: number,
  peers: number,
  forMs: number,
  trouble: Trouble,
  extensions: Extensions
): FalseDeaths {
  const beliefs = new Beliefs()
  const meter = new LoadMeter()
  const starved = new Set<PeerId>()
  const counts = { well: 0, starved: 0, views: 0, longestMs: 0 }
  const world = new SwimWorld(seed, peers, {
    idOf,
    extensions,
    onSent: message => meter.count(message),
    onObserved: seen => {
      if (seen.liveness === 'dead') {
        counts.views++
        if (beliefs.holders(seen.peer) === 0) counts[starved.has(seen.peer) ? 'starved' : 'well']++
      }
      const sinceMs = beliefs.since(seen.peer, seen.by)
      if (seen.liveness === 'alive' && sinceMs !== undefined) {
        counts.longestMs = Math.max(counts.longestMs, seen.atMs - sinceMs)
      }
      beliefs.take(seen)
    }
  })
  world.run(WARM_UP_MS)
  const endMs = WARM_UP_MS + forMs
  if (trouble.kind === 'loss') world.loss = trouble.loss
  else starve(world, trouble.stopMs, endMs, starved)
  meter.read(peers, world.nowMs)
  world.run(endMs)
  const load = meter.read(peers, world.nowMs)
  world.loss = 0
  runUntil(world, () => beliefs.clear, endMs + GIVE_UP_MS)
  const hours = forMs / 3_600_000
  return {
    peerHours: peers * hours,
    deathsPerHour: (counts.well + counts.starved) / (peers * hours),
    wellPerHour: counts.well / ((peers - starved.size) * hours),
    starvedPerHour: starved.size === 0 ? 0 : counts.starved / (starved.size * hours),
    viewsPerHour: counts.views / (peers * hours),
    longestMs: counts.longestMs,
    convergedMs: world.nowMs - endMs,
    load
  }
}

/** A tenth of the peers, at least one, until then. */
function starve(world: SwimWorld, stopMs: number, endMs: number, starved: Set<PeerId>): void {
  for (const { id } of world.nodes.slice(0, Math.max(1, Math.floor(world.nodes.length / 10)))) {
    starved.add(id)
    const cycle = (): void => {
      if (world.nowMs >= endMs) return
      world.pause(id, Math.min(stopMs, endMs - world.nowMs))
      world.at(world.nowMs + stopMs + GO_MS, cycle)
    }
    world.at(world.nowMs + world.random() * (stopMs + GO_MS), cycle)
  }
}
