/** What would happen if a host died now, as the edge shows it; part of `PeerView`. Members are told by their names. */
import { z } from 'zod'
import type { Obstacle } from '../../protocols/overview/outlook.ts'
import { UsageError } from '../errors.ts'

export interface PlanView {
  /** UsageErrors GROUP_UNKNOWN; HOST_UNKNOWN for a host that is no member. */
  plan(wish: PlanWish): Promise<GroupPlan[]>
}

export interface PlanWish {
  /** Absent: all groups. */
  readonly group?: string | undefined
  /** Name or id of the host that dies. Absent: each that runs VMs of the group, one at a time. */
  readonly host?: string | undefined
}

export interface GroupPlan {
  readonly group: string
  /** What it would go back to; 0: nothing is committed, and its VMs would boot. */
  readonly epoch: number
  /** It rests, so no host's death means anything to it. */
  readonly resting?: true | undefined
  readonly losses: readonly PlannedLoss[]
}

export interface PlannedLoss {
  readonly host: string
  /** VMs that run there. */
  readonly vms: readonly string[]
  readonly moves: readonly PlannedMove[]
  /** VMs for which no host has room. */
  readonly homeless: readonly { readonly vm: string; readonly memoryMiB: number }[]
  /** Why the group would not come back; absent: it would. */
  readonly obstacle?: Obstacle | undefined
  readonly together: readonly PlannedStarts[]
  /** Parts of the last failover, and of restores; null: not measured yet. */
  readonly detectMs: number | null
  readonly decideMs: number | null
  /** From the first suspicion to the last VM running; null: a part was not measured yet, or it would not come back. */
  readonly totalMs: number | null
  /** VMs of which no restore was measured: their times are those of others. */
  readonly unmeasured: readonly string[]
}

export interface PlannedMove {
  readonly vm: string
  readonly to: string
  readonly memoryMiB: number
  /** What VMs on that host have without it, and what it gives to VMs; null: it has not said so. */
  readonly promisedMiB: number
  readonly givesMiB: number | null
  readonly standby: boolean
  readonly columns: number
  /** What it shares with a VM it should be apart from. */
  readonly shares: 'host' | 'rack' | null
}

/** VMs that start together, and why. */
export interface PlannedStarts {
  readonly starts: readonly {
    readonly vm: string
    readonly on: string | null
    readonly readyMs: number
    readonly atMs: number
    readonly without: readonly string[]
  }[]
  readonly waits: readonly {
    readonly vm: string
    readonly waitsFor: string
    readonly network: string
    readonly answers: number
    readonly answerMs: number
  }[]
}

const wishSchema = z.strictObject({ group: z.string().min(1).optional(), host: z.string().min(1).optional() })

/** Of `GET /v1/plan`. UsageError API_BAD_REQUEST. */
export function parsePlanWish(query: URLSearchParams): PlanWish {
  const wish = wishSchema.safeParse(Object.fromEntries(query))
  if (wish.success) return wish.data
  throw new UsageError('API_BAD_REQUEST', 'a plan is asked for with ?group=GROUP and &host=NAME, or without', {
    cause: wish.error
  })
}
