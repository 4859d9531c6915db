/** The pure parts of the decision log: facts and their limits, what is kept, and how several logs become one story. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Changes, Chronicle, entryName, REPEAT_GAP_MS } from '../../protocols/decisions/chronicle.ts'
import { brief, type Entry, type Fact, groupSubject, MAX_TEXT, parseEntry } from '../../protocols/decisions/facts.ts'
import { clockAheadMs, mergeAccounts } from '../../protocols/decisions/merge.ts'
import { fitting, MAX_ANSWER_BYTES, parseDecisionsMessage } from '../../protocols/decisions/messages.ts'

const about = { group: 'bank', generation: 1 }
const waits = (why: 'lease' | 'no-majority', retryMs = 25): Fact => ({
  kind: 'takeover-waits',
  ...about,
  why,
  retryMs,
  text: ''
})
const failed = (why: string, group = 'bank'): Fact => ({ kind: 'vm-failed', group, generation: 1, vm: 'vm1', why })
const renewed = (leftMs: number): Fact => ({
  kind: 'lease',
  ...about,
  event: 'renewed',
  leftMs,
  granted: ['p1'],
  vms: [],
  newer: 0
})
const entry = (seq: number, atMs: number, fact: Fact = failed('x')): Entry => ({
  seq,
  atMs,
  lastAtMs: atMs,
  times: 1,
  fact
})
const bank = [groupSubject('bank')]

describe('what is kept', () => {
  it('is one entry with a count where the same is noted again and again', () => {
    const chronicle = new Chronicle()
    expect(chronicle.note(failed('a'), 1_000)).toBe('new')
    for (let i = 0; i < 200; i++) {
      chronicle.note(waits('lease', 25), 1_100 + 50 * i)
      chronicle.note(waits('no-majority', 500), 1_110 + 50 * i)
    }
    expect(chronicle.entries(bank)).toMatchObject([
      { times: 1, fact: { kind: 'vm-failed' } },
      { times: 200, atMs: 1_100, lastAtMs: 11_050, fact: { why: 'lease' } },
      { times: 200, atMs: 1_110, lastAtMs: 11_060, fact: { why: 'no-majority' } }
    ])
  })

  it('counts renewals of a lease with the least that was left, until something else happens to it', () => {
    const chronicle = new Chronicle()
    for (const leftMs of [790, 612, 800]) expect(chronicle.note(renewed(leftMs), 5)).toBeTypeOf('string')
    chronicle.note(failed('a'), 6)
    chronicle.note(renewed(700), 7)
    expect(chronicle.entries(bank)).toMatchObject([
      { times: 3, fact: { leftMs: 612 } },
      { fact: { kind: 'vm-failed' } },
      { times: 1, fact: { leftMs: 700 } }
    ])
  })

  it('tells anew what comes again after a long silence', () => {
    const chronicle = new Chronicle()
    chronicle.note(waits('lease'), 0)
    expect(chronicle.note(waits('lease'), REPEAT_GAP_MS)).toBe('repeated')
    expect(chronicle.note(waits('lease'), 2 * REPEAT_GAP_MS + 1)).toBe('new')
  })

  it('is the newest of each subject, in number and bytes, whatever happens to the others', () => {
    const chronicle = new Chronicle({ subjectEntries: 3, subjectBytes: 1_000, bytes: 1_000_000 })
    chronicle.note(failed('kept', 'other'), 0)
    for (let i = 0; i < 10; i++) chronicle.note(failed(`${i}`), i)
    expect(chronicle.entries(bank).map(({ atMs }) => atMs)).toEqual([7, 8, 9])
    for (let i = 0; i < 3; i++) chronicle.note(failed('long'.repeat(70)), 20 + i)
    expect(chronicle.entries(bank).map(({ atMs }) => atMs)).toEqual([21, 22])
    expect(chronicle.entries([groupSubject('other')])).toHaveLength(1)
  })

  it('stays within its bytes however many subjects there are, and loses the oldest', () => {
    const chronicle = new Chronicle({ subjectEntries: 100, subjectBytes: 100_000, bytes: 5_000 })
    for (let i = 0; i < 500; i++) chronicle.note(failed('x', `group${i}`), i)
    expect(chronicle.size.bytes).toBeLessThanOrEqual(5_000)
    expect(chronicle.entries([groupSubject('group0')])).toEqual([])
    expect(chronicle.entries([groupSubject('group499')])).toHaveLength(1)
  })

  it('is on disk exactly what is in memory, whatever fails to be written in between', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('note' as const), group: fc.nat(1), text: fc.nat(1) }),
      fc.record({ do: fc.constantFrom('begin' as const, 'end' as const, 'fail' as const) })
    )
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 80 }), steps => {
        const chronicle = new Chronicle({ subjectEntries: 3, subjectBytes: 10_000, bytes: 1_500 })
        const disk = new Map<string, Entry>()
        let writing: Changes | undefined
        const begin = (): void => void (writing ??= chronicle.takeChanges())
        const end = (): void => {
          for (const name of writing?.drop ?? []) disk.delete(name)
          for (const [name, put] of writing?.put ?? []) disk.set(name, put)
          if (writing !== undefined) chronicle.written(writing)
          writing = undefined
        }
        for (const [i, each] of steps.entries()) {
          if (each.do === 'note') chronicle.note({ ...waits('lease'), group: `g${each.group}` } as Fact, i)
          else if (each.do === 'begin') begin()
          else if (each.do === 'end') end()
          else if (writing !== undefined) {
            chronicle.failed(writing)
            writing = undefined
          }
          if (each.do === 'note' && each.text === 0) chronicle.note(failed('x', `g${each.group}`), i)
        }
        for (const last of [end, begin, end, begin, end]) last()
        expect(chronicle.changed).toBe(false)
        const subjects = [0, 1].map(group => groupSubject(`g${group}`))
        const kept = chronicle.entries(subjects)
        expect([...disk.values()].sort((a, b) => a.seq - b.seq)).toEqual(kept)
      })
    )
  })

  it('goes on where an earlier run ended, and counts nothing up that an earlier run noted', () => {
    const first = new Chronicle()
    first.note(failed('a'), 1)
    first.note(waits('lease'), 2)
    const second = new Chronicle()
    second.load(first.takeChanges().put.map(([, each]) => each))
    expect(second.changed).toBe(false)
    second.note(waits('lease'), 3)
    expect(second.entries(bank).map(({ seq, times }) => [seq, times])).toEqual([
      [1, 1],
      [2, 1],
      [3, 1]
    ])
  })

  it('is asked for by time, where what repeats counts by its last time', () => {
    const chronicle = new Chronicle()
    chronicle.note(failed('a'), 1_000)
    chronicle.note(renewed(700), 2_000)
    chronicle.note(renewed(700), 9_000)
    expect(chronicle.entries(bank, 5_000).map(({ fact }) => fact.kind)).toEqual(['lease'])
  })

  it('stands on disk under names that sort by subject and order', () => {
    expect([entryName('group/a', 9), entryName('group/a', 10)].sort()).toEqual([
      'group/a/0000000000000009',
      'group/a/0000000000000010'
    ])
  })
})

describe('entries from elsewhere', () => {
  it('pass where they are what this program writes', () => {
    const good = entry(3, 1_700_000_000_000.5, { ...failed('x') })
    expect(parseEntry(JSON.parse(JSON.stringify(good)))).toEqual(good)
  })

  it('are refused where they are anything else', () => {
    const good = entry(3, 5)
    const huge = 'x'.repeat(MAX_TEXT + 1)
    const peers = Array.from({ length: 101 }, (_, i) => ({ peer: `p${i}`, vote: 'silent' }))
    const ballot = { kind: 'ballot', group: 'g', counter: 1, outcome: 'chosen', rounds: 1, tookMs: 1 }
    const owners = Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`vm${i}`, 'p1']))
    const generation = { kind: 'generation', ...about, epoch: 1, displaced: {}, how: 'made' }
    for (const wrong of [
      null,
      [],
      { ...good, more: 1 },
      { ...good, seq: -1 },
      { ...good, atMs: Number.NaN },
      { ...good, atMs: Number.POSITIVE_INFINITY },
      { ...good, fact: { kind: 'unheard-of' } },
      { ...good, fact: failed(huge) },
      { ...good, fact: failed('x', '../../etc') },
      { ...good, fact: { ...failed('x'), more: 1 } },
      { ...good, fact: { ...ballot, votes: peers } },
      { ...good, fact: { ...generation, owners } }
    ]) {
      expect(() => parseEntry(wrong), JSON.stringify(wrong)).toThrow()
    }
    fc.assert(
      fc.property(fc.anything(), value => {
        expect(() => parseEntry(value)).toThrow()
      })
    )
  })

  it('ask and answer within limits', () => {
    const ask = { kind: 'ask', id: 1, group: 'bank', vm: 'vm1', agoMs: 600_000 }
    expect(parseDecisionsMessage(ask)).toEqual(ask)
    const answer = { kind: 'answer', id: 1, nowMs: 5, entries: [entry(1, 2)], left: 0 }
    expect(parseDecisionsMessage(answer)).toEqual(answer)
    for (const wrong of [{ ...ask, agoMs: -1 }, { ...ask, group: 'a/b' }, { ...ask, vm: 3 }, { kind: 'tell' }, 7]) {
      expect(() => parseDecisionsMessage(wrong)).toThrow()
    }
    const many = { ...answer, entries: new Array(2_001).fill(entry(1, 2)) }
    expect(() => parseDecisionsMessage(many)).toThrow()
  })

  it('fit into an answer: the newest, and how many older ones there are', () => {
    const long = Array.from({ length: 3_000 }, (_, i) => entry(i, i, failed('y'.repeat(200))))
    const { entries, left } = fitting(long)
    expect(JSON.stringify(entries).length).toBeLessThanOrEqual(MAX_ANSWER_BYTES + 2)
    expect(entries.at(-1)).toEqual(long.at(-1))
    expect(left + entries.length).toBe(3_000)
    expect(fitting(long.slice(0, 10))).toEqual({ entries: long.slice(0, 10), left: 0 })
  })

  it('have texts that fit, cut where they are too long', () => {
    expect(brief('short')).toBe('short')
    expect(brief('x'.repeat(5_000))).toHaveLength(MAX_TEXT)
  })
})

describe('several logs as one story', () => {
  const account = (by: string, atMs: readonly number[], aheadMs = 0) => ({
    by,
    aheadMs,
    entries: atMs.map((at, i) => entry(i + 1, at))
  })
  const order = (...accounts: ReturnType<typeof account>[]) =>
    mergeAccounts(accounts).map(({ by, atMs }) => `${by} ${atMs}`)

  it('go by wall clock', () => {
    expect(order(account('a', [1, 5, 9]), account('b', [2, 6]))).toEqual(['a 1', 'b 2', 'a 5', 'b 6', 'a 9'])
  })

  it('keep the order of each peer, also where its clock was set back or forward meanwhile', () => {
    expect(order(account('a', [10, 4, 11]), account('b', [5, 12]))).toEqual(['b 5', 'a 10', 'a 4', 'a 11', 'b 12'])
    const logs = fc.array(fc.array(fc.nat(50), { maxLength: 12 }), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(logs, all => {
        const merged = mergeAccounts(all.map((times, i) => account(`p${i}`, times)))
        for (const [i, times] of all.entries()) {
          const own = merged.filter(({ by }) => by === `p${i}`)
          expect(own.map(({ seq }) => seq)).toEqual(times.map((_, n) => n + 1))
        }
      })
    )
  })

  it('are told in our time where a clock is plainly wrong', () => {
    expect(order(account('a', [1, 5]), account('b', [3_602], 3_600))).toEqual(['a 1', 'b 2', 'a 5'])
  })

  it('know how wrong a clock is but for the time that the answer took', () => {
    expect(clockAheadMs(1_000, 4_410, 1_020)).toBe(3_400)
    expect(clockAheadMs(1_000, 10, 1_020)).toBe(-1_000)
    // An answer that took long tells little.
    expect(clockAheadMs(1_000, 1_900, 2_000)).toBe(0)
    expect(clockAheadMs(1_000, 1_060, 1_020)).toBe(0)
  })
})
