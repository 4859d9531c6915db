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

/**
 * The exposure of an image, by the streams that it leans on; each stream is looked at once, however many images lean on it. Of
 * a stream that is not among the facts nothing is known.
 */
export function exposures(facts: ExposureFacts): (streams: readonly StreamId[]) => Exposure {
  const byName = new Map(facts.streams.map(stream => [stream.stream, stream]))
  const seen = new Map<StreamId, Exposure>()
  const look = (name: StreamId): Exposure => {
    const stream = byName.get(name)
    const exposure = seen.get(name) ?? (stream === undefined ? UNKNOWN : exposureOf(stream, facts.standing))
    seen.set(name, exposure)
    return exposure
  }
  return streams => {
    const all = [...new Set(streams)].map(look)
    return {
      columns: all.reduce((sum, { columns }) => sum + columns, 0),
      missing: all.reduce((sum, { missing }) => sum + missing, 0),
      tolerates: Math.min(...all.map(each => each.tolerates))
    }
  }
}

const UNKNOWN: Exposure = { columns: 0, missing: 0, tolerates: -1 }

function exposureOf(stream: StreamFacts, standing: ExposureFacts['standing']): Exposure {
  const [whole, parts] = withinReach(stream, standing)
  const missing = whole.filter(peers => peers.length === 0).length
  return { columns: whole.length, missing, tolerates: bearsNow(whole, parts, stream) }
}

export function missingColumns(facts: ExposureFacts): MissingColumn[] {
  return facts.streams.flatMap(stream =>
    withinReach(stream, facts.standing)[0].flatMap((peers, column) =>
      peers.length === 0 ? [{ stream: stream.stream, column, holder: stream.holders[column] ?? '' }] : []
    )
  )
}

function bearsNow(whole: PeerId[][], parts: PeerId[][], { m }: StreamFacts): number {
  const borne = bears(whole, m)
  return borne >= 0 ? borne : Math.max(borne, Math.min(0, bears(parts, m)))
}
