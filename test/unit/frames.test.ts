import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { toPacket } from '../../node/switch/ethernet.ts'
import {
  BatchWriter,
  decodeBatch,
  type FrameBatch,
  type FrameRecord,
  MAX_BATCH_BYTES,
  MAX_FRAME_BYTES,
  MIN_FRAME_BYTES
} from '../../protocols/frames/records.ts'

const name = fc.string({ minLength: 1, maxLength: 6, unit: 'grapheme' })
const packet = fc.uint8Array({ minLength: MIN_FRAME_BYTES, maxLength: 200 }).map(toPacket)
const nic = fc.nat(255)
const within = fc.record({
  source: name,
  destination: name,
  colour: fc.nat(0xffff_ffff),
  sequence: fc.integer({ min: 1, max: 2 ** 48 - 1 }),
  nic,
  packet
})
const turn = within.map(each => ({ ...each, nic: 0, packet: undefined }))
const foreign = fc.record({
  source: name,
  destination: name,
  group: name,
  nic,
  packet,
  colour: fc.constant(0),
  sequence: fc.constant(0)
})
const record: fc.Arbitrary<FrameRecord> = fc.oneof(within, turn, foreign)
const batch: fc.Arbitrary<FrameBatch> = fc.record({
  group: name,
  generation: fc.nat(0xffff_ffff),
  records: fc.array(record, { minLength: 1, maxLength: 40 })
})

function encodeBatch({ group, generation, records }: FrameBatch): Uint8Array {
  const writer = new BatchWriter(group, generation)
  for (const each of records) writer.add(each)
  return writer.take().message
}

const plain = (value: FrameBatch) => ({
  ...value,
  records: value.records.map(r => ({
    ...r,
    packet: r.packet === undefined ? undefined : [r.nic, ...r.packet.slice(1)]
  }))
})

