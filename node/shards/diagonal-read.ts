/**
 * The read of some data symbols of one diagonal, as a small machine without I/O: it asks for rows through `ask` and is
 * told what came of them. Systematic first: the wanted rows themselves. As soon as one of them is lost, late, or held by
 * someone doubtful, the read is degraded: as many other rows are asked for, side by side, as make k together with what is
 * here and on its way. What comes first wins: all wanted rows, or any k rows.
 *
 * A hedged read asks for k + d rows from the start: it waits for none of the d slowest, and costs so much more.
 */
import type { Standing } from './holders.ts'

type Row = 'free' | 'asked' | 'late' | 'lost' | Uint8Array

export interface DiagonalReadOptions {
  readonly k: number
  readonly rows: number
  /** Data rows wanted. */
  readonly wanted: readonly number[]
  /** Rows above k that are asked for at once; 0: only those wanted. */
  readonly hedge: number
  standing(row: number): Standing
  /** Must report by `arrived` or `late`, also at once. */
  ask(row: number): void
  /** All wanted rows are here, or any k: the rest is undefined. */
  done(symbols: readonly (Uint8Array | undefined)[], degraded: boolean): void
  /** Fewer than k can ever come, and not all wanted ones: at most `coming`. */
  lost(coming: number): void
}

export class DiagonalRead {
  readonly #options: DiagonalReadOptions
  readonly #rows: Row[]
  #finished = false

  constructor(options: DiagonalReadOptions) {
    this.#options = options
    this.#rows = new Array<Row>(options.rows).fill('free')
  }

  start(): void {
    const { k, wanted, hedge, standing } = this.#options
    for (const row of wanted) if (standing(row) === 'good') this.#ask(row)
    if (hedge > 0) this.#askOthers(k + hedge - this.#count(row => row !== 'free'), ['good'])
    this.#advance()
  }

  arrived(row: number, symbol: Uint8Array | 'lost'): void {
    this.#rows[row] = symbol
    this.#advance()
  }

  late(row: number): void {
    if (this.#rows[row] === 'asked') this.#rows[row] = 'late'
    this.#advance()
  }

  #ask(row: number): void {
    this.#rows[row] = 'asked'
    this.#options.ask(row)
  }

  #advance(): void {
    if (this.#finished) return
    const { k, wanted } = this.#options
    const have = this.#count(row => typeof row === 'object')
    const direct = wanted.every(row => typeof this.#rows[row] === 'object')
    if (direct || have >= k) {
      this.#finished = true
      const symbols = this.#rows.map(row => (typeof row === 'object' ? row : undefined))
      this.#options.done(symbols, !direct)
      return
    }
    const expected = wanted.every(row => typeof this.#rows[row] === 'object' || this.#rows[row] === 'asked')
    if (!expected) this.#askOthers(k - have - this.#count(row => row === 'asked'))
    const coming = this.#count(row => typeof row === 'object' || row === 'asked' || row === 'late')
    if (expected || coming >= k || this.#finished) return
    // With what may still come the wanted rows may all arrive, though not k.
    if (wanted.every(row => !['free', 'lost'].includes(this.#rows[row] as string))) return
    this.#finished = true
    this.#options.lost(coming)
  }

  #askOthers(count: number, standings: readonly Standing[] = ['good', 'doubtful']): void {
    let left = count
    for (const standing of standings) {
      for (let row = 0; row < this.#rows.length && left > 0 && !this.#finished; row++) {
        if (this.#rows[row] !== 'free' || this.#options.standing(row) !== standing) continue
        this.#ask(row)
        left--
      }
    }
  }

  #count(test: (row: Row) => boolean): number {
    return this.#rows.reduce((sum, row) => sum + (test(row) ? 1 : 0), 0)
  }
}
