/** Columns by place: which there can be, their order, their numbers. Pure. */
import { DiapauseError } from '../errors.ts'
import type { ColumnPlace, StreamId } from '../ports.ts'
import { MAX_COLUMN, MAX_GRID, MAX_PAYLOAD_BYTES, MAX_STREAM_ID_BYTES } from './record.ts'

/** SHARD_INVALID for a place that no column can have. */
export function checkPlace(stream: StreamId, grid: number, column: number): void {
  const id = Buffer.byteLength(stream)
  const numbers = Number.isInteger(grid) && grid >= 0 && grid <= MAX_GRID && Number.isInteger(column) && column >= 0
  if (numbers && column <= MAX_COLUMN && id > 0 && id <= MAX_STREAM_ID_BYTES) return
  throw new DiapauseError('SHARD_INVALID', `no such place: column ${column} of grid ${grid} of a stream of ${id} bytes`)
}

/** SHARD_INVALID for what is no column. */
export function checkColumn({ length }: Uint8Array): void {
  if (length > 0 && length <= MAX_PAYLOAD_BYTES) return
  throw new DiapauseError('SHARD_INVALID', `a column has 1 to ${MAX_PAYLOAD_BYTES} bytes, and not ${length}`)
}

/** The order of `eachColumn`: stream by its UTF-16 units, then grid, then column. */
export function byPlace(a: ColumnPlace, b: ColumnPlace): number {
  if (a.stream !== b.stream) return a.stream < b.stream ? -1 : 1
  return a.grid - b.grid || a.column - b.column
}

/** Columns, ascending, with how many of the places are theirs. */
export function countGrids(places: Iterable<{ readonly column: number }>): { column: number; grids: number }[] {
  const counts = new Map<number, number>()
  for (const { column } of places) counts.set(column, (counts.get(column) ?? 0) + 1)
  return [...counts].map(([column, grids]) => ({ column, grids })).sort((a, b) => a.column - b.column)
}
