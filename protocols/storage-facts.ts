/**
 * What a member that stores says of itself to the others (control channel, protocol "storage"), so that all place columns alike.
 * Hints: facts that differ make plans that differ, and no harm.
 *
 * | message | the receiver must |
 * |---|---|
 * | storage | keep it as what its sender is, instead of what that said before, until it is no member any more |
 *
 * Sent to everybody when a connection is made, when something has changed, and now and then, since a message may be lost. Members
 * of older versions drop it, and say nothing of themselves.
 */
import { z } from 'zod'
import { type Labels, labelsSchema } from '../config/schema.ts'

export const STORAGE_PROTOCOL = 'storage'

export interface StorageFacts {
  readonly labels: Labels
  /** What its store may still take, in coarse steps; 0: full. Null: it does not know yet. */
  readonly freeBytes: number | null
}

const factsSchema = z.strictObject({
  labels: labelsSchema,
  freeBytes: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullable()
})

export const parseStorageFacts = (message: unknown): StorageFacts => factsSchema.parse(message)
