/** A few rounds of `npm run bench -- power-loss`, which does a thousand: a real file system, and what it keeps. */
import { expect, it } from 'vitest'
import { losePower } from '../bench/power-loss.ts'
import type { RoundSeen } from '../bench/power-loss-rig.ts'

async function rounds(count: number, unsynced: boolean): Promise<RoundSeen[]> {
  const seen: RoundSeen[] = []
  await losePower({ rounds: count, unsynced }, round => seen.push(round))
  return seen
}

it('a store keeps all that it acknowledged, and serves nothing wrong, when the power goes under writes', async () => {
  const seen = await rounds(5, false)
  expect(seen).toHaveLength(5)
  expect(seen.flatMap(({ lost, wrong }) => [...lost, ...wrong])).toEqual([])
  expect(seen.at(-1)?.checked).toBeGreaterThan(0)
})

it('a store that acknowledges before fdatasync is found out', async () => {
  const seen = await rounds(3, true)
  expect(seen.flatMap(({ lost }) => lost).length).toBeGreaterThan(0)
})
