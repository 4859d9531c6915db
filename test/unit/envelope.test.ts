import fc from 'fast-check'
import { pack, Packr } from 'msgpackr'
import { expect, test } from 'vitest'
import { DiapauseError } from '../../node/errors.ts'
import type { Log, MessageHandler, Transport } from '../../node/ports.ts'
import { CONTROL_LIMITS, clusterHash, decodeEnvelope, encodeMessage, envelopeHeader } from '../../protocols/envelope.ts'
import { checkMsgpack, packMessage, unpackMessage } from '../../protocols/msgpack.ts'
import { createControlBus } from '../../protocols/service.ts'

const cluster = clusterHash('home')
const everything = (): boolean => true
const seal = (message: object, protocol = 'test'): Uint8Array =>
  Buffer.concat([envelopeHeader(cluster, protocol), encodeMessage(message)])

const plainValue = fc.letrec(tie => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom(null, true, false),
    fc.double({ noNaN: true }),
    fc.integer(),
    fc.string(),
    fc.string({ minLength: 300, maxLength: 300 }),
    fc.uint8Array({ maxLength: 70 }),
    fc.array(tie('value'), { maxLength: 20 }),
    fc.dictionary(
      fc.string().filter(key => !key.startsWith('__')),
      tie('value'),
      { maxKeys: 20, noNullPrototype: true }
    )
  )
})).value

test('what is packed passes the check and comes back equal', () => {
  fc.assert(
    fc.property(plainValue, value => {
      const back = unpackMessage(packMessage(value), { depth: 10, tokens: 10_000_000 })
      expect(Buffer.compare(packMessage(back), packMessage(value))).toBe(0)
    })
  )
})

test('an undefined field passes', () => {
  expect(unpackMessage(packMessage({ a: undefined, b: 1 }), CONTROL_LIMITS)).toEqual({ a: undefined, b: 1 })
})

test('no bytes at all make decoding do anything but return or throw a DiapauseError', () => {
  const prefix = envelopeHeader(cluster, 'test')
  const token = fc.constantFrom(
    0x81,
    0x91,
    0xdc,
    0xdd,
    0xde,
    0xdf,
    0xc4,
    0xc6,
    0xd4,
    0xc7,
    0xff,
    0x00,
    0xa1,
    0xc1,
    0x72
  )
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.array(token, { maxLength: 300 }).map(list => Uint8Array.from(list)),
    fc.tuple(plainValue, fc.nat(), fc.nat(255)).map(([value, at, byte]) => {
      const packed = Uint8Array.from(packMessage(value))
      if (packed.length > 0) packed[at % packed.length] = byte
      return packed
    })
  )
  fc.assert(
    fc.property(bytes, fc.boolean(), (tail, withHeader) => {
      try {
        decodeEnvelope(withHeader ? Buffer.concat([prefix, tail]) : tail, cluster, everything)
      } catch (error) {
        expect(error).toBeInstanceOf(DiapauseError)
      }
    }),
    { numRuns: 3_000 }
  )
})

test('deep nesting is refused', () => {
  const deep = Buffer.concat([Buffer.alloc(200_000, 0x91), Buffer.from([0xc0])])
  expect(() => checkMsgpack(deep, CONTROL_LIMITS)).toThrow(/nesting over 24/)
})

test('claimed lengths beyond the bytes at hand are refused', () => {
  for (const type of [0xdd, 0xdf, 0xc6, 0xdb]) {
    expect(() => checkMsgpack(Buffer.from([type, 0xff, 0xff, 0xff, 0xff, 0xc0]), CONTROL_LIMITS)).toThrow(DiapauseError)
  }
})

test('more values than allowed are refused', () => {
  const many = packMessage(new Array(70_000).fill(0))
  expect(() => checkMsgpack(many, CONTROL_LIMITS)).toThrow(/over 65536 values/)
})

