import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decode } from '../../protocols/openflow/decode.ts'
import { encode } from '../../protocols/openflow/encode.ts'
import type { Action, Envelope, Instruction, Match, Message } from '../../protocols/openflow/messages.ts'
import { MessageSplitter } from '../../protocols/openflow/splitter.ts'

const u8 = fc.nat(0xff)
const u16 = fc.nat(0xffff)
const u32 = fc.nat(0xffff_ffff)
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })
const mac = fc.nat(2 ** 48 - 1)
const data = fc.uint8Array({ maxLength: 40 })
const vid = fc.nat(0xfff)
const pcp = fc.nat(7)

const fields = {
  inPort: u32,
  metadata: u32,
  ethDst: mac,
  multicast: fc.constant(true as const),
  ethSrc: mac,
  ethType: u16,
  vlanVid: vid,
  vlanPcp: pcp
}
const match: fc.Arbitrary<Match> = fc.record(fields, { requiredKeys: [] }).map(({ multicast, vlanPcp, ...rest }) => ({
  ...rest,
  ...(multicast !== undefined && rest.ethDst === undefined ? { multicast } : {}),
  ...(vlanPcp !== undefined && rest.vlanVid !== undefined ? { vlanPcp } : {})
}))

const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ type: fc.constant('output' as const), port: u32 }),
  fc.constant({ type: 'pushVlan' as const }),
  fc.constant({ type: 'popVlan' as const }),
  fc.record({ type: fc.constant('setVlanVid' as const), vid }),
  fc.record({ type: fc.constant('setVlanPcp' as const), pcp })
)
const actions = fc.array(action, { maxLength: 5 })
const instruction: fc.Arbitrary<Instruction> = fc.oneof(
  fc.record({ type: fc.constant('goto' as const), table: u8 }),
  fc.record({ type: fc.constant('metadata' as const), metadata: u32 }),
  fc.record({ type: fc.constant('apply' as const), actions })
)
const entry = { table: u8, priority: u16, match, instructions: fc.array(instruction, { maxLength: 3 }), cookie: u64 }
const flow = fc.record({ ...entry, packets: u64, bytes: u64 })
const port = fc.record({ port: u32, mac, name: fc.stringMatching(/^[a-z0-9-]{0,15}$/) })

const of = <T extends Message['type'], R extends object>(type: T, rest: { [K in keyof R]: fc.Arbitrary<R[K]> }) =>
  fc.record({ type: fc.constant(type), ...rest })

const message = fc.oneof(
  of('hello', { versions: fc.uniqueArray(fc.nat(31), { minLength: 1 }).map(all => all.toSorted((a, b) => a - b)) }),
  of('error', { category: u16, code: u16, data }),
  of('echoRequest', { data }),
  of('echoReply', { data }),
  of('featuresRequest', {}),
  of('featuresReply', { datapathId: u64, tables: u8 }),
  of('setConfig', { missSendBytes: u16 }),
  of('packetIn', { table: u8, cookie: u64, match, frame: data }),
  of('packetOut', { actions, frame: data }),
  of('flowAdd', entry),
  of('flowDelete', { table: u8, priority: u16, match }),
  of('barrierRequest', {}),
  of('barrierReply', {}),
  of('portsRequest', {}),
  of('portsReply', { more: fc.boolean(), ports: fc.array(port, { maxLength: 3 }) }),
  of('flowsRequest', { cookie: u64, cookieMask: u64 }),
  of('flowsReply', { more: fc.boolean(), flows: fc.array(flow, { maxLength: 3 }) })
) as fc.Arbitrary<Message>
const envelope: fc.Arbitrary<Envelope> = fc.record({ xid: u32, message })

/** Bytes as lists, whatever class they are of. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_, each: unknown) => {
      if (typeof each === 'bigint') return `${each}`
      if (each instanceof Uint8Array) return [...each]
      return isBufferJson(each) ? each.data : each
    })
  )
/** A Buffer has turned itself into this before it is seen. */
const isBufferJson = (value: unknown): value is { data: number[] } =>
  typeof value === 'object' && value !== null && (value as { type?: unknown }).type === 'Buffer'

