/** Machines. */
import type { VmSpec } from '../../protocols/group.ts'

/** Pages of RAM: pairs of first page and number of pages, of 4096 bytes. In any order; they may overlap. */
export type PageRanges = Uint32Array

/** RAM that others on this host may read, and which pages of it were written. */
export interface RamTracking {
  /** A file whose bytes are the VM's RAM; open it for a descriptor of your own. Gone when the machine is. */
  readonly ramPath: string
  /**
   * Pages written since the last call, or all in the first. A page is told of once, so whoever asks must not forget.
   * Rejects with HYPERVISOR_TRACKING where this is no longer known: `Machine.tracking` is undefined from then on.
   */
  changed(): Promise<PageRanges>
}

/** How the cuts of a VM are made now. */
export interface CaptureNow {
  readonly mode: 'dirty' | 'portable'
  /** Why it is not 'dirty'. */
  readonly why?: string | undefined
}

/** A hypervisor on this host. `contract/hypervisor.test.ts` is its contract in executable form. */
export interface Hypervisor {
  /** e.g. "QEMU 7.2.22, tcg": chosen by a trial boot; a VM's image resumes only where `accel` is the same. */
  readonly description: string
  readonly accel: 'kvm' | 'tcg'
  /** How VMs are cut: by copying the pages that were written, or by a stream of all RAM. A VM may still do the latter. */
  readonly capture: 'dirty' | 'portable'
  /** Why it is not 'dirty', and what to do about it. */
  readonly captureWhy?: string | undefined
  /** Called, and awaited, where there is no room for the RAM of a machine that starts; those that `wait` go without. Absent: never. */
  onFull?(makeRoom: (bytes: number) => Promise<void>): void
  define(options: MachineOptions): Machine
  /** Ends what waits for machines to come, when there will be none. Absent: nothing does. */
  close?(): Promise<void>
}

/**
 * What a NIC of a VM is plugged into, on this host: a unix socket on which the switch listens, with a length before each
 * frame; or a TAP device that is there. The VM does not see which: its image resumes with either.
 */
export type NicEnd =
  | { readonly kind: 'stream'; readonly path: string }
  | { readonly kind: 'tap'; readonly device: string }

export interface MachineOptions {
  readonly spec: VmSpec
  /** One for each NIC, in their order: `NicPort.ends`. */
  readonly ends: readonly NicEnd[]
  /** The guest's serial console is appended here. */
  readonly consolePath: string
  /** Needed where the specification has disks. */
  readonly disks?: MachineDisks | undefined
  /** The machine has ended without `destroy` having been called. */
  onExit(reason: string): void
  /** Its guest has rebooted or turned itself off, and is the same machine; told once of what follows each other closely. */
  onReboot?(how: Reboot): void
}

/** A VM whose guest turns itself off ('powered-off') boots anew by itself, as soon as it may run. */
export type Reboot = 'rebooted' | 'powered-off'

export interface MachineDisks {
  /** For what is written to the disks: this machine's own, made at its start (what is there is removed) and gone at its end. */
  readonly folder: string
  /** One for each disk, in their order. */
  readonly starts: readonly DiskStart[]
}

/** What a disk holds when its machine starts: its base, if any, else zeros; or what is served over NBD on this host. */
export type DiskStart =
  | { readonly kind: 'new' }
  | { readonly kind: 'nbd'; readonly socketPath: string; readonly exportName: string }

/** A file that holds blocks of disk number `disk`: what was written in some time, or a base. */
export interface DiskFile {
  readonly disk: number
  readonly path: string
  readonly format: 'raw' | 'qcow2'
}

export interface DiskControl {
  /** Resolves when no disk is read over NBD any more; never where the machine ends before. */
  readonly here: Promise<void>
  /** These files of cuts are read no more: they are merged while the VM runs, and removed. Others do not count. */
  release(layers: readonly DiskFile[]): void
  /**
   * What was frozen until now is not being read, and all images that ended with one of these files are void: many become one
   * while the VM runs. Until the next cut is prepared.
   */
  join(): void
}

