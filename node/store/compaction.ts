/**
 * Space comes back when a stream is dropped: a segment is of one stream, so that is whole files. Between put and drop
 * bytes die only where a record was found damaged and its column put again, which is rare, but a stream may be kept for
 * years. So a segment of which half is dead is emptied: its live columns are put again behind (the same bytes, as
 * any put: durable, then index), and the file goes. Until it has gone each column is there twice, and any crash between
 * finds one of both.
 */
import type { StreamState } from './stream-state.ts'

/** Dead bytes for each of a segment's: what a disk may lose to damage, against what emptying writes. A guess. */
const DEAD_PART = 1 / 2

/** A segment worth emptying: not the one that is being written. */
export function segmentToEmpty({ segments, writer }: StreamState, but?: ReadonlySet<number>): number | undefined {
  for (const [segment, { bytes, deadBytes }] of segments) {
    const worth = deadBytes > 0 && deadBytes >= bytes * DEAD_PART
    if (worth && segment !== writer.segment && but?.has(segment) !== true) return segment
  }
  return undefined
}

export interface Mover {
  /** The columns that the index places in this segment. */
  columnsIn(state: StreamState, segment: number): AsyncIterable<{ grid: number; column: number }>
  /** The store is closing, or the stream is being dropped. */
  stopped(state: StreamState): boolean
  /** Puts a column again behind, if it is still there. False where it cannot be read. */
  move(state: StreamState, segment: number, grid: number, column: number): Promise<boolean>
  /** Removes the file of a segment in which nothing lives. */
  remove(state: StreamState, segment: number): Promise<void>
}

/** Empties what is worth it, one segment after the other. What is damaged stays, and its segment with it. */
export async function compact(state: StreamState, mover: Mover): Promise<void> {
  const stuck = new Set<number>()
  for (;;) {
    const segment = segmentToEmpty(state, stuck)
    if (segment === undefined) return
    let moved = true
    for await (const { grid, column } of mover.columnsIn(state, segment)) {
      if (mover.stopped(state)) return
      if (!(await mover.move(state, segment, grid, column))) moved = false
    }
    if (mover.stopped(state)) return
    if (moved) await mover.remove(state, segment)
    else stuck.add(segment)
  }
}
