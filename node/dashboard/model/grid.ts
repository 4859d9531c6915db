/** The diagonal grid of a stream as it is drawn. Pure. As `erasure/grid.ts` has it: symbol (column c, row r) is of diagonal (c - r) mod C. */
import type { ColumnState, EpochGrid, GridStream } from '../../edge/grid-view.ts'
import { ageOf } from './text.ts'

export interface Symbol {
  readonly column: number
  readonly row: number
  readonly diagonal: number
  readonly parity: boolean
  readonly state: ColumnState
}

export function symbolsOf({ k, m, columns }: GridStream): Symbol[] {
  const count = columns.length
  return columns.flatMap(({ column, state }) =>
    Array.from({ length: k + m }, (_, row) => ({
      column,
      row,
      diagonal: (((column - row) % count) + count) % count,
      parity: row >= k,
      state
    }))
  )
}

/** 'a', …, 'z', then numbers: as the essay in `erasure/grid.ts` names them. */
export const diagonalName = (diagonal: number): string =>
  diagonal < 26 ? String.fromCharCode(97 + diagonal) : String(diagonal)

/** Of one diagonal, a codeword: any k of its symbols give back all. */
export interface Codeword {
  readonly there: number
  readonly needed: number
  readonly all: number
}

/** A symbol counts as there where somebody within reach has its column whole. */
export function codewordOf(stream: GridStream, diagonal: number): Codeword {
  const symbols = symbolsOf(stream).filter(symbol => symbol.diagonal === diagonal)
  const there = symbols.filter(({ state }) => state === 'there').length
  return { there, needed: stream.k, all: stream.k + stream.m }
}

/** How many columns of each state an epoch has. */
export function columnCounts({ images }: EpochGrid): Readonly<Record<ColumnState, number>> {
  const counts = { there: 0, partly: 0, away: 0, repairing: 0, lost: 0 }
  for (const image of images) {
    for (const { columns } of image.streams) for (const { state } of columns) counts[state] += 1
  }
  return counts
}

/** What a person needs to know of a state. */
export const stateWords: Readonly<Record<ColumnState, string>> = {
  there: 'there',
  partly: 'there in part',
  away: 'on a member that is waited for',
  repairing: 'being rebuilt',
  lost: 'lost'
}

/** All columns of an epoch in a line. None known: nothing is said of them. */
export function gridSummary(grid: EpochGrid, nowMs: number): string {
  const counts = columnCounts(grid)
  const words = (['repairing', 'lost', 'away', 'partly'] as const)
    .filter(state => counts[state] > 0)
    .map(state => `${counts[state]} ${stateWords[state]}`)
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0)
  const age = ageOf(nowMs - grid.lookedMs)
  const looked = age === 'now' ? 'just looked' : `looked ${age} ago`
  if (all === 0) return `no column is known · ${looked}`
  return words.length === 0 ? `all ${all} columns are there` : `of ${all} columns ${words.join(', ')} · ${looked}`
}
