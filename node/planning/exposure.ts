/** What each kept image bears now, as far as it is seen: pure. */
import type { PeerId } from '../../protocols/core.ts'
import type { StreamId } from '../ports.ts'
import type { RepairFacts, StreamFacts } from './repair.ts'
import { bears } from './spread.ts'

/** Of one image, all streams it leans on together. */
export interface Exposure {
  readonly columns: number
  /** Columns that nobody within reach has. */
  readonly missing: number
  /** How many members, whichever, may vanish without loss: of its weakest stream. Below 0: it cannot be read now. */
  readonly tolerates: number
}

/** A column that nobody within reach has. */
export interface MissingColumn {
  readonly stream: StreamId
  readonly column: number
  /** Who should have it. */
  readonly holder: PeerId
}

export type ExposureFacts = Pick<RepairFacts, 'standing' | 'streams'>

/** The exposure of an image that leans on `streams`. Of a stream that is not among the facts nothing is known. */
export function exposureOf(streams: readonly StreamId[], facts: ExposureFacts): Exposure {
  const wanted = new Set(streams)
  const found = facts.streams.filter(({ stream }) => wanted.has(stream))
  const seen = found.map(stream => {
    const places = placesNow(stream, facts.standing)
    const missing = places.filter(peers => peers.length === 0).length
    return { columns: places.length, missing, tolerates: bears(places, stream.m) }
  })
  const known = found.length === wanted.size
  return {
    columns: seen.reduce((sum, { columns }) => sum + columns, 0),
    missing: seen.reduce((sum, { missing }) => sum + missing, 0),
    tolerates: Math.min(...seen.map(each => each.tolerates), known ? Number.POSITIVE_INFINITY : -1)
  }
}

export function missingColumns(facts: ExposureFacts): MissingColumn[] {
  return facts.streams.flatMap(stream =>
    placesNow(stream, facts.standing).flatMap((peers, column) =>
      peers.length === 0 ? [{ stream: stream.stream, column, holder: stream.holders[column] ?? '' }] : []
    )
  )
}

/** Of each column: those within reach who have it. */
function placesNow({ holders, places }: StreamFacts, standing: RepairFacts['standing']): PeerId[][] {
  return holders.map((_, column) =>
    (places[column] ?? []).filter(peer => ['up', 'leaving'].includes(standing.get(peer) ?? 'gone'))
  )
}
