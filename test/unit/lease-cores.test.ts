import { describe, expect, test } from 'vitest'
import { type HolderEffect, LeaseHolder } from '../../protocols/lease/holder.ts'
import type { LeaseMessage } from '../../protocols/lease/messages.ts'
import { LeaseVoter } from '../../protocols/lease/voter.ts'
import { firstVoters, nextVoters } from '../../protocols/register/voters.ts'

const SETTINGS = { durationMs: 1_000, renewEveryMs: 200, driftPerMille: 20 }
const KEY = 'group/a'

const claim = (
  round: number,
  generation = 4,
  session = 1,
  durationMs = 1_000
): Extract<LeaseMessage, { kind: 'claim' }> => ({
  kind: 'claim',
  version: 1,
  session,
  round,
  durationMs,
  claims: [{ key: KEY, generation }]
})

function voter(): LeaseVoter {
  const made = new LeaseVoter(SETTINGS)
  made.adopted(1)
  made.accepted(KEY, 3)
  made.open(0)
  return made
}

const fence = (...holders: string[]) => holders.map(holder => ({ holder, below: 5 }))

describe('a lease voter', () => {
  test('blocks a change that displaces a holder until its grant and the drift have passed', () => {
    const v = voter()
    expect(v.step({ from: 'a', message: claim(1) }, 2_000)).toMatchObject([
      { to: 'a', message: { kind: 'granted', refused: [] } }
    ])
    expect(v.blockedForMs(KEY, fence('a'), 2_500)).toBe(520)
    expect(v.blockedForMs(KEY, fence('b', 'a'), 3_019)).toBe(1)
    expect(v.blockedForMs(KEY, fence('a'), 3_020)).toBe(0)
    expect(v.blockedForMs(KEY, fence('b'), 2_500)).toBe(0)
    expect(v.blockedForMs('group/b', fence('a'), 2_500)).toBe(0)
    expect(v.blockedForMs(KEY, [], 2_500)).toBe(0)
  })

  test('does not let a grant of the new generation stand in the way of the change that made it', () => {
    const v = voter()
    v.step({ from: 'a', message: claim(1, 5) }, 2_000)
    expect(v.blockedForMs(KEY, fence('a'), 2_001)).toBe(0)
  })

  test('grants to several holders of one key and generation', () => {
    const v = voter()
    for (const from of ['a', 'b'])
      expect(v.step({ from, message: claim(1) }, 2_000)).toMatchObject([{ message: { refused: [] } }])
    expect(v.blockedForMs(KEY, fence('b'), 2_001)).toBeGreaterThan(0)
  })

  test('refuses an older generation from the moment it accepted a newer one, and serves again when that is overwritten', () => {
    const v = voter()
    v.accepted(KEY, 5)
    expect(v.step({ from: 'a', message: claim(1, 4) }, 2_000)).toMatchObject([
      { message: { refused: [{ key: KEY, generation: 4, newer: 5 }] } }
    ])
    v.accepted(KEY, 4)
    expect(v.step({ from: 'a', message: claim(2, 4) }, 2_000)).toMatchObject([{ message: { refused: [] } }])
    v.accepted(KEY, null)
    expect(v.step({ from: 'a', message: claim(3, 4) }, 2_000)).toMatchObject([{ message: { refused: [{ newer: 0 }] } }])
    expect(v.refusedClaims).toBe(1) // where nothing is known nothing is over
  })

  test('waits one grant after its start before it takes a fenced change, and grants nothing before it remembers', () => {
    const v = new LeaseVoter(SETTINGS)
    v.adopted(1)
    expect(v.step({ from: 'a', message: claim(1) }, 5)).toEqual([])
    expect(v.blockedForMs(KEY, fence('z'), 5)).toBeGreaterThan(0)
    v.open(10)
    expect(v.blockedForMs(KEY, fence('z'), 1_029)).toBe(1)
    expect(v.blockedForMs(KEY, fence('z'), 1_030)).toBe(0)
  })

  test('waits for grants of an earlier life, as long as they were then', () => {
    const restarted = (longestMs: number): LeaseVoter => {
      const v = new LeaseVoter({ durationMs: 100, renewEveryMs: 20, driftPerMille: 0 })
      v.adopted(1)
      expect(v.remember(longestMs)).toBe(Math.max(100, longestMs))
      v.open(0)
      return v
    }
    expect(restarted(10_200).blockedForMs(KEY, fence('a'), 1_000)).toBe(9_200)
    expect(restarted(10_200).blockedForMs(KEY, fence('a'), 10_200)).toBe(0)
    expect(restarted(10_200).longestMs).toBe(10_200)
    expect(restarted(0).blockedForMs(KEY, fence('a'), 100)).toBe(0)
  })

  test('forgets a grant at its release, but not at a release that is older than the grant', () => {
    const v = voter()
    const release = (round: number, session = 1) =>
      v.step({ from: 'a', message: { kind: 'release', session, round, key: KEY } }, 2_000)
    v.step({ from: 'a', message: claim(7) }, 2_000)
    release(6)
    release(9, 2)
    expect(v.blockedForMs(KEY, fence('a'), 2_000)).toBeGreaterThan(0)
    release(7)
    expect(v.blockedForMs(KEY, fence('a'), 2_000)).toBe(0)
  })

  test('keeps the younger grant when an old claim comes late', () => {
    const v = voter()
    v.step({ from: 'a', message: claim(2, 4) }, 2_000)
    v.step({ from: 'a', message: claim(1, 3) }, 2_001)
    expect(v.blockedForMs(KEY, [{ holder: 'a', below: 4 }], 2_002)).toBe(0)
  })

  test('grants nothing of a register that it does not know, or knows as deleted', () => {
    const v = voter()
    v.accepted(KEY, null)
    expect(v.step({ from: 'a', message: claim(1) }, 2_000)).toMatchObject([
      { message: { refused: [{ key: KEY, generation: 4, newer: 0 }] } }
    ])
    expect(v.blockedForMs(KEY, fence('a'), 2_000)).toBe(0)
  })

  test('grants to claims of its own voter set only, and blocks for what it granted under an earlier one', () => {
    const v = voter()
    v.step({ from: 'a', message: claim(1) }, 2_000)
    v.adopted(2)
    expect(v.blockedForMs(KEY, fence('a'), 2_500)).toBe(520)
    expect(v.step({ from: 'a', message: claim(2) }, 2_900)).toMatchObject([{ message: { kind: 'stale', version: 2 } }])
    expect(v.step({ from: 'a', message: { ...claim(3), version: 3 } }, 2_900)).toEqual([])
    expect(v.blockedForMs(KEY, fence('a'), 3_020)).toBe(0)
    expect(v.step({ from: 'a', message: { ...claim(4), version: 2 } }, 3_020)).toMatchObject([
      { message: { kind: 'granted', refused: [] } }
    ])
  })

  test('does not answer who would act longer than it waits, nor who claims without bound', () => {
    const v = voter()
    expect(v.step({ from: 'a', message: claim(1, 4, 1, 1_001) }, 2_000)).toEqual([])
    for (let i = 0; i < 20; i++) {
      const claims = Array.from({ length: 256 }, (_, j) => ({ key: `k${i}/${j}`, generation: 0 }))
      for (const { key } of claims) v.accepted(key, 0)
      const answers = v.step({ from: 'a', message: { ...claim(i), claims } }, 2_000)
      expect(answers.length).toBe(i < 16 ? 1 : 0)
    }
    expect(v.step({ from: 'b', message: claim(1) }, 2_000)).toHaveLength(1)
    expect(v.step({ from: 'a', message: claim(99) }, 9_000)).toHaveLength(1)
  })
})

