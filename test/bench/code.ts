/**
 * The diagonal code against the library that it rests on, and against a copy of the same bytes. The library has its codewords
 * side by side in contiguous memory, as many in flight as a grid has diagonals; the diagonal code has them in a grid and gives
 * columns out. Layout and coding are held against the library; what a snapshot does beside them is told apart:
 * each column in one piece (so that it can be moved to another thread) and SHA-256 of every symbol.
 *
 * Decoding: the first m columns are lost. Symbols are received straight into the grid's memory and decoded there; with columns
 * in one piece each symbol is copied there first. The library decodes the same symbols of the same codewords.
 */
import { randomFillSync } from 'node:crypto'
import { createRequire } from 'node:module'
import { createCodec } from '../../node/erasure/codec.ts'
import type { ReedSolomon } from '../../node/erasure/ronomon.d.ts'
import { GridDecoder } from '../../node/erasure/decode.ts'
import { encodeGrid } from '../../node/erasure/encode.ts'
import { GridEncoder } from '../../node/erasure/grid-encoder.ts'
import { GridMemory } from '../../node/erasure/grid-memory.ts'
import { diagonalMembers, type GridShape, gridShape, rowsOf } from '../../node/erasure/grid.ts'
import { UsageError } from '../../node/errors.ts'
import { atLeast, atMost, type Check, equal, note } from '../measure.ts'
import { measureSymbolSizes } from './code-sizes.ts'
import { gigabytesPerSecond, roundsFor, takeTurns, type Work } from './code-timing.ts'
import type { Measured, OptionValues } from './list.ts'

const CODES = [
  [3, 2],
  [4, 2],
  [8, 4],
  [16, 4]
] as const
const SYMBOL_KIB = [64, 1024] as const
/** The default, the largest columns that can travel, and what is larger than any (`config/limits.ts`). */
const TURNS_OF = [
  [3, 2, 64],
  [6, 2, 1020],
  [16, 4, 1024]
] as const
const PARTS: readonly string[] = [...CODES.map(([k, m]) => `${k}+${m}`), 'turns', 'sizes']
const LEAST_SHARE = 0.85
const MOST_TURN_MS = 20
/** Grids coded one after the other while the event loop is watched: a second or two. */
const TURNS_BYTES = 1 << 30

const codec = createCodec()
const library = createRequire(import.meta.url)('@ronomon/reed-solomon') as ReedSolomon

export async function measureCode(progress: (line: string) => void, options: OptionValues): Promise<Measured> {
  const { parts, megabytes } = readOptions(options)
  const checks: Check[] = []
  const details: Record<string, unknown> = {}
  for (const kib of SYMBOL_KIB) {
    for (const [k, m] of CODES) {
      if (!parts.has(`${k}+${m}`)) continue
      progress(`${k}+${m}, symbols of ${kib} KiB`)
      const shape = gridShape({ columns: k + m, k, m, symbolBytes: kib << 10 })
      const { rows, speeds } = await measureShape(shape, megabytes)
      checks.push(...rows)
      details[`${k}+${m} of ${kib} KiB`] = speeds
    }
  }
  if (parts.has('turns')) {
    progress('the event loop while grids are coded')
    for (const [k, m, kib] of TURNS_OF) {
      checks.push(...(await measureTurns(gridShape({ columns: k + m, k, m, symbolBytes: kib << 10 }))))
    }
  }
  if (!parts.has('sizes')) return { checks, details: { speeds: details } }
  const sizes = await measureSymbolSizes(codec, progress)
  return {
    checks: [...checks, ...sizes.checks],
    details: { speeds: details, symbolSizes: sizes.rows },
    text: sizes.text
  }
}

/** UsageError BENCH_USAGE. */
function readOptions({ only, megabytes = '3000' }: OptionValues): { parts: ReadonlySet<string>; megabytes: number } {
  const parts = only?.split(',') ?? PARTS
  const unknown = parts.find(part => !PARTS.includes(part))
  if (unknown !== undefined) throw new UsageError('BENCH_USAGE', `--only ${unknown}: some of ${PARTS.join(', ')}`)
  if (!/^\d{1,6}$/.test(megabytes)) throw new UsageError('BENCH_USAGE', `--megabytes ${megabytes}: a whole number`)
  return { parts: new Set(parts), megabytes: Number(megabytes) }
}

