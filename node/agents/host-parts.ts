/** What agents are given to run VMs with, and to tell of it. */
import type { GroupRecord, VmSpec } from '../../protocols/group.ts'
import type { StandbyStatus } from '../../protocols/overview/standby-status.ts'
import type { ImageManifest, ShardCluster } from '../ports.ts'
import type { LocalVmDeps } from './local-vm.ts'
import type { Placed } from './placing.ts'
import type { TalksReader } from './restore-line.ts'
import type { StandbyParts } from './standby-copy.ts'

/** Something that happened, for people and for the API's event stream. */
export type Report = (kind: string, fields: Record<string, unknown>) => void

/** What a peer needs to run VMs; a witness has none of it. */
export interface Hosting extends TalksReader {
  readonly vm: LocalVmDeps
  readonly shards: ShardCluster
  readonly shape: { k: number; m: number }
  /** Whether NICs on network "uplink" lead anywhere from this host (`switch.uplink`). */
  readonly uplink: boolean
  /** Of streams that are stored. Absent: they are as planned. */
  readonly storedAt?: Placed['storedAt']
  /** Which generation of each group has been started here, in an earlier run of this peer, too. */
  readonly started: StartedGenerations
  readManifest(hash: string): Promise<ImageManifest>
  /** Copies of VMs that may be ready to go on here. Absent: there are none. */
  readonly standbys?: StandbySource | undefined
  /** The image's name, and all that is to be stored of it. */
  encodeManifest(manifest: ImageManifest): { hash: string; objects: readonly { hash: string; bytes: Uint8Array }[] }
}

/** On disk: a VM whose peer was restarted must not be started a second time in the same generation. */
export interface StartedGenerations {
  /** 0 where none. */
  of(group: string): number
  /** Durable when it resolves. */
  note(group: string, generation: number): Promise<void>
}

/** Where a VM that is to go on here finds its standby copy (`standby.ts`). */
export interface StandbySource {
  /**
   * The copy of a VM that is to run here from its group's committed epoch: the caller's from now on. Else why there is none;
   * undefined where the VM asks for none.
   */
  take(record: GroupRecord, spec: VmSpec): Promise<StandbyParts | string | undefined>
  /** Copies that are here, and those that should be. */
  readonly status: readonly StandbyStatus[]
}