test('extension types, which reach constructors and code generation, are refused', () => {
  const records = new Packr({ useRecords: true }).pack([{ a: 1 }, { a: 2 }])
  const ofKinds = [0xc7, 0xc8, 0xc9, 0xd5, 0xd6, 0xd7, 0xd8].map(type => Buffer.from([type, 1, 0x65, 0, 0, 0, 0, 0]))
  for (const bytes of [pack(new Date(1.5)), records, Buffer.from([0xd4, 0x72, 0x40]), ...ofKinds]) {
    expect(() => checkMsgpack(bytes, CONTROL_LIMITS)).toThrow(/forbidden type/)
  }
})

test('another version, another cluster and an unknown protocol are told apart', () => {
  const good = seal({ a: 1 })
  expect(decodeEnvelope(good, cluster, everything)).toEqual({ protocol: 'test', message: { a: 1 } })
  const newer = Uint8Array.from(good)
  newer[0] = 2
  const code = (bytes: Uint8Array, knows: (name: string) => boolean): unknown => {
    try {
      return decodeEnvelope(bytes, cluster, knows)
    } catch (error) {
      return (error as DiapauseError).code
    }
  }
  expect(code(newer, everything)).toBe('ENVELOPE_VERSION')
  const other = Buffer.concat([envelopeHeader(clusterHash('other'), 'test'), encodeMessage({ a: 1 })])
  expect(code(other, everything)).toBe('ENVELOPE_CLUSTER')
  expect(code(good, name => name !== 'test')).toBe('ENVELOPE_PROTOCOL')
  expect(code(good.subarray(0, 5), everything)).toBe('ENVELOPE_SHAPE')
})

/** A transport that keeps what is sent and lets the test deliver. */
function fakeTransport(): {
  transport: Transport
  sent: Uint8Array[]
  deliver: (from: string, bytes: Uint8Array) => void
} {
  const sent: Uint8Array[] = []
  let handler: MessageHandler = () => {}
  const transport: Transport = {
    self: 'me',
    connected: () => true,
    send(_to, _channel, parts) {
      sent.push(Buffer.concat(parts))
      return true
    },
    write: () => Promise.resolve(),
    handle(_channel, given) {
      handler = given
    },
    onConnection: () => {},
    start: () => Promise.resolve(),
    stop: () => Promise.resolve()
  }
  return { transport, sent, deliver: (from, bytes) => void handler(from, bytes) }
}

const quiet = (): void => {}
const log: Log = { debug: quiet, info: quiet, warn: quiet, error: quiet }
const parse = (message: unknown): { n: number } => {
  const n = (message as { n?: unknown }).n
  if (typeof n !== 'number') throw new Error('n must be a number')
  return { n }
}

test('the bus delivers to the protocol, also to oneself, but never in the same turn', async () => {
  const { transport, sent, deliver } = fakeTransport()
  const bus = createControlBus(transport, log, 'home')
  const got: unknown[] = []
  bus.on('numbers', parse, (from, message) => void got.push([from, message.n]))
  expect(bus.send('you', 'numbers', { n: 1 })).toBe(true)
  deliver('you', sent[0] as Uint8Array)
  expect(got).toEqual([['you', 1]])
  bus.send('me', 'numbers', { n: 2 })
  expect(got).toHaveLength(1)
  await new Promise(resolve => setImmediate(resolve))
  expect(got[1]).toEqual(['me', 2])
})

test('the bus counts what it drops, and one bad handler or message stops nothing', () => {
  const { transport, deliver } = fakeTransport()
  const bus = createControlBus(transport, log, 'home')
  const got: number[] = []
  bus.on('test', parse, (_from, message) => {
    if (message.n === 0) throw new Error('handler')
    got.push(message.n)
  })
  deliver('you', Buffer.from('rubbish that is long enough'))
  deliver('you', seal({ n: 'no number' }))
  deliver('you', seal({ n: 1 }, 'unknown'))
  deliver('you', seal({ n: 0 }))
  deliver('you', seal({ n: 5 }))
  expect(got).toEqual([5])
  expect(bus.stats().dropped).toEqual({ ENVELOPE_VERSION: 1, PARSE: 1, ENVELOPE_PROTOCOL: 1 })
})