async function measureShape(shape: GridShape, megabytes: number) {
  const memory = new GridMemory(shape)
  randomFillSync(memory.data)
  const name = `${shape.k}+${shape.m} ${shape.symbolBytes >> 10} KiB`
  const bytes = memory.data.length
  const rounds = roundsFor(bytes, megabytes)
  const encoding = await takeTurns(encodings(memory), rounds)
  const columns = Array.from({ length: shape.columns }, (_, c) => Buffer.concat(memory.column(c)))
  const right = Buffer.from(memory.data)
  const decoding = await takeTurns(decodings(memory, columns), rounds)
  const speed = (ms: number): number => gigabytesPerSecond(bytes, ms)
  const rows = [
    note(`${name}: encode`, speed(encoding.diagonal), 'GB/s'),
    note(`${name}: encode, library`, speed(encoding.library), 'GB/s'),
    atLeast(`${name}: encode, share of the library`, encoding.library / encoding.diagonal, LEAST_SHARE, ''),
    note(`${name}: encode, columns in one piece`, speed(encoding.pieces), 'GB/s'),
    note(`${name}: encode, columns and hashes`, speed(encoding.hashed), 'GB/s'),
    note(`${name}: share of hashing in that`, 1 - encoding.pieces / encoding.hashed),
    note(`${name}: decode`, speed(decoding.diagonal), 'GB/s'),
    note(`${name}: decode, library`, speed(decoding.library), 'GB/s'),
    atLeast(`${name}: decode, share of the library`, decoding.library / decoding.diagonal, LEAST_SHARE, ''),
    note(`${name}: decode, from columns in one piece`, speed(decoding.pieces), 'GB/s'),
    note(`${name}: memcpy`, speed(encoding.copy), 'GB/s'),
    equal(`${name}: decoded bytes are the data`, right.equals(memory.data), true)
  ]
  const inGigabytes = (times: Record<string, number>): Record<string, number> =>
    Object.fromEntries(Object.entries(times).map(([work, ms]) => [work, speed(ms)]))
  return { rows, speeds: { encode: inGigabytes(encoding), decode: inGigabytes(decoding) } }
}

function encodings(memory: GridMemory): Record<'library' | 'diagonal' | 'pieces' | 'hashed' | 'copy', Work> {
  const { shape, data } = memory
  const diagonals = Array.from({ length: shape.columns }, (_, d) => d)
  const codewords = diagonals.map(d => memory.codeword(d))
  const target = Buffer.alloc(data.length)
  const all = async (column: (symbols: readonly Uint8Array[]) => unknown): Promise<void> => {
    const encoder = new GridEncoder(codec, memory, { column: (_, symbols) => void column(symbols) })
    encoder.advance(data.length)
    await encoder.end()
  }
  return {
    library: { run: () => bare(shape, codewords, 2 ** shape.k - 1, 2 ** rowsOf(shape) - 2 ** shape.k) },
    diagonal: { run: () => all(symbols => symbols.length) },
    pieces: { run: () => all(symbols => Buffer.concat(symbols)) },
    hashed: { run: () => encodeGrid(codec, shape, data) },
    copy: { run: async () => target.set(data) }
  }
}

