/** Drills: what the edge asks of a peer and shows of it; part of `PeerView`. */
import { z } from 'zod'
import { nameSchema } from '../../config/schema.ts'
import { check, problemText } from '../../config/words.ts'
import type { DrillSchedule, GroupRecord } from '../../protocols/group.ts'
import { UsageError } from '../errors.ts'
import type { DrillReport, DrillWish } from '../ports.ts'
import type { ErrorOfApi } from './api-error.ts'

export interface DrillView {
  /**
   * Resolves with what became of it, also where it failed. GROUP_UNKNOWN, EPOCH_NOT_KEPT, EPOCHS_READ, DRILL_BUSY, DRILL_MEMORY,
   * DRILL_FOLDER, DRILL_GAVE_WAY; DRILL_INTERRUPTED when `signal` aborts; UsageError NOT_STORAGE (a witness runs no VMs).
   */
  run(wish: DrillWish, tell: (text: string) => void, signal: AbortSignal): Promise<DrillReport>
  /** Undefined: no more but on request. GROUP_UNKNOWN, MEMBER_OLDER; UsageError DRILL_CHECK_UNKNOWN. */
  schedule(group: string, wish: ScheduleWish | undefined): Promise<GroupRecord>
}

export type ScheduleWish = Pick<DrillSchedule, 'everyMs' | 'timeoutMs' | 'check'>

/** A line of the answer to a request for a drill: how far it is, again and again, then the report or an error. */
export type DrillLine =
  | { readonly progress: { readonly text: string } }
  | { readonly report: DrillReport }
  | { readonly error: ErrorOfApi }

/** Until a drill has passed. Five minutes: a guess, some GB over a slow network and a check of a minute. */
export const DRILL_TIMEOUT_MS = 300_000

const duration = (low: number) => z.number().int().min(low).max(31_536_000_000)
export const wishSchema = z.strictObject({
  epoch: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).optional(),
  check: z.string().min(1).max(4_096).optional(),
  cwd: z.string().min(1).max(4_096).optional(),
  timeoutMs: duration(1_000).default(DRILL_TIMEOUT_MS)
})
export const scheduleSchema = z.strictObject({
  /** Guess: so that one is over before the next begins. */
  everyMs: duration(10_000),
  check: nameSchema.optional(),
  timeoutMs: duration(1_000).default(DRILL_TIMEOUT_MS)
})

/** UsageError API_BAD_REQUEST lists every problem. */
export const parseDrillWish = (group: string, raw: unknown): DrillWish => ({ group, ...parsed(wishSchema, raw) })
export const parseScheduleWish = (raw: unknown): ScheduleWish => parsed(scheduleSchema, raw)

function parsed<T>(schema: z.ZodType<T>, raw: unknown): T {
  const shape = check(schema, raw)
  if (shape.ok) return shape.value
  const lines = shape.problems.map(problem => `  ${problemText(problem)}`)
  throw new UsageError('API_BAD_REQUEST', `what is asked for cannot be:\n${lines.join('\n')}`)
}
