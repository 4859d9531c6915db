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

/** `atMs` is by the clock of the peer that was asked, as well as can be told. */
export interface ClusterEvent extends PeerEvent {
  /** Where it happened. */
  readonly peer: PeerId
  readonly name: string
  /** Grows with every event of one run of that peer. */
  readonly seq: number
}
