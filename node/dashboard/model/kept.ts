/**
 * Which events the page keeps. Pure. 100 VMs make 200 events an epoch that say that all is as ever; they must not push out the
 * failover of an hour ago.
 */
import type { ClusterEvent } from '../../edge/cluster-events-view.ts'

/** Each VM of each epoch makes some. */
export const isRoutine = ({ kind }: { readonly kind: string }): boolean =>
  /^(cut|epoch\.(opened|durable|committed))$/.test(kind)

/** A failover of 100 VMs makes some 300 that are not routine. A guess: what one scrolls through. */
export const MAX_ROUTINE = 1_000
export const MAX_OTHERS = 2_000

/** The newest of each kind, in their order. */
export function keptOf(events: readonly ClusterEvent[]): readonly ClusterEvent[] {
  let [routine, others] = [0, 0]
  const keeps = new Set<ClusterEvent>()
  for (const event of events.toReversed()) {
    const isKept = isRoutine(event) ? routine++ < MAX_ROUTINE : others++ < MAX_OTHERS
    if (isKept) keeps.add(event)
  }
  return keeps.size === events.length ? events : events.filter(event => keeps.has(event))
}
