import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  columnBytes,
  dataSymbolAt,
  dataSymbols,
  diagonalAt,
  diagonalMembers,
  type GridShape,
  gridDataBytes,
  gridShape,
  gridStarts,
  gridSymbolSizes,
  locate,
  MIN_SYMBOL_BYTES,
  rowsOf,
  symbolHashOffset
} from '../../node/erasure/grid.ts'

const shapes = fc
  .record({
    k: fc.integer({ min: 1, max: 24 }),
    m: fc.integer({ min: 1, max: 6 }),
    extra: fc.integer({ min: 0, max: 30 })
  })
  .map(({ k, m, extra }) => gridShape({ columns: k + m + extra, k, m, symbolBytes: 64 }))

const small: GridShape[] = []
for (let k = 1; k <= 4; k++) {
  for (let m = 1; m <= 3; m++) {
    for (let columns = k + m; columns <= k + m + 3; columns++) small.push(gridShape({ columns, k, m, symbolBytes: 64 }))
  }
}

/** All sets of `size` numbers below `of`. */
function* subsets(of: number, size: number, from = 0): Generator<number[]> {
  if (size === 0) yield []
  else
    for (let first = from; first < of; first++)
      for (const rest of subsets(of, size - 1, first + 1)) yield [first, ...rest]
}

/** Whether every diagonal keeps k symbols when `lost` columns are gone. */
function survives(shape: GridShape, lost: readonly number[]): boolean {
  for (let d = 0; d < shape.columns; d++) {
    if (diagonalMembers(shape, d).filter(({ column }) => !lost.includes(column)).length < shape.k) return false
  }
  return true
}

describe('the diagonal grid', () => {
  it('survives the loss of every set of m columns, and not of every set of m + 1', () => {
    for (const shape of small) {
      for (const lost of subsets(shape.columns, shape.m)) expect(survives(shape, lost)).toBe(true)
      const worse = [...subsets(shape.columns, shape.m + 1)]
      expect(worse.some(lost => !survives(shape, lost))).toBe(true)
    }
  })

  it('survives the loss of any m columns in larger shapes', () => {
    fc.assert(
      fc.property(shapes, fc.array(fc.nat(), { minLength: 6, maxLength: 6 }), (shape, picks) => {
        expect(
          survives(
            shape,
            picks.slice(0, shape.m).map(pick => pick % shape.columns)
          )
        ).toBe(true)
      })
    )
  })

  it('gives every place to exactly one diagonal and every column the same k data and m parity symbols', () => {
    fc.assert(
      fc.property(shapes, shape => {
        const rows = Array.from({ length: shape.columns }, () => new Set<number>())
        for (let d = 0; d < shape.columns; d++) {
          for (const place of diagonalMembers(shape, d)) {
            expect(diagonalAt(shape, place)).toBe(d)
            rows[place.column]?.add(place.row)
          }
        }
        for (const seen of rows) expect(seen.size).toBe(rowsOf(shape))
      })
    )
  })

  it('lays the k data symbols of a codeword end to end in the stream', () => {
    fc.assert(
      fc.property(shapes, shape => {
        for (let i = 0; i < dataSymbols(shape); i++) {
          const place = dataSymbolAt(shape, i)
          expect(place.diagonal).toBe(Math.floor(i / shape.k))
          expect(diagonalMembers(shape, place.diagonal)[i % shape.k]).toEqual({ column: place.column, row: place.row })
        }
      })
    )
  })

  it('is the drawing in its essay', () => {
    const shape = gridShape({ columns: 5, k: 3, m: 2, symbolBytes: 64 })
    const drawing = ['abcde', 'eabcd', 'deabc', 'cdeab', 'bcdea']
    for (let row = 0; row < 5; row++) {
      for (let column = 0; column < 5; column++) {
        expect('abcde'[diagonalAt(shape, { column, row })]).toBe(drawing[row]?.[column])
      }
    }
  })

  it('refuses shapes that the codec cannot code', () => {
    const good = { columns: 5, k: 3, m: 2, symbolBytes: 64 }
    expect(columnBytes(gridShape(good))).toBe(320)
    const bad = [{ columns: 4 }, { columns: 256 }, { k: 0 }, { k: 25 }, { m: 0 }, { m: 7 }, { k: 1.5 }]
    const badSizes = [{ symbolBytes: 0 }, { symbolBytes: 65 }, { symbolBytes: Number.NaN }, { symbolBytes: 1 << 21 }]
    for (const change of [...bad, ...badSizes]) {
      expect(() => gridShape({ ...good, ...change })).toThrow(expect.objectContaining({ code: 'ERASURE_SHAPE' }))
    }
  })

  it('has one hash of 16 bytes for each place, column by column', () => {
    const shape = gridShape({ columns: 5, k: 3, m: 2, symbolBytes: 64 })
    const offsets = []
    for (let column = 0; column < 5; column++)
      for (let row = 0; row < 5; row++) offsets.push(symbolHashOffset(shape, { column, row }))
    expect(offsets).toEqual(Array.from({ length: 25 }, (_, i) => i * 16))
  })
})

