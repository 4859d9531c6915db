/** Lists of columns: their order, and their numbers. Pure. */
import type { ColumnPlace } from '../ports.ts'

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
