/** What a drill needs of its host beside machines: a folder with sockets, and a process. */
import type { NicSpec, VmSpec } from '../../protocols/group.ts'
import type { RestoreCounts } from './images.ts'

export interface DrillHost {
  /** Memory that could be taken now without harm to others. */
  availableBytes(): number
  /** For one drill at a time; what an earlier one left is removed. DRILL_FOLDER. */
  open(about: DrillAbout): Promise<DrillRoom>
}

export interface DrillAbout {
  readonly group: string
  readonly epoch: number
  readonly vms: readonly VmSpec[]
  /** Those of its networks that something on this host may join, each with the address that this is to use there. */
  readonly networks: readonly NicSpec[]
}

export interface DrillRoom {
  /** Name of its folder. */
  readonly folder: string
  /** Where a VM's console is appended. */
  logOf(vm: string): string
  /** A path for a socket of a VM's machine. */
  socketOf(vm: string, kind: string): string
  /** Of the first network's socket; of the others as `nicPathOf` says. */
  readonly netPath: string
  /** Opens the consoles: what somebody writes to a VM's socket is typed, and what the VM says comes from it. DRILL_FOLDER. */
  openConsoles(type: (vm: string, text: string) => Promise<void>): Promise<void>
  /** From now on this process gets what others leave: processor time, and memory when it is short. Never rejects. */
  giveWay(pid: number): Promise<void>
  /** Runs a command with all that it starts; when `signal` aborts, or `close` is called, all of that is ended. DRILL_CHECK. */
  check(command: string, options: CheckOptions): Promise<CheckOutcome>
  /** Ends processes, closes sockets, removes the folder. */
  close(): Promise<void>
}

export interface CheckOptions {
  /** Where it runs. Absent: the drill's folder. */
  readonly cwd?: string | undefined
  readonly signal: AbortSignal
  /** Each line that it prints. */
  line(text: string): void
}

/** What a drill is to do. */
export interface DrillWish {
  readonly group: string
  /** Of those that are kept. Absent: the committed one. */
  readonly epoch?: number | undefined
  /** For `sh -c`, when all VMs run. Absent: that they run, whole, is enough. */
  readonly check?: string | undefined
  readonly cwd?: string | undefined
  readonly timeoutMs: number
}

export interface DrillReport {
  readonly group: string
  readonly epoch: number
  /** Name of the member that ran it. */
  readonly peer: string
  readonly tookMs: number
  /** Those of the group, in its order. */
  readonly vms: readonly DrilledVm[]
  /** Absent: it did not come so far, or there was none. */
  readonly check?: (CheckOutcome & { readonly command: string; readonly tookMs: number }) | undefined
  /** Why. Absent: it passed. */
  readonly failed?: string | undefined
  /** It failed only because its check is not there, or may not be run: whether the group came back was not looked at. */
  readonly untried?: boolean | undefined
}

/** Times are from its start, of the hypervisor's process and all; what became of its pages, when it has all of them. */
export interface DrilledVm extends Partial<RestoreCounts> {
  readonly vm: string
  /** To its first instruction. Absent: it came to none. */
  readonly runsMs?: number | undefined
  /** To its last page. */
  readonly wholeMs?: number | undefined
  /** Why it ended before the drill did. */
  readonly failed?: string | undefined
}

export interface CheckOutcome {
  /** Null: a signal ended it. */
  readonly exitCode: number | null
  /** The last lines that it printed. */
  readonly output: readonly string[]
}