describe('a stream over grids', () => {
  it('fills whole grids and a smaller last one, which has room and no more than it needs', () => {
    fc.assert(
      fc.property(
        shapes,
        fc.nat({ max: 2_000_000 }),
        fc.constantFrom(64, 4096, 65_536),
        (base, dataBytes, symbolBytes) => {
          const shape = { ...base, symbolBytes }
          const sizes = gridSymbolSizes(shape, dataBytes)
          const room = sizes.reduce((sum, size) => sum + gridDataBytes({ ...shape, symbolBytes: size }), 0)
          const slack = Math.max(MIN_SYMBOL_BYTES, 8) * dataSymbols(shape)
          expect(room).toBeGreaterThanOrEqual(dataBytes)
          expect(room - dataBytes).toBeLessThan(slack)
          for (const size of sizes) gridShape({ ...shape, symbolBytes: size })
          expect(sizes.slice(0, -1).every(size => size === symbolBytes)).toBe(true)
        }
      )
    )
  })

  it('locates the same bytes as counting them one by one', () => {
    const sizes = fc.array(fc.constantFrom(64, 72, 128), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(shapes, sizes, fc.nat(), fc.nat({ max: 400 }), (shape, symbolSizes, at, wanted) => {
        const holders = new Array<string>(shape.columns).fill('p')
        const grids = symbolSizes.map(symbolBytes => ({ symbolBytes, hashes: new Uint8Array(0) }))
        const room = gridStarts({ k: shape.k, holders, grids }).at(-1) ?? 0
        const manifest = { k: shape.k, holders, grids, dataBytes: room }
        const offset = at % room
        const length = Math.min(wanted, room - offset)
        const slow: string[] = []
        let stream = 0
        for (const [grid, size] of symbolSizes.entries()) {
          for (let symbol = 0; symbol < dataSymbols(shape); symbol++, stream += size) {
            const from = Math.max(offset - stream, 0)
            const to = Math.min(offset + length - stream, size)
            if (from < to) slow.push(`${grid} ${symbol} ${from} ${to}`)
          }
        }
        const fast = locate(manifest, offset, length)
        expect(fast.map(({ grid, symbol, from, to }) => `${grid} ${symbol} ${from} ${to}`)).toEqual(slow)
      })
    )
  })

  it('refuses bytes behind the end of the stream, also where the last grid has room for them', () => {
    const manifest = {
      k: 3,
      holders: ['a', 'b', 'c', 'd', 'e'],
      grids: [{ symbolBytes: 64, hashes: new Uint8Array() }]
    }
    expect(locate({ ...manifest, dataBytes: 900 }, 899, 1)).toHaveLength(1)
    expect(locate({ ...manifest, dataBytes: 900 }, 900, 0)).toEqual([])
    expect(() => locate({ ...manifest, dataBytes: 900 }, 900, 1)).toThrow(RangeError)
    expect(() => locate({ ...manifest, dataBytes: 2000 }, 1900, 1)).toThrow(RangeError)
    expect(() => locate({ ...manifest, dataBytes: 900 }, -1, 1)).toThrow(RangeError)
    expect(() => locate({ ...manifest, dataBytes: 900 }, 0.5, 1)).toThrow(RangeError)
  })
})
