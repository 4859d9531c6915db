/** The cluster at a glance, of what this peer knows and the others say of themselves: pure. */
import type { EpochPolicy } from '../../config/policy.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { GroupRecord } from '../../protocols/group.ts'
import { MAX_ANSWER_BYTES } from '../../protocols/overview/messages.ts'
import type { OwnReport } from '../../protocols/overview/report.ts'
import type { Heard, Silent } from '../../protocols/overview/shell.ts'
import type {
  MemberReport,
  Overview,
  OverviewGroup,
  OverviewMember,
  OverviewVm,
  VmState
} from '../edge/overview-view.ts'
import type { RedundancyStatus } from '../edge/redundancy-view.ts'
import type { PeerStatus } from '../edge/view.ts'
import { withLoss } from '../planning/outlook.ts'
import { overdueMs } from '../planning/policies/overdue.ts'

export interface OverviewFacts {
  readonly status: PeerStatus
  readonly nowMs: number
  /** Members that are to leave. */
  readonly leaving: ReadonlySet<PeerId>
  /** What each has said that it gives to VMs. */
  readonly vmMemoryMiB: ReadonlyMap<PeerId, number>
  /** This peer's own among them. */
  readonly heard: readonly Heard<OwnReport>[]
  readonly silent: readonly Silent[]
  /** When an epoch was committed, where this peer saw it and the record does not say so. */
  committedMs(group: string, epoch: number): number | undefined
  /** By which policy its epochs are taken. Undefined: on request only. */
  policyOf(record: GroupRecord): EpochPolicy | undefined
}

/** What a peer says of itself. Outlooks are left out where they are too many for an answer. */
export function reportOf(status: PeerStatus): OwnReport {
  const { version, uptimeMs, hypervisor, capture, store } = status
  const groups = status.groups.map(({ record, running, captures, leaseRemainingMs, outlooks }) => ({
    id: record.id,
    generation: record.generation,
    leaseRemainingMs,
    running: running.map(vm => ({ vm, capture: captures[vm]?.mode })),
    ...(outlooks !== undefined && { outlooks: { ...outlooks } })
  }))
  const report = {
    version,
    uptimeMs,
    hypervisor,
    capture: capture?.mode ?? null,
    store,
    redundancy: redundancyOf(status.redundancy),
    standbys: (status.standbys ?? []).map(({ group, vm, state, epoch = 0 }) => ({ group, vm, state, epoch })),
    groups: groups.filter(({ running, leaseRemainingMs }) => running.length > 0 || leaseRemainingMs > 0)
  }
  if (JSON.stringify(report).length <= MAX_ANSWER_BYTES) return report
  return { ...report, groups: report.groups.map(group => ({ ...group, outlooks: undefined })) }
}

function redundancyOf(status: RedundancyStatus | null): OwnReport['redundancy'] {
  if (status === null) return null
  const { exposed, repaired, scrubbed } = status
  return {
    exposed: exposed.length,
    tolerates: exposed.length === 0 ? null : Math.min(...exposed.map(({ tolerates }) => tolerates)),
    repairedColumns: repaired.columns,
    repairedBytes: repaired.bytes,
    due: repaired.due,
    damaged: scrubbed?.damaged ?? 0
  }
}

export function overviewOf(facts: OverviewFacts): Overview {
  const { status, nowMs, heard } = facts
  const records = status.groups.map(({ record }) => record)
  const reports = new Map(heard.map(each => [each.by, each]))
  return {
    cluster: status.cluster,
    by: status.id,
    nowMs,
    code: status.code,
    members: membersOf(facts, reports, records),
    groups: records.map(record => groupOf(record, facts)),
    vms: records.flatMap(record => vmsOf(record, facts, reports))
  }
}

type Reports = ReadonlyMap<PeerId, Heard<OwnReport>>

