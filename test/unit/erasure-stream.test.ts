import { randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createCodec } from '../../node/erasure/codec.ts'
import { decodeStream, decodeSymbol, GridDecoder } from '../../node/erasure/decode.ts'
import { type EncodedGrid, encodeGrid } from '../../node/erasure/encode.ts'
import { GridEncoder } from '../../node/erasure/grid-encoder.ts'
import { GridMemory } from '../../node/erasure/grid-memory.ts'
import {
  completesWith,
  dataSymbols,
  decodableAfter,
  type GridShape,
  gridDataBytes,
  gridShape,
  gridSymbolSizes
} from '../../node/erasure/grid.ts'
import type { StreamManifest } from '../../node/ports.ts'
import { PLAIN_SHAPES, plainCodeword, plainColumns, plainDecode } from './erasure-plain.ts'

const codec = createCodec()

/** Bytes that are the same for the same seed. */
function bytesOf(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0, x = seed | 1; i < length; i++) {
    x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d) + 0x9e3779b9
    bytes[i] = x >>> 24
  }
  return bytes
}

const shapes = fc
  .record({
    code: fc.constantFrom(...PLAIN_SHAPES.filter(([k]) => k < 16)),
    extra: fc.nat({ max: 4 }),
    symbolBytes: fc.constantFrom(64, 72, 128, 1000)
  })
  .map(({ code: [k, m], extra, symbolBytes }) => gridShape({ columns: k + m + extra, k, m, symbolBytes }))

/** A stream as a whole: encoded in grids, as a manifest and a function that reads columns. */
async function stored(shape: GridShape, data: Buffer) {
  const sizes = gridSymbolSizes(shape, data.length)
  const grids: EncodedGrid[] = []
  for (const [g, symbolBytes] of sizes.entries()) {
    const at = g * gridDataBytes(shape)
    grids.push(await encodeGrid(codec, { ...shape, symbolBytes }, data.subarray(at, at + gridDataBytes(shape))))
  }
  const manifest: StreamManifest = {
    stream: 'g/v/1/1',
    k: shape.k,
    m: shape.m,
    holders: Array.from({ length: shape.columns }, (_, c) => `p${c}`),
    dataBytes: data.length,
    grids: sizes.map((symbolBytes, g) => ({ symbolBytes, hashes: grids[g]?.hashes ?? Buffer.alloc(0) }))
  }
  return { manifest, columns: grids.map(grid => grid.columns) }
}

async function whole(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Buffer[] = []
  for await (const piece of pieces) all.push(Buffer.from(piece))
  return Buffer.concat(all)
}

