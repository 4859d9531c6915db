/** A group's kept epochs: what the edge shows of them and asks of a peer. */
import { z } from 'zod'
import { retentionSchema } from '../../config/schema.ts'
import { check, problemText } from '../../config/words.ts'
import { groupNameSchema } from '../../config/vm.ts'
import type { GroupRecord, RetentionPolicy } from '../../protocols/group.ts'
import { UsageError } from '../errors.ts'

/** All reject with GROUP_UNKNOWN, and with EPOCH_NOT_KEPT where they name an epoch that is not kept. */
export interface EpochView {
  list(group: string): Promise<GroupEpochs>
  /** Keeps an epoch under a name until that is released. EPOCHS_FULL. */
  hold(group: string, epoch: number, name: string): Promise<void>
  /** `name` undefined: all names of that epoch. HOLD_UNKNOWN. */
  release(group: string, epoch: number, name: string | undefined): Promise<void>
  /** Keeps an epoch no longer. UsageErrors EPOCH_COMMITTED, EPOCH_HELD. */
  remove(group: string, epoch: number): Promise<void>
  /** From the next commit on; what is not given stays as it is. UsageError EPOCHS_FULL where the record has no room for so many. */
  setPolicy(group: string, wish: PolicyWish): Promise<void>
  /**
   * Every VM of the group starts again from an epoch that is kept, by default the last committed. Resolves when that is decided.
   * UsageError OUTPUT_SENT for a group with output commit, unless `force`; GROUP_CHANGED.
   */
  restore(group: string, wish: RestoreWish): Promise<GroupRecord>
}

export type PolicyWish = { readonly [Name in keyof RetentionPolicy]?: number | undefined }

export interface RestoreWish {
  readonly epoch?: number | undefined
  readonly force: boolean
}

export interface GroupEpochs {
  readonly group: string
  readonly policy: RetentionPolicy
  /** The policy is the group's own, and not that of the config of the peer that was asked. */
  readonly own: boolean
  /** How many epochs the group's record has room for. */
  readonly room: number
  /** By number. */
  readonly epochs: readonly EpochStatus[]
}

export interface EpochStatus {
  readonly epoch: number
  readonly generation: number
  /** The one that a restore restores unless another is named. */
  readonly committed: boolean
  /** When it was committed, by the wall clock of whoever did; absent: it was not noted. */
  readonly wallMs?: number
  /** What was stored for it: what had changed, with the redundancy. Absent: this peer cannot read all of its manifests. */
  readonly bytesStored?: number
  readonly holds: readonly string[]
  /** It is being read (exported) so many times now. */
  readonly readers: number
}

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
export const holdSchema = z.strictObject({ name: groupNameSchema })
export const restoreSchema = z.strictObject({ epoch: count.optional(), force: z.boolean().default(false) })
export const policySchema = z.strictObject({
  keepLast: retentionSchema.shape.keepLast.unwrap().optional(),
  hourly: retentionSchema.shape.hourly.unwrap().optional(),
  daily: retentionSchema.shape.daily.unwrap().optional(),
  weekly: retentionSchema.shape.weekly.unwrap().optional()
})

/** UsageError API_BAD_REQUEST lists every problem. */
export const parseHold = (raw: unknown): { name: string } => parsed(holdSchema, raw)
export const parseRestoreWish = (raw: unknown): RestoreWish => parsed(restoreSchema, raw)
export const parsePolicyWish = (raw: unknown): PolicyWish => parsed(policySchema, raw)

function parsed<T>(schema: z.ZodType<T>, raw: unknown): T {
  const shape = check(schema, raw)
  if (shape.ok) return shape.value
  const lines = shape.problems.map(problem => `  ${problemText(problem)}`)
  throw new UsageError('API_BAD_REQUEST', `what is asked for cannot be:\n${lines.join('\n')}`)
}

export function epochNumber(text: string): number {
  const epoch = Number(text)
  if (/^\d{1,15}$/.test(text)) return epoch
  throw new UsageError('API_BAD_REQUEST', `${JSON.stringify(text.slice(0, 100))} is not the number of an epoch`)
}
