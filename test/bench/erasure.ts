/**
 * Coding a grid as a snapshot does it: 5 columns, k = 3, m = 2, symbols of 64 KiB, hashes included; and decoding with two
 * symbols lost. Compared with a plain copy of the same bytes in the same run. No bound yet: the issue that asks for
 * speed will set it.
 */
import { randomFillSync } from 'node:crypto'
import { createCodec } from '../../node/erasure/codec.ts'
import { encodeGrid } from '../../node/erasure/encode.ts'
import { gridDataBytes, gridShape } from '../../node/erasure/grid.ts'
import { equal, note } from '../measure.ts'
import type { Measured } from './list.ts'

const RUNS = 60

export async function measureErasure(progress: (line: string) => void): Promise<Measured> {
  const codec = createCodec()
  const shape = gridShape({ columns: 5, k: 3, m: 2, symbolBytes: 65_536 })
  const grid = randomFillSync(Buffer.allocUnsafeSlow(gridDataBytes(shape)))
  const target = Buffer.allocUnsafeSlow(grid.length)

  progress(`coding ${RUNS} grids of ${grid.length} bytes`)
  const encoded = await fastestHalf(grid.length, () => encodeGrid(codec, shape, grid))
  const copied = await fastestHalf(grid.length, async () => target.set(grid))

  progress('decoding codewords that lost two symbols')
  const data = Buffer.from(grid.subarray(0, shape.k * shape.symbolBytes))
  const parity = Buffer.allocUnsafeSlow(shape.m * shape.symbolBytes)
  await codec.encode(data, parity, shape)
  const present = Array.from({ length: shape.k + shape.m }, (_, symbol) => symbol >= shape.m)
  const decoded = await fastestHalf(data.length, () => {
    data.fill(0, 0, shape.m * shape.symbolBytes)
    return codec.decode(data, parity, shape, present)
  })
  return {
    checks: [
      note('encode', encoded, 'GB/s'),
      note('decode, 2 of 5 symbols lost', decoded, 'GB/s'),
      equal('decoded bytes are the data', data.equals(grid.subarray(0, data.length)), true),
      note('copy of the same bytes', copied, 'GB/s'),
      note('encode, share of a copy', encoded / copied)
    ],
    details: { runs: RUNS, shape }
  }
}

/** GB/s at the median of the faster half: what the machine can do when nobody disturbs it. */
async function fastestHalf(bytes: number, work: () => Promise<unknown>): Promise<number> {
  const times: number[] = []
  for (let run = 0; run < RUNS; run++) {
    const begin = performance.now()
    await work()
    times.push(performance.now() - begin)
  }
  const ms = times.toSorted((a, b) => a - b)[Math.floor(RUNS / 4)] ?? Infinity
  return bytes / ms / 1e6
}
