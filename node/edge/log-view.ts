/** How much a peer's log tells: what the edge asks of a peer about it, and shows; part of `PeerView`. */
import { z } from 'zod'
import { check, problemText } from '../../config/words.ts'
import { UsageError } from '../errors.ts'

export const logLevelSchema = z.enum(['debug', 'info', 'warn', 'error'])
export type LogLevel = z.output<typeof logLevelSchema>

export interface LogStatus {
  readonly level: LogLevel
  /** As the config of the peer says, and as it is after a restart. */
  readonly configured: LogLevel
}

export interface LogView {
  status(): LogStatus
  /** From the next line on, until the peer ends. Undefined: as its config says. */
  setLevel(level: LogLevel | undefined): LogStatus
}

export const logWishSchema = z.strictObject({ level: logLevelSchema })

/** UsageError API_BAD_REQUEST. */
export function parseLogWish(raw: unknown): z.output<typeof logWishSchema> {
  const shape = check(logWishSchema, raw)
  if (shape.ok) return shape.value
  throw new UsageError('API_BAD_REQUEST', shape.problems.map(problemText).join('\n'))
}
