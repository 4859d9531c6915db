/**
 * Which symbol size: small ones make a degraded read cheap, since k whole symbols are fetched, checked and decoded for one page,
 * large ones make coding fast, since a call costs tens of microseconds whatever its size. The code is the default, 3+2.
 */
import { randomFillSync } from 'node:crypto'
import { quantile } from '../../protocols/epoch/cut-profile.ts'
import { decodeDiagonal } from '../../node/erasure/decode.ts'
import { encodeGrid, symbolHash } from '../../node/erasure/encode.ts'
import { GridMemory } from '../../node/erasure/grid-memory.ts'
import { columnBytes, diagonalMembers, gridShape } from '../../node/erasure/grid.ts'
import { table } from '../../node/edge/format.ts'
import type { Codec } from '../../node/ports.ts'
import { type Check, note } from '../measure.ts'
import { gigabytesPerSecond, takeTurns } from './code-timing.ts'

const SIZES_KIB = [4, 8, 16, 32, 64, 128, 256, 512, 1024] as const
const [K, M] = [3, 2]
/** Of columns under way, as a snapshot has them (`node/image/stream-writer.ts`): so many grids are coded side by side. */
const UNDERWAY_BYTES = 5 << 20
const READS = 200
/** A gigabit link, in bytes a millisecond. */
const LINK_BYTES_PER_MS = 125_000

interface SizeRow {
  readonly symbolKiB: number
  /** GB/s of data, with hashes and columns. */
  readonly encode: number
  /** Of a page in a lost symbol: bytes fetched; and checked and decoded, median and 99th percentile. */
  readonly degradedBytes: number
  readonly degradedMs: number
  readonly degradedP99Ms: number
  /** Of a page in a symbol that is there: hashing it. */
  readonly directMs: number
}

export async function measureSymbolSizes(codec: Codec, progress: (line: string) => void) {
  const rows: SizeRow[] = []
  for (const symbolKiB of SIZES_KIB) {
    progress(`symbols of ${symbolKiB} KiB: coding, degraded reads`)
    rows.push(await measureSize(codec, symbolKiB))
  }
  return { rows, checks: rows.flatMap(notes), text: tableOf(rows) }
}

async function measureSize(codec: Codec, symbolKiB: number): Promise<SizeRow> {
  const shape = gridShape({ columns: K + M, k: K, m: M, symbolBytes: symbolKiB << 10 })
  const memory = new GridMemory(shape)
  randomFillSync(memory.data)
  const { data } = memory
  const grids = Math.max(1, Math.floor(UNDERWAY_BYTES / (shape.columns * columnBytes(shape))))
  const batches = Math.max(1, Math.floor((16 << 20) / (grids * data.length)))
  const { encode } = await takeTurns(
    {
      encode: {
        run: async () => {
          for (let batch = 0; batch < batches; batch++) {
            await Promise.all(Array.from({ length: grids }, () => encodeGrid(codec, shape, data)))
          }
        }
      }
    },
    12
  )
  const { columns } = await encodeGrid(codec, shape, data)
  const { degraded, direct } = await reads()
  return {
    symbolKiB,
    encode: gigabytesPerSecond(batches * grids * data.length, encode),
    degradedBytes: K * shape.symbolBytes,
    degradedMs: quantile(degraded, 0.5),
    degradedP99Ms: quantile(degraded, 0.99),
    directMs: quantile(direct, 0.5)
  }

  async function reads() {
    const degraded: number[] = []
    const direct: number[] = []
    for (let read = 0; read < READS; read++) {
      const symbols = diagonalMembers(shape, read % shape.columns).map(({ column, row }) =>
        columns[column]?.subarray(row * shape.symbolBytes, (row + 1) * shape.symbolBytes)
      )
      const begin = performance.now()
      symbolHash(symbols[0] ?? data)
      direct.push(performance.now() - begin)
      // The first is lost, and the k after it have come.
      const left = symbols.map((symbol, row) => (row >= 1 && row <= K ? symbol : undefined))
      const start = performance.now()
      for (const symbol of left) if (symbol !== undefined) symbolHash(symbol)
      await decodeDiagonal(codec, shape, left)
      degraded.push(performance.now() - start)
    }
    return { degraded, direct }
  }
}

const notes = ({ symbolKiB, encode, degradedMs }: SizeRow): Check[] => [
  note(`symbols of ${symbolKiB} KiB: encode with hashes`, encode, 'GB/s'),
  note(`symbols of ${symbolKiB} KiB: degraded read, checked and decoded`, degradedMs, 'ms')
]

function tableOf(rows: readonly SizeRow[]): string[] {
  const lines = rows.map(row => [
    `${row.symbolKiB} KiB`,
    `${row.encode.toFixed(2)} GB/s`,
    `${row.directMs.toFixed(3)} ms`,
    `${row.degradedMs.toFixed(3)} ms`,
    `${row.degradedP99Ms.toFixed(3)} ms`,
    `${row.degradedBytes >> 10} KiB`,
    `${(row.degradedBytes / LINK_BYTES_PER_MS).toFixed(2)} ms`
  ])
  const head = ['symbol', 'encode', 'direct read', 'degraded read', 'p99', 'fetches', 'of 1 Gb/s']
  return ['3+2: what a symbol costs, without disks and network', ...table([head, ...lines])]
}
