/** Facts of the decision log, made of what other parts of a peer have in hand. Pure. */
import type { PeerId } from '../../protocols/core.ts'
import { brief, type Fact, type FactOf, MAX_ROOM } from '../../protocols/decisions/facts.ts'
import { type GroupRecord, groupKey } from '../../protocols/group.ts'
import type { LeaseTrace } from '../../protocols/lease/shell.ts'
import type { DecisionTrace } from '../../protocols/register/trace.ts'
import { DiapauseError, messageOf } from '../errors.ts'
import type { Placement } from '../planning/placement.ts'

/** What a generation changes, against the one noted before. */
export function factOfGeneration(record: GroupRecord, before: FactOf<'generation'> | undefined): FactOf<'generation'> {
  const made = record.generation === 1 || before?.how === 'removed'
  const heard = before === undefined ? 'heard' : 'changed'
  const how = record.removed ? 'removed' : record.resting ? 'rests' : made ? 'made' : heard
  const owners = how === 'changed' ? (before?.owners ?? {}) : {}
  const displaced = Object.entries(owners).filter(([vm, owner]) => record.owners[vm] !== owner)
  return {
    kind: 'generation',
    group: record.id,
    generation: record.generation,
    epoch: record.committed?.epoch ?? 0,
    owners: record.owners,
    displaced: Object.fromEntries(displaced),
    how
  }
}

/** A plan for the generation after the record's. */
export function factOfPlan({ id, generation }: GroupRecord, { owners, moves }: Placement): Fact {
  const told = moves.map(({ vm, to, ground, promised }) => ({
    vm: vm.id,
    to,
    ground,
    memoryMiB: vm.memoryMiB,
    promised: promised.slice(0, MAX_ROOM)
  }))
  return { kind: 'plan', group: id, generation, owners, moves: told }
}

const waits: Readonly<Record<string, FactOf<'takeover-waits'>['why']>> = {
  REGISTER_LEASED: 'lease',
  REGISTER_UNAVAILABLE: 'no-majority',
  REGISTER_CONTENDED: 'contended',
  TAKEOVER_NO_HOST: 'no-host'
}

/** What stands in the way of a takeover, as the error says that ended the last try. */
export function factOfWait({ id, generation }: GroupRecord, error: unknown, retryMs: number): Fact {
  const why = (error instanceof DiapauseError ? waits[error.code] : undefined) ?? 'error'
  return { kind: 'takeover-waits', group: id, generation, why, retryMs, text: brief(messageOf(error)) }
}

/** The group of a register's key; undefined for registers of anything else. */
export function groupOf(key: string): string | undefined {
  return key.startsWith(groupKey('')) ? key.slice(groupKey('').length) : undefined
}

/** `voters`: all that were asked; who has not answered was silent. */
export function factOfBallot(group: string, trace: DecisionTrace, voters: readonly PeerId[]): Fact {
  const { ballot, outcome, rounds, tookMs, leaseMs } = trace
  const asked = ballot === undefined ? [] : [...new Set([...voters, ...Object.keys(trace.votes)])].sort()
  const votes = asked.map(peer => {
    const left = leaseMs[peer]
    return { peer, vote: trace.votes[peer] ?? ('silent' as const), ...(left === undefined ? {} : { leaseMs: left }) }
  })
  return { kind: 'ballot', group, counter: ballot?.counter ?? 0, outcome, rounds, tookMs, votes }
}

/** `vms`: those that are paused or go on by it. */
export function factOfLease(group: string, trace: LeaseTrace, vms: readonly string[]): Fact {
  const { kind, generation, remainingMs, grantedBy, newer } = trace
  const lease = {
    kind: 'lease',
    group,
    generation,
    event: kind === 'acquired' ? 'granted' : kind,
    leftMs: remainingMs
  } as const
  return { ...lease, granted: grantedBy, vms, newer: newer ?? 0 }
}

type Fields = Readonly<Record<string, unknown>>

/** The fact in a report (`Report`); undefined for those that do not say where VMs run. */
export function factOfReport(kind: string, fields: Fields): Fact | undefined {
  switch (kind) {
    case 'vm.started':
      return vmFact('booted', fields)
    case 'vm.resumed':
      return vmFact('resumed', fields)
    case 'vm.complete':
      return vmFact('complete', fields)
    case 'vm.destroyed':
      return vmFact('ended', fields)
    case 'vm.failed':
      return { kind: 'vm-failed', ...vmOf(fields), why: brief(text(fields['reason'])) }
    default:
      return undefined
  }
}

const vmOf = (fields: Fields): { group: string; vm: string; generation: number } => ({
  group: text(fields['group']),
  vm: text(fields['vm']),
  generation: number(fields['generation'])
})

function vmFact(event: FactOf<'vm'>['event'], fields: Fields): Fact {
  return { kind: 'vm', ...vmOf(fields), event, epoch: number(fields['epoch']), tookMs: number(fields['spawnToRunMs']) }
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '')
const number = (value: unknown): number => (typeof value === 'number' ? value : 0)
