/** Events of all peers, merged as they happen: a failover while it is one; part of `ReadModels`. */
import type { PeerId } from '../../protocols/core.ts'
import type { PeerEvent } from './events.ts'

export interface ClusterEventsView {
  /** The last ones of all peers that answer, by time. */
  recent(): Promise<readonly ClusterEvent[]>
  /**
   * Calls `listener` with every event of any peer from now on, each once; of peers that come within reach later, too. The result
   * ends it.
   */
  subscribe(listener: (event: ClusterEvent) => void): () => void
}

export interface ClusterEvent extends PeerEvent {
  /** Of this event alone, whoever is asked; a client that connects again knows by it what it has. */
  readonly id: string
  /** Where it happened, and what that member is called. */
  readonly by: PeerId
  readonly name: string
  /** When, by the clock of the peer that was asked, as well as can be told. */
  readonly atMs: number
  /** That of the event. */
  readonly kind: string
  /** With the time by its own clock. */
  readonly event: PeerEvent
}
