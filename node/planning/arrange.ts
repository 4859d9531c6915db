/**
 * In which order peers stand that have been chosen to hold columns: columns beside each other (the last and the first are,
 * too) in different racks if that can be, then in different hosts and peers, then in different sites. A burst of failures in one
 * place then falls on columns far apart, whose diagonals share fewer symbols. Pure.
 *
 * Whoever was there before stays where it was; the others fill what is free; then columns change places in pairs as long as that
 * separates some. Where that ends with neighbours in one rack although no rack has more than half of all columns, they
 * are dealt anew, rack by rack to every second place, which always separates them.
 */
import type { PeerId } from '../../protocols/core.ts'
import { LEVELS, type Level } from './domains.ts'

type Domains = ReadonlyMap<PeerId, Readonly<Record<Level, string>>>

/** What two columns beside each other cost that share a domain: no number of smaller ones is worth a larger. */
const COSTS: Readonly<Record<Level | 'peer', number>> = { rack: 1_000_000, host: 1_000, peer: 1_000, site: 1 }

/** `chosen`: each as often as it gets a column; `before`: who had column c. */
export function arrange(chosen: readonly PeerId[], before: readonly PeerId[], domains: Domains): PeerId[] {
  const filled = separated(fill(chosen, before, domains), domains)
  if (rackNeighbours(filled, domains) === 0 || !separable(filled, domains)) return filled
  return separated(dealt(filled, domains), domains)
}

function fill(chosen: readonly PeerId[], before: readonly PeerId[], domains: Domains): PeerId[] {
  const left = [...chosen]
  const plan = chosen.map((_, column): PeerId | undefined => {
    const at = left.indexOf(before[column] ?? '')
    return at === -1 ? undefined : left.splice(at, 1)[0]
  })
  for (const [column, holder] of plan.entries()) {
    if (holder !== undefined) continue
    const costs = left.map(
      peer => costBeside(peer, plan.at(column - 1), domains) + costBeside(peer, plan[column + 1], domains)
    )
    plan[column] = left.splice(costs.indexOf(Math.min(...costs)), 1)[0]
  }
  return plan as PeerId[]
}

/** Changes places in pairs, each time those that gain the most. */
function separated(start: readonly PeerId[], domains: Domains): PeerId[] {
  const plan = [...start]
  for (;;) {
    let best: { a: number; b: number; cost: number } | undefined
    const now = costOf(plan, domains)
    for (let a = 0; a < plan.length && now > 0; a++) {
      for (let b = a + 1; b < plan.length; b++) {
        swap(plan, a, b)
        const cost = costOf(plan, domains)
        swap(plan, a, b)
        if (cost < (best?.cost ?? now)) best = { a, b, cost }
      }
    }
    if (best === undefined) return plan
    swap(plan, best.a, best.b)
  }
}

function swap(plan: PeerId[], a: number, b: number): void {
  const held = plan[a] as PeerId
  plan[a] = plan[b] as PeerId
  plan[b] = held
}

function costOf(plan: readonly PeerId[], domains: Domains): number {
  return plan.reduce((sum, peer, column) => sum + costBeside(peer, plan[(column + 1) % plan.length], domains), 0)
}

function costBeside(a: PeerId, b: PeerId | undefined, domains: Domains): number {
  if (b === undefined) return 0
  const [one, other] = [domains.get(a), domains.get(b)]
  const shared = LEVELS.filter(level => one?.[level] === other?.[level])
  return shared.reduce((sum, level) => sum + COSTS[level], a === b ? COSTS.peer : 0)
}

const rackNeighbours = (plan: readonly PeerId[], domains: Domains): number =>
  Math.floor(costOf(plan, domains) / COSTS.rack)

function byRack(plan: readonly PeerId[], domains: Domains): PeerId[][] {
  const racks = Map.groupBy(plan, peer => domains.get(peer)?.rack ?? '')
  return [...racks.values()].sort((a, b) => b.length - a.length)
}

const separable = (plan: readonly PeerId[], domains: Domains): boolean =>
  (byRack(plan, domains)[0]?.length ?? 0) <= Math.floor(plan.length / 2)

/** The largest rack first to places 0, 2, 4 …, then 1, 3, 5 … */
function dealt(plan: readonly PeerId[], domains: Domains): PeerId[] {
  const order = byRack(plan, domains).flat()
  const evens = Math.ceil(plan.length / 2)
  return plan.map((_, column) => order[column % 2 === 0 ? column / 2 : evens + (column - 1) / 2] as PeerId)
}