export interface MachineCut {
  readonly pauseMs: number
  /** Settles when QEMU has sent the whole stream. */
  readonly streamed: Promise<void>
  /** What was written to the disks: all files that are not released, the oldest first. They do not change any more. */
  readonly layers: readonly DiskFile[]
}

/**
 * The agent in a guest that runs, which is not trusted. Its calls run one after the other, and each waits at most `timeoutMs`
 * until the agent shows that it listens, and as long again for what it is to do. They reject with GUEST_AGENT_SILENT,
 * GUEST_AGENT_REFUSED (its words are in the message), GUEST_AGENT_MALFORMED, or GUEST_AGENT_GONE where the VM has ended.
 */
export interface GuestAgent {
  /** Sets the guest's wall clock. `nowMs` is asked when the agent listens: milliseconds since 1970. */
  setTime(nowMs: () => number, timeoutMs: number): Promise<void>
  /** Runs a program with its arguments and gives its exit code, or the number of the signal that ended it, as a negative number. */
  run(words: readonly string[], timeoutMs: number): Promise<number>
}

/** One VM: define → start → (cut | stop | resume)* → destroy. Calls out of order reject with HYPERVISOR_STATE. */
export interface Machine {
  readonly pid: number | undefined
  /** Defined while cuts send no RAM and the caller copies it: from `start` or `incomingComplete` on, where it works. */
  readonly tracking: RamTracking | undefined
  /** As `tracking`, for people. A VM that its specification holds to 'dirty' is not cut while this is 'portable'. */
  readonly capture: CaptureNow
  readonly disks: DiskControl
  /** Where the specification has one (`VmSpec.guestAgent`) and the hypervisor a channel to it. */
  readonly agent?: GuestAgent | undefined
  /** Boots; or, with `incoming`, starts as the target of a migration that the image worker sources on that unix socket. */
  start(): Promise<void>
  /** As `start`, but waits for a post-copy stream: `connectable` is called when QEMU listens on `socketPath`; resolves when the VM runs. */
  startIncoming(socketPath: string, connectable: () => void): Promise<void>
  /** After `startIncoming`: resolves when every page has come and the VM can be cut again. */
  incomingComplete(): Promise<void>
  /**
   * In the place of `start`: makes RAM of zeros, a file for the caller to fill with that of an image, and is ready to take the
   * image's devices. HYPERVISOR_CAPTURE where RAM is no such file. Absent: this hypervisor cannot.
   */
  wait?(): Promise<{ readonly ramPath: string }>
  /**
   * After `wait`, when the file is the RAM of an image, whose devices are to come on `socketPath`; `connectable` as in
   * `startIncoming`. When it resolves the VM stands still as after `stop`; `tracking` tells what is written from now on.
   */
  load?(socketPath: string, connectable: () => void): Promise<void>
  /** Pauses. When it resolves the VM executes nothing and every frame it sent is in the NIC socket. */
  stop(): Promise<void>
  /** Goes on after `stop`. */
  resume(): Promise<void>
  /**
   * One cut of RAM and devices: stop; `stopped()` is called and awaited while the VM stands still (the switch drains and
   * turns the colour there); a background snapshot to `socketPath`, during which the VM runs again by itself. Where
   * `tracking` is defined the stream has no RAM in it, begins before the VM stops, and has ended when it runs again:
   * `stopped` copies the pages that are still to be copied, and whoever listens must read at once (else the VM is ended).
   * All disks are frozen as they are in the same moment. Resolves when the VM runs again; with `stays` it does not, but stands
   * still as after `stop`, unless the cut fails.
   */
  cut(socketPath: string, stopped: () => Promise<void>, how?: { readonly stays: boolean }): Promise<MachineCut>
  /**
   * The VM runs and is to be cut soon: does for the disks what can be done before it stands still. `cut` does it itself
   * where that was not called. Nothing is merged from here to the end of the cut, or to `disks.release`.
   */
  prepareCut(): Promise<void>
  /** Sends text to the guest's serial console. */
  type(text: string): Promise<void>
  /** Kills it at once. Safe in any state, also twice. */
  destroy(): Promise<void>
}