/** "fine", the code it is refused with, or what else was thrown. */
function outcomeOf(message: Uint8Array): string {
  try {
    const sizes = decodeBatch(message).records.map(({ packet }) => packet?.length ?? 4 + MIN_FRAME_BYTES)
    return sizes.every(size => size >= 4 + MIN_FRAME_BYTES) ? 'fine' : 'a frame too short'
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

const one: FrameBatch = {
  group: 'bank',
  generation: 7,
  records: [
    {
      source: 'a',
      destination: 'b',
      colour: 3,
      sequence: 258,
      nic: 5,
      packet: toPacket(new Uint8Array(14).fill(0xee))
    },
    { source: 'a', destination: 'b', colour: 4, sequence: 258, nic: 0, packet: undefined }
  ]
}

describe('a batch of frames', () => {
  it('is read back as it was written', () => {
    fc.assert(
      fc.property(batch, value => {
        expect(plain(decodeBatch(encodeBatch(value)))).toEqual(plain(value))
      })
    )
  })

  it('has the bytes that the format describes', () => {
    const head = '02' + '04' + Buffer.from('bank').toString('hex') + '00000007' + '03' + '0161' + '03' + '0162'
    const frame = '01' + '00' + '01' + '00000003' + '000000000102' + '0500000e' + 'ee'.repeat(14)
    const turn = '02' + '00' + '01' + '00000004' + '000000000102'
    expect(Buffer.from(encodeBatch(one)).toString('hex')).toBe(head + frame + turn)
    const foreign = { ...one.records[0], group: 'g', colour: 0, sequence: 0 } as FrameRecord
    const before = '02' + '04' + Buffer.from('bank').toString('hex') + '00000007' + '03' + '0161' + '03' + '0167'
    const across = '03' + '0162' + '04' + '00' + '01' + '02' + '0500000e' + 'ee'.repeat(14)
    expect(Buffer.from(encodeBatch({ ...one, records: [foreign] })).toString('hex')).toBe(before + across)
  })

  it('is counted while it is written, and the next one starts afresh', () => {
    const writer = new BatchWriter('bank', 7)
    expect(writer.bytes).toBe(0)
    for (const each of [...one.records, ...one.records]) writer.add(each)
    const { frames, turns, message } = writer.take()
    expect({ frames, turns, bytes: message.length }).toEqual({ frames: 2, turns: 2, bytes: 16 + 2 * (31 + 13) })
    expect(writer.bytes).toBe(0)
    for (const each of one.records) writer.add(each)
    expect(writer.take().message).toEqual(encodeBatch(one))
  })

  it('gives views of the message, length before frame, and no copies', () => {
    const message = encodeBatch(one)
    const first = decodeBatch(message).records[0]?.packet as Uint8Array
    expect(first.buffer).toBe(message.buffer)
    expect(first.length).toBe(4 + 14)
  })

  it('of another format is refused with advice', () => {
    const message = encodeBatch(one)
    message[0] = 1
    expect(() => decodeBatch(message)).toThrow(expect.objectContaining({ code: 'FRAMES_FORMAT' }))
  })

  it('that is cut short anywhere is refused, or is a shorter batch at the end of a record', () => {
    const message = encodeBatch(one)
    const outcomes = Array.from(message, (_, length) => outcomeOf(message.subarray(0, length)))
    const accepted = outcomes.flatMap((outcome, length) => (outcome === 'FRAMES_MALFORMED' ? [] : [[length, outcome]]))
    expect(accepted).toEqual([
      [10, 'fine'],
      [13, 'fine'],
      [16, 'fine'],
      [16 + 13 + 4 + 14, 'fine']
    ])
  })

  it('with a frame too short, too long or numbered 0, an unknown VM, kind or empty name is refused', () => {
    const bytes = Buffer.from(encodeBatch(one))
    const at = 16
    const damages: ((copy: Buffer) => void)[] = [
      copy => copy.writeUIntBE(13, at + 14, 3),
      copy => copy.writeUIntBE(MAX_FRAME_BYTES + 1, at + 14, 3),
      copy => copy.writeUIntBE(0, at + 7, 6),
      copy => copy.writeUInt8(2, at + 1),
      copy => copy.writeUInt8(2, at + 2),
      copy => copy.writeUInt8(5, at),
      copy => copy.writeUInt8(0, 1)
    ]
    for (const damage of damages) {
      const copy = Buffer.from(bytes)
      damage(copy)
      expect(() => decodeBatch(copy)).toThrow(expect.objectContaining({ code: 'FRAMES_MALFORMED' }))
    }
  })

  it('larger than any honest one is refused before anything else', () => {
    expect(() => decodeBatch(new Uint8Array(MAX_BATCH_BYTES + 1))).toThrow(
      expect.objectContaining({ code: 'FRAMES_MALFORMED' })
    )
  })

  it('of random or damaged bytes is read or refused with a code, never anything else', () => {
    const damaged = fc
      .tuple(batch, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }))
      .map(([value, changes]) => {
        const message = encodeBatch(value)
        for (const [at, byte] of changes) message[at % message.length] = byte
        return message
      })
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), damaged), message => {
        expect(outcomeOf(message)).toMatch(/^(fine|FRAMES_FORMAT|FRAMES_MALFORMED)$/)
      }),
      { numRuns: 3000 }
    )
  })

  it('names at most 255 VMs', () => {
    const name = Buffer.from('030161', 'hex')
    const head = Buffer.from(encodeBatch(one)).subarray(0, 10)
    const named = (count: number): Uint8Array => Buffer.concat([head, ...Array<Buffer>(count).fill(name)])
    expect(outcomeOf(named(255))).toBe('fine')
    expect(outcomeOf(named(256))).toBe('FRAMES_MALFORMED')
    const vm = (index: number) => ({ ...one.records[0], source: `a${index}`, destination: 'b' }) as FrameRecord
    const vms = (count: number) => ({ ...one, records: Array.from({ length: count }, (_, index) => vm(index)) })
    expect(decodeBatch(encodeBatch(vms(254))).records.length).toBe(254)
    expect(() => encodeBatch(vms(255))).toThrow(RangeError)
  })

  it('says when the names of another record may have no room', () => {
    const writer = new BatchWriter('bank', 7)
    const foreign = (index: number): FrameRecord =>
      ({ ...one.records[0], destination: `b${index}`, group: `g${index}`, colour: 0, sequence: 0 }) as FrameRecord
    let added = 0
    while (!writer.full) writer.add(foreign(added++))
    const { message } = writer.take()
    expect(writer.full).toBe(false)
    expect([added, decodeBatch(message).records.length]).toEqual([126, 126]) // 253 names
  })

  it('refuses names that the format has no room for', () => {
    expect(() => encodeBatch({ ...one, group: 'x'.repeat(256) })).toThrow(RangeError)
    expect(() => encodeBatch({ ...one, group: '' })).toThrow(RangeError)
  })
})
