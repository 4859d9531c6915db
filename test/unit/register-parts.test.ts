import fc from 'fast-check'
import { Packr } from 'msgpackr'
import { describe, expect, test } from 'vitest'
import { hasCode } from '../../node/errors.ts'
import { parseLeaseMessage } from '../../protocols/lease/messages.ts'
import { DurableOrder, type Entry, MAX_WAITING_STEPS } from '../../protocols/register/durable-order.ts'
import {
  compareBallots,
  isKey,
  MAX_COUNTER,
  MAX_VALUE_BYTES,
  parseRegisterMessage,
  type RegisterMessage
} from '../../protocols/register/messages.ts'
import {
  forgottenEntry,
  grantsEntry,
  recordEntry,
  remember,
  reservedEntry,
  votersEntry
} from '../../protocols/register/record.ts'
import { decodeValue, encodeValue } from '../../protocols/register/value.ts'

const ballot = fc.record({ counter: fc.integer({ min: 1 }), peer: fc.string({ minLength: 1, maxLength: 60 }) })
const key = fc.stringMatching(/^[a-z0-9][a-z/:-]{0,40}$/)
const generation = fc.nat()
const accepted = fc.record({
  ballot,
  value: fc.uint8Array({ maxLength: 100 }),
  generation,
  fence: fc.array(fc.record({ holder: fc.string({ minLength: 1, maxLength: 60 }), below: generation }), {
    maxLength: 5
  })
})
const maybe = fc.option(accepted, { nil: null })
const version = fc.integer({ min: 1 })
const after = fc.option(key, { nil: '' })
const message: fc.Arbitrary<RegisterMessage> = fc.oneof(
  fc.record({ kind: fc.constantFrom('prepare' as const, 'read' as const, 'forget' as const), version, key, ballot }),
  fc.record({ kind: fc.constant('accepted' as const), key, ballot }),
  fc.record({ kind: fc.constant('accept' as const), version, key, accepted, promise: ballot }),
  fc.record({ kind: fc.constant('list' as const), version, after }),
  fc.record({ kind: fc.constant('stale' as const), ballot: fc.option(ballot, { nil: null }), version }),
  fc.record({
    kind: fc.constant('keys' as const),
    version,
    after,
    keys: fc.array(key, { minLength: 1, maxLength: 5 }),
    more: fc.boolean()
  }),
  fc.record({ kind: fc.constantFrom('promised' as const, 'state' as const), key, ballot, accepted: maybe }),
  fc.record({
    kind: fc.constant('conflict' as const),
    key,
    ballot,
    of: fc.constantFrom('prepare' as const, 'accept' as const),
    seen: ballot
  }),
  fc.record({ kind: fc.constant('leased' as const), key, ballot, retryMs: fc.integer({ min: 0, max: 86_400_000 }) })
)

