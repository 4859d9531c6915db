/** What is said of one VM's cut: between the VM and its group, and afterwards. */
import type { CutTimes } from '../../protocols/epoch/cut-profile.ts'

export interface CutReport extends CutTimes {
  readonly pauseMs: number
  readonly counts: Record<string, number>
  readonly atWallMs: number
}

/** What a VM and its group say to each other in a cut. */
export interface CutWords {
  /** Every `PROGRESS_MS`: it is not prepared yet, and gets on. */
  copying(): void
  /** It has copied what it can while it runs. Settles when it is to be cut; rejects where the epoch has come to nothing. */
  mayCut(): Promise<void>
  /** Whether it stays where it was cut, because its group is to rest. Asked when it is cut. */
  rests(): boolean
  /** Resolves when frames of VMs that were cut wait for it. */
  readonly hurry: Promise<void>
}