describe('the code beside its plain version', () => {
  it('has the parity of the plain code, for every field, also where symbols are coded in several blocks', async () => {
    for (const [k, m] of PLAIN_SHAPES) {
      for (const symbolBytes of k === 16 ? [64, 65_536] : [64, 1000, k === 8 ? 65_536 : 128]) {
        const data = bytesOf(k * symbolBytes, k * 100 + m)
        const parity = Buffer.alloc(m * symbolBytes)
        await codec.encode(data, parity, { k, m, symbolBytes })
        const symbols = Array.from({ length: k }, (_, i) => data.subarray(i * symbolBytes, (i + 1) * symbolBytes))
        const plain = Buffer.concat(plainCodeword(symbols, m).slice(k))
        expect(parity.equals(plain), `${k}+${m} of ${symbolBytes} bytes`).toBe(true)
      }
    }
  })

  it('makes the same columns of a stream, in whatever pieces that comes, also of a short last grid', async () => {
    await fc.assert(
      fc.asyncProperty(
        shapes,
        fc.nat(),
        fc.array(fc.nat({ max: 3000 }), { minLength: 1 }),
        async (shape, size, cuts) => {
          const data = bytesOf(size % (gridDataBytes(shape) + 1), size)
          const columns = new Array<Uint8Array>(shape.columns)
          const memory = new GridMemory(shape)
          memory.data.fill(255) // of an earlier grid
          const encoder = new GridEncoder(codec, memory, {
            column: (column, symbols) => void (columns[column] = Buffer.concat(symbols))
          })
          for (let at = 0, cut = 0; at < data.length; cut++) {
            at += encoder.write(data.subarray(at, at + 1 + (cuts[cut % cuts.length] ?? 0)))
          }
          await encoder.end()
          const plain = plainColumns(shape, data)
          expect(columns.every((column, c) => plain[c]?.equals(column))).toBe(true)
          const atOnce = await Promise.all([encodeGrid(codec, shape, data), encodeGrid(codec, shape, data)])
          for (const { columns: each } of atOnce) expect(each.every((column, c) => plain[c]?.equals(column))).toBe(true)
        }
      ),
      { numRuns: 40 }
    )
  })

  it('rebuilds any one symbol as the plain code does, from any k others', async () => {
    await fc.assert(
      fc.asyncProperty(
        shapes,
        fc.nat(),
        fc.array(fc.nat(), { minLength: 6, maxLength: 6 }),
        async (shape, wanted, picks) => {
          const { k, m, symbolBytes } = shape
          const data = Array.from({ length: k }, (_, i) => bytesOf(symbolBytes, wanted + i))
          const symbols = plainCodeword(data, m)
          const row = wanted % (k + m)
          const lost = new Set([row, ...picks.map(pick => pick % (k + m))].slice(0, m))
          const left = symbols.map((symbol, i) => (lost.has(i) ? undefined : symbol))
          expect(Buffer.from(await decodeSymbol(codec, shape, left, row)).equals(symbols[row] ?? Buffer.alloc(0))).toBe(
            true
          )
          const plain = plainDecode(left, k) ?? []
          expect(data.every((symbol, i) => symbol.equals(plain[i] ?? Buffer.alloc(0)))).toBe(true)
        }
      ),
      { numRuns: 40 }
    )
  })

  it('gives a stream back whole without any m columns, and with wrong symbols among the others', async () => {
    const losses = fc.array(fc.nat(), { minLength: 6, maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(shapes, fc.nat(), losses, fc.nat(), async (shape, size, picks, wrong) => {
        const data = bytesOf(1 + (size % (3 * gridDataBytes(shape))), size)
        const { manifest, columns } = await stored(shape, data)
        const gone = new Set(picks.slice(0, shape.m).map(pick => pick % shape.columns))
        const full = gone.size === shape.m
        const read = async (grid: number, column: number): Promise<Uint8Array | undefined> => {
          if (gone.has(column)) return undefined
          const bytes = Buffer.from(columns[grid]?.[column] ?? [])
          // One column more is wrong somewhere, where that may be.
          if (!full && column === wrong % shape.columns)
            bytes[wrong % bytes.length] = (bytes[wrong % bytes.length] ?? 0) ^ 1
          return bytes
        }
        expect((await whole(decodeStream(codec, manifest, read))).equals(data)).toBe(true)
      }),
      { numRuns: 40 }
    )
  })

  it('says so where too much of a stream is lost', async () => {
    const shape = gridShape({ columns: 6, k: 3, m: 2, symbolBytes: 64 })
    const { manifest, columns } = await stored(shape, randomBytes(2000))
    const without = (gone: readonly number[]) => async (grid: number, column: number) =>
      gone.includes(column) ? undefined : columns[grid]?.[column]
    await expect(whole(decodeStream(codec, manifest, without([0, 1, 2])))).rejects.toMatchObject({
      code: 'DECODE_IMPOSSIBLE'
    })
    const short = { ...manifest, grids: manifest.grids.map(grid => ({ ...grid, hashes: grid.hashes.subarray(1) })) }
    await expect(whole(decodeStream(codec, short, without([])))).rejects.toMatchObject({ code: 'ERASURE_SHAPE' })
  })
})

describe('a grid as a stream', () => {
  it('gives each column out with its last diagonal, and none before', async () => {
    for (const columns of [5, 6, 9, 12]) {
      const shape = gridShape({ columns, k: 3, m: 2, symbolBytes: 64 })
      const out: number[] = []
      const encoder = new GridEncoder(codec, new GridMemory(shape), { column: column => void out.push(column) })
      for (let diagonal = 0; diagonal < columns; diagonal++) {
        encoder.write(randomBytes(3 * 64 - 1))
        await setImmediate()
        const before = out.length
        encoder.write(randomBytes(1))
        for (let turn = 0; turn < 1000 && out.length < complete(shape, diagonal); turn++) await setImmediate()
        expect(before).toBe(diagonal === 0 ? 0 : complete(shape, diagonal - 1))
        expect(out.every(column => completesWith(shape, column) <= diagonal)).toBe(true)
        expect(out).toHaveLength(complete(shape, diagonal))
      }
      await encoder.end()
      expect(out).toHaveLength(columns)
    }

    function complete(shape: GridShape, diagonal: number): number {
      return Array.from({ length: shape.columns }, (_, c) => c).filter(c => completesWith(shape, c) <= diagonal).length
    }
  })

  it('has every symbol after its deadline, whichever m columns are lost, and some not before', async () => {
    let tight = 0
    await fc.assert(
      fc.asyncProperty(shapes, fc.array(fc.nat(), { minLength: 6, maxLength: 6 }), async (shape, picks) => {
        const { k, m, columns, symbolBytes } = shape
        const data = bytesOf(gridDataBytes(shape), 7)
        const grid = await encodeGrid(codec, shape, data)
        const gone = new Set(picks.slice(0, m).map(pick => pick % columns))
        const decoder = new GridDecoder(codec, new GridMemory(shape))
        for (const lost of gone) decoder.addColumn(lost, undefined)
        for (let column = 0; column < columns; column++) {
          if (!gone.has(column)) decoder.addColumn(column, grid.columns[column])
          const ready = await decoder.advance()
          for (let i = 0; i < dataSymbols(shape); i++) {
            const here = Math.floor(i / k) < ready
            if (decodableAfter(shape, i) <= column) expect(here).toBe(true)
            if (!here && decodableAfter(shape, i) === column + 1) tight++
          }
          const bytes = ready * k * symbolBytes
          expect(data.subarray(0, bytes).equals(decoder.memory.data.subarray(0, bytes))).toBe(true)
        }
        expect(await decoder.advance()).toBe(columns)
      }),
      { numRuns: 40 }
    )
    expect(tight).toBeGreaterThan(0)
  })

  it('waits for symbols that may still come, and decodes without those that will not', async () => {
    const shape = gridShape({ columns: 5, k: 3, m: 2, symbolBytes: 64 })
    const grid = await encodeGrid(codec, shape, bytesOf(gridDataBytes(shape), 3))
    const decoder = new GridDecoder(codec, new GridMemory(shape))
    for (const column of [1, 2, 3]) decoder.addColumn(column, grid.columns[column])
    expect(await decoder.advance()).toBe(0) // of diagonal 0 symbol 0 is in column 0, which may come
    decoder.addColumn(0, undefined)
    expect(await decoder.advance()).toBe(2)
    expect(() => decoder.addColumn(4, new Uint8Array(3))).toThrow(expect.objectContaining({ code: 'ERASURE_LENGTH' }))
    decoder.addColumn(4, undefined)
    expect(await decoder.advance()).toBe(5)
    const lost = new GridDecoder(codec, new GridMemory(shape))
    for (const column of [0, 1, 2]) lost.addColumn(column, undefined)
    for (const column of [3, 4]) lost.addColumn(column, grid.columns[column])
    await expect(lost.advance()).rejects.toMatchObject({ code: 'DECODE_IMPOSSIBLE' })
  })
})
