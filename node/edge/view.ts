/**
 * What the edge shows of a peer and asks of it. `peer.ts` implements `PeerView`; the API serves it; client, CLI and demo
 * read the same types on the other side of the socket.
 */
import type { EpochPolicy } from '../../config/policy.ts'
import type { Labels } from '../../config/schema.ts'
import type { PeerId } from '../../protocols/core.ts'
import type { Story, WhyQuestion } from '../../protocols/decisions/merge.ts'
import type { GroupRecord, RetentionPolicy, VmSpec } from '../../protocols/group.ts'
import type { Removal } from '../../protocols/membership/join.ts'
import type { VmOutlook } from '../../protocols/overview/outlook.ts'
import type { StandbyStatus } from '../../protocols/overview/standby-status.ts'
import type { CaptureNow, Liveness, SwitchStats } from '../ports.ts'
import type { ClusterView, CodeStatus } from './cluster-view.ts'
import type { ConsoleView } from './console-view.ts'
import type { DrillView } from './drill-view.ts'
import type { EpochView } from './epoch-view.ts'
import type { EventFeed } from './events.ts'
import type { HomeView } from './home-view.ts'
import type { ImageView } from './image-view.ts'
import type { LogView } from './log-view.ts'
import type { MetricsView } from './metrics.ts'
import type { NotificationView } from './notification-view.ts'
import type { PlanView } from './plan-view.ts'
import type { PolicyView } from './policy-view.ts'
import type { ReadModels } from './read-models.ts'
import type { RedundancyStatus, RedundancyView } from './redundancy-view.ts'
import type { RestView } from './rest-view.ts'
import type { TokenView } from './token-view.ts'

/** What it shows and may be asked, a part to a file. */
export interface PeerParts {
  readonly events: EventFeed
  readonly cluster: ClusterView
  readonly images: ImageView
  readonly home: HomeView
  readonly redundancy: RedundancyView
  readonly epochs: EpochView
  readonly rest: RestView
  readonly drills: DrillView
  readonly consoles: ConsoleView
  readonly plans: PlanView
  readonly policies: PolicyView
  readonly tokens: TokenView
  readonly notifications: NotificationView
  readonly logging: LogView
  readonly metrics: MetricsView
  readonly reads: ReadModels
}

/** And what is about the whole peer, or its groups. */
export interface PeerItself {
  status(): Promise<PeerStatus>
  groups(): readonly GroupRecord[]
  /**
   * Rejects with GROUP_EXISTS, MEMBER_OLDER, or with what keeps its VMs from starting. Resolves when the record is decided; with
   * `dryRun` nothing is, and it tells what would have been.
   */
  createGroup(request: GroupRequest, options?: { readonly dryRun: boolean }): Promise<GroupRecord>
  /** Stops its VMs and forgets its snapshots. GROUP_UNKNOWN. */
  removeGroup(group: string): Promise<void>
  /**
   * Takes a snapshot of the group now, or after one that is under way; settles with what became of it. GROUP_UNKNOWN; EPOCH_OPEN
   * where others were first again and again; EPOCH_FORGOTTEN where the peer was away meanwhile; UsageError GROUP_RESTS.
   */
  takeEpoch(group: string): Promise<EpochResult>
  /** Why a VM was moved, or was not, as all peers that answer noted it. GROUP_UNKNOWN, VM_UNKNOWN. */
  why(question: WhyQuestion): Promise<Story>
}

export interface PeerView extends PeerParts, PeerItself {}

/** A new group. Owners are peer ids; the cluster places the VMs that have none. */
export interface GroupRequest {
  readonly id: string
  readonly vms: readonly VmSpec[]
  readonly owners: Readonly<Record<string, PeerId>>
  /** What its VMs send to the outside waits for the epoch that contains it. */
  readonly outputCommit: boolean
  /** Its own networks go through its hosts' Open vSwitch bridges. */
  readonly openFlow: boolean
  /** Which of its epochs are kept; absent: as the config of whoever commits them says. */
  readonly retention?: RetentionPolicy | undefined
  /** When its epochs are taken; absent: as the config of who owns its first VM says. */
  readonly policy?: EpochPolicy | undefined
}

