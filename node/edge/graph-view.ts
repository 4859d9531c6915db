/** Who speaks with whom in a group, and who would start together: its communication graph and restore line; part of `ReadModels`. */
import type { PeerId } from '../../protocols/core.ts'
import type { PlannedStarts } from './plan-view.ts'

export interface GraphView {
  /** By the images of the last committed epoch. GROUP_UNKNOWN. */
  graph(group: string): Promise<GroupGraph>
}

export interface GroupGraph {
  readonly group: string
  /** 0: nothing is committed, and nothing known. */
  readonly epoch: number
  /** `told`: its image says with whom it spoke; false: an older image, or one that cannot be read here. */
  readonly vms: readonly {
    readonly vm: string
    readonly host: PeerId
    readonly hostName: string
    readonly told: boolean
  }[]
  /** Each direction for itself, by `from`, `to` and network. */
  readonly edges: readonly GraphEdge[]
  /** The restore line if all VMs of the group went back where they are. */
  readonly together: readonly PlannedStarts[]
}

export interface GraphEdge {
  readonly from: string
  readonly to: string
  readonly network: string
  /** In the last epochs, the newest counting most. */
  readonly sent: number
  readonly sentBytes: number
  /** How often something came back soon after it had sent, and after how long on average. */
  readonly answers: number
  readonly answerMs: number
  /** `from` waits for `to`, so they start together. */
  readonly waits: boolean
}
