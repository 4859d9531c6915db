/** NBD as a server hears it: handshake, requests, limits. */
import { describe, expect, it } from 'vitest'
import { MAX_REQUEST_BYTES, type NbdEvent, NbdSession } from '../../node/nbd/protocol.ts'
import { bytesOf, go, hello, list, meta, opening, option, optionAnswers, request, structured } from './nbd-client.ts'

const BYTES = 64 << 20
const DISKS = [
  { name: 'disk0', bytes: BYTES },
  { name: 'disk1', bytes: 4_096 }
]

function hear(...parts: readonly Uint8Array[]): { session: NbdSession; events: NbdEvent[]; sent: Buffer } {
  const session = new NbdSession(DISKS)
  for (const part of parts) session.push(part)
  const events = all(session)
  return { session, events, sent: sentOf(events) }
}

function all(session: NbdSession): NbdEvent[] {
  const events: NbdEvent[] = []
  for (let event = session.next(); event !== undefined; event = session.next()) events.push(event)
  return events
}

const sentOf = (events: readonly NbdEvent[]): Buffer =>
  Buffer.concat(events.flatMap(event => (event.kind === 'send' ? [event.bytes] : [])))

/** Behind the greeting: name, what was answered. */
const answers = (...options: readonly Uint8Array[]) => optionAnswers(hear(hello(), ...options).sent.subarray(18))
const types = (...options: readonly Uint8Array[]) => answers(...options).map(({ type }) => type)

/** What follows the handshake. */
function ask(all_: boolean, ...requests: readonly Uint8Array[]): NbdEvent[] {
  const { session } = hear(opening('disk0', all_))
  for (const each of requests) session.push(each)
  return all(session)
}

const simple = (error: number, cookie = 77) => bytesOf([4, 0x67446698], [4, error], [8, cookie])
const errorsOf = (events: readonly NbdEvent[]) => sentOf(events)

describe('the handshake', () => {
  it('begins with the greeting of a server that speaks fixed newstyle', () => {
    expect(hear().sent).toEqual(bytesOf('NBDMAGIC', 'IHAVEOPT', [2, 3]))
  })

  it.each([0, 2, 5, 0x80000001])('ends where the client has flags %i', flags => {
    expect(hear(hello(flags)).events.at(-1)).toMatchObject({ kind: 'close', why: expect.any(String) })
  })

  it('lists the disks', () => {
    const [first, second, end] = answers(list())
    expect(first).toEqual({ option: 3, type: 2, data: bytesOf([4, 5], 'disk0') })
    expect(second?.data).toEqual(bytesOf([4, 5], 'disk1'))
    expect(end).toEqual({ option: 3, type: 1, data: Buffer.alloc(0) })
  })

  it('tells size, flags and, where asked, limits of a disk, and begins with go', () => {
    const [size, limits, end] = answers(go('disk0', [3]))
    expect(size?.data).toEqual(bytesOf([2, 0], [8, BYTES], [2, 0x107]))
    expect(limits?.data).toEqual(bytesOf([2, 3], [4, 1], [4, 4096], [4, 32 << 20]))
    expect(end?.type).toBe(1)
    expect(types(go('disk1', [], 6), go('disk0'))).toEqual([3, 1, 3, 1])
  })

  it('refuses with the right error what it cannot take, and goes on', () => {
    const unknown = 0x80000006
    const invalid = 0x80000003
    expect(types(go('nobody'), meta('nobody', []), structured(), meta('nobody', []))).toEqual([
      unknown,
      invalid,
      1,
      unknown
    ])
    expect(types(go('\uFEFFdisk0'))).toEqual([unknown])
    expect(types(option(5), option(11))).toEqual([0x80000001, 0x80000001])
    expect(types(option(3, Buffer.of(1)), option(8, Buffer.of(1)))).toEqual([invalid, invalid])
    const broken = [Buffer.alloc(0), bytesOf([4, 99], 'disk0', [2, 0]), bytesOf([4, 5], 'disk0', [2, 2], [2, 3])]
    const trailing = bytesOf([4, 5], 'disk0', [2, 0], 'x')
    const noText = bytesOf([4, 1], Buffer.of(0xff), [2, 0])
    for (const data of [...broken, trailing, noText]) expect(types(option(7, data), list())).toEqual([invalid, 2, 2, 1])
    const manyQueries = bytesOf([4, 5], 'disk0', [4, 0xffffffff])
    expect(types(structured(), option(10, manyQueries))).toEqual([1, invalid])
  })

  it('knows one meta context, and a part of its name in lists', () => {
    const context = (number: number) => bytesOf([4, number], 'base:allocation')
    const of = (queries: readonly string[], number?: number) =>
      answers(structured(), meta('disk0', queries, number))
        .slice(1)
        .map(({ data }) => data)
    const none = Buffer.alloc(0)
    expect(of(['x:y', 'base:allocation'])).toEqual([context(1), none])
    expect(of(['base:'])).toEqual([none])
    expect(of([])).toEqual([none])
    expect(of(['base:'], 9)).toEqual([context(0), none])
    expect(of([], 9)).toEqual([context(0), none])
    expect(of(['x:'], 9)).toEqual([none])
  })

  it('ends when the client says so, and where an option is too long, too many, or none', () => {
    const { events, sent } = hear(hello(), option(2))
    expect(optionAnswers(sent.subarray(18)).map(({ type }) => type)).toEqual([1])
    expect(events.at(-1)).toEqual({ kind: 'close' })
    const closes = (...parts: readonly Uint8Array[]) => hear(hello(), ...parts).events.at(-1)
    const broken = { kind: 'close', why: expect.any(String) }
    expect(closes(bytesOf('IHAVEOPT', [4, 3], [4, 8193]))).toMatchObject(broken)
    expect(closes(bytesOf('IHAVEOPX', [4, 3], [4, 0]))).toMatchObject(broken)
    expect(closes(...Array.from({ length: 65 }, list))).toMatchObject(broken)
    expect(closes(option(1, Buffer.from('disk0')))).toMatchObject(broken)
  })
})

