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

export interface VmOutlook {
  /** From the host's death to the VM running; null: no restore of it was measured, or `never`. */
  readonly backMs: number | null
  /** It would not come back: no host has room for its group. */
  readonly never?: true | undefined
  readonly parts: OutlookParts
  /** Parts that follow from the settings, because they were not measured. */
  readonly bySettings: readonly string[]
  /** The VM would go back by so much. */
  readonly lossMs: number
  /** Which of its objectives it would miss. */
  readonly missed: readonly (keyof VmObjective)[]
}

const amount = z.number().min(0).max(1e15)
const part = amount.nullable()

export const outlookSchema: z.ZodType<VmOutlook> = z.object({
  backMs: part,
  never: z.literal(true).optional(),
  parts: z.object({ detectMs: part, decideMs: part, runsMs: part }),
  bySettings: z.array(z.string().max(40)).max(10),
  lossMs: amount,
  missed: z.array(z.enum(['backMs', 'lossMs'])).max(2)
})
