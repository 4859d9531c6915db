import { describe, expect, test } from 'vitest'
import { REPAIR_BUGS } from '../sim/repairs-bugs.ts'
import { runRepairsSeed } from '../sim/repairs-run.ts'

/** `npm run sim -- --scenario repairs` runs more; these are for every change. */
const SEEDS = 40

describe('repair under crashes, partitions, lost disks, rot, full disks and members that leave', () => {
  test(`loses nothing, makes nothing wrong, ends and rests, for ${SEEDS} seeds`, { timeout: 120_000 }, async () => {
    const sum = { rebuilt: 0, disksLost: 0, rotted: 0 }
    for (let seed = 1; seed <= SEEDS; seed++) {
      const outcome = await runRepairsSeed(seed)
      expect(outcome.violation, `replay with: npm run sim -- --scenario repairs --replay ${seed}`).toBeNull()
      for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += outcome[name]
    }
    // Something did happen.
    expect(sum.rebuilt).toBeGreaterThan(20 * SEEDS)
    expect(sum.disksLost).toBeGreaterThan(2 * SEEDS)
    expect(sum.rotted).toBeGreaterThan(3 * SEEDS)
  })

  test('replays event by event from the same seed', async () => {
    const events: [string[], string[]] = [[], []]
    const first = await runRepairsSeed(7, { listener: (atMs, what) => events[0].push(`${atMs} ${what}`) })
    expect(await runRepairsSeed(7, { listener: (atMs, what) => events[1].push(`${atMs} ${what}`) })).toEqual(first)
    expect(events[1]).toEqual(events[0])
  })

  test.each(Object.entries(REPAIR_BUGS))('shows it within 20 seeds when %s', { timeout: 120_000 }, async (_, bug) => {
    let violation: string | null = null
    for (let seed = 1; seed <= 20 && violation === null; seed++) {
      violation = (await runRepairsSeed(seed, { wiring: bug })).violation
    }
    expect(violation).toMatch(bug.symptom)
  })
})
