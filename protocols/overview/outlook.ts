/** What it would mean for a VM if its host died now, as planners work it out, members tell each other, and people are shown. */
import { z } from 'zod'
import type { VmObjective } from '../group.ts'

/** Milliseconds; null: not measured. */
export interface OutlookParts {
  readonly detectMs: number | null
  readonly decideMs: number | null
  /** From the decision to the VM running. */
  readonly runsMs: number | null
}

/**
 * Why a group would not come back. no-majority: `live` of all `voters` would be left, and they decide nothing. columns: of a stream
 * that the image of `vm` leans on `left` of all `columns` would be left, and it takes `needs` to read it; of all such streams the
 * worst. no-room: some VM of the group would find no host.
 */
export type Obstacle =
  | { readonly kind: 'no-majority'; readonly live: number; readonly voters: number }
  | {
      readonly kind: 'columns'
      readonly vm: string
      readonly left: number
      readonly columns: number
      readonly needs: number
    }
  | { readonly kind: 'no-room' }

export interface VmOutlook {
  /** From the host's death to the VM running; null: no restore of it was measured, or `never`. */
  readonly backMs: number | null
  /** It would not come back. */
  readonly never?: true | undefined
  /** Why. Absent where it would, and from a member of before there was more than one reason: no host has room for its group. */
  readonly why?: Obstacle | undefined
  readonly parts: OutlookParts
  /** Parts that follow from the settings, because they were not measured. */
  readonly bySettings: readonly string[]
  /** The VM would go back by so much. */
  readonly lossMs: number
  /** Which of its objectives it would miss. */
  readonly missed: readonly (keyof VmObjective)[]
}

const amount = z.number().min(0).max(1e15)
const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const part = amount.nullable()

const obstacleSchema: z.ZodType<Obstacle> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('no-majority'), live: count, voters: count }),
  z.object({ kind: z.literal('columns'), vm: z.string().max(100), left: count, columns: count, needs: count }),
  z.object({ kind: z.literal('no-room') })
])

export const outlookSchema: z.ZodType<VmOutlook> = z.object({
  backMs: part,
  never: z.literal(true).optional(),
  // A newer member may know reasons that this one does not.
  why: obstacleSchema.optional().catch(undefined),
  parts: z.object({ detectMs: part, decideMs: part, runsMs: part }),
  bySettings: z.array(z.string().max(40)).max(10),
  lossMs: amount,
  missed: z.array(z.enum(['backMs', 'lossMs'])).max(2)
})
