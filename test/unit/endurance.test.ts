import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { domainsOf, type StoragePeer } from '../../node/planning/domains.ts'
import { enduranceNow, enduranceOf, votesNow } from '../../node/planning/endurance.ts'
import { placeColumns } from '../../node/planning/holders.ts'

const racks = (...sizes: number[]): StoragePeer[] =>
  sizes.flatMap((size, r) => Array.from({ length: size }, (_, i) => ({ peer: `p${r}${i}`, labels: { rack: `r${r}` } })))

describe('what a new snapshot bears', () => {
  test('is told of members, and of each level that somebody has a label of', () => {
    expect(enduranceOf(racks(2, 2, 2), { k: 3, m: 2 })).toEqual({
      tolerates: 2,
      domains: [{ level: 'rack', tolerates: 1, alone: ['r0', 'r1', 'r2'] }]
    })
    expect(enduranceOf(racks(4, 1, 1), { k: 3, m: 2 }).domains).toEqual([
      { level: 'rack', tolerates: 0, alone: ['r1', 'r2'] }
    ])
    const unlabelled = ['a', 'b', 'c', 'd'].map(peer => ({ peer }))
    expect(enduranceOf(unlabelled, { k: 3, m: 2 })).toEqual({ tolerates: 1, domains: [] })
    expect(enduranceOf([], { k: 3, m: 2 })).toEqual({ tolerates: 0, domains: [] })
  })
  test('is told of those who live, as votes are', () => {
    const three = ['a', 'b', 'c'].map(peer => ({ peer }))
    expect(enduranceNow(three, ['a', 'b', 'c'], { k: 3, m: 2 })).toMatchObject({ storage: 3, live: 3, tolerates: 1 })
    expect(enduranceNow(three, ['a', 'c'], { k: 3, m: 2 })).toMatchObject({ storage: 3, live: 2, tolerates: 0 })
    expect(votesNow(['a', 'b', 'c'], ['a', 'b', 'c'])).toEqual({ count: 3, live: 3, tolerates: 1 })
    expect(votesNow(['a', 'b', 'c'], ['a', 'c', 'x'])).toEqual({ count: 3, live: 2, tolerates: 0 })
    expect(votesNow(['a', 'b', 'c'], ['c'])).toEqual({ count: 3, live: 1, tolerates: 0 })
    expect(votesNow(['a', 'b', 'c', 'd', 'e'], ['a', 'b', 'c', 'd'])).toMatchObject({ live: 4, tolerates: 1 })
  })
  test('counts peers of one host together, and names racks by their site', () => {
    const peers = ['a', 'b', 'c', 'd', 'e'].map(peer => ({
      peer,
      labels: { host: peer < 'c' ? 'h1' : undefined, rack: 'r', site: peer < 'd' ? 's1' : 's2' }
    }))
    expect(enduranceOf(peers, { k: 3, m: 2 })).toEqual({
      tolerates: 2,
      domains: [
        { level: 'site', tolerates: 0, alone: ['s2'] },
        { level: 'rack', tolerates: 0, alone: ['s2/r'] },
        { level: 'host', tolerates: 1, alone: ['s1/r/h1'] }
      ]
    })
  })
  test('holds for every stream: no domain that is called safe ever has more than m columns', () => {
    const peers = fc
      .array(fc.constantFrom('r1', 'r2', 'r3', undefined), { minLength: 1, maxLength: 15 })
      .map(labels => labels.map((rack, i) => ({ peer: `p${i}`, labels: { rack } })))
    fc.assert(
      fc.property(peers, fc.string(), (all, key) => {
        const rackOf = new Map(all.map(each => [each.peer, domainsOf(each).rack]))
        const racksOf = placeColumns(all, { k: 3, m: 2, key }).map(holder => rackOf.get(holder))
        const sizes = [...Map.groupBy(racksOf, rack => rack)].map(([, columns]) => columns.length).sort((a, b) => b - a)
        for (const { tolerates, alone } of enduranceOf(all, { k: 3, m: 2 }).domains) {
          expect(sizes.slice(0, tolerates).reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(2)
          for (const name of alone)
            expect(racksOf.filter(rack => rack === `rack /${name}`).length).toBeLessThanOrEqual(2)
        }
      })
    )
  })
})
