import type { EpochPolicy } from '../config/policy.ts'
import type { PeerId } from './core.ts'

/**
 * The record of a group: the value of register `group/ID`, and the only truth about who owns its VMs and which epoch
 * is committed. One register for the whole group (and not one a VM) because a restore moves all its VMs at once: one
 * compare-and-set then decides the generation, every owner and the epoch together, and nothing can be half decided.
 *
 * `version` grows by one at each change; of two records the one with the higher version is newer. `generation` grows
 * at each change of ownership (a restore); frames, leases, commands and shards of an older one are refused.
 */
export interface GroupRecord {
  readonly id: string
  readonly version: number
  readonly generation: number
  readonly vms: readonly VmSpec[]
  /** VM id → the peer that runs it in this generation. */
  readonly owners: Readonly<Record<string, PeerId>>
  /** What its VMs send to the outside waits until an epoch is committed that contains it. Absent: it leaves at once. */
  readonly outputCommit?: boolean | undefined
  /**
   * Its own networks are ways through the Open vSwitch bridges of its hosts, and no peer forwards their frames; without a
   * bridge a host does not run its VMs. Absent: all frames go through the peers.
   */
  readonly openFlow?: boolean | undefined
  /** The highest epoch number ever opened: numbers are never used twice, also not after an abort. */
  readonly lastEpoch: number
  /** The epoch being taken now, or null. */
  readonly open: OpenEpoch | null
  /**
   * It rests: no VM of it runs, and nobody brings them back until somebody says so, from the committed epoch. `owners` are those
   * of before. Absent: it is to run.
   */
  readonly resting?: true | undefined
  /** The last committed epoch, or null before the first: what a restore restores. */
  readonly committed: CommittedEpoch | null
  /** Epochs that were committed and whose images are being read: they are kept for as long. Absent: none. */
  readonly held?: readonly HeldEpoch[] | undefined
  /**
   * Other committed epochs that can be restored, by number. Usually older than `committed`; newer where somebody went back.
   * Once an epoch is neither here nor `committed`, it never is again: so what needs it may be forgotten. Absent: none.
   */
  readonly kept?: readonly KeptEpoch[] | undefined
  /** What people keep whatever the policy says, each a committed or kept epoch. Absent: none. */
  readonly holds?: readonly EpochHold[] | undefined
  /** Which epochs are kept. Absent: as the config of whoever commits says (`epochs.retention`). */
  readonly retention?: RetentionPolicy | undefined
  /** When its epochs are taken. Absent: as the config of who owns its first VM says (`epochs.policy`). */
  readonly policy?: EpochPolicy | undefined
  /** Absent: none was ever asked for. */
  readonly drills?: GroupDrills | undefined
  /** The group is no more: its VMs are ended and its shards forgotten. The record stays, so that its numbers stay used. */
  readonly removed: boolean
}

export interface OpenEpoch {
  readonly epoch: number
  readonly proposer: PeerId
  /** How long after it was opened (by each peer's own clock since it learned of it) any peer may abort it. */
  readonly deadlineMs: number
  /** Its VMs stand still from their cuts on, and the group rests when it is committed. Absent: they go on. */
  readonly rest?: true | undefined
}

export interface CommittedEpoch {
  readonly epoch: number
  /** The generation that took it. */
  readonly generation: number
  /** The epoch committed before it, 0 before the first: a peer that missed that record still learns what became of it. */
  readonly previousEpoch: number
  /** VM id → hash of its image manifest (hex SHA-256). */
  readonly images: Readonly<Record<string, string>>
  /** When it was committed, by the wall clock of whoever did. Absent: nobody noted it. */
  readonly wallMs?: number | undefined
}

export interface KeptEpoch extends Omit<CommittedEpoch, 'previousEpoch'> {}

export interface EpochHold {
  readonly epoch: number
  readonly name: string
}

/** The newest `keepLast` epochs, and the last one of each of so many hours, days and weeks (UTC, from Monday) that have one. */
export interface RetentionPolicy {
  readonly keepLast: number
  readonly hourly: number
  readonly daily: number
  readonly weekly: number
}

/** Restores of the group beside it, which nothing comes of but an answer: would it come back? */
export interface GroupDrills {
  /** Absent: on request only. */
  readonly schedule?: DrillSchedule | undefined
  /** What became of the last one. */
  readonly last?: DrillOutcome | undefined
}

export interface DrillSchedule {
  readonly everyMs: number
  /** A drill that has not passed after so long has failed. */
  readonly timeoutMs: number
  /** Name of a command in the config of whoever runs it (`drills.checks`). Absent: that all VMs run, whole, is enough. */
  readonly check?: string | undefined
  /** When the last one of the schedule was begun, by the wall clock of whoever did. Absent: none was. */
  readonly begunMs?: number | undefined
  /** Who runs one now: a word of that peer's, which begins with its id and a space. */
  readonly runs?: string | undefined
}

export interface DrillOutcome {
  readonly epoch: number
  readonly by: PeerId
  /** When it ended, by the wall clock of whoever ran it. */
  readonly atMs: number
  readonly tookMs: number
  /** Why it failed. Absent: it passed. */
  readonly failed?: string | undefined
}

