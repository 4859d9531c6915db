/** Spans on their way out: gathered, bounded, and let go where nobody takes them. What they are of never waits for it. */
import { hasCode, messageOf } from '../errors.ts'
import type { Clock, Log, Span, SpanSink } from '../ports.ts'

/** They are sent so often. A guess: soon enough for a person. */
const SEND_EVERY_MS = 2_000
/** So many wait while a collector is away; above that the oldest go. A guess: a thousand epochs. */
const MAX_WAITING = 8_192
/** In one message. OpenTelemetry's own default (OTEL_BSP_MAX_EXPORT_BATCH_SIZE). */
const MAX_SENT = 512

export class Traces {
  readonly #deps: { readonly sink: SpanSink; readonly clock: Clock; readonly log: Log }
  #waiting: Span[] = []
  #lost = 0
  /** In the next message: fewer after one that was too large. */
  #most = MAX_SENT
  #failing = false
  #due = false
  readonly #stop = new AbortController()

  constructor(deps: { readonly sink: SpanSink; readonly clock: Clock; readonly log: Log }) {
    this.#deps = deps
  }

  add(spans: readonly Span[]): void {
    if (spans.length === 0) return
    this.#waiting.push(...spans)
    const over = this.#waiting.length - MAX_WAITING
    if (over > 0) {
      this.#waiting.splice(0, over)
      this.#lost += over
    }
    this.#schedule()
  }

  /** What waits is let go. */
  stop(): void {
    this.#stop.abort()
  }

  #schedule(): void {
    if (this.#due || this.#stop.signal.aborted) return
    this.#due = true
    this.#deps.clock.after(SEND_EVERY_MS, () => void this.#send())
  }

  async #send(): Promise<void> {
    const { sink, log } = this.#deps
    const { signal } = this.#stop
    if (signal.aborted) return
    const spans = this.#waiting.splice(0, this.#most)
    try {
      await sink.send(spans, signal)
      if (this.#failing) log.info({ lost: this.#lost }, 'traces are taken again')
      this.#failing = false
      this.#lost = 0
      this.#most = Math.min(2 * this.#most, MAX_SENT)
    } catch (error) {
      const isTooLarge = hasCode(error, 'TRACES_TOO_LARGE')
      if (isTooLarge) this.#most = Math.max(1, spans.length >> 1)
      if (hasCode(error, 'TRACES_REFUSED') || (isTooLarge && spans.length === 1)) this.#lost += spans.length
      else this.#waiting.unshift(...spans)
      if (!this.#failing && !signal.aborted) log.warn({ error: messageOf(error) }, 'traces are not taken')
      this.#failing = true
    }
    this.#due = false
    if (this.#waiting.length > 0) this.#schedule()
  }
}
