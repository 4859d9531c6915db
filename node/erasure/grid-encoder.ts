/**
 * One grid as a stream: data in, columns out as soon as they are complete. A diagonal is coded when its last data symbol is
 * there, while later data still comes, and a column is complete with the last of its n diagonals. Because diagonals wrap
 * around, that is for columns 0 to n - 2 the grid's last diagonal, and for each column c of the others diagonal c: the price
 * for "any m columns may go" is that with C = n columns all are complete only at the grid's end, and with C > n columns n - 1
 * to C - 1 before it, one after each diagonal (`completesWith` in `grid.ts`). Memory is one grid, whatever the stream's length.
 *
 * Coding runs on libuv's threads, all diagonals that are full side by side. Nothing is copied but what `write` takes.
 */
import type { Codec } from '../ports.ts'
import { diagonalMembers, rowsOf } from './grid.ts'
import type { GridMemory } from './grid-memory.ts'

export interface GridEvents {
  /** Its parity is there. */
  diagonal?(diagonal: number): void
  /** Its n symbols are there: views of the grid's memory, row 0 first. */
  column?(column: number, symbols: readonly Uint8Array[]): void
}

export class GridEncoder {
  readonly #codec: Codec
  readonly #memory: GridMemory
  readonly #events: GridEvents
  /** Diagonals of each column that are not coded yet. */
  readonly #left: number[]
  readonly #coding: Promise<void>[] = []
  #filled = 0

  constructor(codec: Codec, memory: GridMemory, events: GridEvents) {
    this.#codec = codec
    this.#memory = memory
    this.#events = events
    this.#left = new Array<number>(memory.shape.columns).fill(rowsOf(memory.shape))
  }

  /** Copies as much of `bytes` behind what is there as the grid takes. Returns how much that was. */
  write(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.#memory.data.length - this.#filled)
    this.#memory.data.set(bytes.subarray(0, taken), this.#filled)
    this.advance(this.#filled + taken)
    return taken
  }

  /** The first `filled` bytes of the grid's data are there: for whoever writes them there by other means. */
  advance(filled: number): void {
    this.#filled = filled
    const { k, symbolBytes } = this.#memory.shape
    const whole = Math.floor(filled / (k * symbolBytes))
    while (this.#coding.length < whole) {
      const task = this.#code(this.#coding.length)
      task.catch(() => {}) // `end` tells of it
      this.#coding.push(task)
    }
  }

  /** What is missing to a full grid is zeros. Resolves when all columns are complete; rejects as the codec does. */
  async end(): Promise<void> {
    this.#memory.data.fill(0, this.#filled)
    this.advance(this.#memory.data.length)
    await Promise.all(this.#coding)
  }

  async #code(diagonal: number): Promise<void> {
    const { shape } = this.#memory
    const { data, parity } = this.#memory.codeword(diagonal)
    await this.#codec.encode(data, parity, shape)
    this.#events.diagonal?.(diagonal)
    for (const { column } of diagonalMembers(shape, diagonal)) {
      const left = (this.#left[column] ?? 0) - 1
      this.#left[column] = left
      if (left === 0) this.#events.column?.(column, this.#memory.column(column))
    }
  }
}
