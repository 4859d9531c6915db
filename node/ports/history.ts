/** What became of epochs, as this peer saw it. */
import type { SeenEpoch } from '../../protocols/epoch/history.ts'

export type { EpochCause, SeenCut, SeenEpoch } from '../../protocols/epoch/history.ts'

/** What agents and operations ask: kept in memory, so at once. */
export interface EpochHistory {
  /** The newest `limit` epochs of a group that this peer saw, oldest first; the one under way is the last. */
  of(group: string, limit?: number): readonly SeenEpoch[]
  /** Each time that more is known of an epoch; the result ends it. */
  onSeen(listener: (epoch: SeenEpoch) => void): () => void
}

/** On disk. Nothing waits for it, and a crash may cost the last second. */
export interface EpochHistoryStore {
  /** Every epoch that can be read, oldest first; of two with the same name the later one counts. */
  load(): Promise<SeenEpoch[]>
  /** Adds them, in order. HISTORY_WRITE: the disk does not take it; what was there stays readable. */
  append(epochs: readonly SeenEpoch[]): Promise<void>
  /** Makes these all that is kept. HISTORY_WRITE as above. */
  replace(epochs: readonly SeenEpoch[]): Promise<void>
  /** Of what is on disk now: `replace` when it is far more than it needs. */
  readonly bytes: number
  close(): Promise<void>
}
