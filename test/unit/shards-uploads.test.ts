import { expect, test } from 'vitest'
import fc from 'fast-check'
import { allBut } from '../../node/shards/all-but.ts'
import { PATIENCE_MS, Uploads } from '../../node/shards/uploads.ts'
import { DiapauseError } from '../../node/errors.ts'
import { ManualClock } from './register-support.ts'
import { memoryLog } from './store-support.ts'

const FIVE = ['a', 'b', 'c', 'd', 'e']
const BYTES = 1_000

/** Holders that answer when the test says so. */
class Holders {
  readonly clock = new ManualClock()
  readonly log = memoryLog()
  readonly uploads: Uploads
  /** Puts that have come, and were not answered yet. */
  readonly asked: { holder: string; grid: number; column: number; answer(error?: Error): void }[] = []
  /** What came of each put. */
  readonly outcomes: { grid: number; column: number; error?: unknown }[] = []

  constructor(bounds: { holderBytes?: number; allBytes?: number } = {}) {
    const put = (holder: string, _: string, grid: number, column: number): Promise<void> =>
      new Promise((resolve, reject) => {
        const answer = (error?: Error): void => (error === undefined ? resolve() : reject(error))
        this.asked.push({ holder, grid, column, answer })
      })
    this.uploads = new Uploads({ put, clock: this.clock, log: this.log, ...bounds })
  }

  /** All columns of a grid, or these. */
  put(grid: number, spare: number, columns: Iterable<number> = FIVE.keys()): void {
    for (const column of columns) {
      const target = { stream: 'g/v/1/1', holders: FIVE, spare }
      this.uploads.put(target, grid, column, new Uint8Array(BYTES)).then(
        () => this.outcomes.push({ grid, column }),
        error => this.outcomes.push({ grid, column, error })
      )
    }
  }

  /** Answers what `holders` were asked and will be, until they are asked no more; `error` instead of ok. */
  async answer(holders: readonly string[], error?: Error): Promise<void> {
    for (;;) {
      await turn()
      const due = this.asked.filter(({ holder }) => holders.includes(holder))
      if (due.length === 0) return
      for (const each of due) {
        this.asked.splice(this.asked.indexOf(each), 1)
        each.answer(error)
      }
    }
  }

  columns(holder: string): number[] {
    return this.asked.filter(each => each.holder === holder).map(({ grid }) => grid)
  }
}

const turn = (): Promise<void> => new Promise(setImmediate)
const LATE = expect.objectContaining({ code: 'SHARD_LATE' })

test('a column that may be missing is waited for a little, then not, and goes on', async () => {
  const holders = new Holders()
  holders.put(0, 1)
  await holders.answer(['a', 'b', 'c', 'd'])
  expect(holders.outcomes).toEqual([0, 1, 2, 3].map(column => ({ grid: 0, column })))
  await holders.clock.pass(PATIENCE_MS - 1)
  expect(holders.outcomes).toHaveLength(4)
  await holders.clock.pass(1)
  expect(holders.outcomes[4]).toEqual({ grid: 0, column: 4, error: LATE })
  expect(holders.columns('e')).toEqual([0])
  await holders.answer(['e'])
  expect(holders.uploads.stats()).toEqual({ lateColumns: 1, givenUpColumns: 0, failedColumns: 0 })
})

test('a column that comes within that time is none that is missing', async () => {
  const holders = new Holders()
  holders.put(0, 1)
  await holders.answer(['a', 'b', 'c', 'd'])
  await holders.clock.pass(PATIENCE_MS - 1)
  await holders.answer(['e'])
  await holders.clock.pass(10)
  expect(holders.outcomes).toEqual([0, 1, 2, 3, 4].map(column => ({ grid: 0, column })))
  expect(holders.uploads.stats().lateColumns).toBe(0)
})

test('without a spare column every one is waited for, as long as it takes', async () => {
  const holders = new Holders()
  holders.put(0, 0)
  await holders.answer(['a', 'b', 'c', 'd'])
  await holders.clock.pass(3 * PATIENCE_MS)
  expect(holders.outcomes).toHaveLength(4)
  await holders.answer(['e'])
  expect(holders.outcomes).toHaveLength(5)
})

test('while a grid is not durable yet nothing of it is late', async () => {
  const holders = new Holders()
  holders.put(0, 1)
  await holders.answer(['a', 'b', 'c'])
  await holders.clock.pass(3 * PATIENCE_MS)
  expect(holders.outcomes).toHaveLength(3)
})

test('what waits in the background has a bound of one holder, beyond which it is given up at once, and it is said', async () => {
  const holders = new Holders({ holderBytes: 20 * BYTES })
  for (let grid = 0; grid < 30; grid++) holders.put(grid, 1)
  await holders.answer(['a', 'b', 'c', 'd'])
  // 16 are under way to it, and count.
  const late = holders.outcomes.filter(({ error }) => error !== undefined)
  expect(late.map(({ grid }) => grid)).toEqual([20, 21, 22, 23, 24, 25, 26, 27, 28, 29])
  expect(late[0]?.error).toEqual(LATE)
  expect(holders.uploads.stats().givenUpColumns).toBe(10)
  const said = holders.log.lines.filter(({ level }) => level === 'warn').map(({ fields }) => fields)
  expect(said[0]).toMatchObject({ holder: 'e', stream: 'g/v/1/1', grid: 20, column: 4, count: 1 })
  await holders.answer(['e'])
  expect(holders.outcomes).toHaveLength(30 * 5)
  // There is room again.
  for (let grid = 30; grid < 60; grid++) holders.put(grid, 1)
  await holders.answer(['a', 'b', 'c', 'd'])
  expect(holders.uploads.stats().givenUpColumns).toBe(20)
})

