/**
 * Who has the columns of streams, for whoever is about to lean on them: what was seen at each look, and since when something is
 * lacking. A column that nobody has may merely be late, or under repair, so one look does not count. Pure.
 */
import type { PeerId } from '../../protocols/core.ts'
import type { StreamId } from '../ports.ts'
import type { RepairFacts, StreamFacts } from './repair.ts'
import { spreadOf } from './spread.ts'

/** A column lacks when two looks at least so far apart found nobody with it. A guess: four times what its putter waits for it. */
const LATE_MS = 2_000

export interface LookFacts extends Pick<RepairFacts, 'streams' | 'standing'> {
  /** Of all that are members and do not leave. */
  readonly staying: readonly PeerId[]
  /** Members of any kind. */
  readonly members: readonly PeerId[]
}

export class StoredColumns {
  /** Stream and column → when it was first seen to lack; those that lack now. */
  #lacking = new Map<string, number>()
  #elsewhere = new Map<StreamId, readonly PeerId[]>()

  note({ streams, standing, staying, members }: LookFacts, nowMs: number): void {
    const before = this.#lacking
    this.#lacking = new Map()
    this.#elsewhere = new Map()
    const [stays, known] = [new Set(staying), new Set(members)]
    for (const stream of streams) {
      const seen = stream.holders.map((planned, column) => {
        const places = stream.places[column] ?? []
        if (places.length > 0) return bestOf(places, stays)
        // One that does not answer may have it; one that is dead counts for nothing while it is.
        if (known.has(planned) && standing.get(planned) !== 'up' && standing.get(planned) !== 'leaving')
          return [planned]
        const name = `${stream.stream} ${column}`
        const since = before.get(name) ?? nowMs
        this.#lacking.set(name, since)
        return nowMs - since >= LATE_MS ? [] : [planned]
      })
      const holders = asPlanned(stream, seen) ? undefined : spreadOf(seen).map(peer => peer ?? '')
      if (holders !== undefined) this.#elsewhere.set(stream.stream, holders)
    }
  }

  /** Who has each column, '': nobody; undefined where that is as planned, or where nobody has looked yet. */
  of(stream: StreamId): readonly PeerId[] | undefined {
    return this.#elsewhere.get(stream)
  }
}

function bestOf(places: readonly PeerId[], stays: ReadonlySet<PeerId>): readonly PeerId[] {
  const staying = places.filter(peer => stays.has(peer))
  return staying.length > 0 ? staying : places
}

/** Each planned holder has its column, and none counts for two that another could count for. */
const asPlanned = ({ holders }: StreamFacts, seen: readonly (readonly PeerId[])[]): boolean =>
  holders.every((planned, column) => seen[column]?.includes(planned)) &&
  (seen.every(peers => peers.length === 1) || new Set(holders).size === holders.length)
