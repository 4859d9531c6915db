import { describe, expect, it } from 'vitest'
import {
  followStream,
  longestSilence,
  type Seen,
  segmentOf,
  type Stream,
  untilProgress
} from '../bench/skew-analysis.ts'
import { plotSvg } from '../bench/skew-plot.ts'

const STREAM: Stream = { sender: 1, receiver: 2, port: 7000 }
const FIRST = 1_000

/** Bytes `at` to `at + 40` of the stream leave VM 1. */
const data = (atMs: number, at: number, first = FIRST): Seen => ({
  atMs,
  vm: 1,
  way: 'sent',
  from: 1,
  to: 2,
  fromPort: 40_000,
  toPort: 7000,
  sequence: (first + at) >>> 0,
  acknowledged: 5,
  bytes: 40
})

/** VM 2 acknowledges all before byte `at`: as it sends that, or as VM 1 is given it. */
const ack = (atMs: number, at: number, way: 'sent' | 'given', first = FIRST): Seen => ({
  atMs,
  vm: way === 'sent' ? 2 : 1,
  way,
  from: 2,
  to: 1,
  fromPort: 7000,
  toPort: 40_000,
  sequence: 5,
  acknowledged: (first + at) >>> 0,
  bytes: 0
})

/** A round trip of 40 bytes. */
const trip = (atMs: number, at: number, first = FIRST): Seen[] => [
  data(atMs, at, first),
  ack(atMs + 1, at + 40, 'sent', first),
  ack(atMs + 2, at + 40, 'given', first)
]

const repeatsIn = (...seen: Seen[]) => followStream(STREAM, [], seen).repeats

describe('a TCP stream, by the frames at both ends', () => {
  it('comes as far as its receiver acknowledges, whether or not the sender hears of it', () => {
    const { progress, repeats } = followStream(STREAM, [], [...trip(0, 0), data(10, 40), ack(12, 80, 'sent')])
    expect(progress.map(({ atMs, bytes }) => [atMs, bytes])).toEqual([
      [0, 0],
      [1, 40],
      [12, 80]
    ])
    expect(repeats).toEqual([])
  })

  it('goes on where sequence numbers begin anew at 2^32', () => {
    const first = 2 ** 32 - 60
    const { progress, repeats } = followStream(
      STREAM,
      [],
      [0, 40, 80].flatMap((at, i) => trip(i * 10, at, first))
    )
    expect(progress.at(-1)?.bytes).toBe(120)
    expect(repeats).toEqual([])
  })

  it('has had a timeout where the first unacknowledged byte comes again out of silence, each time anew', () => {
    const repeats = repeatsIn(...trip(0, 0), data(10, 40), data(20, 80), data(220, 40), data(620, 40))
    expect(repeats.map(({ atMs, bytes, timeout }) => [atMs, bytes, timeout])).toEqual([
      [220, 40, true],
      [620, 40, true]
    ])
  })

  it('has had none where a frame of the receiver was the cause, where it was soon, or where it was another byte', () => {
    const late = [...trip(0, 0), data(10, 40), data(20, 80)]
    expect(repeatsIn(...late, ack(219, 40, 'given'), data(220, 40))).toMatchObject([{ timeout: false }])
    expect(repeatsIn(...late, data(60, 40))).toMatchObject([{ timeout: false }])
    expect(repeatsIn(...late, data(220, 80))).toMatchObject([{ timeout: false }])
  })

  it('knows of a restored stream what was sent and received before its images', () => {
    const history = [...trip(0, 0), data(10, 40), ack(11, 80, 'sent')]
    const { progress, repeats } = followStream(STREAM, history, [
      data(5_000, 40),
      ack(5_001, 80, 'sent'),
      data(5_004, 80)
    ])
    expect(repeats).toEqual([{ atMs: 5_000, bytes: 40, timeout: true }])
    expect(progress).toEqual([{ atMs: 5_000, bytes: 80 }])
  })

  it('is not disturbed by the stream the other way, nor by what its receiver is given', () => {
    const other: Seen = { ...data(5, 0), vm: 2, from: 2, to: 1 }
    const given: Seen = { ...data(6, 40), vm: 2, way: 'given' }
    expect(followStream(STREAM, [], [...trip(0, 0), other, given])).toEqual(followStream(STREAM, [], trip(0, 0)))
  })
})

