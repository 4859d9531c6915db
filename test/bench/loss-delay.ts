/**
 * How long reads take while one holder of five is slow, hung or gone: the real reader with all that is under it, on the network of
 * `loss-rig.ts`. Reads are of 16 KiB within a symbol, as page faults are, by several readers that ask one after the other.
 */
import { randomFillSync } from 'node:crypto'
import { dataSymbolAt, dataSymbols, gridShapeOf } from '../../node/erasure/grid.ts'
import { generator } from '../sim/kernel.ts'
import { type Fault, openRig, type Rig } from './loss-rig.ts'

const SHAPE = { k: 3, m: 2, symbolBytes: 65_536 }
const HOLDERS = ['p0', 'p1', 'p2', 'p3', 'p4']
const FAULTY = 2
/** Two grids. */
const DATA_BYTES = 2 * HOLDERS.length * SHAPE.k * SHAPE.symbolBytes
const READ_BYTES = 16 << 10
const READERS = 4

export interface DelayOptions {
  readonly fault: Fault | 'none'
  readonly reads: number
  /** Infinity: none. */
  readonly forcedTimeoutMs: number
  readonly hedge: number
  readonly seed: number
}

export interface Delays {
  /** Milliseconds, sorted: of all reads, and of those whose bytes lie with the faulty holder. */
  readonly allMs: readonly number[]
  readonly hitMs: readonly number[]
  readonly degraded: number
  readonly messagesPerRead: number
  /** Reads that came with other bytes than were stored. */
  readonly wrong: number
}

export async function measureDelays(options: DelayOptions): Promise<Delays> {
  const { fault, forcedTimeoutMs, seed } = options
  const random = generator(seed)
  const data = randomFillSync(Buffer.allocUnsafeSlow(DATA_BYTES))
  const rig = await openRig({ ...SHAPE, random, data, holders: HOLDERS, forcedTimeoutMs })
  // Latencies are known, as after some seconds of work.
  await readMany(rig, data, random, { ...options, reads: 400 })
  if (fault !== 'none') rig.network.break(`p${FAULTY}`, fault)
  return await readMany(rig, data, random, options)
}

async function readMany(
  { time, network, reader, manifest }: Rig,
  data: Uint8Array,
  random: () => number,
  { reads, hedge }: DelayOptions
): Promise<Delays> {
  const shape = gridShapeOf(manifest, 0)
  const all: number[] = []
  const hit: number[] = []
  const { degradedReads } = reader.shards.stats()
  const before = network.messages
  let [left, wrong] = [reads, 0]
  const readOn = async (): Promise<void> => {
    while (left-- > 0) {
      const symbol = Math.floor(random() * 2 * dataSymbols(shape))
      const within = Math.floor(random() * (shape.symbolBytes - READ_BYTES))
      const offset = symbol * shape.symbolBytes + within
      const startedAt = time.now()
      const bytes = await reader.shards.readData(manifest, offset, READ_BYTES, { hedge })
      const ms = time.now() - startedAt
      if (Buffer.compare(bytes, data.subarray(offset, offset + READ_BYTES)) !== 0) wrong++
      all.push(ms)
      if (dataSymbolAt(shape, symbol % dataSymbols(shape)).column === FAULTY) hit.push(ms)
    }
  }
  await time.passUntil(Promise.all(Array.from({ length: READERS }, readOn)))
  return {
    allMs: all.sort((a, b) => a - b),
    hitMs: hit.sort((a, b) => a - b),
    degraded: reader.shards.stats().degradedReads - degradedReads,
    messagesPerRead: (network.messages - before) / reads,
    wrong
  }
}

/** Of sorted numbers. */
export const quantile = (sorted: readonly number[], q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN
