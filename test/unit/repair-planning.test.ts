import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { StoragePeer } from '../../node/planning/domains.ts'
import { exposures } from '../../node/planning/exposure.ts'
import { type PeerStanding, planRepair, type RepairFacts, type StreamFacts } from '../../node/planning/repair.ts'
import { bears, bearsAtBest, spreadOf } from '../../node/planning/spread.ts'

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
const upAll = (names: readonly string[]): Map<string, PeerStanding> => new Map(names.map(name => [name, 'up']))
const hosts = (names: readonly string[]): StoragePeer[] => names.map(peer => ({ peer }))

const stream = (places: readonly string[][], more: Partial<StreamFacts> = {}): StreamFacts => ({
  stream: 'g/v/1/1',
  k: 3,
  m: 2,
  holders: ['a', 'b', 'c', 'd', 'e'],
  places,
  partly: [],
  ...more
})
const allThere = [['a'], ['b'], ['c'], ['d'], ['e']]

const standings = fc.constantFrom<PeerStanding | 'gone'>('up', 'up', 'up', 'away', 'leaving', 'gone')
const factsOf = fc
  .record({
    standing: fc.tuple(...NAMES.map(() => standings)),
    full: fc.subarray(NAMES, { maxLength: 2 }),
    shapes: fc.array(fc.record({ k: fc.integer({ min: 1, max: 4 }), columns: fc.integer({ min: 5, max: 9 }) }), {
      minLength: 1,
      maxLength: 4
    }),
    dice: fc.infiniteStream(fc.nat({ max: 1_000 }))
  })
  .map(({ standing, full, shapes, dice }): RepairFacts => {
    const roll = (): number => dice.next().value ?? 0
    const known = NAMES.flatMap((name, i): [string, PeerStanding][] => {
      const each = standing[i]
      return each === undefined || each === 'gone' ? [] : [[name, each]]
    })
    const streams = shapes.map(({ k, columns }, i): StreamFacts => {
      const holders = Array.from({ length: columns }, () => NAMES[roll() % NAMES.length] ?? 'a')
      const places = holders.map(planned =>
        [planned, NAMES[roll() % NAMES.length] ?? 'a'].filter(
          (_, at) => roll() % (at === 0 ? 4 : 6) < (at === 0 ? 3 : 1)
        )
      )
      return {
        stream: `g/v/1/${i}`,
        k,
        m: columns - k,
        holders,
        places,
        partly: holders.map(() => (roll() % 5 === 0 ? ['a'] : []))
      }
    })
    const free = (peer: string): StoragePeer => (full.includes(peer) ? { peer, freeBytes: 0 } : { peer })
    return { streams, standing: new Map(known), hosts: known.map(([peer]) => free(peer)) }
  })

/** Columns that nobody who stays has. */
function lostIn({ standing }: RepairFacts, { holders, places }: StreamFacts): number[] {
  const stays = (peer: string): boolean => ['up', 'away'].includes(standing.get(peer) ?? 'gone')
  return [...holders.keys()].filter(
    column => !(places[column] ?? []).some(stays) && standing.get(holders[column] ?? '') !== 'away'
  )
}

