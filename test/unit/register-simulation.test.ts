import { describe, expect, test } from 'vitest'
import { BUGS } from '../sim/register-bugs.ts'
import { runSeed } from '../sim/register-run.ts'

const SEEDS = 200

describe('registers and leases under crashes, stops, partitions, loss and drifting clocks', () => {
  test(`keep every invariant and converge, for ${SEEDS} seeds`, { timeout: 120_000 }, async () => {
    const sum = { acknowledged: 0, takeovers: 0, deletions: 0, voterSets: 0 }
    for (let seed = 1; seed <= SEEDS; seed++) {
      const outcome = await runSeed(seed)
      expect(outcome.violation, `replay with: npm run sim -- --scenario registers --replay ${seed}`).toBeNull()
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += outcome[name]
    }
    // The clients did get work done: an idle cluster violates nothing.
    expect(sum.acknowledged).toBeGreaterThan(10 * SEEDS)
    expect(sum.takeovers).toBeGreaterThan(SEEDS)
    expect(sum.deletions).toBeGreaterThan(SEEDS)
    expect(sum.voterSets).toBeGreaterThan(SEEDS / 2)
  })

  test('replay event by event from the same seed', async () => {
    const events: [string[], string[]] = [[], []]
    const first = await runSeed(7, { listener: (atMs, what) => events[0].push(`${atMs} ${what}`) })
    const again = await runSeed(7, { listener: (atMs, what) => events[1].push(`${atMs} ${what}`) })
    expect(again).toEqual(first)
    expect(events[1]).toEqual(events[0])
    // Every event has a label, and the same happens where nobody listens.
    expect(events[0].length).toBeGreaterThan(first.events)
    expect(await runSeed(7)).toEqual(first)
    expect((await runSeed(8)).digest).not.toBe(first.digest)
  })

  test.each(Object.entries(BUGS))('show it within 200 seeds when %s', { timeout: 120_000 }, async (_, bug) => {
    let violation: string | null = null
    for (let seed = 1; seed <= 200 && violation === null; seed++) {
      violation = (await runSeed(seed, { wiring: bug, focus: bug.focus })).violation
    }
    expect(violation).toMatch(bug.symptom)
  })
})
