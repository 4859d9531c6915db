import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Acceptor, type AcceptorEffect, type LeaseGuard } from '../../protocols/register/acceptor.ts'
import { type Accepted, type Ballot, type ProposerMessage, ZERO_BALLOT } from '../../protocols/register/messages.ts'
import { Proposer, type ProposerEffect, type ProposerInput } from '../../protocols/register/proposer.ts'
import { Settling, type SettlingEffect } from '../../protocols/register/settling.ts'
import { encodeValue } from '../../protocols/register/value.ts'
import { firstVoters, majorityOf, nextVoters, parseVoterSet, termOf } from '../../protocols/register/voters.ts'

const KEY = 'group/a'
const ballot = (counter: number, peer = 'p'): Ballot => ({ counter, peer })
const accepted = (counter: number, value: unknown): Accepted => ({
  ballot: ballot(counter),
  value: encodeValue(value),
  generation: 0,
  fence: []
})
const one = firstVoters(['v1', 'v2', 'v3'])
const two = nextVoters(one, ['v1', 'v2', 'v3', 'v4'])

describe('a voter set', () => {
  test('has a next one of which every majority meets every majority of it, and a next but one that need not', () => {
    const majorities = (ids: readonly string[]): string[][] =>
      Array.from({ length: 2 ** ids.length }, (_, bits) => ids.filter((_id, i) => (bits >> i) & 1)).filter(
        some => some.length >= majorityOf(ids.length)
      )
    const disjoint = (a: string[][], b: string[][]): boolean =>
      a.some(some => b.some(other => !some.some(id => other.includes(id))))
    for (let count = 1; count <= 6; count++) {
      const ids = Array.from({ length: count }, (_, i) => `v${i}`)
      const present = majorities(ids)
      expect(disjoint(present, majorities([...ids, 'x']))).toBe(false)
      expect(disjoint(present, majorities([...ids, 'x', 'y']))).toBe(count % 2 === 1)
    }
  })

  test('says since when each votes: who comes back begins anew, who stays goes on', () => {
    expect(two).toEqual({
      version: 2,
      ids: ['v1', 'v2', 'v3', 'v4'],
      since: { v1: 1, v2: 1, v3: 1, v4: 2 },
      settled: false
    })
    const back = nextVoters(nextVoters(one, ['v1', 'v2']), ['v1', 'v2', 'v3'])
    expect([termOf(one, 'v3'), termOf(back, 'v1'), termOf(back, 'v3'), termOf(back, 'v4')]).toEqual([1, 1, 3, 0])
  })

  test('is read back as it was, and anything else is refused', () => {
    expect(parseVoterSet(structuredClone(two))).toEqual(two)
    fc.assert(
      fc.property(fc.constantFrom('version', 'ids', 'since', 'settled'), fc.anything(), (field, junk) => {
        try {
          expect(parseVoterSet({ ...two, [field]: junk }).ids.length).toBeGreaterThan(0)
        } catch (error) {
          expect(error).toBeInstanceOf(TypeError)
        }
      })
    )
    for (const bad of [{ since: { v1: 3 } }, { ids: [] }, { ids: ['v1', 'v1'] }, { version: 0 }])
      expect(() => parseVoterSet({ ...two, ...bad })).toThrow(TypeError)
  })
})

