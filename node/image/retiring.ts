/** Which streams of a table an epoch gives up: by their use (`stream-choice.ts`), and by the losses that they bear. Pure. */
import { isBaseStream } from '../../protocols/base.ts'
import type { StoredElsewhere, StreamId } from '../ports.ts'
import type { NeighbourContents } from './foreign-streams.ts'
import { type PageTable, SEGMENT_PAGES, type StreamFacts, ZERO_SLOT } from './page-table.ts'
import { type StreamUse, streamsToRetire, toleratedLosses } from './stream-choice.ts'

/** Where the stream of an epoch goes, with `m` columns to spare; `partial`: only written pages will pass. */
export interface NewStream {
  readonly holders: readonly string[]
  /** Those that live: what another of them holds is there. Absent: the holders. */
  readonly peers?: readonly string[] | undefined
  readonly m: number
  /** Columns of `m` that may be missing when it counts as durable (`durability.ts`). Absent: 0. */
  readonly spare?: number | undefined
  readonly partial?: boolean | undefined
  /** Absent: it leans on nobody else. */
  readonly neighbours?: NeighbourContents | undefined
  /** Of streams that there are. Absent: they are as planned. */
  readonly stored?: StoredElsewhere | undefined
}

export interface Retiring {
  /** Slot → whether. */
  readonly retired: boolean[]
  readonly uses: readonly StreamUse[]
  /** Whether a stream that there is bears as many losses as the new one. */
  bears(stream: StreamFacts): boolean
}

/** `table` before the epoch; `changed` pages lately. */
export function retiring(table: PageTable, to: NewStream, changed: number): Retiring {
  const keeps = (stream: StreamId) => to.neighbours?.keeps(stream) === true
  const stored = table.storedSegments()
  const blocks = table.livePlaces(table.ramPages)
  const uses = table.streams.map((stream, slot) => {
    const shared = stream !== undefined && (isBaseStream(stream.manifest.stream) || keeps(stream.manifest.stream))
    const live = table.live(slot) + (stored[slot] ?? 0)
    return { live, pages: stream?.pages ?? 0, blocks: blocks[slot] ?? 0, shared }
  })
  const retired: boolean[] = []
  for (const slot of streamsToRetire(uses, changed)) retired[slot] = true
  const bears = bearing(to)
  for (const [slot, stream] of table.streams.entries()) {
    if (stream !== undefined && (stream.lengths === undefined || !bears(stream.manifest))) retired[slot] = true
  }
  return { retired, uses, bears }
}

/**
 * With every column that a stream is to have, wherever repair has put them, it must bear as many losses as the new one with all
 * of its; with those that are there, as many as the new one when it counts as durable. Between the two repair is waited for, which
 * costs less than to write a stream again.
 */
function bearing({ holders, peers = holders, m, spare = 0, stored }: NewStream): Retiring['bears'] {
  const whole = toleratedLosses(holders, m, holders)
  const durable = toleratedLosses(holders, m - spare, holders)
  return stream => {
    const now = stored?.get(stream.stream)
    const repaired = now?.map((peer, column) => peer || (stream.holders[column] ?? '')) ?? stream.holders
    if (toleratedLosses(repaired, stream.m, peers) < whole) return false
    return now === undefined || toleratedLosses(now, stream.m, peers) >= durable
  }
}

/** Records that are not what their segments are now, or lie in retired streams, leave the table: those segments. */
export function dropRecords(table: PageTable, retired: readonly boolean[]): number[] {
  const segments: number[] = []
  for (const [number, segment] of table.segments.entries()) {
    const record = table.recordOf(number)
    const kept = segment !== undefined && !table.owns(segment) && record !== undefined && !retired[record.slot]
    if (kept) continue
    table.setRecord(number, undefined)
    if (segment !== undefined) segments.push(number)
  }
  return segments
}

/** Slot → whether pages in it are written again, and deltas. */
export interface RetiredPlaces {
  readonly table: PageTable
  readonly retired: readonly boolean[]
  readonly retiredDeltas: readonly boolean[]
}

/** Whether the page is to be written again: it, or its delta, lies in a stream that is given up. */
export function isRetired({ table, retired, retiredDeltas }: RetiredPlaces, page: number): boolean {
  const segment = table.segmentOf(page)
  if (segment === undefined) return false
  const at = page % SEGMENT_PAGES
  if (retired[segment.slots[at] ?? ZERO_SLOT] === true) return true
  return segment.deltas !== undefined && retiredDeltas[segment.deltas.slots[at] ?? ZERO_SLOT] === true
}
