import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createCodec } from '../../../node/erasure/codec.ts'
import { spareColumns } from '../../../node/image/durability.ts'
import { toleratedLosses } from '../../../node/image/stream-choice.ts'
import { StreamWriter } from '../../../node/image/stream-writer.ts'

const HOLDERS = ['a', 'b', 'c', 'd', 'e']
const SHAPE = { k: 3, m: 2, symbolBytes: 65_536 }
/** Of a whole grid. */
const GRID_BYTES = HOLDERS.length * SHAPE.k * SHAPE.symbolBytes
/** Grids of such columns that a writer has under way at most. */
const CREDITS = 3
const SPARE = 1

/** Puts that end when the test says so. */
class Puts {
  readonly asked: { grid: number; column: number; spare: number; end(error?: Error): void }[] = []
  /** Grid → columns that are durable, and that failed. */
  readonly durable = new Map<number, number>()
  readonly failed = new Map<number, number>()

  readonly put = (grid: number, column: number, _: Uint8Array, spare: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const end = (error?: Error): void => {
        const to = error === undefined ? this.durable : this.failed
        to.set(grid, (to.get(grid) ?? 0) + 1)
        if (error === undefined) resolve()
        else reject(error)
      }
      this.asked.push({ grid, column, spare, end })
    })

  /** Ends one of those that wait, and lets what follows happen. */
  async end(at: number, error?: Error): Promise<void> {
    const [put] = this.asked.splice(at, 1)
    put?.end(error)
    await turns()
  }

  async endAll(which: (put: { grid: number; column: number }) => boolean, error?: Error): Promise<void> {
    for (let at = this.asked.length - 1; at >= 0; at--) {
      const put = this.asked[at]
      if (put !== undefined && which(put)) await this.end(at, error)
    }
  }
}

const turns = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise(setImmediate)
}

function writerOf(puts: Puts, durability: 'most' | 'all'): StreamWriter {
  const shape = { ...SHAPE, durability }
  return new StreamWriter({ stream: 'g/v/1/1', holders: HOLDERS, shape, codec: createCodec(), put: puts.put })
}

/** Until the columns of as many grids were put. */
async function coded(puts: Puts, grids: number): Promise<void> {
  await expect
    .poll(() => puts.asked.length + sum(puts.durable) + sum(puts.failed), { interval: 1 })
    .toBe(grids * HOLDERS.length)
}

const sum = (counts: ReadonlyMap<number, number>): number => [...counts.values()].reduce((a, b) => a + b, 0)
const isPending = async (promise: Promise<unknown>): Promise<boolean> => {
  let pending = true
  const settled = (): void => void (pending = false)
  promise.then(settled, settled)
  await turns()
  return pending
}

