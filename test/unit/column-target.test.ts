import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { columnTarget } from '../../node/planning/column-target.ts'
import { domainsOf, rendezvousScore, type StoragePeer } from '../../node/planning/domains.ts'

const peer = (name: string, rack?: string, freeBytes?: number): StoragePeer => ({
  peer: name,
  labels: { rack },
  freeBytes
})

describe('the target of a lost column', () => {
  test('is a peer that has none of the stream, if there is one', () => {
    const peers = ['a', 'b', 'c', 'd', 'e', 'f'].map(name => peer(name))
    expect(columnTarget(peers, 's', 1, [['a'], [], ['c'], ['d'], ['e']])).toMatch(/^[bf]$/)
    const few = peers.slice(0, 4)
    expect(columnTarget(few, 's', 4, [['a'], ['b'], ['c'], ['a'], []])).toBe('d')
  })
  test('is in the rack with the fewest columns, and not beside one of its own rack where that can be', () => {
    const peers = [peer('a1', 'a'), peer('a2', 'a'), peer('b1', 'b'), peer('b2', 'b'), peer('c1', 'c'), peer('c2', 'c')]
    expect(columnTarget(peers, 's', 4, [['a1'], ['b1'], ['a2'], ['c1'], []])).toBe('b2')
    expect(columnTarget(peers, 's', 4, [['b1'], ['a1'], ['c1'], ['a2'], []])).toBe('c2')
    expect(columnTarget(peers, 's', 1, [['a1'], [], ['b1'], ['c1'], []])).toBe('c2')
  })
  test('has room, while anybody has', () => {
    const free = { a: 0, b: 0, c: 5, d: 0 }
    const peers = Object.entries(free).map(([name, bytes]) => peer(name, undefined, bytes))
    expect(columnTarget(peers, 's', 0, [[], ['c'], ['c']])).toBe('c')
    expect(
      columnTarget(
        peers.filter(each => each.peer !== 'c'),
        's',
        0,
        [[], ['a'], ['b']]
      )
    ).toBe('d')
    expect(columnTarget([], 's', 0, [[], ['a'], ['b']])).toBeUndefined()
  })
  test('is the same for all who know the same, in whatever order', () => {
    const names = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', 'g'), { minLength: 1 })
    fc.assert(
      fc.property(
        names,
        fc.array(fc.subarray(['a', 'b', 'c', 'z']), { minLength: 5, maxLength: 5 }),
        (some, holders) => {
          const peers = some.map(name => peer(name, name < 'd' ? 'r1' : 'r2'))
          const first = columnTarget(peers, 's', 2, holders)
          expect(
            columnTarget(
              [...peers].reverse(),
              's',
              2,
              holders.map(each => [...each].reverse())
            )
          ).toBe(first)
          expect(some).toContain(first)
        }
      )
    )
  })
})

describe('domains', () => {
  test('are nested, and a peer without a label shares that domain with nobody', () => {
    expect(domainsOf({ peer: 'p' })).toEqual({ host: 'peer p', rack: 'peer p', site: 'peer p' })
    const one = domainsOf({ peer: 'p', labels: { site: 's', rack: 'r', host: 'h' } })
    expect(domainsOf({ peer: 'q', labels: { site: 's', rack: 'r', host: 'h' } })).toEqual(one)
    const other = domainsOf({ peer: 'q', labels: { site: 't', rack: 'r', host: 'h' } })
    for (const level of ['site', 'rack', 'host'] as const) expect(other[level]).not.toBe(one[level])
    expect(domainsOf({ peer: 'p', labels: { site: 's' } })).toEqual({ host: 'peer p', rack: 'peer p', site: 'site s' })
  })
  test('a peer with twice the free space is chosen twice as often', () => {
    let chosen = 0
    for (let key = 0; key < 3000; key++) {
      if (rendezvousScore('big', String(key), 2) > rendezvousScore('small', String(key), 1)) chosen++
    }
    expect(chosen / 3000).toBeCloseTo(2 / 3, 1)
  })
})