describe('the plan of a repair', () => {
  it('is empty while everybody has what he should, or is only away', () => {
    const whole = { streams: [stream(allThere)], standing: upAll(['a', 'b', 'c', 'd', 'e']), hosts: hosts(NAMES) }
    expect(planRepair(whole)).toEqual({ repairs: [], impossible: [] })
    const standing = new Map<string, PeerStanding>([...upAll(['a', 'b', 'c', 'd']), ['e', 'away']])
    const places = [['a'], ['b'], ['c'], ['d'], []]
    expect(planRepair({ streams: [stream(places)], standing, hosts: hosts(['a', 'b', 'c', 'd']) }).repairs).toEqual([])
  })

  it('lets a holder that lacks its column rebuild it itself', () => {
    const standing = upAll(NAMES)
    const places = [['a'], ['b'], [], ['d'], ['e']]
    const { repairs } = planRepair({ streams: [stream(places)], standing, hosts: hosts(NAMES) })
    expect(repairs).toEqual([{ stream: 'g/v/1/1', column: 2, target: 'c', why: 'lost', spare: 1 }])
  })

  it('gives what only a leaving member has to one who stays, and reads from him meanwhile', () => {
    const standing = new Map<string, PeerStanding>([...upAll(['a', 'b', 'd', 'f']), ['c', 'leaving']])
    const facts = { streams: [stream(allThere)], standing, hosts: hosts(['a', 'b', 'd', 'f']) }
    const { repairs } = planRepair(facts)
    expect(repairs.map(({ column, spare }) => [column, spare])).toEqual([
      [2, 1],
      [4, 1]
    ])
    expect(repairs.map(({ target }) => target)).toContain('f')
  })

  it('says what cannot be rebuilt: fewer than k columns are within reach, or nobody has room', () => {
    const standing = upAll(['a', 'b'])
    const streams = [stream(allThere)]
    expect(planRepair({ streams, standing, hosts: hosts(['a', 'b']) }).impossible).toEqual([
      { stream: 'g/v/1/1', columns: [2, 3, 4], why: 'unreadable', readable: 2, k: 3 }
    ])
    const full = ['a', 'b', 'c'].map(peer => ({ peer, freeBytes: 0 }))
    const plan = planRepair({ streams, standing: upAll(['a', 'b', 'c']), hosts: full })
    expect(plan).toMatchObject({ repairs: [], impossible: [{ columns: [3, 4], why: 'full' }] })
  })

  it('rebuilds what lies in pieces: fewer than k columns are whole, and others lack different grids', () => {
    const streams = [stream([['a'], ['b'], [], [], []], { partly: [[], [], ['c'], ['d'], ['e']] })]
    const { repairs, impossible } = planRepair({ streams, standing: upAll(NAMES), hosts: hosts(NAMES) })
    expect(impossible).toEqual([])
    expect(repairs.map(({ column, target, why, spare }) => ({ column, target, why, spare }))).toEqual([
      { column: 2, target: 'c', why: 'lost', spare: 0 },
      { column: 3, target: 'd', why: 'lost', spare: 0 },
      { column: 4, target: 'e', why: 'lost', spare: 0 }
    ])
  })

  it('begins with what bears the fewest further losses, then with the oldest', () => {
    const few = stream([['a'], ['b'], ['c'], [], []], { stream: 'g/v/1/9' })
    const more = [1, 2].map(i => stream([['a'], ['b'], ['c'], ['d'], []], { stream: `g/v/1/${i}` }))
    const { repairs } = planRepair({ streams: [...more, few], standing: upAll(NAMES), hosts: hosts(NAMES) })
    expect(repairs.map(each => `${each.stream} ${each.column} ${each.spare}`)).toEqual([
      'g/v/1/9 3 0',
      'g/v/1/9 4 0',
      'g/v/1/1 4 1',
      'g/v/1/2 4 1'
    ])
  })

  it('gives every lost column that can be rebuilt exactly one target, who is up and has room, and touches no other', () => {
    fc.assert(
      fc.property(factsOf, facts => {
        const { repairs, impossible } = planRepair(facts)
        for (const each of facts.streams) {
          const planned = repairs.filter(({ stream, why }) => stream === each.stream && why === 'lost')
          const refused = impossible.filter(entry => entry.stream === each.stream)
          expect(refused.length === 0 || planned.length === 0).toBe(true)
          const columns = [...planned.map(({ column }) => column), ...refused.flatMap(entry => entry.columns)]
          expect(columns.sort((a, b) => a - b)).toEqual(lostIn(facts, each))
          for (const { target, spare } of planned) {
            expect(facts.standing.get(target)).toBe('up')
            expect(facts.hosts.find(({ peer }) => peer === target)?.freeBytes).not.toBe(0)
            expect(spare).toBeGreaterThanOrEqual(0)
          }
        }
        const lost = repairs.filter(({ why }) => why === 'lost')
        expect(repairs.slice(0, lost.length)).toEqual(lost)
        expect(lost.every((repair, i) => i === 0 || (lost[i - 1]?.spare ?? 0) <= repair.spare)).toBe(true)
      }),
      { numRuns: 500 }
    )
  })

  it('gives nobody another column of a stream while one who is up and has room has fewer', () => {
    fc.assert(
      fc.property(factsOf, facts => {
        const { repairs } = planRepair(facts)
        const roomy = facts.hosts.filter(host => host.freeBytes !== 0 && facts.standing.get(host.peer) === 'up')
        for (const each of facts.streams) {
          const before = (peer: string): number => each.places.filter(places => places.includes(peer)).length
          const lost = repairs.filter(({ stream, why }) => stream === each.stream && why === 'lost')
          const got = lost.map(({ target }) => target)
          const now = (peer: string): number => before(peer) + got.filter(target => target === peer).length
          const fewest = Math.min(...roomy.map(({ peer }) => now(peer)))
          for (const target of got) expect(now(target) - 1).toBeLessThanOrEqual(fewest)
        }
      }),
      { numRuns: 500 }
    )
  })

  it('gives a newcomer a column of a peer that has two, if more peers may be lost then', () => {
    const places = [['a'], ['b'], ['c'], ['a'], ['b']]
    const standing = upAll(['a', 'b', 'c', 'x', 'y'])
    const plan = planRepair({ streams: [stream(places)], standing, hosts: hosts(['a', 'b', 'c', 'x', 'y']) })
    expect(plan.repairs.map(({ why }) => why)).toEqual(['crowded', 'crowded'])
    expect(plan.repairs.map(({ target }) => target).sort()).toEqual(['x', 'y'])
    // With one newcomer more than one peer can be lost no more than before.
    const one = planRepair({
      streams: [stream(places)],
      standing: upAll(['a', 'b', 'c', 'x']),
      hosts: hosts(['a', 'b', 'c', 'x'])
    })
    expect(one.repairs).toEqual([])
  })

  // One plan does not move a column that it has just given to somebody: the next one may.
  it('leaves nothing to do once it and those after it are carried out, and no stream ever bears less than before', () => {
    const carriedOut = (facts: RepairFacts): RepairFacts => {
      const { repairs } = planRepair(facts)
      const streams = facts.streams.map(each => ({
        ...each,
        places: each.places.map((peers, at) => [
          ...peers,
          ...repairs.filter(({ stream, column }) => stream === each.stream && column === at).map(({ target }) => target)
        ])
      }))
      return { ...facts, streams }
    }
    fc.assert(
      fc.property(factsOf, before => {
        let facts: RepairFacts = before
        for (let plans = 0; planRepair(facts).repairs.length > 0; plans++) {
          expect(plans).toBeLessThan(3)
          const after = carriedOut(facts)
          for (const [i, each] of facts.streams.entries()) {
            const bearing = (seen: RepairFacts): number => exposures(seen)([each.stream]).tolerates
            expect(bearing(after), String(i)).toBeGreaterThanOrEqual(bearing(facts))
          }
          facts = after
        }
      }),
      { numRuns: 500 }
    )
  })

  it('is the same for all who know the same', () => {
    fc.assert(
      fc.property(factsOf, facts => {
        const standing = new Map([...facts.standing].reverse())
        const streams = facts.streams.map(each => ({
          ...each,
          places: each.places.map(places => [...places].reverse())
        }))
        expect(planRepair({ streams, standing, hosts: [...facts.hosts].reverse() })).toEqual(planRepair(facts))
      }),
      { numRuns: 300 }
    )
  })
})

