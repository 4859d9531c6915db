/** How long it takes until a crash is known: to the first peer that declares it, and to the last one that hears of it. */
import type { Extensions } from '../../protocols/failure-detector/view.ts'
import { Beliefs } from './detection-beliefs.ts'
import { idOf, WARM_UP_MS } from './detection-load.ts'
import { type Observed, SwimWorld } from './swim-world.ts'

/** A killed process has its connections broken by its kernel; a host that vanishes breaks none. */
export type Crash = 'killed' | 'vanished'

export interface Times {
  readonly median: number
  readonly p99: number
}

export interface Detection {
  readonly crashes: number
  readonly firstMs: Times
  readonly lastMs: Times
  /** Crashes that somebody did not know of after GIVE_UP_MS. */
  readonly missed: number
  /** Others that were declared dead meanwhile. */
  readonly falseDeaths: number
}

/** So many crash in a batch, within SPREAD_MS: one, or 2 % of the peers. */
const batchOf = (peers: number): number => Math.max(1, Math.floor(peers / 50))
const SPREAD_MS = 1_000
const GIVE_UP_MS = 20_000
/** After all are back. */
const SETTLE_MS = 1_000

export function measureCrashes(
  seed: number,
  peers: number,
  crash: Crash,
  crashes: number,
  extensions: Extensions
): Detection {
  const batch = batchOf(peers)
  const beliefs = new Beliefs()
  const crashedMs = new Map<string, number>()
  const victims = new Set<string>()
  const firstMs: number[] = []
  const lastMs: number[] = []
  let known = 0
  let missed = 0
  let falseDeaths = 0
  const onObserved = (seen: Observed): void => {
    if (victims.has(seen.by)) return
    beliefs.take(seen)
    if (seen.liveness !== 'dead') return
    const holders = beliefs.holders(seen.peer)
    const tookMs = seen.atMs - (crashedMs.get(seen.peer) ?? Number.NaN)
    if (Number.isNaN(tookMs)) falseDeaths += holders === 1 ? 1 : 0
    else {
      if (holders === 1) firstMs.push(tookMs)
      if (holders !== peers - batch) return
      lastMs.push(tookMs)
      known++
    }
  }
  const world = new SwimWorld(seed, peers, { idOf, extensions, onObserved })
  world.run(WARM_UP_MS)
  for (let done = 0; done < crashes; done += batch) {
    known = 0
    for (const id of drawn(world, batch)) {
      victims.add(id)
      world.at(world.nowMs + world.random() * SPREAD_MS, () => {
        crashedMs.set(id, world.nowMs)
        world.kill(id, crash === 'killed')
      })
    }
    runUntil(world, () => known === batch, world.nowMs + SPREAD_MS + GIVE_UP_MS)
    missed += batch - known
    for (const id of victims) {
      world.restart(id, true)
      beliefs.restarted(id)
      crashedMs.delete(id)
    }
    victims.clear()
    runUntil(world, () => beliefs.clear, world.nowMs + GIVE_UP_MS)
    world.run(world.nowMs + SETTLE_MS)
  }
  return { crashes: firstMs.length, firstMs: times(firstMs), lastMs: times(lastMs), missed, falseDeaths }
}

function drawn(world: SwimWorld, count: number): string[] {
  const ids = world.nodes.map(node => node.id)
  return Array.from({ length: count }, () => ids.splice(Math.floor(world.random() * ids.length), 1)[0] as string)
}

export function runUntil(world: SwimWorld, what: () => boolean, limitMs: number): void {
  while (!what() && world.nowMs < limitMs) world.run(Math.min(limitMs, world.nowMs + 100))
}

function times(list: number[]): Times {
  const sorted = list.sort((a, b) => a - b)
  const at = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Infinity
  return { median: at(0.5), p99: at(0.99) }
}
