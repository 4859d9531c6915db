/**
 * Every error that a person or another part may act upon. `code` is stable and may be matched; the message may change
 * and says what to do; `cause` keeps what lay beneath. Programmer mistakes stay `TypeError` or a failed assertion.
 */
export class DiapauseError extends Error {
  readonly code: string
  /** Facts for logs and `--json`, e.g. both sides of a mismatch. */
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: string, message: string, options: { cause?: unknown; details?: Record<string, unknown> } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'DiapauseError'
    this.code = code
    this.details = Object.freeze({ ...options.details })
  }
}

/** What the person at the keyboard can mend: the command line, the config, the machine. The CLI prints it and exits 2. */
export class UsageError extends DiapauseError {
  override readonly name = 'UsageError'
}

/** True where `error` carries `code`, whatever its class. */
export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && (error as { code?: unknown }).code === code
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