function membersOf(
  { status, leaving, vmMemoryMiB, silent }: OverviewFacts,
  reports: Reports,
  records: readonly GroupRecord[]
): OverviewMember[] {
  const used = new Map<PeerId, number>()
  for (const { vms, owners, resting } of records) {
    if (resting) continue
    for (const { id, memoryMiB } of vms) {
      const owner = owners[id] ?? ''
      used.set(owner, (used.get(owner) ?? 0) + memoryMiB)
    }
  }
  return status.members.map(member => {
    const report = reports.get(member.id)
    const gives = vmMemoryMiB.get(member.id)
    const why = silent.find(({ peer }) => peer === member.id)?.why
    return {
      ...member,
      self: member.id === status.id,
      leaving: leaving.has(member.id),
      ...(gives !== undefined && { vmMemoryMiB: gives }),
      usedMemoryMiB: used.get(member.id) ?? 0,
      report: report === undefined ? null : shown(report),
      ...(report === undefined && { silent: why ?? 'it was not asked' })
    }
  })
}

function shown({ aheadMs, value }: Heard<OwnReport>): MemberReport {
  const { groups: _, ...report } = value
  return { ...report, aheadMs }
}

function groupOf(record: GroupRecord, facts: OverviewFacts): OverviewGroup {
  const { id, generation, committed, open, resting, kept = [], outputCommit, openFlow, drills } = record
  const committedMs = committedMsOf(record, facts)
  const overdue = resting ? undefined : overdueMs(facts.policyOf(record), committedMs, facts.nowMs)
  return {
    id,
    generation,
    epoch: committed?.epoch ?? 0,
    ...(committedMs !== undefined && { committedMs }),
    ...(overdue !== undefined && { overdueMs: overdue }),
    open: open?.epoch ?? null,
    ...(resting && { resting }),
    kept: kept.length + (committed === null ? 0 : 1),
    outputCommit: outputCommit === true,
    openFlow: openFlow === true,
    ...(drills !== undefined && { drills: { schedule: drills.schedule, last: drills.last } })
  }
}

const committedMsOf = ({ id, committed }: GroupRecord, facts: OverviewFacts): number | undefined =>
  committed?.wallMs ?? facts.committedMs(id, committed?.epoch ?? 0)

/**
 * What a VM would lose, by the clock and at the moment by which the age of its epoch is told: so the two agree. Undefined: that is not
 * the time since the epoch, but since the VM went on from it, which its host knows.
 */
function lossOf(record: GroupRecord, facts: OverviewFacts): number | undefined {
  const { committed, generation } = record
  const sinceMs = committedMsOf(record, facts)
  if (committed === null || committed.generation < generation || sinceMs === undefined) return undefined
  return Math.max(0, facts.nowMs - sinceMs)
}

function vmsOf(record: GroupRecord, facts: OverviewFacts, reports: Reports): OverviewVm[] {
  const { members } = facts.status
  const lossMs = lossOf(record, facts)
  return record.vms.map(({ id: vm, memoryMiB, cpus = 1, objective }) => {
    const owner = record.owners[vm] ?? ''
    const report = reports.get(owner)?.value
    const there = report?.groups.find(({ id }) => id === record.id)
    // A host that is a generation behind runs what is about to be ended.
    const running =
      there !== undefined && there.generation >= record.generation
        ? there.running.find(each => each.vm === vm)
        : undefined
    const isDead = (members.find(({ id }) => id === owner)?.liveness ?? 'dead') === 'dead'
    const told = there?.outlooks?.[vm]
    const outlook = told === undefined || lossMs === undefined ? told : withLoss(told, objective, lossMs)
    return {
      group: record.id,
      vm,
      owner,
      state: record.resting ? 'resting' : stateOf(running !== undefined, report !== undefined, isDead),
      memoryMiB,
      cpus,
      ...(running?.capture !== undefined && { capture: running.capture }),
      leaseRemainingMs: there?.leaseRemainingMs ?? 0,
      ...(objective !== undefined && { objective }),
      ...(outlook !== undefined && { outlook })
    }
  })
}

function stateOf(runs: boolean, answers: boolean, isDead: boolean): VmState {
  if (runs) return 'running'
  if (answers) return 'starting'
  return isDead ? 'lost' : 'unknown'
}
