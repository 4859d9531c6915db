/** Why nobody was told: what may be tried again, and what is of no use from here. */
import { DiapauseError } from '../errors.ts'

/** `why` is free of secrets: no path and no query of a URL, nothing of a file. */
export const failed = (target: string, why: string, details: Record<string, unknown> = {}): DiapauseError =>
  new DiapauseError('NOTIFICATION_FAILED', `notification "${target}" was not delivered: ${why}`, { details })

export const refused = (target: string, why: string): DiapauseError =>
  new DiapauseError('NOTIFICATION_REFUSED', `notification "${target}" was not delivered: ${why}`)
