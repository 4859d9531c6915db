/** What each kept image bears now, as far as it is seen: pure. */
import type { PeerId } from '../../protocols/core.ts'
import type { StreamId } from '../ports.ts'
import { tolerates } from './holders.ts'
import type { RepairFacts, StreamFacts } from './repair.ts'

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

export interface ExposureFacts extends Pick<RepairFacts, 'standing'> {
  readonly streams: readonly (StreamFacts & { readonly m: number })[]
}

/** The exposure of an image that leans on `streams`. Of a stream that is not among the facts nothing is known. */
export function exposureOf(streams: readonly StreamId[], facts: ExposureFacts): Exposure {
  const wanted = new Set(streams)
  const found = facts.streams.filter(({ stream }) => wanted.has(stream))
  const seen = found.map(stream => {
    const places = placesNow(stream, facts.standing)
    const alive = [...new Set(places.flatMap(peer => peer ?? []))]
    return {
      columns: places.length,
      missing: places.filter(peer => peer === undefined).length,
      tolerates: tolerates(
        places.map(peer => peer ?? ''),
        stream.m,
        alive
      )
    }
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
    placesNow(stream, facts.standing).flatMap((peer, column) =>
      peer === undefined ? [{ stream: stream.stream, column, holder: stream.holders[column] ?? '' }] : []
    )
  )
}

/** Of each column: one within reach who has it, the planned holder if he does. What others have besides is not counted. */
function placesNow({ holders, places }: StreamFacts, standing: RepairFacts['standing']): (PeerId | undefined)[] {
  return holders.map((planned, column) => {
    const there = (places[column] ?? []).filter(peer => ['up', 'leaving'].includes(standing.get(peer) ?? 'gone'))
    return there.includes(planned) ? planned : [...there].sort()[0]
  })
}
