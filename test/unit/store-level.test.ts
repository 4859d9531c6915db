/** Files of level whose checksums are right, and what they say is not: made by somebody, or torn in memory. */
import { describe, expect, it } from 'vitest'
import { maskedCrc } from '../../node/store/level-log.ts'
import { liveTables, tableDamage } from '../../node/store/level-table.ts'
import { storeTargets, tableOf } from '../fuzz/store-targets.ts'

const damageOf = (index: readonly number[], kind = 1): string | undefined => {
  const table = tableOf(Uint8Array.from(index), kind)
  return tableDamage(table, table.length)
}

describe('a table of level whose checksums are right', () => {
  const seeds =
    storeTargets
      .find(({ name }) => name === 'level-table')
      ?.seeds()
      .slice(1) ?? []

  it('is whole, with an index as it is and with a packed one', () => {
    expect(seeds.map(([kind, ...index]) => damageOf(index, kind))).toEqual([undefined, undefined])
  })

  it('is damaged where a block claims to be longer than what is packed can be, and takes no memory for it', () => {
    const before = process.memoryUsage().arrayBuffers
    // 2 GiB, of four bytes; and a byte more than it has.
    expect(damageOf([0x80, 0x80, 0x80, 0x80, 8, 0, 7])).toBe('a compressed block is damaged')
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1 << 20)
    const [, [, , ...packed] = []] = seeds
    expect(damageOf([15, ...packed])).toBe('a compressed block is damaged')
  })

  it('is damaged where a block tells of more restarts than it has bytes', () => {
    expect(damageOf([0, 0, 0, 0, 9, 0, 0, 0], 0)).toBe('a block tells of more restarts than it has bytes')
  })
})

it('a manifest that ends within what a record tells gives the tables before that', () => {
  const record = (...data: number[]): Buffer => {
    const bytes = Buffer.from([0, 0, 0, 0, data.length, 0, 1, ...data])
    bytes.writeUInt32LE(maskedCrc(bytes.subarray(6)))
    return bytes
  }
  const whole = record(7, 0, 5, 100, 1, 97, 1, 98)
  expect(liveTables(whole)).toEqual([{ names: ['000005.ldb', '000005.sst'], bytes: 100 }])
  expect(liveTables(Buffer.concat([whole, record(7, 0, 9, 50, 80, 1)]))).toMatchObject([{ bytes: 100 }, { bytes: 50 }])
  expect(liveTables(Buffer.concat([whole, record(7, 0x80)]))).toHaveLength(1)
})
