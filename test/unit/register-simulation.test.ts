import { describe, expect, test } from 'vitest'
import { BUGS } from '../sim/register-bugs.ts'
import { runSeed } from '../sim/register-run.ts'

const SEEDS = 200

describe('registers and leases under crashes, stops, partitions, loss and drifting clocks', () => {
  test(`keep every invariant and converge, for ${SEEDS} seeds`, { timeout: 120_000 }, async () => {
    let [acknowledged, takeovers] = [0, 0]
    for (let seed = 1; seed <= SEEDS; seed++) {
      const outcome = await runSeed(seed)
      expect(outcome.violation, `replay with: await runSeed(${seed})`).toBeNull()
      acknowledged += outcome.acknowledged
      takeovers += outcome.takeovers
    }
    // The clients did get work done: an idle cluster violates nothing.
    expect(acknowledged).toBeGreaterThan(10 * SEEDS)
    expect(takeovers).toBeGreaterThan(SEEDS)
  })

  test('replay event by event from the same seed', async () => {
    const [first, again] = [await runSeed(7), await runSeed(7)]
    expect(again).toEqual(first)
    expect((await runSeed(8)).digest).not.toBe(first.digest)
  })

  const symptoms: Record<string, RegExp> = {
    'acceptor answers before fsync': /forgotten|lost|not linearizable|two values/,
    'ballots are reused after a restart': /two values|forgotten|lost|not linearizable/,
    'voters grant without the drift bound': /may act/,
    'voters grant an old generation after they accepted a newer one': /may act/,
    'voters forget their grants in a restart and do not wait': /may act/,
    'fences are not carried with unfinished changes': /may act/,
    'reads are answered from the local disk': /not linearizable/
  }
  test.each(Object.entries(BUGS))('show it within 200 seeds when %s', { timeout: 120_000 }, async (name, wiring) => {
    let violation: string | null = null
    // Others' higher ballots hide a reused one: it shows where one peer works alone.
    const lonely = name.startsWith('ballots')
    for (let seed = 1; seed <= 200 && violation === null; seed++) {
      violation = (await runSeed(seed, wiring, lonely)).violation
    }
    expect(violation).toMatch(symptoms[name] ?? /$./)
  })
})
