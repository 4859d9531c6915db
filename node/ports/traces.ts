/** Traces: what took how long, across peers. */

/** A step of an epoch or a restore. */
export interface Span {
  /** 32 and 16 hex digits, as OpenTelemetry has them. */
  readonly traceId: string
  readonly spanId: string
  /** Absent: it is the whole. */
  readonly parentSpanId?: string | undefined
  readonly name: string
  /** Wall clock, milliseconds since 1970 with a fraction. */
  readonly startMs: number
  readonly endMs: number
  readonly attributes: Readonly<Record<string, string | number | boolean>>
  /** Why it failed. */
  readonly error?: string | undefined
}

export interface SpanSink {
  /**
   * Rejects with TRACES_FAILED: they may be taken another time; TRACES_REFUSED: never; TRACES_TOO_LARGE: fewer may be. No message has
   * a secret.
   */
  send(spans: readonly Span[], signal: AbortSignal): Promise<void>
}