describe('an acceptor in a voter set', () => {
  const make = (self = 'v1') => {
    const heard: (readonly [string, number | null] | number)[] = []
    const guard: LeaseGuard = {
      remember: () => 0,
      open: () => {},
      adopted: version => heard.push(version),
      blockedForMs: () => 0,
      accepted: (key, generation) => heard.push([key, generation])
    }
    const acceptor = new Acceptor({ self, voters: one, records: new Map(), forgotten: ZERO_BALLOT, guard })
    const ask = (message: ProposerMessage): AcceptorEffect[] =>
      acceptor.step({ kind: 'message', from: 'p', message }, 0)
    const accept = (counter: number, version: number): AcceptorEffect[] =>
      ask({ kind: 'accept', version, key: KEY, accepted: accepted(counter, 'x'), promise: ballot(counter) })
    const read = (version: number): AcceptorEffect[] => ask({ kind: 'read', version, key: KEY, ballot: ballot(99) })
    return { acceptor, ask, accept, read, heard }
  }

  test('answers questions of its own version only: an older one is told, a newer one is to be learned first', () => {
    const { acceptor, ask, accept, read, heard } = make()
    accept(1, 1)
    expect(acceptor.step({ kind: 'voters', set: two }, 0)).toEqual([{ kind: 'adopt', set: two }])
    expect(accept(2, 1)).toEqual([{ kind: 'send', to: 'p', message: { kind: 'stale', ballot: ballot(2), version: 2 } }])
    expect(ask({ kind: 'list', version: 1, after: '' })).toMatchObject([{ message: { kind: 'stale', ballot: null } }])
    expect(ask({ kind: 'forget', version: 1, key: KEY, ballot: ballot(1) })).toEqual([])
    expect(accept(2, 3)).toEqual([{ kind: 'newer', from: 'p', version: 3 }])
    expect(read(2)).toMatchObject([{ message: { kind: 'state', accepted: { ballot: ballot(1) } } }])
    expect(heard).toEqual([1, [KEY, 0], 2])
  })

  test('never goes back to an older set', () => {
    const { acceptor, read } = make()
    acceptor.step({ kind: 'voters', set: two }, 0)
    expect(acceptor.step({ kind: 'voters', set: one }, 0)).toEqual([])
    expect(read(1)).toMatchObject([{ message: { kind: 'stale' } }])
  })

  test('drops what it accepted when it is no voter any more, and when its next term begins', () => {
    const { acceptor, accept, read, heard } = make('v3')
    accept(1, 1)
    const without = nextVoters(one, ['v1', 'v2'])
    expect(acceptor.step({ kind: 'voters', set: without }, 0)).toEqual([
      { kind: 'adopt', set: without },
      { kind: 'erase', keys: [KEY] }
    ])
    expect(heard.slice(-2)).toEqual([2, [KEY, null]])
    expect(accept(2, 2)).toEqual([])
    const missed = make('v3')
    missed.accept(1, 1)
    missed.acceptor.step({ kind: 'voters', set: nextVoters(without, one.ids) }, 0)
    expect(missed.read(3)).toMatchObject([{ message: { kind: 'state', accepted: null } }])
    expect(missed.accept(2, 3)).toMatchObject([{ kind: 'persist', record: { term: 3 } }, { kind: 'send' }])
    expect(read(2)).toEqual([])
  })

  test('lists what it has accepted or only promised, page by page', () => {
    const { ask } = make()
    const keys = Array.from({ length: 2_500 }, (_, i) => `k${String(i).padStart(5, '0')}`)
    for (const [i, key] of keys.toReversed().entries()) ask({ kind: 'prepare', version: 1, key, ballot: ballot(i + 1) })
    const listed: string[] = []
    for (let more = true; more; ) {
      const [answer] = ask({ kind: 'list', version: 1, after: listed.at(-1) ?? '' })
      if (answer?.kind !== 'send' || answer.message.kind !== 'keys') throw new Error('no keys')
      expect(answer.message.keys.length).toBeLessThanOrEqual(1_000)
      listed.push(...answer.message.keys)
      more = answer.message.more
    }
    expect(listed).toEqual(keys)
  })
})

describe('a proposer in a voter set', () => {
  const make = () => {
    const settings = { roundTimeoutMs: 400, giveUpMs: 2_000 }
    const proposer = new Proposer({ self: 'p', voters: one, settings, random: () => 0.5, reserved: 0, traces: true })
    let asked: Ballot = ballot(1)
    let effects: ProposerEffect[] = []
    const step = (input: ProposerInput, nowMs = 0): ProposerEffect[] => {
      effects = proposer.step(input, nowMs)
      for (const effect of effects) {
        if (effect.kind !== 'send' || effect.message.kind === 'list') continue
        asked = effect.message.kind === 'accept' ? effect.message.accepted.ballot : effect.message.ballot
      }
      return effects
    }
    const sent = (): string[] =>
      effects.flatMap(each => (each.kind === 'send' ? [`${each.message.kind} ${each.to}`] : []))
    const promised = (from: string) =>
      step({ kind: 'answer', from, message: { kind: 'promised', key: KEY, ballot: asked, accepted: null } })
    const took = (from: string) =>
      step({ kind: 'answer', from, message: { kind: 'accepted', key: KEY, ballot: asked } })
    const stale = (from: string, version = 2) =>
      step({ kind: 'answer', from, message: { kind: 'stale', ballot: asked, version } })
    return { proposer, step, sent, promised, took, stale }
  }
  const change = (id: number): ProposerInput => ({ kind: 'change', id, key: KEY, next: () => 'x', options: {} })

  test('begins what is under way anew when the set changes, with a new ballot and from the start', () => {
    const { step, sent, promised, took } = make()
    step(change(1))
    promised('v1')
    expect(promised('v2')).toMatchObject([{ message: { kind: 'accept', version: 1 } }, {}, {}])
    const begun = step({ kind: 'voters', set: two })
    expect(sent()).toEqual(two.ids.map(id => `prepare ${id}`))
    expect(begun[0]).toMatchObject({ message: { version: 2 } })
    for (const voter of ['v1', 'v2']) expect(promised(voter)).toEqual([])
    promised('v4')
    expect(sent()).toEqual(two.ids.map(id => `accept ${id}`))
    for (const voter of ['v1', 'v2']) took(voter)
    expect(took('v4')).toMatchObject([{ kind: 'trace' }, { kind: 'done', value: 'x' }])
  })

  test('does not use a promise of an older set', () => {
    const { step, sent, promised, took } = make()
    step(change(1))
    for (const voter of ['v1', 'v2']) promised(voter)
    for (const voter of ['v1', 'v2']) took(voter)
    step({ kind: 'voters', set: two })
    step(change(2))
    expect(sent()[0]).toBe('prepare v1')
  })

  test('that is refused for its old set says so, waits for the newer one, and goes on under it', () => {
    const { step, sent, stale, proposer } = make()
    step(change(1))
    expect(stale('v1')).toEqual([{ kind: 'newer', from: 'v1', version: 2 }])
    stale('v2')
    expect(proposer.wakeAtMs()).toBe(400)
    step({ kind: 'voters', set: two }, 100)
    expect(sent()).toEqual(two.ids.map(id => `prepare ${id}`))
    expect(stale('v1', 1)).toEqual([])
  })

  test('gives up at its deadline where nobody tells it the newer set, and says why', () => {
    const { step, stale } = make()
    step(change(1))
    stale('v1')
    const ended = step({ kind: 'tick' }, 2_000)
    expect(ended).toMatchObject([
      { kind: 'trace', trace: { outcome: 'unavailable', votes: { v1: 'stale' } } },
      { kind: 'failed', error: { code: 'REGISTER_UNAVAILABLE' } }
    ])
    expect(ended[1]).toMatchObject({ error: { message: expect.stringContaining('voter set 2 is in use') } })
  })

  test('rewrites a chosen value with a ballot of its own, and leaves a register without one unwritten', () => {
    const { step, sent, promised } = make()
    step({ kind: 'rewrite', id: 1, key: KEY })
    promised('v1')
    expect(promised('v2')).toMatchObject([{ kind: 'trace' }, { kind: 'done', value: null }])
    const other = make()
    other.step({ kind: 'rewrite', id: 1, key: KEY })
    const answer = { kind: 'promised' as const, key: KEY, ballot: ballot(1), accepted: accepted(1, 'kept') }
    for (const from of ['v1', 'v2']) other.step({ kind: 'answer', from, message: answer })
    expect(other.sent()).toEqual(one.ids.map(id => `accept ${id}`))
    expect(sent()).toEqual([])
  })
})