export interface HeldEpoch {
  readonly epoch: number
  /** None: all of the epoch, which is `committed` or in `kept`. They are said here when it leaves both. */
  readonly images: Readonly<Record<string, string>>
  /** Who reads it, and when: a word of that peer's, which begins with its id and a space. */
  readonly by: string
}

/** Names of all images that are to be kept, each once. */
export const keptImages = ({
  committed,
  held = [],
  kept = []
}: Pick<GroupRecord, 'committed' | 'held' | 'kept'>): string[] => [
  ...new Set([committed, ...held, ...kept].flatMap(epoch => Object.values(epoch?.images ?? {})))
]

/** What a VM is made of. Either `mac`, one NIC on network "default", or `nics`. Memory in MiB. */
export interface VmSpec {
  readonly id: string
  /** Lower case with colons. */
  readonly mac?: string | undefined
  readonly nics?: readonly NicSpec[] | undefined
  readonly memoryMiB: number
  /** Virtual processors. Absent: 1. */
  readonly cpus?: number | undefined
  /** In the order in which the guest sees them: /dev/vda, /dev/vdb, … */
  readonly disks?: readonly DiskSpec[] | undefined
  /** The only way in which it may be cut. Absent: the best of its host (`Hypervisor.capture`). */
  readonly capture?: 'dirty' | 'portable' | undefined
  /**
   * Hosts besides its own that keep its last committed RAM ready, with a hypervisor that waits on it: 1, and then its own does so,
   * too, for a rollback in place. Absent: none.
   */
  readonly standby?: number | undefined
  /** Anti-affinity: VMs of the group with the same name here run on different hosts, and racks, where that can be. */
  readonly apart?: string | undefined
  /**
   * Whether a device tells the guest that it went back to an image, so that it draws new random numbers (a VM generation id).
   * Part of the machine, so the same for all images of the VM. Absent: no, as for VMs of before there was one.
   */
  readonly generationId?: boolean | undefined
  /**
   * What the guest finds where it looks for the time after a restore: that of its host, or its own, as if no time had passed.
   * Absent: its host's.
   */
  readonly clock?: 'wall' | 'continue' | undefined
  /** It has a channel for the QEMU guest agent. Absent: none. */
  readonly guestAgent?: GuestAgentSpec | undefined
  /** Whoever runs it raises an alarm when it would be missed (`node/agents/objectives.ts`). Absent: none. */
  readonly objective?: VmObjective | undefined
  /** Direct kernel boot; a path on every host that may run the VM. Absent: it boots from its first disk, as a PC does (BIOS). */
  readonly kernel?: string | undefined
  /** As `kernel`, and only with one. Absent: none. */
  readonly initrd?: string | undefined
  /** The kernel's command line. Absent: empty. */
  readonly append?: string | undefined
}

export interface GuestAgentSpec {
  /** A program in the guest and its arguments, run each time the VM has gone back to an image and runs. Absent: none. */
  readonly afterRestore?: readonly string[] | undefined
  /** How long the agent is waited for, and then that program, each. Absent: GUEST_AGENT_TIMEOUT_MS. */
  readonly timeoutMs?: number | undefined
}

/** A guess: a guest that was cut in the middle of a long flush hears its agent's channel only afterwards. */
export const GUEST_AGENT_TIMEOUT_MS = 30_000

/** What its restore is to achieve, milliseconds: back at most so long after its host died (RTO), so much lost at most (RPO). */
export interface VmObjective {
  readonly backMs?: number | undefined
  readonly lossMs?: number | undefined
}

/** A disk of a VM. What the guest writes is its image's; a base is never written. */
export interface DiskSpec {
  /** At least the size of the base. */
  readonly sizeMiB: number
  /** What the disk holds at first; absent: zeros. The same file, which never changes, on every host that may boot the VM. */
  readonly base?: { readonly path: string; readonly format: 'raw' | 'qcow2' } | undefined
}

export interface NicSpec {
  readonly mac: string
  /**
   * A name of the group's own; `shared/NAME`: a network of the whole cluster, whose frames between VMs of different groups
   * know no cuts; `uplink`: the outside, as the VM's host reaches it.
   */
  readonly network: string
}

export const SHARED_NETWORK_PREFIX = 'shared/'
export const UPLINK_NETWORK = 'uplink'

/** In the order in which the guest sees them. A VM's NICs are all on different networks. */
export function nicsOf({ mac, nics }: Pick<VmSpec, 'mac' | 'nics'>): readonly NicSpec[] {
  return nics ?? (mac === undefined ? [] : [{ mac, network: 'default' }])
}

/** In their order. */
export const disksOf = ({ disks }: Pick<VmSpec, 'disks'>): readonly DiskSpec[] => disks ?? []

/** The socket of NIC number `index`, given that of the first. */
export const nicPathOf = (firstPath: string, index: number): string =>
  index === 0 ? firstPath : `${firstPath}${index}`

/** Whether frames of VMs on this network may leave the group. */
export const leadsOutside = (network: string): boolean =>
  network === UPLINK_NETWORK || network.startsWith(SHARED_NETWORK_PREFIX)

/** Whether frames on this network of the group pass through bridges, and not through peers. */
export const onBridge = ({ openFlow }: Pick<GroupRecord, 'openFlow'>, network: string): boolean =>
  openFlow === true && !leadsOutside(network)

export const groupKey = (id: string): string => `group/${id}`
