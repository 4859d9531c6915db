/** An error as answers of the API tell it, whole or as the last line of a stream. */
import { DiapauseError, messageOf } from '../errors.ts'
import { adviceBeside } from './advice.ts'

export interface ErrorOfApi {
  /** Stable. */
  readonly code: string
  /** For people; it may change. */
  readonly message: string
  /** What to do about it, where the message does not say it. */
  readonly todo?: string
}

export function errorOfApi(error: unknown): ErrorOfApi {
  const code = error instanceof DiapauseError ? error.code : 'INTERNAL'
  const todo = adviceBeside(code)
  return { code, message: messageOf(error), ...(todo !== undefined && { todo }) }
}
