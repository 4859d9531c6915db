/** How long the parts of a failover took before, from what peers noted of a VM and its group (`diapause why` shows the same). Pure. */
import type { Told } from '../../protocols/decisions/facts.ts'

/** Of the last time; absent: it has not happened, or nobody remembers. */
export interface MeasuredParts {
  /** From the first suspicion of a host to its being declared dead. */
  readonly detectMs?: number
  /** From then to the next generation, which gives its VMs to others: plan, leases that run out, votes. */
  readonly decideMs?: number
  /** From the decision to the VM running. */
  readonly resumeMs?: number
}

/** A decision that comes later than this after a death has another cause. A guess. */
const DECIDED_WITHIN_MS = 60_000

/** `told`: in one order, as `mergeAccounts` makes it. */
export function measuredParts(told: readonly Told[], vm: string): MeasuredParts {
  let parts: MeasuredParts = {}
  const suspectedMs = new Map<string, number>()
  const deadMs = new Map<string, number>()
  const generations = new Set<number>()
  for (const { atMs, fact } of told) {
    if (fact.kind === 'suspected' && !suspectedMs.has(fact.peer)) suspectedMs.set(fact.peer, atMs)
    else if (fact.kind === 'refuted') {
      suspectedMs.delete(fact.peer)
      deadMs.delete(fact.peer)
    } else if (fact.kind === 'declared-dead' && !deadMs.has(fact.peer)) {
      deadMs.set(fact.peer, atMs)
      const since = suspectedMs.get(fact.peer)
      if (since !== undefined) parts = { ...parts, detectMs: Math.max(0, atMs - since) }
    } else if (fact.kind === 'peer-started') {
      suspectedMs.delete(fact.peer)
      deadMs.delete(fact.peer)
    } else if (fact.kind === 'generation' && fact.how === 'changed' && !generations.has(fact.generation)) {
      generations.add(fact.generation)
      const died = Object.values(fact.displaced).flatMap(owner => deadMs.get(owner) ?? [])
      const took = atMs - Math.min(...died)
      if (died.length > 0 && took >= 0 && took <= DECIDED_WITHIN_MS) parts = { ...parts, decideMs: took }
    } else if (fact.kind === 'vm' && fact.vm === vm && fact.event === 'resumed' && fact.tookMs > 0) {
      parts = { ...parts, resumeMs: fact.tookMs }
    }
  }
  return parts
}
