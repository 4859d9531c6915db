import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createCodec } from '../../node/erasure/codec.ts'
import { decodeDiagonal } from '../../node/erasure/decode.ts'
import { encodeGrid, symbolHash } from '../../node/erasure/encode.ts'
import { diagonalMembers, type GridShape, gridDataBytes, gridShape, symbolHashOffset } from '../../node/erasure/grid.ts'

const codec = createCodec()

/** Codes random data, returns the n symbols of the codeword. */
async function codeword(k: number, m: number, symbolBytes: number): Promise<Buffer[]> {
  const data = randomBytes(k * symbolBytes)
  const parity = Buffer.alloc(m * symbolBytes)
  await codec.encode(data, parity, { k, m, symbolBytes })
  const all = Buffer.concat([data, parity])
  return Array.from({ length: k + m }, (_, i) => all.subarray(i * symbolBytes, (i + 1) * symbolBytes))
}

const xor = (symbols: readonly Uint8Array[]): Buffer => {
  const sum = Buffer.alloc(symbols[0]?.length ?? 0)
  for (const symbol of symbols) for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] ?? 0) ^ (symbol[i] ?? 0)
  return sum
}

function* lossPatterns(n: number, most: number): Generator<Set<number>> {
  for (let bits = 0; bits < 2 ** n; bits++) {
    const lost = new Set(Array.from({ length: n }, (_, i) => i).filter(i => bits & (1 << i)))
    if (lost.size <= most) yield lost
  }
}

const column = (grid: { columns: readonly Uint8Array[] }, c: number): Uint8Array => grid.columns[c] ?? new Uint8Array()

function symbolsOf(shape: GridShape, columns: readonly (Uint8Array | undefined)[], diagonal: number) {
  return diagonalMembers(shape, diagonal).map(({ column, row }) =>
    columns[column]?.subarray(row * shape.symbolBytes, (row + 1) * shape.symbolBytes)
  )
}

describe('the codec', () => {
  it('gives back every symbol after every loss of up to m of them, in place', async () => {
    for (const [k, m] of [
      [1, 1],
      [1, 3],
      [2, 1],
      [3, 2],
      [4, 3]
    ] as const) {
      const symbolBytes = 72
      const symbols = await codeword(k, m, symbolBytes)
      for (const lost of lossPatterns(k + m, m)) {
        const damaged = Buffer.concat(symbols.map((symbol, i) => (lost.has(i) ? randomBytes(symbolBytes) : symbol)))
        const [data, parity] = [damaged.subarray(0, k * symbolBytes), damaged.subarray(k * symbolBytes)]
        await codec.decode(
          data,
          parity,
          { k, m, symbolBytes },
          symbols.map((_, i) => !lost.has(i))
        )
        expect(damaged.equals(Buffer.concat(symbols)), `${k}+${m} without ${[...lost].join()}`).toBe(true)
      }
    }
  })

  it('makes no parity anew that lost data does not need, where only data is asked for', async () => {
    const shape = { k: 4, m: 3, symbolBytes: 72 }
    const symbols = await codeword(4, 3, 72)
    let untouched = 0
    for (const lost of lossPatterns(7, 3)) {
      const damaged = Buffer.concat(symbols.map((symbol, i) => (lost.has(i) ? Buffer.alloc(72, 1) : symbol)))
      const [data, parity] = [damaged.subarray(0, 4 * 72), damaged.subarray(4 * 72)]
      const present = symbols.map((_, i) => !lost.has(i))
      await codec.decode(data, parity, shape, present, true)
      expect(data.equals(Buffer.concat(symbols.slice(0, 4))), `without ${[...lost].join()}`).toBe(true)
      const last = parity.subarray(2 * 72)
      if (lost.has(6) && last.equals(Buffer.alloc(72, 1))) untouched++
    }
    // The last parity symbol is lost in 22 of them, and never needed where any four of the others are left.
    expect(untouched).toBe(22)
  })

  it('gives back random losses of large shapes', async () => {
    const shapes = fc.tuple(
      fc.integer({ min: 1, max: 24 }),
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 1, max: 40 })
    )
    await fc.assert(
      fc.asyncProperty(shapes, fc.array(fc.nat(), { minLength: 6, maxLength: 6 }), async ([k, m, words], picks) => {
        const symbolBytes = words * 8
        const symbols = await codeword(k, m, symbolBytes)
        const lost = new Set(picks.slice(0, m).map(pick => pick % (k + m)))
        const shape = gridShape({ columns: k + m, k, m, symbolBytes: Math.max(64, symbolBytes) })
        const data = await decodeDiagonal(
          codec,
          { ...shape, symbolBytes },
          symbols.map((s, i) => (lost.has(i) ? undefined : s))
        )
        expect(Buffer.concat(symbols.slice(0, k)).equals(data)).toBe(true)
      }),
      { numRuns: 60 }
    )
  })

  it('has the XOR of the data as its first parity, for every m', async () => {
    for (const [k, m] of [
      [2, 1],
      [5, 1],
      [3, 2],
      [10, 4],
      [24, 6]
    ] as const) {
      const symbols = await codeword(k, m, 64)
      expect(symbols[k]?.equals(xor(symbols.slice(0, k)))).toBe(true)
    }
  })

  it('is linear: the parity of a sum is the sum of the parities', async () => {
    const shape = { k: 4, m: 3, symbolBytes: 256 }
    const [a, b] = [randomBytes(1024), randomBytes(1024)]
    const parities = [a, b, xor([a, b])].map(() => Buffer.alloc(768))
    for (const [i, data] of [a, b, xor([a, b])].entries()) await codec.encode(data, parities[i] ?? a, shape)
    expect(parities[2]?.equals(xor(parities.slice(0, 2)))).toBe(true)
  })

  it('does the same for memory at any alignment', async () => {
    const shape = { k: 3, m: 2, symbolBytes: 4096 }
    const data = randomBytes(3 * 4096)
    const straight = Buffer.alloc(2 * 4096)
    await codec.encode(data, straight, shape)
    for (const [dataShift, parityShift] of [
      [1, 0],
      [0, 3],
      [5, 6]
    ] as const) {
      const moved = Buffer.alloc(data.length + 8)
      moved.set(data, dataShift)
      const parity = Buffer.alloc(straight.length + 8).subarray(parityShift, parityShift + straight.length)
      await codec.encode(moved.subarray(dataShift, dataShift + data.length), parity, shape)
      expect(parity.equals(straight)).toBe(true)
    }
  })

  it('refuses wrong lengths and shapes instead of aborting the process', async () => {
    const shape = { k: 2, m: 1, symbolBytes: 64 }
    const bad: [Uint8Array, Uint8Array, typeof shape, string][] = [
      [new Uint8Array(0), Buffer.alloc(64), shape, 'ERASURE_LENGTH'],
      [Buffer.alloc(128), new Uint8Array(0), shape, 'ERASURE_LENGTH'],
      [Buffer.alloc(127), Buffer.alloc(64), shape, 'ERASURE_LENGTH'],
      [new Uint8Array(0), new Uint8Array(0), { ...shape, symbolBytes: 0 }, 'ERASURE_SHAPE'],
      [Buffer.alloc(120), Buffer.alloc(60), { ...shape, symbolBytes: 60 }, 'ERASURE_SHAPE'],
      [Buffer.alloc(128), new Uint8Array(0), { ...shape, m: 0 }, 'ERASURE_SHAPE'],
      [Buffer.alloc(64 * 25), Buffer.alloc(64), { ...shape, k: 25 }, 'ERASURE_SHAPE']
    ]
    for (const [data, parity, wrong, code] of bad) {
      await expect(codec.encode(data, parity, wrong)).rejects.toMatchObject({ code })
      await expect(codec.decode(data, parity, wrong, [true, true, false])).rejects.toMatchObject({ code })
    }
    const good = [Buffer.alloc(128), Buffer.alloc(64)] as const
    await expect(codec.decode(...good, shape, [true, true])).rejects.toMatchObject({ code: 'ERASURE_LENGTH' })
    await expect(codec.decode(...good, shape, [true, false, false])).rejects.toMatchObject({
      code: 'DECODE_IMPOSSIBLE'
    })
  })
})

