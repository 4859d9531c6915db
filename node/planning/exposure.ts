/** What each kept image bears now, as far as it is seen: pure. */
import type { PeerId } from '../../protocols/core.ts'
import type { StreamId } from '../ports.ts'
import { type RepairFacts, type StreamFacts, withinReach } from './repair.ts'
import { bears } from './spread.ts'

/** Of one image, all streams it leans on together. */
export interface Exposure {
  readonly columns: number
  /** Columns that nobody within reach has whole. */
  readonly missing: number
  /**
   * How many members, whichever, may vanish without loss: of its weakest stream. Below 0: it cannot be read now. 0 also where it
   * may be read grid by grid, as different columns lack different grids.
   */
  readonly tolerates: number
}

/** A column that nobody within reach has whole. */
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
    const [whole, parts] = withinReach(stream, facts.standing)
    const missing = whole.filter(peers => peers.length === 0).length
    return { columns: whole.length, missing, tolerates: bearsNow(whole, parts, stream) }
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
    withinReach(stream, facts.standing)[0].flatMap((peers, column) =>
      peers.length === 0 ? [{ stream: stream.stream, column, holder: stream.holders[column] ?? '' }] : []
    )
  )
}

const bearsNow = (whole: PeerId[][], parts: PeerId[][], { m }: StreamFacts): number =>
  Math.max(bears(whole, m), Math.min(0, bears(parts, m)))