describe('requests', () => {
  it('to read come out with their place, in chunks only where that was negotiated', () => {
    const one = request(0, { offset: 4096, length: 512, cookie: 5 })
    const cookie = Uint8Array.from(bytesOf([8, 5]))
    const expected = { kind: 'read', cookie, disk: 'disk0', offset: 4096, length: 512 }
    expect(ask(true, one)).toEqual([{ ...expected, structured: true }])
    expect(ask(false, one)).toEqual([{ ...expected, structured: false }])
  })

  it('beyond the disk, of nothing, or too long are refused', () => {
    const end = { offset: BYTES - 512, length: 512 }
    expect(ask(false, request(0, end))).toHaveLength(1)
    const wrong = [
      { offset: BYTES - 511, length: 512 },
      { offset: 2 ** 53, length: 512 },
      { offset: 0, length: 0 },
      { offset: 0, length: MAX_REQUEST_BYTES + 1 },
      { offset: 0, length: 512, flags: 4 }
    ]
    for (const each of wrong) expect(errorsOf(ask(false, request(0, each)))).toEqual(simple(22))
    const chunk = bytesOf([4, 0x668e33ef], [2, 1], [2, 0x8001], [8, 77], [4, 6], [4, 22], [2, 0])
    for (const each of wrong) expect(errorsOf(ask(true, request(0, each)))).toEqual(chunk)
    expect(ask(true, request(0, { length: MAX_REQUEST_BYTES }))).toHaveLength(1)
  })

  it('for what lies where need the context of that disk', () => {
    const status = request(7, { length: BYTES, flags: 8 })
    expect(ask(true, status)).toMatchObject([{ kind: 'status', one: true, offset: 0, length: BYTES }])
    expect(errorsOf(ask(false, status))).toEqual(simple(22))
    const ofOther = hear(hello(), structured(), meta('disk1', ['base:allocation']), go('disk0'), status)
    expect(ofOther.events.some(({ kind }) => kind === 'status')).toBe(false)
    const undone = [meta('disk0', ['base:allocation']), meta('disk0', [])]
    expect(
      hear(hello(), structured(), ...undone, go('disk0'), status).events.some(({ kind }) => kind === 'status')
    ).toBe(false)
  })

  it('that write are refused when all their bytes have come, and what follows is understood', () => {
    const write = request(1, { length: 100_000 })
    const { session } = hear(opening('disk0', false), write, new Uint8Array(50_000).fill(0x25))
    session.push(new Uint8Array(49_999))
    expect(all(session)).toEqual([])
    session.push(new Uint8Array(1))
    session.push(request(3, { cookie: 6 }))
    expect(sentOf(all(session))).toEqual(Buffer.concat([simple(1), simple(0, 6)]))
    expect(sentOf(ask(false, request(4, { length: 512 }), request(6, { length: 512 })))).toEqual(
      Buffer.concat([simple(1), simple(1)])
    )
    expect(ask(true, request(1, { length: MAX_REQUEST_BYTES + 1 }))).toMatchObject([
      { kind: 'close', why: expect.any(String) }
    ])
  })

  it('that are unknown are refused; those without a head end the connection', () => {
    expect(sentOf(ask(true, request(5, { length: 512 }), request(999, {})))).toEqual(
      Buffer.concat([simple(22), simple(22)])
    )
    expect(ask(true, new Uint8Array(28))).toMatchObject([{ kind: 'close', why: expect.any(String) }])
    expect(ask(true, request(2, {}), request(3, {}))).toEqual([{ kind: 'close' }])
  })

  it('come out the same however their bytes come', () => {
    const talk = Buffer.concat([
      opening('disk0'),
      request(0, { length: 512 }),
      request(1, { length: 40 }),
      Buffer.alloc(40, 7),
      request(7, { length: BYTES }),
      request(2, {})
    ])
    const whole = hear(talk).events
    const session = new NbdSession(DISKS)
    const single: NbdEvent[] = []
    for (const byte of talk) {
      session.push(Uint8Array.of(byte))
      single.push(...all(session))
    }
    expect(single).toEqual(whole)
  })
})