/** Of which the first m columns are lost. */
function decodings(
  memory: GridMemory,
  columns: readonly Uint8Array[]
): Record<'library' | 'diagonal' | 'pieces', Work> {
  const { shape } = memory
  const diagonals = Array.from({ length: shape.columns }, (_, d) => d)
  // As the diagonals have lost them, each other symbols: the library makes the data that is missing, and no parity.
  const codewords = diagonals.map(d => ({ ...memory.codeword(d), ...bitsOf(shape, d) }))
  const prepare = (): void => {
    for (let column = 0; column < shape.m; column++) for (const symbol of memory.column(column)) symbol.fill(0)
  }
  const decoded = async (receive: (decoder: GridDecoder, column: number) => void): Promise<void> => {
    const decoder = new GridDecoder(codec, memory)
    for (const column of diagonals) {
      if (column < shape.m) decoder.addColumn(column, undefined)
      else receive(decoder, column)
    }
    await decoder.advance()
  }
  return {
    library: {
      prepare,
      run: () => Promise.all(codewords.map(each => bare(shape, [each], each.sources, each.targets)))
    },
    diagonal: {
      prepare,
      run: () =>
        decoded((decoder, column) => {
          for (let row = 0; row < rowsOf(shape); row++) decoder.set({ column, row }, true)
        })
    },
    pieces: { prepare, run: () => decoded((decoder, column) => decoder.addColumn(column, columns[column])) }
  }
}

interface Codeword {
  readonly data: Uint8Array
  readonly parity: Uint8Array
}

/** The library alone, all codewords at once. */
async function bare(shape: GridShape, codewords: readonly Codeword[], sources: number, targets: number): Promise<void> {
  if (targets === 0) return
  const context = contextOf(shape)
  await Promise.all(
    codewords.map(({ data, parity }) => {
      const [d, p] = [data as Buffer, parity as Buffer]
      return new Promise<void>((resolve, reject) => {
        const done = (error?: Error): void => (error ? reject(error) : resolve())
        library.encode(context, sources, targets, d, 0, d.length, p, 0, p.length, done)
      })
    })
  )
}

const contexts = new Map<string, Buffer>()

function contextOf({ k, m }: GridShape): Buffer {
  const context = contexts.get(`${k}+${m}`) ?? library.create(k, m)
  contexts.set(`${k}+${m}`, context)
  return context
}

/** Of a diagonal without the first m columns: a set bit for each symbol that is there, and for each that is to be made. */
function bitsOf(shape: GridShape, diagonal: number): { sources: number; targets: number } {
  let sources = 0
  let targets = 0
  let have = 0
  for (const { column, row } of diagonalMembers(shape, diagonal)) {
    const here = column >= shape.m
    if (here) have++
    if (here || have >= shape.k) sources += 2 ** row
    else targets += 2 ** row
  }
  return { sources, targets: targets % 2 ** shape.k > 0 ? targets : 0 }
}

/**
 * The longest turn of the event loop of a thread that codes grid after grid, hashes included: of its own processor time, and
 * by the clock, which has in it what other programs took of the machine.
 */
async function measureTurns(shape: GridShape): Promise<Check[]> {
  const { data } = new GridMemory(shape)
  randomFillSync(data)
  await encodeGrid(codec, shape, data)
  const turns = watchTurns()
  for (let bytes = 0; bytes < TURNS_BYTES; bytes += data.length) await encodeGrid(codec, shape, data)
  const { processorMs, clockMs } = turns.end()
  const name = `${shape.k}+${shape.m} ${shape.symbolBytes >> 10} KiB: longest turn of the event loop`
  return [
    atMost(`${name}, processor time`, processorMs, MOST_TURN_MS, 'ms'),
    note(`${name}, by the clock`, clockMs, 'ms')
  ]
}

function watchTurns(): { end(): { processorMs: number; clockMs: number } } {
  const longest = { processorMs: 0, clockMs: 0 }
  let next: NodeJS.Immediate
  let [processor, clock] = [process.threadCpuUsage(), performance.now()]
  const turn = (): void => {
    const [used, now] = [process.threadCpuUsage(processor), performance.now()]
    longest.processorMs = Math.max(longest.processorMs, (used.user + used.system) / 1000)
    longest.clockMs = Math.max(longest.clockMs, now - clock)
    processor = process.threadCpuUsage()
    clock = now
    next = setImmediate(turn)
  }
  next = setImmediate(turn)
  return {
    end() {
      clearImmediate(next)
      return longest
    }
  }
}
