/**
 * Which facts are the same again: a takeover that cannot be decided is tried several times a second, a lease is renewed
 * five times a second, and the cause of it all must not be pushed out of a bounded log by either.
 */
import type { Fact } from './facts.ts'

/** Facts with equal keys say the same; undefined for a fact that stands for itself each time. */
export function repeatKey(fact: Fact): string | undefined {
  switch (fact.kind) {
    case 'lease':
      // Each VM of a host asks for its group's lease.
      return fact.event === 'renewed' || fact.event === 'granted' ? `${fact.event} ${fact.generation}` : undefined
    case 'plan':
      return `plan ${fact.generation} ${JSON.stringify(fact.owners)}`
    case 'ballot': {
      const votes = fact.votes.map(({ peer, vote }) => `${peer} ${vote}`).sort()
      return `ballot ${fact.outcome} ${votes.join()}`
    }
    case 'takeover-waits':
      return `waits ${fact.generation} ${fact.why}`
    case 'restart-waits':
      return `restart ${fact.generation}`
    case 'accused':
      return `accused ${fact.by} ${fact.of}`
    default:
      return undefined
  }
}

/** One fact for both: the newer, but of renewals the least that was left. */
export function joinRepeat(older: Fact, newer: Fact): Fact {
  if (older.kind !== 'lease' || newer.kind !== 'lease') return newer
  return { ...newer, leftMs: Math.min(older.leftMs, newer.leftMs) }
}