/** "fine", the code it is refused with, or what else was thrown. */
function outcomeOf(bytes: Uint8Array): string {
  try {
    decode(bytes)
    return 'fine'
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

describe('an OpenFlow message', () => {
  it('is read back as it was written', () => {
    fc.assert(
      fc.property(envelope, value => {
        expect(plain(decode(encode(value)))).toEqual(plain(value))
      })
    )
  })

  it('has the bytes that the specification describes', () => {
    expect(hex(encode({ xid: 7, message: { type: 'hello', versions: [4] } }))).toBe(
      '0400001000000007' + '0001000800000010'
    )
    const add: Message = {
      type: 'flowAdd',
      table: 2,
      priority: 10,
      match: { metadata: 1, multicast: true, vlanVid: 5, vlanPcp: 3 },
      instructions: [
        { type: 'apply', actions: [{ type: 'output', port: 0xffff_fffd }, { type: 'popVlan' }] },
        { type: 'goto', table: 3 }
      ],
      cookie: 0x0102n
    }
    const head = '040e0088' + '00000009' + '0000000000000102' + '0000000000000000'
    const modification = '02' + '00' + '00000000' + '000a' + 'ffffffff'.repeat(3) + '0000' + '0000'
    const oxm = [
      '80000408' + '0000000000000001',
      '8000070c' + '010000000000'.repeat(2),
      '80000c02' + '1005',
      '80000e01' + '03'
    ].join('')
    const matched = '0001' + '002b' + oxm + '0000000000'
    const applied = '0004' + '0020' + '00000000' + '00000010fffffffdffff000000000000' + '0012000800000000'
    const gone = '00010008' + '03000000'
    expect(hex(encode({ xid: 9, message: add }))).toBe(head + modification + matched + applied + gone)
  })

  it('of another version is refused with advice, but for a hello', () => {
    const bytes = encode({ xid: 1, message: { type: 'barrierReply' } })
    bytes[0] = 6
    expect(() => decode(bytes)).toThrow(expect.objectContaining({ code: 'OPENFLOW_VERSION' }))
    const hello = Uint8Array.from([1, 0, 0, 8, 0, 0, 0, 1])
    expect(decode(hello).message).toEqual({ type: 'hello', versions: [1] })
  })

  it('with fields and actions that are not known is read without them', () => {
    const bytes = Buffer.from(
      encode({ xid: 1, message: { type: 'packetIn', table: 0, cookie: 1n, match: { inPort: 3 }, frame: data14 } })
    )
    bytes.writeUInt16BE(1, bytes.indexOf(Buffer.from('80000004', 'hex'))) // the class of Nicira's fields
    expect(decode(bytes).message).toMatchObject({ type: 'packetIn', match: {} })
    const out = Buffer.from(
      encode({ xid: 1, message: { type: 'packetOut', actions: [{ type: 'popVlan' }], frame: data14 } })
    )
    out.writeUInt16BE(24, 24)
    expect(decode(out).message).toMatchObject({ actions: [{ type: 'other', code: 24 }] })
    expect(decode(Uint8Array.from([4, 12, 0, 8, 0, 0, 0, 1])).message).toEqual({ type: 'other', code: 12 })
  })

  it('that is damaged anywhere is refused, or is another message, and nothing else is thrown', () => {
    const damage = fc.array(fc.tuple(fc.nat(400), u8), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(envelope, damage, (value, changes) => {
        const bytes = Buffer.from(encode(value))
        for (const [at, byte] of changes) bytes[at % bytes.length] = byte
        expect(['fine', 'OPENFLOW_MALFORMED', 'OPENFLOW_VERSION']).toContain(outcomeOf(bytes))
      }),
      { numRuns: 1_000 }
    )
  })

  it('of noise is refused, or is a message, and nothing else is thrown', () => {
    const noise = fc.tuple(fc.nat(24), fc.uint8Array({ maxLength: 200 })).map(([type, body]) => {
      const bytes = Buffer.alloc(8 + body.length)
      bytes.set([4, type])
      bytes.writeUInt16BE(bytes.length, 2)
      bytes.set(body, 8)
      return bytes
    })
    fc.assert(
      fc.property(noise, bytes => {
        expect(['fine', 'OPENFLOW_MALFORMED']).toContain(outcomeOf(bytes))
      }),
      { numRuns: 1_000 }
    )
  })

  it('that is cut short is refused before anything in it is read', () => {
    fc.assert(
      fc.property(envelope, fc.nat(), (value, at) => {
        const bytes = encode(value)
        expect(outcomeOf(bytes.subarray(0, at % bytes.length))).toBe('OPENFLOW_MALFORMED')
      })
    )
  })

  it('that the format has no room for is refused where it is written', () => {
    const frame = new Uint8Array(0xffff)
    expect(() => encode({ xid: 1, message: { type: 'packetOut', actions: [], frame } })).toThrow(RangeError)
    const other: Message = { type: 'packetOut', actions: [{ type: 'other', code: 24 }], frame: data14 }
    expect(() => encode({ xid: 1, message: other })).toThrow(TypeError)
  })
})

const data14 = new Uint8Array(14)

describe('a stream of OpenFlow messages', () => {
  it('is cut into the messages that were sent, wherever it is broken', () => {
    fc.assert(
      fc.property(
        fc.array(envelope, { maxLength: 6 }),
        fc.infiniteStream(fc.integer({ min: 1, max: 90 })),
        (all, sizes) => {
          const stream = Buffer.concat(all.map(encode))
          const splitter = new MessageSplitter()
          const parts: Uint8Array[] = []
          for (let at = 0; at < stream.length; ) {
            const chunk = Buffer.from(stream.subarray(at, at + (sizes.next().value as number)))
            parts.push(...splitter.push(chunk).map(part => Uint8Array.from(part)))
            at += chunk.length
            chunk.fill(0xff) // the socket's memory is used again
          }
          expect(parts.map(hex)).toEqual(all.map(each => hex(encode(each))))
        }
      )
    )
  })

  it('ends at a header that claims less than itself', () => {
    const splitter = new MessageSplitter()
    expect(() => splitter.push(Uint8Array.from([4, 2, 0, 7, 0, 0, 0, 1]))).toThrow(
      expect.objectContaining({ code: 'OPENFLOW_MALFORMED' })
    )
  })
})
