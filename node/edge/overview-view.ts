/**
 * The whole cluster at a glance, as one peer gathers it from all: what a dashboard's first page shows. Part of `ReadModels`.
 * Members are named by their ids; `members` says how they are called.
 */
import type { Labels } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { DrillOutcome, DrillSchedule, VmObjective } from '../../protocols/group.ts'
import type { VmOutlook } from '../../protocols/overview/outlook.ts'
import type { Liveness } from '../ports.ts'
import type { CodeStatus } from './cluster-view.ts'

export interface OverviewView {
  /**
   * Asks every member that is within reach what it runs and stores, and waits a second at most. Whoever asks within
   * a second is told the same once more.
   */
  overview(): Promise<Overview>
}

export interface Overview {
  readonly cluster: string
  /** Who was asked. All that is not in a `report` is as it knows it. */
  readonly by: PeerId
  /** Its wall clock. */
  readonly nowMs: number
  readonly code: CodeStatus
  readonly members: readonly OverviewMember[]
  readonly groups: readonly OverviewGroup[]
  readonly vms: readonly OverviewVm[]
}

export interface OverviewMember {
  readonly id: PeerId
  readonly name: string
  readonly address: string
  readonly role: 'storage' | 'witness'
  readonly votes: boolean
  readonly self: boolean
  readonly leaving: boolean
  readonly liveness: Liveness
  readonly connected: boolean
  readonly labels?: Labels | undefined
  /** What its store may still take, at least; 0: it is full. Absent: it has not said so. */
  readonly freeBytes?: number | undefined
  /** MiB of RAM that it gives to VMs, and that VMs which it owns have of it. Absent: it has not said so. */
  readonly vmMemoryMiB?: number | undefined
  readonly usedMemoryMiB: number
  /** What it says of itself; null: it did not answer, and `silent` says why. */
  readonly report: MemberReport | null
  readonly silent?: string | undefined
}

/** What a member says of itself when it is asked. */
export interface MemberReport {
  readonly version: string
  readonly uptimeMs: number
  /** Its wall clock less that of who asked; 0 where that may be chance. */
  readonly aheadMs: number
  readonly hypervisor: string
  /** How its VMs are cut, if nothing else is said of one; null: it runs none (a witness). */
  readonly capture: string | null
  readonly store: { readonly streams: number; readonly manifests: number; readonly bytes: number }
  /** Null: it stores nothing. */
  readonly redundancy: MemberRedundancy | null
  readonly standbys: readonly {
    readonly group: string
    readonly vm: string
    readonly state: string
    readonly epoch: number
  }[]
}

/** As it was when that member last looked, and what it has done since it started. */
export interface MemberRedundancy {
  /** Images, of all that are kept, of which columns are missing or that could bear more losses. */
  readonly exposed: number
  /** The fewest members that may vanish without loss of such an image; null: none is exposed. */
  readonly tolerates: number | null
  readonly repairedColumns: number
  readonly repairedBytes: number
  /** Columns that it is to rebuild and has not yet. */
  readonly due: number
  readonly damaged: number
}

export interface OverviewGroup {
  readonly id: string
  readonly generation: number
  /** The last committed epoch; 0: none yet. `committedMs`: when, by the wall clock of whoever committed it. */
  readonly epoch: number
  readonly committedMs?: number | undefined
  /** For how long nothing was committed, where its policy would have had epochs since; absent: it is saved as often as it should be. */
  readonly overdueMs?: number | undefined
  /** The epoch that is being taken. */
  readonly open: number | null
  /** It rests: its VMs were ended by hand, and start when somebody says so. */
  readonly resting?: true | undefined
  /** How many epochs can be restored. */
  readonly kept: number
  readonly outputCommit: boolean
  readonly openFlow: boolean
  readonly drills?:
    | { readonly schedule?: DrillSchedule | undefined; readonly last?: DrillOutcome | undefined }
    | undefined
}

/**
 * running: its host says so. starting: its host answers, and does not run it yet. lost: its host is dead, or nobody owns it.
 * unknown: its host does not answer. resting: it is not to run, because its group rests.
 */
export type VmState = 'running' | 'starting' | 'lost' | 'unknown' | 'resting'

export interface OverviewVm {
  readonly group: string
  readonly vm: string
  /** The member that is to run it in this generation. */
  readonly owner: PeerId
  readonly state: VmState
  readonly memoryMiB: number
  readonly cpus: number
  /** How it is cut now: 'dirty' or 'portable'. Absent: it does not run. */
  readonly capture?: string | undefined
  /** For how long its host may still run it without a renewal, when it answered. */
  readonly leaseRemainingMs: number
  readonly objective?: VmObjective | undefined
  /** What it would mean if its host died now. Absent: not known yet. */
  readonly outlook?: VmOutlook | undefined
}