describe('a stream that is written', () => {
  test.each(['most', 'all'] as const)(
    'goes on at k + ceil(m/2) columns of each grid (durability %s)',
    async durability => {
      const puts = new Puts()
      const writer = writerOf(puts, durability)
      const bytes = new Uint8Array(GRID_BYTES).fill(7)
      for (let grid = 0; grid < CREDITS; grid++) writer.write(bytes)
      const full = writer.congestion()
      await coded(puts, CREDITS)
      await puts.endAll(({ grid, column }) => grid === 0 && column < 3)
      expect(await isPending(full as Promise<void>)).toBe(true)
      await puts.endAll(({ grid, column }) => grid === 0 && column === 3)
      await full
      expect(writer.congestion()).toBeUndefined()
    }
  )

  test('stops where slow holders owe it too much, and goes on when they have answered', async () => {
    const puts = new Puts()
    const shape = { k: 1, m: 2, symbolBytes: 1 << 20, durability: 'all' } as const
    const holders = HOLDERS.slice(0, 3)
    const writer = new StreamWriter({ stream: 'g/v/1/1', holders, shape, codec: createCodec(), put: puts.put })
    const bytes = new Uint8Array(3 << 20).fill(7)
    let grids = 0
    for (; grids < 50 && writer.congestion() === undefined; grids++) {
      writer.write(bytes)
      await expect.poll(() => puts.asked.length, { interval: 1 }).toBe(grids + 3)
      await puts.endAll(({ column }) => column < 2)
    }
    // 64 MiB of columns of 3 MiB.
    expect(grids).toBe(22)
    const full = writer.congestion()
    await puts.end(0)
    await full
    expect(writer.congestion()).toBeUndefined()
  })

  test('is whole only when all its columns are durable, where everything must be', async () => {
    const puts = new Puts()
    const writer = writerOf(puts, 'all')
    writer.write(new Uint8Array(100))
    const finished = writer.finish()
    await coded(puts, 1)
    await puts.endAll(({ column }) => column < 4)
    expect(await isPending(finished)).toBe(true)
    expect(puts.asked.map(({ spare }) => spare)).toEqual([0])
    await puts.endAll(() => true)
    expect((await finished).columnsMissing).toBe(0)
  })

  test('says how many columns the grid lacks that lacks most, and fails with one too many in a grid', async () => {
    const puts = new Puts()
    const writer = writerOf(puts, 'most')
    writer.write(new Uint8Array(GRID_BYTES + 10))
    const finished = writer.finish()
    await coded(puts, 2)
    const late = new Error('late')
    await puts.endAll(({ grid, column }) => column === grid, late)
    await puts.endAll(() => true)
    expect((await finished).columnsMissing).toBe(1)

    const others = new Puts()
    const failing = writerOf(others, 'most')
    failing.write(new Uint8Array(100))
    const failure = failing.finish()
    failure.catch(() => {})
    await coded(others, 1)
    await others.endAll(({ column }) => column > 2, late)
    await others.endAll(() => true)
    await expect(failure).rejects.toBe(late)
    await expect(failing.congestion()).rejects.toBe(late)
  })

  test('never ends before each grid is durable, whatever order answers come in, and fails only where one cannot be', async () => {
    const answers = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 9 })), { minLength: 25, maxLength: 25 })
    await fc.assert(
      fc.asyncProperty(answers, fc.constantFrom('most', 'all'), async (script, durability) => {
        const puts = new Puts()
        const writer = writerOf(puts, durability)
        writer.write(new Uint8Array(4 * GRID_BYTES + 9))
        const spare = durability === 'all' ? 0 : SPARE
        let outcome: string | undefined
        const finished = writer.finish().then(
          () => (outcome = 'durable'),
          () => (outcome = 'failed')
        )
        await coded(puts, 5)
        for (const [at, dice] of script) {
          await puts.end(at % puts.asked.length, dice === 0 ? new Error('no') : undefined)
          const grids = [0, 1, 2, 3, 4]
          if (outcome === 'durable') {
            expect(grids.every(grid => (puts.durable.get(grid) ?? 0) >= HOLDERS.length - spare)).toBe(true)
          }
          if (outcome === 'failed') expect(grids.some(grid => (puts.failed.get(grid) ?? 0) > spare)).toBe(true)
        }
        await finished
        const lost = [...puts.failed.values()].some(count => count > spare)
        expect(outcome).toBe(lost ? 'failed' : 'durable')
      }),
      { numRuns: 15 }
    )
  })
})

describe('how many columns may be missing', () => {
  test.each([
    ['five hosts, m = 2', HOLDERS, 2, 1],
    ['m = 1', ['a', 'b', 'c'], 1, 0],
    ['m = 4', ['a', 'b', 'c', 'd', 'e', 'f', 'g'], 4, 2],
    ['three hosts, of which two have two columns', ['a', 'b', 'c', 'a', 'b'], 2, 0],
    ['two hosts, of which the loss of one is too much anyway', ['a', 'b', 'a', 'b', 'a'], 2, 1]
  ])('%s', (_, holders, m, spare) => {
    expect(spareColumns(holders, m, 'most')).toBe(spare)
    expect(spareColumns(holders, m, 'all')).toBe(0)
  })

  test('is half of m at most, and whichever are missing, half of m hosts or as many as ever may still be lost', () => {
    const spread = fc.array(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'), { minLength: 4, maxLength: 10 })
    fc.assert(
      fc.property(spread, fc.integer({ min: 1, max: 6 }), (holders, m) => {
        const spare = spareColumns(holders, m, 'most')
        expect(spare).toBeLessThanOrEqual(Math.floor(m / 2))
        const bears = toleratedLosses(holders, m - spare, holders)
        expect(bears).toBeGreaterThanOrEqual(Math.min(Math.ceil(m / 2), toleratedLosses(holders, m, holders)))
      })
    )
  })
})
