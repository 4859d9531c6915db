import { beforeEach, describe, expect, it } from 'vitest'
import { toPacket } from '../../node/switch/ethernet.ts'
import { type Batch, Untaken } from '../../node/switch/untaken.ts'

const PACKET_BYTES = 4 + 16
/** Kernel and QEMU hold ten packets here. */
const HOLD_BYTES = 10 * PACKET_BYTES

let untaken: Untaken
beforeEach(() => {
  untaken = new Untaken(HOLD_BYTES)
})

const packet = (id: number): Uint8Array => toPacket(new Uint8Array(16).fill(id))
const at = (nowMs: number): number[] => untaken.packets(nowMs).map(each => each[4] as number)
const write = (id: number, nowMs: number): Batch => untaken.write(packet(id), nowMs, undefined)
/** The kernel takes it at once. */
const writeThrough = (id: number, nowMs: number): void => untaken.flushed(write(id, nowMs), nowMs)
function writeAndWait(id: number, nowMs: number): Batch {
  const batch = write(id, nowMs)
  untaken.waits(batch)
  return batch
}

describe('what a VM may not have taken', () => {
  it('is what was written a moment ago, where it reads', () => {
    writeThrough(1, 1000)
    writeThrough(2, 1090)
    expect(at(1100)).toEqual([1, 2])
    expect(at(1101)).toEqual([2])
    expect(at(1200)).toEqual([])
  })

  it('is as old as when the kernel got it, however long it waited in this process before', () => {
    const batch = write(1, 1000)
    expect(at(5000)).toEqual([1])
    untaken.flushed(batch, 5000)
    expect(at(5100)).toEqual([1])
    expect(at(5101)).toEqual([])
  })

  it('is no more than kernel and QEMU hold, and what waits in this process besides', () => {
    for (let id = 1; id <= 15; id++) writeThrough(id, 1000)
    expect(at(1000)).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    writeAndWait(16, 1000)
    writeAndWait(17, 1000)
    expect(at(1000)).toEqual([6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17])
  })

  it('is of any age while the kernel takes no more', () => {
    for (const id of [1, 2]) writeThrough(id, 1000)
    writeAndWait(3, 1050)
    expect(at(60_000)).toEqual([1, 2, 3])
  })

  it('is of any age for as long as a slow reader needs for the rest', () => {
    writeThrough(1, 1000)
    const batch = writeAndWait(2, 1050)
    untaken.flushed(batch, 1350)
    expect(at(1350 + 900)).toEqual([1, 2])
    expect(at(1350 + 901)).toEqual([])
  })

  it('does not grow old while the VM stands still', () => {
    writeThrough(1, 950)
    writeThrough(2, 1000)
    const batch = writeAndWait(3, 1000)
    untaken.flushed(batch, 1010)
    untaken.stoodStill(1010, 9010)
    expect(at(9050)).toEqual([1, 2, 3])
    expect(at(9051)).toEqual([2, 3])
    expect(at(9111)).toEqual([])
  })

  it('is not what waited long for a guest to have a driver, and was followed by nothing for seconds', () => {
    const batch = writeAndWait(1, 1000)
    untaken.flushed(batch, 600_000)
    expect(at(610_000)).toEqual([1])
    expect(at(610_001)).toEqual([])
  })

  it('is of the group: frames of the outside go as they came', () => {
    const both = new Uint8Array(Buffer.concat([1, 2, 3].map(packet)))
    untaken.flushed(untaken.write(both, 1000, new Set([0, 2])), 1000)
    writeThrough(4, 1000)
    expect(at(1000)).toEqual([2, 4])
  })
})
