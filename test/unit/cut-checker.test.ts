import { describe, expect, test } from 'vitest'
import { checkCuts, type CutVerdict, type ImageFrames } from '../bench/cut-checker.ts'
import {
  EVERYBODY,
  type Kind,
  KINDS,
  NOBODY,
  type PortLog,
  readLog,
  RECORD_BYTES,
  stationAt,
  writeRecord
} from '../bench/cut-checker-log.ts'
import { bankMac } from '../guest/build.ts'

type Event = readonly ['out' | 'in', station: number, crc: number] | readonly ['cut' | 'turn', colour: number]
const out = (to: number, crc: number): Event => ['out', to, crc]
const got = (from: number, crc: number): Event => ['in', from, crc]
const cut = (colour: number): Event => ['cut', colour]

function port(vm: number, events: readonly Event[], { generation = 1, colour = 0 } = {}): PortLog {
  const kindOf = ([name]: Event): number => KINDS[name === 'cut' ? 'turn' : name]
  return {
    vm: `vm${vm}`,
    generation,
    colour,
    kinds: events.map(kindOf),
    stations: events.map(event => (event.length === 3 ? event[1] : 0)),
    values: events.map(event => (event.length === 3 ? event[2] : event[1])),
    cuts: new Set(events.flatMap(event => (event[0] === 'cut' ? [event[1]] : [])))
  }
}
const image = (vm: number, epoch: number, ...frames: (readonly [from: number, crc: number])[]): ImageFrames => ({
  vm: `vm${vm}`,
  epoch,
  frames: frames.map(([from, crc]) => ({ from, crc }))
})
const faults = ({ early, missing, future, strange, unknown, unseen }: CutVerdict) => ({
  ...(early && { early }),
  ...(missing && { missing }),
  ...(future && { future }),
  ...(strange && { strange }),
  ...(unknown && { unknown }),
  ...(unseen && { unseen })
})

/** vm1 sends 1 to 4, of which 3 is in flight and 4 sent after its cut. */
const sender = port(1, [out(2, 1), out(2, 2), out(2, 3), cut(1), out(2, 4)])