describe('what each peer counts for where several have a column', () => {
  it('bears most losses when each has as many columns as any', () => {
    const [columns, peers, m] = [fc.integer({ min: 1, max: 24 }), fc.integer({ min: 1, max: 26 }), fc.nat(8)]
    fc.assert(
      fc.property(columns, peers, m, (count, among, spare) => {
        const even = Array.from({ length: count }, (_, column) => [`p${column % among}`])
        expect(bearsAtBest(count, among, spare)).toBe(bears(even, spare))
      }),
      { numRuns: 500 }
    )
  })

  it('is spread as evenly as can be: as by trying all', () => {
    const column = fc.subarray(['a', 'b', 'c', 'd'], { minLength: 0 })
    fc.assert(
      fc.property(fc.array(column, { minLength: 1, maxLength: 5 }), places => {
        const sums = (chosen: readonly (string | undefined)[]): string => {
          const loads = ['a', 'b', 'c', 'd'].map(peer => chosen.filter(each => each === peer).length)
          return loads.sort((x, y) => y - x).join()
        }
        const all = places.reduce<(string | undefined)[][]>(
          (some, peers) =>
            some.flatMap(each => (peers.length === 0 ? [undefined] : peers).map(peer => [...each, peer])),
          [[]]
        )
        const chosen = spreadOf(places)
        expect(
          chosen.every((peer, at) => (peer === undefined ? places[at]?.length === 0 : places[at]?.includes(peer)))
        ).toBe(true)
        expect(sums(chosen)).toBe(all.map(sums).sort()[0])
      }),
      { numRuns: 300 }
    )
  })
})
