/** Which streams of a table an epoch gives up: by their use (`stream-choice.ts`), and by the losses that they bear. Pure. */
import { isBaseStream } from '../../protocols/base.ts'
import type { StreamId } from '../ports.ts'
import { type PageTable, SEGMENT_PAGES, ZERO_SLOT } from './page-table.ts'
import { type StreamUse, streamsToRetire, toleratedLosses } from './stream-choice.ts'

export interface Retiring {
  /** Slot → whether. */
  readonly retired: boolean[]
  readonly uses: readonly StreamUse[]
  /** Losses that the new stream bears. */
  readonly tolerated: number
}

/**
 * `table` before the epoch; `changed` pages lately; the new stream goes to `holders`, with `m` columns to spare. `keeps`: streams
 * that others lean on.
 */
export function retiring(
  table: PageTable,
  {
    holders,
    peers,
    m,
    changed,
    keeps
  }: {
    readonly holders: readonly string[]
    /** Those that live. */
    readonly peers: readonly string[]
    readonly m: number
    readonly changed: number
    keeps(stream: StreamId): boolean
  }
): Retiring {
  const stored = table.storedSegments()
  const blocks = table.livePlaces(table.ramPages)
  const uses = table.streams.map((stream, slot) => {
    const shared = stream !== undefined && (isBaseStream(stream.manifest.stream) || keeps(stream.manifest.stream))
    const live = table.live(slot) + (stored[slot] ?? 0)
    return { live, pages: stream?.pages ?? 0, blocks: blocks[slot] ?? 0, shared }
  })
  const retired: boolean[] = []
  for (const slot of streamsToRetire(uses, changed)) retired[slot] = true
  const tolerated = toleratedLosses(holders, m, holders)
  for (const [slot, stream] of table.streams.entries()) {
    if (stream === undefined) continue
    const { manifest, lengths } = stream
    if (lengths === undefined || toleratedLosses(manifest.holders, manifest.m, peers) < tolerated) retired[slot] = true
  }
  return { retired, uses, tolerated }
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
