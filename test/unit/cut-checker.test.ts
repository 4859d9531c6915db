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
import { isLateEpoch, lateVm } from '../bench/cut-checker-late.ts'
import { bankMac } from '../guest/build.ts'

type Event = readonly ['out' | 'in', station: number, crc: number] | readonly ['cut' | 'turn' | 'taken', value: number]
const out = (to: number, crc: number): Event => ['out', to, crc]
const got = (from: number, crc: number): Event => ['in', from, crc]
const cut = (colour: number): Event => ['cut', colour]
/** It stands still and has taken so many frames since it booted. */
const taken = (frames: number): Event => ['taken', frames]

interface About {
  readonly generation?: number
  readonly colour?: number
  /** Of its first event; the others come a millisecond after each other. */
  readonly fromMs?: number
  readonly killedMs?: number
}

function port(
  vm: number,
  events: readonly Event[],
  { generation = 1, colour = 0, fromMs = 1, killedMs }: About = {}
): PortLog {
  const kindOf = ([name]: Event): number => KINDS[name === 'cut' ? 'turn' : name]
  return {
    vm: `vm${vm}`,
    generation,
    colour,
    attachedMs: fromMs,
    killedMs,
    timesMs: events.map((_, i) => fromMs + i),
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

describe('frames that were lost', () => {
  const hole = port(2, [got(1, 1), cut(1), got(1, 3), got(1, 4)])
  test('are told from those that were under way when a peer died', () => {
    expect(checkCuts([sender, hole], [])).toMatchObject({ lost: 1, lostInDeaths: 0 })
    expect(checkCuts([sender, { ...hole, killedMs: 50 }], [])).toMatchObject({ lost: 0, lostInDeaths: 1 })
    expect(checkCuts([sender, { ...hole, killedMs: 5_000 }], [])).toMatchObject({ lost: 1, lostInDeaths: 0 })
  })
  test('are excused only where the death came before the next generation', () => {
    const later = port(2, [], { generation: 2, fromMs: 40, killedMs: 50 })
    expect(checkCuts([sender, { ...hole, killedMs: 50 }, later], [])).toMatchObject({ lost: 1, lostInDeaths: 0 })
  })
  test('are not those that were under way when a generation ended', () => {
    const ended = port(2, [got(1, 1), cut(1), got(1, 2)])
    expect(checkCuts([sender, ended], [])).toMatchObject({ lost: 0, lostInDeaths: 0 })
  })
})

describe('an early frame that had to wait', () => {
  const receiver = (fromMs: number) => port(2, [got(1, 1), got(1, 2), got(1, 3), cut(1), got(1, 4)], { fromMs })
  test('left in the new colour before its receiver was cut', () => {
    // Frame 4 leaves at 5 ms, the receiver is cut at 13 ms and at 4 ms.
    expect(checkCuts([sender, receiver(10)], []).waited).toBe(1)
    expect(checkCuts([sender, receiver(1)], []).waited).toBe(0)
  })
  test('is there in some epochs, for each VM in its turn, because that VM is cut late', () => {
    const late = Array.from({ length: 10 }, (_, epoch) => epoch).filter(isLateEpoch)
    expect(late.slice(1).map(lateVm).toSorted()).toEqual(['vm1', 'vm2', 'vm3'])
  })
  test('is none of the colour with which its receiver began', () => {
    expect(checkCuts([port(1, [out(2, 1)]), port(2, [got(1, 1), cut(1)], { fromMs: 10 })], []).waited).toBe(0)
  })
  test('is none where it was given to a VM of the old colour', () => {
    const early = port(2, [got(1, 1), got(1, 2), got(1, 3), got(1, 4), cut(1)], { fromMs: 10 })
    expect(checkCuts([sender, early], [])).toMatchObject({ waited: 0, early: 1 })
  })
})

describe('what a VM has not taken', () => {
  const given = (...rest: Event[]) => port(2, [got(1, 1), got(1, 2), got(1, 3), ...rest])
  test('must be in its image, though it was given to it', () => {
    const ports = [sender, given(taken(1), cut(1))]
    expect(faults(checkCuts(ports, [image(2, 1)]))).toEqual({ missing: 2 })
    const whole = checkCuts(ports, [image(2, 1, [1, 1], [1, 2], [1, 3])])
    expect(faults(whole)).toEqual({})
    expect(whole).toMatchObject({ untaken: 2, inFlight: 0, duplicates: 1, unread: 0 })
  })
  test('is not known without a word of QEMU', () => {
    const verdict = checkCuts([sender, given(cut(1))], [image(2, 1)])
    expect(faults(verdict)).toEqual({})
    expect(verdict.unread).toBe(1)
  })
  test('is counted from what it had taken in the image that it was restored from', () => {
    const old = port(2, [taken(65_535), cut(1)])
    const frames = [out(2, 5), out(2, 6), cut(2)]
    const from = port(1, frames, { generation: 2, colour: 1 })
    const restored = port(2, [got(1, 5), got(1, 6), taken(0), cut(2)], { generation: 2, colour: 1 })
    expect(faults(checkCuts([old, from, restored], [image(2, 2)]))).toEqual({ missing: 1 })
    const all = { ...restored, values: [5, 6, 1, 2] }
    expect(faults(checkCuts([old, from, all], [image(2, 2)]))).toEqual({})
  })
  test('is not asked for again where QEMU lost it at the cut before', () => {
    const from = port(1, [out(2, 1), out(2, 2), cut(1), out(2, 3), out(2, 4), cut(2)])
    const to = port(2, [got(1, 1), got(1, 2), taken(1), cut(1), got(1, 3), got(1, 4), taken(3), cut(2)])
    expect(faults(checkCuts([from, to], [image(2, 1, [1, 2]), image(2, 2)]))).toEqual({})
  })
})

describe('the log of frames', () => {
  const record = (kind: Kind, number: number, station: number, value: number, isCut = false): Buffer => {
    const bytes = Buffer.alloc(RECORD_BYTES)
    writeRecord(bytes, 0, { kind, port: number, station, value, atMs: value / 4, cut: isCut })
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
    const [first, second] = readLog(bytes, 9)
    expect(first).toMatchObject({ vm: 'vm1', colour: 7, stations: [2, 0], values: [0xffff_fffe, 8] })
    expect(first).toMatchObject({ attachedMs: 0, killedMs: 9, timesMs: [0xffff_fffe / 4, 2] })
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
