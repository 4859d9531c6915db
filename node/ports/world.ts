/** Time and the log. */

export interface Clock {
  /** Monotonic milliseconds; goes on while the process is stopped (SIGSTOP), as CLOCK_MONOTONIC does. */
  now(): number
  /** Calls `fn` once after `ms`; the result cancels it. */
  after(ms: number, fn: () => void): () => void
}

export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}