describe('the time without progress', () => {
  const progress = [0, 10, 20, 900, 910].map((atMs, i) => ({ atMs, bytes: i * 40 }))

  it('is the longest between two steps, or to either end of what was watched', () => {
    expect(longestSilence(progress, 0, 1_000)).toBe(880)
    expect(longestSilence(progress, 0, 5_000)).toBe(4_090)
    expect(longestSilence(progress, 100, 1_000)).toBe(800)
    expect(longestSilence(progress.slice(0, 1), 0, 700)).toBe(700)
  })

  it('ends with the first step after the cut, if there is one', () => {
    expect(untilProgress(progress, 500)).toBe(400)
    expect(untilProgress(progress, 910)).toBe(Infinity)
  })
})

describe('a segment', () => {
  /** A packet from 10.9.0.1 to 10.9.0.2 with the given TCP header length, data and bytes behind it. */
  function packetOf({ options = 0, bytes = 0, padding = 0, type = 0x0800, protocol = 6 } = {}): Uint8Array {
    const packet = Buffer.alloc(4 + 14 + 20 + 20 + options + bytes + padding)
    const ip = 4 + 14
    const tcp = ip + 20
    packet.writeUInt16BE(type, 4 + 12)
    packet[ip] = 0x45
    packet.writeUInt16BE(40 + options + bytes, ip + 2)
    packet[ip + 9] = protocol
    packet.set([10, 9, 0, 1, 10, 9, 0, 2], ip + 12)
    packet.writeUInt16BE(40_000, tcp)
    packet.writeUInt16BE(7_000, tcp + 2)
    packet.writeUInt32BE(0xfffffff0, tcp + 4)
    packet.writeUInt32BE(77, tcp + 8)
    packet[tcp + 12] = (5 + options / 4) << 4
    return packet
  }

  it('is read from a packet: addresses, ports, numbers, and the data without options and padding', () => {
    expect(segmentOf(packetOf({ options: 12, bytes: 40 }))).toEqual({
      from: 1,
      to: 2,
      fromPort: 40_000,
      toPort: 7_000,
      sequence: 0xfffffff0,
      acknowledged: 77,
      bytes: 40
    })
    expect(segmentOf(packetOf({ padding: 6 }))?.bytes).toBe(0)
  })

  it('is none in ARP, in UDP and in what is cut short', () => {
    expect(segmentOf(packetOf({ type: 0x0806 }))).toBeUndefined()
    expect(segmentOf(packetOf({ protocol: 17 }))).toBeUndefined()
    expect(segmentOf(packetOf().subarray(0, 50))).toBeUndefined()
  })
})

describe('a plot', () => {
  const curve = {
    name: 'held <b>',
    color: 'red',
    points: [
      [0, 0],
      [1, 40],
      [9, 80]
    ] as const,
    marks: [
      [1, 40],
      [9, 1]
    ] as const
  }
  const panel = { title: 'live', fromX: 0, toX: 2, events: [{ x: 1, name: 'cut' }], curves: [curve] }
  const svg = plotSvg({ title: 'a & b', marks: 'again', x: 's', y: 'kB', rows: [[panel, panel]] })

  it('draws steps and crosses of what is inside of its panel, and goes on to its edge', () => {
    expect(svg.match(/M52 136H185V26H318/g)).toHaveLength(2)
    expect(svg.match(/l6 6m0 -6l-6 6/g)).toHaveLength(2)
  })

  it('names each curve once, and escapes what it is told', () => {
    expect(svg.match(/held &lt;b>/g)).toHaveLength(1)
    expect(svg).toContain('a &amp; b')
    expect(svg).not.toContain('<b>')
  })

  it('has a scale also where nothing is to be drawn', () => {
    const empty = plotSvg({ title: '', marks: '', x: '', y: '', rows: [[{ ...panel, events: [], curves: [] }]] })
    expect(empty).not.toMatch(/NaN|Infinity/)
  })
})