describe('register messages', () => {
  test('come through msgpack and the parser as they were', () => {
    const packr = new Packr({ useRecords: false })
    fc.assert(
      fc.property(message, sent => {
        expect(parseRegisterMessage(packr.unpack(packr.pack(sent)))).toEqual(sent)
      })
    )
  })

  test('that are anything else are refused with a code, never with a crash', () => {
    const broken = fc.tuple(message, fc.string(), fc.anything()).map(([good, field, junk]) => {
      const fields = Object.keys(good)
      return { ...good, [fields[field.length % fields.length] ?? 'kind']: junk }
    })
    for (const parse of [parseRegisterMessage, parseLeaseMessage]) {
      fc.assert(
        fc.property(fc.oneof(fc.anything(), broken), raw => {
          try {
            parse(raw)
          } catch (error) {
            expect(hasCode(error, 'REGISTER_MESSAGE') || hasCode(error, 'LEASE_MESSAGE')).toBe(true)
          }
        }),
        { numRuns: 1_000 }
      )
    }
  })

  test('have limits', () => {
    expect(isKey('group/bank')).toBe(true)
    for (const bad of ['', '/a', 'a b', 'a\n', 'ä', 'a'.repeat(201), 7, null]) expect(isKey(bad)).toBe(false)
    const accept = (value: Uint8Array): unknown => ({
      kind: 'accept',
      version: 1,
      key: 'a',
      promise: { counter: 2, peer: 'p' },
      accepted: { ballot: { counter: 1, peer: 'p' }, value, generation: 0, fence: [] }
    })
    expect(() => parseRegisterMessage(accept(new Uint8Array(MAX_VALUE_BYTES)))).not.toThrow()
    expect(() => parseRegisterMessage(accept(new Uint8Array(MAX_VALUE_BYTES + 1)))).toThrow('bad value')
  })

  test('with a ballot that nobody can have come to are refused: who believed in one could never go beyond it', () => {
    const at = (counter: number) => ({ counter, peer: 'p' })
    const conflict = (asked: number, seen: number): unknown => ({
      kind: 'conflict',
      key: 'a',
      of: 'prepare',
      ballot: at(asked),
      seen: at(seen)
    })
    expect(() => parseRegisterMessage(conflict(MAX_COUNTER, MAX_COUNTER))).not.toThrow()
    expect(() => parseRegisterMessage(conflict(1, MAX_COUNTER + 1))).toThrow('bad counter')
    expect(() => parseRegisterMessage(conflict(Number.MAX_SAFE_INTEGER, 1))).toThrow('bad counter')
  })

  test('order ballots totally, by counter and then by peer', () => {
    fc.assert(
      fc.property(ballot, ballot, (a, b) => {
        expect(Math.sign(compareBallots(a, b))).toBe(-Math.sign(compareBallots(b, a)) || 0)
        expect(compareBallots(a, b) === 0).toBe(a.counter === b.counter && a.peer === b.peer)
      })
    )
  })
})

describe('what registers remember', () => {
  const voters = { version: 7, ids: ['a', 'b'], since: { a: 1, b: 4 }, settled: false }
  const written = (...entries: Entry[]) => entries.flatMap(([name, bytes]) => (bytes ? [[name, bytes] as const] : []))

  test('reads back as it was written', () => {
    fc.assert(
      fc.property(
        key,
        ballot,
        maybe,
        fc.nat(),
        ballot,
        fc.nat(),
        (name, promised, value, reserved, forgotten, grants) => {
          const record = { term: 4, promised, accepted: value }
          const entries = written(
            recordEntry(name, record),
            reservedEntry(reserved),
            votersEntry(voters),
            forgottenEntry(forgotten),
            grantsEntry(grants)
          )
          const records = new Map([[name, record]])
          const longestGrantMs = grants
          expect(remember(entries, 'b')).toEqual({ voters, records, over: [], forgotten, reserved, longestGrantMs })
        }
      )
    )
    expect(remember([], 'b')).toMatchObject({ voters: null, records: new Map(), reserved: 0, longestGrantMs: 0 })
  })

  test('is of one term of office as a voter: what was accepted in an earlier one is void', () => {
    const promised = { counter: 1, peer: 'p' }
    const record = (name: string, term: number) => recordEntry(name, { term, promised, accepted: null })
    const entries = written(record('old', 1), votersEntry(voters), record('present', 4))
    expect(remember(entries, 'b')).toMatchObject({ over: ['old'], records: new Map([['present', expect.anything()]]) })
    expect([...remember(entries, 'a').records.keys()]).toEqual(['old'])
    expect(remember(entries, 'stranger').over).toEqual(['old', 'present'])
    // Written before voter sets had versions.
    const earlier = new Packr({ useRecords: false }).pack([1, { promised, accepted: null }])
    expect([...remember([['register/x', earlier]], 'a').records.keys()]).toEqual(['x'])
  })

  test('is refused with a code where it is damaged or of another format', () => {
    const names = fc.constantFrom('register/a', 'ballots', 'voters', 'forgotten', 'grants', 'else')
    fc.assert(
      fc.property(names, fc.uint8Array({ maxLength: 40 }), (name, bytes) => {
        try {
          remember([[name, bytes]], 'a')
        } catch (error) {
          expect(hasCode(error, 'REGISTER_CORRUPT') || hasCode(error, 'REGISTER_FORMAT')).toBe(true)
        }
      })
    )
    const newer = new Packr({ useRecords: false }).pack([2, 17])
    expect(() => remember([['ballots', newer]], 'a')).toThrow(expect.objectContaining({ code: 'REGISTER_FORMAT' }))
  })

  test('holds plain data of up to 64 KiB, and gives each reader its own', () => {
    const value = { owners: { a: 'p1' }, list: [1, null, 'x'], big: 2 ** 52 }
    const bytes = encodeValue(value)
    expect(decodeValue(bytes)).toEqual(value)
    expect(decodeValue(bytes)).not.toBe(decodeValue(bytes))
    expect(() => encodeValue('x'.repeat(MAX_VALUE_BYTES))).toThrow(expect.objectContaining({ code: 'REGISTER_VALUE' }))
    expect(() => decodeValue(Uint8Array.of(0x92, 1))).toThrow(expect.objectContaining({ code: 'REGISTER_VALUE' }))
  })

  test.each([
    ['is nested a thousand times', [...Array<number>(1_000).fill(0x91), 1]],
    ['claims more members than it has bytes', [0xdd, 1, 0xc0, 0, 0]],
    ['makes a regular expression of its text', [0xc7, 3, 0x78, 0x92, 0xa1, 0x61, 0xa0]],
    ['makes an error of its text', [0xd4, 0x65, 0, 0x93, 0xa1, 0x61, 0xa1, 0x62, 0xc0]],
    ['is followed by another', [1, 1]]
  ])('is refused to readers where it %s, whoever wrote it', (_, bytes) => {
    expect(() => decodeValue(Uint8Array.from(bytes))).toThrow(expect.objectContaining({ code: 'REGISTER_VALUE' }))
  })

  test('takes no value that it could not give back', () => {
    let deep: unknown = 1
    for (let i = 0; i < 25; i++) deep = [deep]
    for (const value of [deep, new Date(5)]) {
      expect(() => encodeValue(value)).toThrow(expect.objectContaining({ code: 'REGISTER_VALUE' }))
    }
    expect(decodeValue(encodeValue({ a: undefined, bytes: new Uint8Array(3) }))).toEqual({ bytes: new Uint8Array(3) })
  })
})

