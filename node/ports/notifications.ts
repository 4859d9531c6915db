/** How people are told: by webhooks and commands. */
import type { Notice } from '../../protocols/notifications/messages.ts'

/** One message to one target. */
export interface NotificationBody {
  /** All of it for people, a line a notice. */
  readonly text: string
  readonly cluster: string
  /** The name of the peer that tells. */
  readonly peer: string
  readonly notices: readonly Notice[]
  /** Older ones that are not among them, because too many came at a time. */
  readonly left: number
}

export interface Courier {
  /**
   * Resolves when the target has taken it. NOTIFICATION_FAILED: it may take it another time (details.retryAfterMs: it said when);
   * NOTIFICATION_REFUSED: not from here, as things are. Neither message has anything of a secret.
   */
  deliver(target: string, body: NotificationBody, signal: AbortSignal): Promise<void>
}
