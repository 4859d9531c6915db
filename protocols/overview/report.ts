/** What a member says of itself when another gathers an overview of the cluster. */
import { z } from 'zod'
import { groupNameSchema as name, MAX_GROUP_VMS } from '../../config/vm.ts'
import { outlookSchema } from './outlook.ts'

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const amount = z.number().min(0).max(1e15)
const text = z.string().max(300)
const capture = z.enum(['dirty', 'portable'])

const runningSchema = z.object({ vm: name, capture: capture.optional() })

/** Groups of which it runs something, or owns something. */
const groupSchema = z.object({
  id: name,
  generation: count,
  leaseRemainingMs: amount,
  running: z.array(runningSchema).max(MAX_GROUP_VMS),
  /** By VM. */
  outlooks: z.record(name, outlookSchema).optional()
})

export const reportSchema = z.object({
  version: text,
  uptimeMs: amount,
  hypervisor: text,
  capture: capture.nullable(),
  store: z.object({ streams: count, manifests: count, bytes: count }),
  redundancy: z
    .object({
      exposed: count,
      tolerates: z.number().int().nullable(),
      repairedColumns: count,
      repairedBytes: count,
      due: count,
      damaged: count
    })
    .nullable(),
  standbys: z.array(z.object({ group: name, vm: name, state: text, epoch: count })).max(1_000),
  groups: z.array(groupSchema).max(1_000)
})
export type OwnReport = z.output<typeof reportSchema>

/** Throws on anything else. */
export const parseReport = (raw: unknown): OwnReport => reportSchema.parse(raw)
