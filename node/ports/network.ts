/** The switch. */
import type { GroupRecord } from '../../protocols/group.ts'
import type { Talk } from '../../protocols/talks.ts'
import type { NicEnd } from './machines.ts'

/**
 * The VM's side of the switch, as the snapshot and restore agents use it. Calls take effect in their order; where the
 * switch is another process, when they resolve. Where it is not there (OPENFLOW_DOWN) they reject, and it does what was
 * asked for as soon as it is.
 */
export interface NicPort {
  /** How the hypervisor is to connect the VM's NICs: one for each, in their order. They stay until `detach`. */
  readonly ends: readonly NicEnd[]
  /** A moment before `hold`: what the VM has not taken by then is known from now on. Ends with `release`. */
  prepare(): Promise<void>
  /** Inbound frames wait from now on. */
  hold(): Promise<void>
  /** Inbound frames flow, the waiting ones first. */
  release(): Promise<void>
  /** Settles when the NIC's socket has been empty for two turns of the event loop (the VM must be stopped). */
  drained(): Promise<void>
  /** The cut: from now on frames sent are of colour `epoch`; returns frames sent per receiver before it. Starts recording in-flight frames. */
  turn(epoch: number): Promise<FrameCounts>
  /** With whom the VM had spoken by the last `turn`, as far as its frames passed here. */
  talks(): readonly Talk[]
  /** What sender `vm` says it sent before its cut to `epoch`. */
  expect(epoch: number, vm: string, sent: FrameCounts): void
  /**
   * Settles with the in-flight frames when every channel's count is met. Rejects with EPOCH_ABORTED after `abandon`, which
   * also takes away a log that has not been read.
   */
  recorded(epoch: number): Promise<FrameLog>
  /** The epoch is aborted: recordings are dropped; a VM that has not cut takes the colour without a cut. */
  abandon(epoch: number): Promise<void>
  /**
   * What `FrameLog.pieces` once gave belongs to the image: delivered first when the VM runs. Resolves when all is taken;
   * INJECTION_FULL where there has been no room for long.
   */
  inject(pieces: AsyncIterable<Uint8Array>): Promise<void>
  /** Socket closed, frames dropped. */
  detach(): Promise<void>
}

/** The in-flight frames of one cut. They may be more than fit in memory. */
export interface FrameLog {
  readonly frames: number
  readonly bytes: number
  /** To be read once. Pieces of some 100 KiB that mean something to the switch only. RECORDING_LOST where a disk failed. */
  pieces(): AsyncIterable<Uint8Array>
}

/** Receiver VM id → number of frames. */
export type FrameCounts = Readonly<Record<string, number>>

/** Where a hypervisor connects the NICs of a VM that is not attached yet. */
export interface NicSockets {
  readonly ends: readonly NicEnd[]
  /** Of no effect on what has been attached. */
  close(): Promise<void>
}

export interface Switch {
  /** Who is where. Frames of an older generation are refused and counted; of a newer one held until this is called. */
  setGroup(record: GroupRecord): void
  removeGroup(id: string): void
  /**
   * Inbound frames are held until the first `release`. `epoch` is the VM's colour. NICs that end in a stream do so on
   * `nicPath`, as `nicPathOf` says, or where they wait there already (`reserve`) go on.
   */
  attach(options: { group: string; vm: string; generation: number; epoch: number; nicPath: string }): Promise<NicPort>
  /**
   * For a hypervisor that starts before its VM is anybody's: NICs that are connected on `nicPath` wait until the VM is attached with
   * it. Absent: there is no such thing here.
   */
  readonly reserve?: ((nicPath: string, nics: number) => Promise<NicSockets>) | undefined
  /** A frame of colour `epoch` has come for `vm`, which is older: it must be cut before more is delivered. */
  onMarker(handler: (group: string, vm: string, epoch: number) => void): void
  stats(): SwitchStats
}

export interface SwitchStats {
  readonly delivered: number
  readonly heldEarly: number
  readonly recordedInFlight: number
  /** Frames of a generation that is over, from other peers and from VMs of ours that are to end. */
  readonly refusedGeneration: number
  /** Frames and turns from a peer that does not own their source in this generation. */
  readonly refusedSource: number
  /** Frames that were ready to leave and had to wait, because the lease of their group had run out. */
  readonly heldFenced: number
  readonly droppedUnknown: number
  /** Of VMs on a bridge: frames and markers that came up from it, and those that went down. All others pass it alone. */
  readonly bridgeUp: number
  readonly bridgeDown: number
  /** To the outside, of groups with output commit: frames that wait now, and the room that they take. */
  readonly outputWaiting: number
  readonly outputWaitingBytes: number
  /** Those that their epoch has let out, and those that went with a generation that was rolled back. */
  readonly outputReleased: number
  readonly outputDiscarded: number
  /** The longest that one has waited for its epoch since this peer was started, those that wait now included. */
  readonly outputLongestMs: number
}
