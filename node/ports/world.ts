/** Time and the log. */

export interface Clock {
  /** Monotonic milliseconds; goes on while the process is stopped (SIGSTOP) and while the machine sleeps (a laptop's lid). */
  now(): number
  /** Calls `fn` once after `ms`, in which time asleep does not count; the result cancels it. */
  after(ms: number, fn: () => void): () => void
}

export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}