describe('a coded grid', () => {
  it('gives its data back without any m columns', async () => {
    const shape = gridShape({ columns: 6, k: 3, m: 2, symbolBytes: 64 })
    const data = randomBytes(gridDataBytes(shape))
    const grid = await encodeGrid(codec, shape, data)
    for (const lost of lossPatterns(6, 2)) {
      const columns = grid.columns.map((bytes, c) => (lost.has(c) ? undefined : bytes))
      const diagonals: Uint8Array[] = []
      for (let d = 0; d < 6; d++) diagonals.push(await decodeDiagonal(codec, shape, symbolsOf(shape, columns, d)))
      expect(Buffer.concat(diagonals).equals(data), `without ${[...lost].join()}`).toBe(true)
    }
  })

  it('cannot give it back without k symbols of a diagonal', async () => {
    const shape = gridShape({ columns: 5, k: 3, m: 2, symbolBytes: 64 })
    const grid = await encodeGrid(codec, shape, randomBytes(gridDataBytes(shape)))
    const symbols = symbolsOf(shape, [undefined, undefined, undefined, column(grid, 3), column(grid, 4)], 0)
    await expect(decodeDiagonal(codec, shape, symbols)).rejects.toMatchObject({ code: 'DECODE_IMPOSSIBLE' })
  })

  it('keeps the first 16 bytes of the SHA-256 of each symbol', async () => {
    const shape = gridShape({ columns: 7, k: 4, m: 2, symbolBytes: 128 })
    const { columns, hashes } = await encodeGrid(codec, shape, randomBytes(gridDataBytes(shape)))
    for (const [c, bytes] of columns.entries()) {
      for (let row = 0; row < 6; row++) {
        const at = symbolHashOffset(shape, { column: c, row })
        expect(symbolHash(bytes.subarray(row * 128, (row + 1) * 128))).toEqual(hashes.subarray(at, at + 16))
      }
    }
  })

  it('is padded with zeros where the data ends before it, and refuses more than it holds', async () => {
    const shape = gridShape({ columns: 3, k: 2, m: 1, symbolBytes: 64 })
    const data = randomBytes(201)
    const full = Buffer.concat([data, Buffer.alloc(gridDataBytes(shape) - 201)])
    expect(await encodeGrid(codec, shape, data)).toEqual(await encodeGrid(codec, shape, full))
    await expect(encodeGrid(codec, shape, randomBytes(385))).rejects.toMatchObject({ code: 'ERASURE_LENGTH' })
  })
})