export interface EpochResult {
  readonly epoch: number
  readonly outcome: 'committed' | 'aborted'
  /** Why it was aborted. */
  readonly reason?: string
}

export interface PeerStatus {
  readonly name: string
  readonly id: PeerId
  readonly version: string
  readonly cluster: string
  /** A member says that this identity was removed, and no majority is reached. Absent: nobody does. */
  readonly removed?: Removal | undefined
  readonly pid: number
  readonly uptimeMs: number
  /** e.g. "QEMU 7.2.22, tcg" */
  readonly hypervisor: string
  /** How VMs of this host are cut, if nothing else is said of one; null: it runs none (a witness). */
  readonly capture: CaptureNow | null
  readonly members: readonly MemberStatus[]
  readonly code: CodeStatus
  readonly groups: readonly GroupStatus[]
  readonly frames: SwitchStats
  /** What was refused because it was of a generation that is over, since the peer started. */
  readonly refused: RefusedStatus
  readonly store: StoreStatus
  /** Null: it stores nothing (a witness). */
  readonly redundancy: RedundancyStatus | null
  /** Copies of VMs with `standby` that are kept here, or should be. Absent: a peer of before there were any. */
  readonly standbys?: readonly StandbyStatus[] | undefined
}

export interface RefusedStatus {
  readonly frames: number
  /** About epochs: cuts, images, failures. */
  readonly reports: number
  /** Columns to store, streams to forget. */
  readonly shards: number
  /** Of leases, asked of this peer as a voter. */
  readonly claims: number
  /** Takeovers, commits and aborts of this peer, by the register. */
  readonly changes: number
}

export interface MemberStatus {
  readonly name: string
  readonly id: PeerId
  readonly address: string
  readonly role: 'storage' | 'witness'
  /** Its vote counts now. */
  readonly votes: boolean
  readonly liveness: Liveness
  readonly connected: boolean
  /** What it has said of itself; absent: nothing, or that it stands by itself. */
  readonly labels?: Labels | undefined
  /** What its store may still take, at least; 0: it is full. Absent: it has not said so. */
  readonly freeBytes?: number | undefined
}

export interface GroupStatus {
  readonly record: GroupRecord
  /** VMs of the group that run on this peer now. */
  readonly running: readonly string[]
  /** How each of them is cut now. */
  readonly captures: Readonly<Record<string, CaptureNow>>
  /** How long this peer may still run them without another renewal; 0 where it holds no lease. */
  readonly leaseRemainingMs: number
  /** What it would mean for each VM that this peer owns if this host died now. Absent: a peer of before that was told. */
  readonly outlooks?: Readonly<Record<string, VmOutlook>> | undefined
}

export interface StoreStatus {
  readonly streams: number
  readonly manifests: number
  readonly bytes: number
}

/** What a peer says of itself when it is ready. */
export interface ReadyPeer {
  readonly name: string
  readonly id: PeerId
  readonly version: string
  /** Where it listens, and where the others reach it. */
  readonly addresses: { readonly listens: string; readonly reached: string }
  /** `url` is null where the API is not served over TCP. */
  readonly api: { readonly socket: string; readonly url: string | null }
}

/** A peer that runs, as `runPeer` returns it. */
export interface RunningPeer {
  readonly ready: ReadyPeer
  /** Settles when the peer has stopped; rejects where it had to stop by itself (a promise that cannot be persisted). */
  readonly stopped: Promise<void>
  /** The log tells everything, or as much as its config says, in turn. */
  toggleDebug(): unknown
  /** Stops in order: VMs, API, streams, stores. */
  stop(): Promise<void>
}