describe('the cut checker', () => {
  test('finds nothing wrong where early frames waited and in-flight frames are in the image', () => {
    const receiver = port(2, [got(1, 1), got(1, 2), cut(1), got(1, 3), got(1, 4)])
    const verdict = checkCuts([sender, receiver], [image(1, 1), image(2, 1, [1, 3])])
    expect(faults(verdict)).toEqual({})
    expect(verdict).toMatchObject({ frames: 4, inFlight: 1, lost: 0, duplicates: 0, examples: [] })
  })
  test('finds a frame that was sent after a cut and given to a VM before its own', () => {
    const receiver = port(2, [got(1, 1), got(1, 2), got(1, 3), got(1, 4), cut(1)])
    const verdict = checkCuts([sender, receiver], [image(1, 1), image(2, 1)])
    expect(faults(verdict)).toEqual({ early: 1 })
    expect(verdict.examples).toEqual([expect.stringContaining('of colour 1 was given to a VM of 0')])
  })
  test('takes a colour that a VM got without a cut for a colour', () => {
    const receiver = port(2, [got(1, 1), got(1, 2), got(1, 3), ['turn', 1], got(1, 4)])
    expect(faults(checkCuts([sender, receiver], []))).toEqual({})
  })
  test('finds a frame that crossed the cut and is not in the image, also where its receiver died before it came', () => {
    const lived = port(2, [got(1, 1), cut(1), got(1, 2), got(1, 3), got(1, 4)])
    expect(faults(checkCuts([sender, lived], [image(1, 1), image(2, 1, [1, 3])]))).toEqual({ missing: 1 })
    const died = port(2, [got(1, 1), got(1, 2), cut(1)])
    expect(faults(checkCuts([sender, died], [image(1, 1), image(2, 1)]))).toEqual({ missing: 1 })
  })
  test('finds in-flight frames in the wrong order', () => {
    const receiver = port(2, [got(1, 1), cut(1), got(1, 2), got(1, 3)])
    expect(faults(checkCuts([sender, receiver], [image(2, 1, [1, 3], [1, 2])]))).toEqual({ missing: 1 })
  })
  test('allows frames that were given just before the cut, and none from after it or from nowhere', () => {
    const receiver = port(2, [got(1, 1), got(1, 2), cut(1), got(1, 3)])
    const verdict = checkCuts([sender, receiver], [image(2, 1, [1, 2], [1, 3], [1, 4], [1, 77], [9, 1])])
    expect(faults(verdict)).toEqual({ future: 1, strange: 2 })
    expect(verdict).toMatchObject({ inFlight: 1, duplicates: 1 })
  })
  test('does not ask for frames that a link lost before later ones came', () => {
    const receiver = port(2, [got(1, 1), cut(1), got(1, 3), got(1, 4)])
    const verdict = checkCuts([sender, receiver], [image(2, 1, [1, 3])])
    expect(faults(verdict)).toEqual({})
    expect(verdict.lost).toBe(1)
  })
  test('expects the frames of the image first where a VM was restored from it, and else only what was sent', () => {
    const old = port(2, [got(1, 1), got(1, 2), cut(1)])
    const again = [
      port(1, [out(2, 9)], { generation: 2, colour: 1 }),
      port(2, [got(1, 3), got(1, 9), got(1, 8)], { generation: 2, colour: 1 })
    ]
    const verdict = checkCuts([sender, old, ...again], [image(1, 1), image(2, 1, [1, 3])])
    expect(faults(verdict)).toEqual({ unknown: 1 })
    expect(verdict.replayed).toBe(1)
  })
  test('counts a frame to everybody for every other VM', () => {
    const ports = [
      port(1, [out(EVERYBODY, 5), cut(1)]),
      port(2, [got(1, 5), cut(1)]),
      port(3, [cut(1), got(1, 5)], { generation: 1 })
    ]
    expect(faults(checkCuts(ports, [image(2, 1), image(3, 1)]))).toEqual({ missing: 1 })
  })
  test('says where nobody saw the cut of an image', () => {
    expect(faults(checkCuts([sender], [image(1, 2)]))).toEqual({ unseen: 1 })
  })
})

describe('the log of frames', () => {
  const record = (kind: Kind, number: number, station: number, value: number, isCut = false): Buffer => {
    const bytes = Buffer.alloc(RECORD_BYTES)
    writeRecord(bytes, 0, { kind, port: number, station, value, cut: isCut })
    return bytes
  }
  const attach = (about: object): Buffer[] => {
    const json = Buffer.from(JSON.stringify(about))
    return [record('attach', 0, json.length, 0), json]
  }
  const bytes = Buffer.concat([
    ...attach({ vm: 'vm1', generation: 3, colour: 7 }),
    record('out', 0, 2, 0xffff_fffe),
    ...attach({ vm: 'vm2', generation: 3, colour: 7 }),
    record('in', 1, 1, 5),
    record('turn', 0, 0, 8, true),
    record('turn', 1, 0, 8)
  ])
  test('is read as it was written', () => {
    const [first, second] = readLog(bytes)
    expect(first).toMatchObject({ vm: 'vm1', colour: 7, stations: [2, 0], values: [0xffff_fffe, 8] })
    expect(first?.cuts).toEqual(new Set([8]))
    expect(second).toMatchObject({ vm: 'vm2', kinds: [KINDS.in, KINDS.turn], cuts: new Set() })
  })
  test('may end anywhere, and is refused where it makes no sense', () => {
    for (let end = 0; end < bytes.length; end++) expect(() => readLog(bytes.subarray(0, end))).not.toThrow()
    expect(() => readLog(record('out', 9, 1, 1))).toThrow('no record of frames')
  })
  test('knows VMs of the bank by their addresses', () => {
    const frame = Buffer.from(`${bankMac(300)}${bankMac(2)}`.replaceAll(':', ''), 'hex')
    expect([stationAt(frame, 0), stationAt(frame, 6)]).toEqual([300, 2])
    expect(stationAt(Buffer.alloc(12, 0xff), 0)).toBe(EVERYBODY)
    expect(stationAt(Buffer.alloc(12, 2), 0)).toBe(NOBODY)
  })
})
