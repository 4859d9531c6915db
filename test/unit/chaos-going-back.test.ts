import { expect, it } from 'vitest'
import { codeFor } from '../demo/cluster.ts'
import { awayOf, mostAway } from '../chaos/going-back.ts'

it('as many hosts are away as the code bears, and the rest is a majority', () => {
  expect([3, 4, 5, 6, 7, 9].map(mostAway)).toEqual([1, 1, 2, 2, 2, 2])
  for (let hosts = 3; hosts <= 9; hosts++) {
    expect(2 * (hosts - mostAway(hosts))).toBeGreaterThan(hosts)
    expect(mostAway(hosts)).toBeLessThanOrEqual(codeFor(hosts).m)
  }
})

it('the same hosts are away for the same seed, each of them for some seed', () => {
  const seen = new Set<number>()
  for (let seed = 0; seed < 60; seed++) {
    const away = awayOf(seed, 5)
    expect(awayOf(seed, 5)).toEqual(away)
    expect(new Set(away).size).toBe(2)
    for (const host of away) seen.add(host)
  }
  expect(seen).toEqual(new Set([0, 1, 2, 3, 4]))
})