test('and a bound of all holders together', async () => {
  const holders = new Holders({ allBytes: 40 * BYTES })
  for (let grid = 0; grid < 30; grid++) holders.put(grid, 2)
  await holders.answer(['a', 'b', 'c'])
  const kept = 30 * 5 - holders.outcomes.length
  expect(kept).toBe(40)
  await holders.answer(FIVE)
  for (let grid = 30; grid < 60; grid++) holders.put(grid, 2)
  await holders.answer(['a', 'b', 'c'])
  expect(holders.uploads.stats().givenUpColumns).toBe(2 * (30 * 2 - 40))
})

test('a column that is put when its grid is durable already is background from the start', async () => {
  const holders = new Holders({ holderBytes: BYTES - 1 })
  holders.put(0, 1, [0, 1, 2, 3])
  await holders.answer(FIVE)
  holders.put(0, 1, [4])
  await turn()
  expect(holders.outcomes[4]).toEqual({ grid: 0, column: 4, error: LATE })
})

test('what somebody waits for goes before the background', async () => {
  const holders = new Holders()
  for (let grid = 0; grid < 40; grid++) holders.put(grid, 1)
  await holders.answer(['a', 'b', 'c', 'd'])
  holders.put(100, 0)
  const first = holders.asked.find(({ holder }) => holder === 'e')
  expect(holders.columns('e')).toHaveLength(16)
  first?.answer()
  await turn()
  expect(holders.columns('e').at(-1)).toBe(100)
})

test('of a stream that is forgotten nothing more is sent, and what was is not waited for', async () => {
  const holders = new Holders()
  for (let grid = 0; grid < 40; grid++) holders.put(grid, 1)
  await holders.answer(['a', 'b', 'c', 'd'])
  holders.uploads.forget('g/v/1/1')
  await turn()
  expect(holders.outcomes).toHaveLength(40 * 4 + 24)
  expect(holders.outcomes.at(-1)?.error).toEqual(LATE)
  const sent = holders.columns('e')
  // Its writer hears of it a little later.
  holders.put(40, 1)
  await turn()
  expect(holders.columns('a')).toEqual([])
  expect(holders.outcomes.splice(-5).map(({ error }) => error)).toEqual(FIVE.map(() => LATE))
  await holders.answer(['e'])
  expect(sent).toHaveLength(16)
  expect(holders.outcomes).toHaveLength(40 * 5)
  expect(holders.outcomes.filter(({ error }) => error !== undefined)).toHaveLength(24)
})

test('a holder that cannot be reached costs its columns and nobody else', async () => {
  const holders = new Holders()
  for (let grid = 0; grid < 3; grid++) holders.put(grid, 1)
  const gone = new DiapauseError('SHARD_UNREACHABLE', 'gone')
  await holders.answer(['a', 'b', 'c', 'd'])
  await holders.answer(['e'], gone)
  expect(holders.outcomes.filter(({ error }) => error === gone)).toHaveLength(3)
  expect(holders.uploads.stats()).toEqual({ lateColumns: 0, givenUpColumns: 0, failedColumns: 3 })
})

test('with any answers in any order every put settles once, as its holder said or as late, and nothing stays', async () => {
  const step = fc.tuple(fc.constantFrom(...FIVE), fc.constantFrom('ok', 'failed', 'time', 'put'))
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.integer({ min: 0, max: 2 }), async (steps, spare) => {
      const holders = new Holders({ holderBytes: 18 * BYTES, allBytes: 25 * BYTES })
      let grids = 0
      for (const [holder, what] of steps) {
        if (what === 'put') for (let i = 0; i < 5; i++) holders.put(grids++, spare)
        else if (what === 'time') await holders.clock.pass(PATIENCE_MS / 50)
        else {
          const due = holders.asked.find(each => each.holder === holder)
          if (due !== undefined) holders.asked.splice(holders.asked.indexOf(due), 1)
          due?.answer(what === 'ok' ? undefined : new Error('no'))
          await turn()
        }
      }
      await holders.answer(FIVE)
      expect(holders.outcomes).toHaveLength(grids * 5)
      for (let grid = 0; grid < grids; grid++) {
        const mine = holders.outcomes.filter(each => each.grid === grid)
        expect(new Set(mine.map(({ column }) => column)).size).toBe(5)
        const late = mine.filter(({ error }) => error instanceof DiapauseError).length
        expect(late).toBeLessThanOrEqual(spare)
      }
    }),
    { numRuns: 40 }
  )
})

test('waiting for all but some: ends with the last, or a little after enough, or with a failure too many', async () => {
  const clock = new ManualClock()
  const task = () => Promise.withResolvers<void>()
  const states: string[] = []
  const wait = (spare: number, tasks: readonly { promise: Promise<void> }[]): void => {
    const all = allBut(
      spare,
      tasks.map(({ promise }) => promise),
      clock,
      10
    )
    all.then(
      () => states.push('ok'),
      (error: Error) => states.push(error.message)
    )
  }
  const [a, b, c] = [task(), task(), task()]
  wait(1, [a, b, c])
  a.resolve()
  b.resolve()
  await turn()
  await clock.pass(9)
  expect(states).toEqual([])
  await clock.pass(1)
  expect(states).toEqual(['ok'])
  wait(1, [a, b])
  await turn()
  expect(states).toEqual(['ok', 'ok'])
  wait(0, [a, c])
  c.reject(new Error('one too many'))
  await turn()
  wait(1, [a, c])
  await turn()
  expect(states).toEqual(['ok', 'ok', 'one too many', 'ok'])
})
