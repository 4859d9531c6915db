import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isMulticast, joinPackets, macAt, macNumber, sourceMac, toPacket } from '../../node/switch/ethernet.ts'
import { PacketBatch } from '../../node/switch/packet-batch.ts'
import { PacketCutter } from '../../node/switch/packets.ts'

/** The plain slow version: all bytes in one array. */
function cutPlainly(bytes: Buffer): number[][] {
  const packets: number[][] = []
  for (let at = 0; at + 4 <= bytes.length && at + 4 + bytes.readUInt32BE(at) <= bytes.length; ) {
    const size = 4 + bytes.readUInt32BE(at)
    packets.push([...bytes.subarray(at, at + size)])
    at += size
  }
  return packets
}

describe('the byte stream of a NIC', () => {
  it('gives the same packets however it is split into chunks', () => {
    const frames = fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { maxLength: 20 })
    fc.assert(
      fc.property(frames, fc.array(fc.nat(50), { maxLength: 60 }), fc.nat(10), (list, sizes, missing) => {
        const packets = list.map(toPacket)
        const whole = Buffer.concat(packets)
        const bytes = whole.subarray(0, Math.max(0, whole.length - missing))
        const cutter = new PacketCutter()
        const got: number[][] = []
        let at = 0
        for (const size of [...sizes, bytes.length]) {
          cutter.push(Uint8Array.prototype.slice.call(bytes, at, at + size), packet => got.push([...packet]))
          at += size
        }
        const expected = cutPlainly(bytes)
        expect(got).toEqual(expected)
        expect(cutter.partial).toBe(expected.flat().length < bytes.length)
      })
    )
  })

  it('is not copied where a packet lies in one chunk', () => {
    const chunk = Buffer.concat([toPacket(new Uint8Array(20)), toPacket(new Uint8Array(30))])
    const packets: Uint8Array[] = []
    new PacketCutter().push(chunk, packet => packets.push(packet))
    expect(packets.map(packet => packet.buffer === chunk.buffer)).toEqual([true, true])
  })

  it('with an impossible length is refused, also where the length is split', () => {
    const tooLong = Uint8Array.of(0, 1, 0, 15, 0)
    for (const bytes of [tooLong, new Uint8Array(5)]) {
      for (const split of [0, 2]) {
        const cutter = new PacketCutter()
        const push = (): void => {
          cutter.push(bytes.subarray(0, split), () => {})
          cutter.push(bytes.subarray(split), () => {})
        }
        expect(push).toThrow(expect.objectContaining({ code: 'NIC_FRAMING' }))
      }
    }
  })

  it('of random bytes gives packets or NIC_FRAMING and nothing else', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 10 }), chunks => {
        const cutter = new PacketCutter()
        let outcome = 'fine'
        let shortest = Number.POSITIVE_INFINITY
        try {
          for (const chunk of chunks) {
            cutter.push(chunk, packet => {
              shortest = Math.min(shortest, packet.length)
            })
          }
        } catch (error) {
          outcome = (error as { code: string }).code
        }
        expect(outcome).toMatch(/^(fine|NIC_FRAMING)$/)
        expect(shortest).toBeGreaterThan(4)
      })
    )
  })
})

describe('an Ethernet header', () => {
  it('names its addresses as the group record does', () => {
    const mac = fc.uint8Array({ minLength: 6, maxLength: 6 })
    fc.assert(
      fc.property(mac, bytes => {
        const text = [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join(':')
        const packet = toPacket(Uint8Array.of(255, 255, 255, 255, 255, 255, ...bytes, 8, 0))
        expect(macAt(bytes, 0)).toBe(macNumber(text))
        expect(sourceMac(packet)).toBe(macNumber(text))
        expect(isMulticast(packet)).toBe(true)
      })
    )
  })

  it('has no address but of six bytes in lower case with colons', () => {
    for (const text of ['', '52:54:00:00:00', '52:54:00:00:00:0G', '52-54-00-00-00-01']) {
      expect(() => macNumber(text)).toThrow(TypeError)
    }
  })
})

describe('packets written together', () => {
  it('are one buffer, end to end', () => {
    const packets = [toPacket(Uint8Array.of(1)), toPacket(Uint8Array.of(2, 3))]
    ;(packets[1] as Uint8Array)[0] = 5 // for another NIC: QEMU has only a length
    expect([...joinPackets(packets, 11)]).toEqual([0, 0, 0, 1, 1, 0, 0, 0, 2, 2, 3])
  })
})

describe('a batch of packets', () => {
  const packetOf = (length: number, nic = 0) => {
    const packet = toPacket(new Uint8Array(length).fill(length & 255))
    packet[0] = nic
    return packet
  }

  const isForeign = (length: number): boolean => length % 3 === 0

  it('is what joining its packets gives, whatever they are overwritten with later, and however many batches came before', () => {
    const batch = new PacketBatch()
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 70_000 }), { maxLength: 8 }), lengths => {
        const packets = lengths.map(length => packetOf(length, 3))
        const expected = joinPackets(
          packets,
          packets.reduce((sum, { length }) => sum + length, 0)
        )
        for (const packet of packets) {
          batch.push(packet, isForeign(packet.length - 4))
          packet.fill(0xee)
        }
        expect(batch.length).toBe(expected.length)
        expect(batch.own.map(({ length }) => length - 4)).toEqual(lengths.filter(length => !isForeign(length)))
        const taken = batch.take()
        batch.push(packetOf(60), false)
        expect(Buffer.compare(taken.bytes, expected)).toBe(0)
        expect(taken.packets.map(({ length }) => length - 4)).toEqual(lengths)
        const foreign = lengths.flatMap((length, place) => (isForeign(length) ? [place] : []))
        expect([...(taken.foreign ?? [])]).toEqual(foreign)
        const next = batch.take()
        expect([next.packets.length, next.foreign]).toEqual([1, undefined])
      }),
      { numRuns: 50 }
    )
  })

  it('is in memory that is used again when it was left, and not before', () => {
    const batch = new PacketBatch()
    const memory = new Map<ArrayBufferLike, number>()
    const kept: ReturnType<PacketBatch['take']>[] = []
    for (let i = 0; i < 200; i++) {
      batch.push(packetOf(60_000), false)
      const taken = batch.take()
      memory.set(taken.bytes.buffer, (memory.get(taken.bytes.buffer) ?? 0) + 1)
      kept.push(taken)
      if (kept.length > 9) kept.shift()?.block.leave() // two blocks and a bit
      for (const { bytes } of kept) expect(bytes[10]).toBe(60_000 & 255)
    }
    expect(memory.size).toBeLessThanOrEqual(4)
    const never = new PacketBatch()
    const others = new Set<ArrayBufferLike>()
    for (let i = 0; i < 40; i++) {
      never.push(packetOf(60_000), false)
      others.add(never.take().bytes.buffer)
    }
    expect(others.size).toBe(10)
  })
})
