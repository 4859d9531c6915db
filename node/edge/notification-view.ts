/** Whom people are told by: what the edge asks of a peer about it, and shows; part of `PeerView`. */
import { z } from 'zod'
import type { NoticeKind } from '../../config/notices.ts'
import { nameSchema } from '../../config/schema.ts'
import { check, problemText } from '../../config/words.ts'
import { UsageError } from '../errors.ts'

export interface NotificationView {
  /** Those of this peer's config. */
  targets(): readonly TargetStatus[]
  /** Sends each of them, or one, a message that says that it is a test, from this peer. TARGET_UNKNOWN, TARGETS_NONE, TARGET_BUSY. */
  test(wish: NotifyTestWish): Promise<readonly TargetTest[]>
}

export interface TargetStatus {
  readonly name: string
  readonly way: 'webhook' | 'command'
  readonly on: readonly NoticeKind[]
  /** The name of the member that tells it while nothing comes between: the first that lives, of those that have it. */
  readonly teller: string
  /** Notices that this peer holds until they are told by anybody. */
  readonly waiting: number
  /** What became of the last message from this peer. Null: it has sent none since it started. */
  readonly last: { readonly atMs: number; readonly notices: number; readonly failed?: string | undefined } | null
}

export interface TargetTest {
  readonly name: string
  readonly tookMs: number
  /** Why it did not get it. Absent: it did. */
  readonly failed?: string | undefined
}

export const notifyTestSchema = z.strictObject({ name: nameSchema.optional() })
export type NotifyTestWish = z.output<typeof notifyTestSchema>

/** UsageError NOTIFY_REQUEST. */
export function parseNotifyTest(raw: unknown): NotifyTestWish {
  const shape = check(notifyTestSchema, raw)
  if (shape.ok) return shape.value
  const { problems } = shape
  throw new UsageError('NOTIFY_REQUEST', problems.map(problemText).join('\n'), { details: { problems } })
}