describe('settling', () => {
  const make = () => new Settling(two, { retryMs: 400, giveUpMs: 2_000 }, 0)
  const keys = (from: string, list: string[], after = '', more = false, version = 2) =>
    ({ kind: 'keys', from, message: { kind: 'keys', version, after, keys: list, more } }) as const
  const kinds = (effects: readonly SettlingEffect[]): string[] => effects.map(({ kind }) => kind)

  test('asks all voters until a majority has listed all its keys, then has each of them rewritten', () => {
    const settling = make()
    expect(settling.step({ kind: 'tick' }, 0)).toHaveLength(4)
    expect(settling.step(keys('v1', ['a', 'b'], '', true), 1)).toMatchObject([{ to: 'v1', message: { after: 'b' } }])
    expect(settling.step(keys('v4', []), 2)).toEqual([])
    expect(settling.step(keys('v2', ['b', 'd']), 3)).toEqual([])
    expect(settling.step({ kind: 'tick' }, 400).map(each => each.kind === 'send' && each.to)).toEqual(['v1', 'v3'])
    expect(settling.step(keys('v1', ['c'], 'b'), 410)).toEqual(
      ['a', 'b', 'c', 'd'].map(key => ({ kind: 'rewrite', key }))
    )
    for (const key of ['a', 'c', 'b'])
      expect(kinds(settling.step({ kind: 'rewritten', key }, 420))).toEqual(['progress'])
    expect(settling.step({ kind: 'rewritten', key: 'd' }, 430)).toEqual([
      { kind: 'progress', done: 4, total: 4 },
      { kind: 'settled', settled: { version: 2, keys: 4, refusedSinceMs: 410 } }
    ])
  })

  test('counts no voter twice, no stranger, no other version and no page out of turn', () => {
    const settling = make()
    settling.step({ kind: 'tick' }, 0)
    for (const answer of [
      keys('v1', []),
      keys('v1', []),
      keys('x', []),
      keys('v2', [], '', false, 1),
      keys('v3', [], 'z')
    ])
      expect(settling.step(answer, 1)).toEqual([])
    settling.step(keys('v2', []), 2)
    expect(kinds(settling.step(keys('v4', []), 3))).toEqual(['settled'])
  })

  test('rewrites a few at once', () => {
    const settling = make()
    const many = Array.from({ length: 40 }, (_, i) => `k${i}`)
    settling.step(keys('v1', many), 0)
    settling.step(keys('v2', []), 0)
    expect(settling.step(keys('v3', []), 0)).toHaveLength(16)
    expect(kinds(settling.step({ kind: 'rewritten', key: 'k0' }, 1))).toEqual(['progress', 'rewrite'])
  })

  test('gives up where no majority answers', () => {
    const settling = make()
    settling.step(keys('v1', []), 0)
    expect(settling.step({ kind: 'tick' }, 2_000)).toMatchObject([{ error: { code: 'REGISTER_UNAVAILABLE' } }])
  })
})