describe('the order of disk and net', () => {
  const make = () => {
    const writes: { entries: string[]; done: () => void; fail: (error: Error) => void }[] = []
    const said: string[] = []
    const order = new DurableOrder(
      entries =>
        new Promise((resolve, reject) => {
          writes.push({ entries: entries.map(([name]) => name), done: resolve, fail: reject })
        }),
      () => said.push('broken')
    )
    const submit = (what: string, ...names: string[]): void =>
      order.submit(
        names.map(name => [name, new Uint8Array()] as const),
        () => said.push(what)
      )
    const settle = (): Promise<void> => new Promise(setImmediate)
    return { writes, said, submit, settle }
  }

  test('lets nothing overtake what is being written before it, and joins what waits into one write', async () => {
    const { writes, said, submit, settle } = make()
    submit('at once')
    expect(said).toEqual(['at once'])
    submit('first', 'a')
    submit('tells of a')
    submit('second', 'b')
    submit('third', 'b', 'c')
    await settle()
    expect(said).toEqual(['at once'])
    writes[0]?.done()
    await settle()
    expect(said).toEqual(['at once', 'first'])
    expect(writes.map(({ entries }) => entries)).toEqual([['a'], ['b', 'c']])
    writes[1]?.done()
    await settle()
    expect(said).toEqual(['at once', 'first', 'tells of a', 'second', 'third'])
  })

  test('holds a disk for failed that does not end a write while ever more waits for it', async () => {
    const { writes, said, submit, settle } = make()
    submit('first', 'a')
    for (let i = 0; i < MAX_WAITING_STEPS; i++) submit('waits')
    expect(said).toEqual([])
    submit('one more')
    submit('too late')
    expect(said).toEqual(['broken'])
    writes[0]?.done()
    await settle()
    expect(said).toEqual(['broken'])
    expect(writes).toHaveLength(1)
  })

  test('says nothing any more after a write that failed', async () => {
    const { writes, said, submit, settle } = make()
    submit('first', 'a')
    submit('second', 'b')
    writes[0]?.fail(new Error('disk'))
    await settle()
    submit('third')
    expect(said).toEqual(['broken'])
    expect(writes).toHaveLength(1)
  })
})
