/**
 * The symbols of one grid in memory, where coder and decoder want them: the data in stream order and the parity diagonal by
 * diagonal, so that of each codeword both are one piece (`codec.ts` asks for that) and nothing is copied to code it. A column
 * is then not one piece but n of them; who needs it whole makes one of them, at the price of a copy (`encode.ts`).
 */
import { DiapauseError } from '../errors.ts'
import { diagonalAt, type GridShape, gridDataBytes, type Place, rowsOf } from './grid.ts'

export class GridMemory {
  readonly shape: GridShape
  /** C × k symbols in stream order. */
  readonly data: Uint8Array
  /** C × m symbols: the m of diagonal 0 first. */
  readonly parity: Uint8Array

  /** Memory that is handed in is used as it is. ERASURE_LENGTH. */
  constructor(
    shape: GridShape,
    data: Uint8Array = Buffer.allocUnsafeSlow(gridDataBytes(shape)),
    parity: Uint8Array = Buffer.allocUnsafeSlow(gridParityBytes(shape))
  ) {
    if (data.length !== gridDataBytes(shape) || parity.length !== gridParityBytes(shape)) {
      throw new DiapauseError('ERASURE_LENGTH', `${data.length} + ${parity.length} bytes are no grid's data and parity`)
    }
    this.shape = shape
    this.data = data
    this.parity = parity
  }

  /** The k data symbols of diagonal d, end to end, and its m parity symbols. Views. */
  codeword(diagonal: number): { readonly data: Uint8Array; readonly parity: Uint8Array } {
    const { k, m, symbolBytes } = this.shape
    return {
      data: this.data.subarray(diagonal * k * symbolBytes, (diagonal + 1) * k * symbolBytes),
      parity: this.parity.subarray(diagonal * m * symbolBytes, (diagonal + 1) * m * symbolBytes)
    }
  }

  /** The symbol at a place: to be read, or to be received into. A view. */
  symbol(place: Place): Uint8Array {
    const { k, m, symbolBytes } = this.shape
    const diagonal = diagonalAt(this.shape, place)
    const isData = place.row < k
    const index = isData ? diagonal * k + place.row : diagonal * m + place.row - k
    return (isData ? this.data : this.parity).subarray(index * symbolBytes, (index + 1) * symbolBytes)
  }

  /** The n symbols of a column, row 0 first, as its holder stores them end to end. Views. */
  column(column: number): Uint8Array[] {
    return Array.from({ length: rowsOf(this.shape) }, (_, row) => this.symbol({ column, row }))
  }
}

/** Bytes of the parity of a grid. */
export const gridParityBytes = ({ columns, m, symbolBytes }: GridShape): number => columns * m * symbolBytes
