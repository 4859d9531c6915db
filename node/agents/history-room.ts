/** The epochs that a peer remembers, within bounds: the newest of each group, and of all groups together what fits. Pure. */
import { type SeenEpoch, seenKey } from '../../protocols/epoch/history.ts'

/** Of one group: what a dashboard shows. A guess: three hours at the default interval. */
export const MAX_GROUP_EPOCHS = 1_000
/** Of all groups, as JSON. A guess: 25,000 epochs of one VM each, and some 30 MB of memory. */
export const MAX_HISTORY_BYTES = 8 << 20

interface Kept {
  readonly epoch: SeenEpoch
  readonly bytes: number
}

interface Group {
  /** In order of generation and number. */
  readonly epochs: Kept[]
  bytes: number
}

export class HistoryRoom {
  readonly #groups = new Map<string, Group>()
  readonly #maxEpochs: number
  readonly #maxBytes: number
  #bytes = 0

  constructor(maxEpochs = MAX_GROUP_EPOCHS, maxBytes = MAX_HISTORY_BYTES) {
    this.#maxEpochs = maxEpochs
    this.#maxBytes = maxBytes
  }

  /** As JSON. */
  get bytes(): number {
    return this.#bytes
  }

  /** In the place of what was known of the same epoch. What there is no room for any more goes: of the largest group the oldest. */
  put(epoch: SeenEpoch): void {
    let group = this.#groups.get(epoch.group)
    if (group === undefined) {
      group = { epochs: [], bytes: 0 }
      this.#groups.set(epoch.group, group)
    }
    const { epochs } = group
    // New ones come last, and what changes is among the last.
    const before = epochs.findLastIndex(kept => compare(kept.epoch, epoch) <= 0)
    const last = epochs[before]
    const old = last !== undefined && compare(last.epoch, epoch) === 0 ? last : undefined
    const kept = { epoch, bytes: JSON.stringify(epoch).length }
    if (old === undefined) epochs.splice(before + 1, 0, kept)
    else epochs[before] = kept
    this.#count(group, kept.bytes - (old?.bytes ?? 0))
    if (epochs.length > this.#maxEpochs) this.#dropOldest(group)
    while (this.#bytes > this.#maxBytes) {
      const largest = [...this.#groups.values()].reduce((most, each) => (each.bytes > most.bytes ? each : most))
      this.#dropOldest(largest)
    }
  }

  get(name: Pick<SeenEpoch, 'group' | 'generation' | 'epoch'>): SeenEpoch | undefined {
    return this.#groups.get(name.group)?.epochs.findLast(({ epoch }) => seenKey(epoch) === seenKey(name))?.epoch
  }

  /** The newest `limit`, oldest first. */
  of(group: string, limit = this.#maxEpochs): SeenEpoch[] {
    const epochs = this.#groups.get(group)?.epochs ?? []
    return epochs.slice(Math.max(0, epochs.length - limit)).map(({ epoch }) => epoch)
  }

  all(): SeenEpoch[] {
    return [...this.#groups.keys()].flatMap(group => this.of(group))
  }

  forget(group: string): void {
    this.#bytes -= this.#groups.get(group)?.bytes ?? 0
    this.#groups.delete(group)
  }

  #dropOldest(group: Group): void {
    const oldest = group.epochs.shift()
    if (oldest !== undefined) this.#count(group, -oldest.bytes)
  }

  #count(group: Group, bytes: number): void {
    group.bytes += bytes
    this.#bytes += bytes
  }
}

const compare = (a: SeenEpoch, b: SeenEpoch): number => a.generation - b.generation || a.epoch - b.epoch