class Bench {
  readonly holder = new LeaseHolder({ voters: firstVoters(['v1', 'v2', 'v3']), settings: SETTINGS, session: 1 })
  nowMs = 10_000
  effects: HolderEffect[] = []

  step(input: Parameters<LeaseHolder['step']>[0]): string[] {
    this.effects = this.holder.step(input, this.nowMs)
    return this.effects.map(({ kind }) => kind).filter(kind => kind !== 'send')
  }

  granted(from: string, round: number, newer?: number, session = 1): string[] {
    const refused = newer === undefined ? [] : [{ key: KEY, generation: 4, newer }]
    return this.step({ kind: 'granted', from, message: { kind: 'granted', session, round, refused } })
  }

  acquire(): void {
    this.step({ kind: 'acquire', key: KEY, generation: 4 })
    this.granted('v1', 1)
    this.granted('v2', 1)
  }

  get remainingMs(): number {
    return this.holder.remainingMs(KEY, 4, this.nowMs)
  }
}

describe('a lease holder', () => {
  test('holds from the sending of the claim that a majority granted, not from the answer', () => {
    const bench = new Bench()
    bench.step({ kind: 'acquire', key: KEY, generation: 4 })
    expect(bench.effects).toHaveLength(3)
    bench.nowMs += 300
    bench.granted('v1', 1)
    expect(bench.remainingMs).toBe(0)
    expect(bench.granted('v1', 1)).toEqual([])
    expect(bench.granted('v3', 1)).toEqual(['acquired'])
    expect(bench.remainingMs).toBe(700)
    expect(bench.holder.remainingMs(KEY, 5, bench.nowMs)).toBe(0)
    expect(bench.holder.remainingMs(KEY, 3, bench.nowMs)).toBe(0)
  })

  test('counts each voter from its own last grant: the lease is as old as the majority allows', () => {
    const bench = new Bench()
    bench.acquire()
    bench.nowMs += 200
    bench.step({ kind: 'tick' })
    bench.granted('v3', 2)
    expect(bench.remainingMs).toBe(800)
    bench.granted('v1', 2)
    expect(bench.remainingMs).toBe(1_000)
    bench.granted('v1', 1)
    expect(bench.remainingMs).toBe(1_000)
  })

  test('renews every claim in one message', () => {
    const bench = new Bench()
    bench.acquire()
    bench.step({ kind: 'acquire', key: 'group/b', generation: 1 })
    bench.nowMs += 200
    expect(bench.holder.wakeAtMs()).toBe(bench.nowMs)
    bench.step({ kind: 'tick' })
    expect(bench.effects).toHaveLength(3)
    expect(bench.effects[0]).toMatchObject({ message: { kind: 'claim', claims: [{ key: KEY }, { key: 'group/b' }] } })
  })

  test('says that it lapses before the end, once, and that it is regained by a majority', () => {
    const bench = new Bench()
    bench.acquire()
    bench.nowMs += 899
    expect(bench.step({ kind: 'tick' })).toEqual([])
    bench.nowMs += 1
    expect(bench.remainingMs).toBe(100)
    expect(bench.step({ kind: 'tick' })).toEqual(['lapsing'])
    expect(bench.step({ kind: 'tick' })).toEqual([])
    const round = 2
    expect(bench.granted('v1', round)).toEqual([])
    expect(bench.granted('v2', round)).toEqual(['regained'])
  })

  test('after a stop of the process finds its lease over before it does anything else', () => {
    const bench = new Bench()
    bench.acquire()
    bench.nowMs += 60_000
    expect(bench.remainingMs).toBe(0)
    // The answers that waited in the socket are to claims of long ago.
    expect(bench.granted('v3', 1)).toEqual(['lapsing', 'verify'])
    expect(bench.remainingMs).toBe(0)
  })

  test('claims a lease that has ended only after it has read that the register is still its own', () => {
    const bench = new Bench()
    bench.acquire()
    bench.nowMs += 1_100
    expect(bench.step({ kind: 'tick' })).toEqual(['lapsing', 'verify'])
    expect(bench.effects.map(({ kind }) => kind)).not.toContain('send')
    expect(bench.step({ kind: 'register', key: KEY, of: 4, now: undefined })).toEqual([])
    bench.nowMs += 200
    expect(bench.step({ kind: 'tick' })).toEqual(['verify'])
    bench.step({ kind: 'register', key: KEY, of: 4, now: 4 })
    expect(bench.effects).toHaveLength(3)
    bench.granted('v1', 2)
    expect(bench.granted('v2', 2)).toEqual(['regained'])
  })

  test('stops a first claim, too, that got no majority for as long as a lease lasts', () => {
    const bench = new Bench()
    bench.step({ kind: 'acquire', key: KEY, generation: 4 })
    bench.granted('v1', 1)
    for (let i = 0; i < 4; i++) {
      bench.nowMs += 200
      bench.step({ kind: 'tick' })
      expect(bench.effects).toHaveLength(3)
    }
    bench.nowMs += 200
    expect(bench.step({ kind: 'tick' })).toEqual(['verify'])
    expect(bench.effects).toHaveLength(1)
  })

  test('claims at once when it is acquired again while it lapses, and is regained by a majority', () => {
    const bench = new Bench()
    bench.acquire()
    bench.nowMs += 950
    bench.step({ kind: 'tick' })
    bench.step({ kind: 'acquire', key: KEY, generation: 4 })
    expect(bench.effects).toHaveLength(3)
    bench.granted('v1', 3)
    expect(bench.granted('v2', 3)).toEqual(['regained'])
  })

  test('is over when the register is deleted, which voters tell by knowing of no value', () => {
    const bench = new Bench()
    bench.acquire()
    expect(bench.granted('v3', 1, 0)).toEqual(['verify'])
    // One that lags behind while a majority grants is a reason to read now and then only.
    bench.step({ kind: 'register', key: KEY, of: 4, now: 4 })
    bench.nowMs += 200
    bench.step({ kind: 'tick' })
    expect(bench.granted('v3', 2, 0)).toEqual([])
    bench.nowMs += 800
    expect(bench.granted('v3', 2, 0)).toEqual(['lapsing', 'verify'])
    expect(bench.step({ kind: 'register', key: KEY, of: 4, now: 0 })).toEqual(['lost'])
    expect(bench.remainingMs).toBe(0)
  })

  test('is not ended by a read that began under an earlier generation', () => {
    const bench = new Bench()
    bench.acquire()
    bench.granted('v3', 1, 5)
    bench.step({ kind: 'acquire', key: KEY, generation: 6 })
    expect(bench.step({ kind: 'register', key: KEY, of: 4, now: 5 })).toEqual([])
  })

  test('is not lost by the word of voters, only by the register', () => {
    const bench = new Bench()
    bench.acquire()
    expect(bench.granted('v3', 1, 5)).toEqual(['verify'])
    expect(bench.granted('v2', 1, 5)).toEqual([])
    expect(bench.step({ kind: 'register', key: KEY, of: 4, now: undefined })).toEqual([])
    expect(bench.step({ kind: 'register', key: KEY, of: 4, now: 4 })).toEqual([])
    expect(bench.remainingMs).toBe(1_000)
    bench.nowMs += 200
    bench.step({ kind: 'tick' })
    expect(bench.granted('v3', 2, 5)).toEqual(['verify'])
    expect(bench.step({ kind: 'register', key: KEY, of: 4, now: 5 })).toEqual(['lost'])
    expect(bench.remainingMs).toBe(0)
    expect(bench.holder.wakeAtMs()).toBe(Number.POSITIVE_INFINITY)
  })

  test('takes no answer to a claim before its release, to another life, or from a stranger', () => {
    const bench = new Bench()
    bench.acquire()
    bench.step({ kind: 'release', key: KEY })
    expect(bench.effects[0]).toMatchObject({ message: { kind: 'release', round: 1 } })
    expect(bench.remainingMs).toBe(0)
    bench.step({ kind: 'acquire', key: KEY, generation: 4 })
    for (const from of ['v1', 'v2', 'v3']) bench.granted(from, 1)
    for (const from of ['v1', 'v2', 'v3']) bench.granted(from, 2, undefined, 77)
    for (const from of ['x1', 'x2', 'x3']) bench.granted(from, 2)
    expect(bench.remainingMs).toBe(0)
    bench.granted('v1', 2)
    expect(bench.granted('v2', 2)).toEqual(['acquired'])
  })

  test('claims anew under a new voter set, counts its grants alone, and keeps what the old majority granted', () => {
    const bench = new Bench()
    bench.acquire()
    bench.nowMs += 300
    const ids = ['v2', 'v3', 'v4', 'v5']
    bench.step({ kind: 'voters', set: nextVoters(firstVoters(['v1', 'v2', 'v3']), ids) })
    expect(bench.effects).toHaveLength(4)
    expect(bench.effects[0]).toMatchObject({ message: { kind: 'claim', version: 2, round: 2 } })
    expect(bench.remainingMs).toBe(700)
    for (const from of ['v1', 'v2', 'v3']) bench.granted(from, 1)
    for (const from of ['v1', 'v2', 'v3']) bench.granted(from, 2)
    expect(bench.remainingMs).toBe(700)
    expect(bench.granted('v4', 2)).toEqual([])
    expect(bench.remainingMs).toBe(1_000)
    bench.step({ kind: 'voters', set: firstVoters(['v1']) })
    expect(bench.effects).toEqual([])
    // A grant of the old set adds nothing to grants of the new one.
    const mixed = new Bench()
    mixed.acquire()
    mixed.nowMs += 200
    mixed.step({ kind: 'tick' })
    mixed.granted('v2', 2)
    mixed.nowMs += 100
    mixed.step({ kind: 'voters', set: nextVoters(firstVoters(['v1', 'v2', 'v3']), ids) })
    for (const from of ['v3', 'v4']) mixed.granted(from, 3)
    expect(mixed.remainingMs).toBe(700)
  })

  test('replaces an older claim by a newer one, never the other way', () => {
    const bench = new Bench()
    bench.acquire()
    bench.step({ kind: 'acquire', key: KEY, generation: 6 })
    expect(bench.remainingMs).toBe(0)
    expect(bench.step({ kind: 'acquire', key: KEY, generation: 5 })).toEqual(['lost'])
  })
})
