/** What an image's manifest leads to: the directory of its page table, groups of segments, lengths of extents, the boot part. */
import assert from 'node:assert/strict'
import { decodeBootPart, encodeBootPart } from '../../node/image/boot-part.ts'
import { decodeExtentLengths, encodeExtentLengths } from '../../node/image/extent-lengths.ts'
import { decodeDirectory, DIRECTORY_FORMAT, encodeDirectory } from '../../node/image/page-directory.ts'
import { PageTable, SEGMENT_PAGES } from '../../node/image/page-table.ts'
import { pack, SALT_BYTES, unpack } from '../../node/image/seal.ts'
import { decodeSegments, encodeSegments } from '../../node/image/segment-records.ts'
import type { Random } from '../../protocols/core.ts'
import { BOOT_RAM_PAGES, BOOT_STREAMS, bootFixture } from '../unit/image/boot-fixture.ts'
import { attempt, type Target } from './target.ts'

const IMAGE = /^IMAGE_INVALID$/
const RAM_PAGES = 2 * SEGMENT_PAGES + 256
const BLOCKS = 700
const STREAMS = [{ dataBytes: 50_000 }, { dataBytes: 90_000 }]
/** Slot → locators of its stream. */
const ENDS = [undefined, 480, undefined, 4000]

/** Pages in two streams, deltas among them, and in segments that are stored in both streams. */
function table(): PageTable {
  const made = new PageTable(RAM_PAGES, BLOCKS)
  for (let page = 0; page < RAM_PAGES + BLOCKS; page += 1 + (page % 3)) {
    if (page % 7 === 0) made.place(page, 1, 400 - (page % 90))
    else made.place(page, 3, page % 3900)
    if (page % 50 === 0) made.setDelta(page, 1, page % 480)
  }
  for (const number of made.segments.keys()) {
    made.setRecord(number, { slot: number === 1 ? 1 : 3, counter: 5, offset: 4000 + 100 * number, length: 99 })
  }
  return made
}

function directorySeed(): Uint8Array {
  const streams = [30, 250].map((extents, i) => ({
    salt: new Uint8Array(SALT_BYTES).fill(i),
    extentLengths: new Uint32Array(extents).fill(100),
    lengths: { offset: 3000, length: 300 },
    pages: 16 * extents - i
  }))
  return Uint8Array.from(unpack(encodeDirectory(table(), [1, 3], streams).subarray(1), 1 << 16))
}

/** `input` is a directory before it is packed. All that it leads to must lie in its stream. */
function directory(input: Uint8Array, random: Random): string | undefined {
  const packed = random() < 0.9 ? Buffer.concat([Buffer.of(DIRECTORY_FORMAT), pack(input)]) : input
  return attempt(
    IMAGE,
    () => decodeDirectory(packed, RAM_PAGES, BLOCKS, STREAMS),
    ({ streams, segments }) => {
      assert.equal(streams.length, STREAMS.length)
      for (const [i, { lengths }] of streams.entries()) {
        assert.ok(lengths.offset + lengths.length <= (STREAMS[i]?.dataBytes ?? 0))
      }
      for (const group of segments) {
        if (group === undefined) continue
        const at = streams.findIndex(({ slot }) => slot === group.slot)
        assert.ok(group.offset + group.length <= (STREAMS[at]?.dataBytes ?? 0), 'a group lies outside of its stream')
      }
    }
  )
}

/** `input` is a group of segments before it is packed. Every place must lie in its stream, and the counts be right. */
function segments(input: Uint8Array, random: Random): string | undefined {
  const packed = random() < 0.9 ? pack(input) : input
  const made = new PageTable(RAM_PAGES, BLOCKS)
  const wanted = new Set(random() < 0.5 ? made.segments.keys() : [0, 2])
  return attempt(
    IMAGE,
    () => decodeSegments(packed, made, wanted, ENDS),
    () => {
      let places = 0
      for (let page = 0; page < RAM_PAGES + BLOCKS; page++) {
        for (const place of [made.placeOf(page), made.deltaOf(page)]) {
          if (place === undefined) continue
          assert.ok(place.locator < (ENDS[place.slot] ?? 0), `page ${page} lies nowhere`)
          places++
        }
      }
      assert.equal(made.live(1) + made.live(3), places)
    }
  )
}

/** `input` is a list of lengths before it is packed. */
function lengths(input: Uint8Array, random: Random): string | undefined {
  const packed = random() < 0.9 ? pack(input) : input
  return attempt(
    IMAGE,
    () => decodeExtentLengths(packed, 30, 20_000),
    value => {
      assert.ok(value.length === 30 && value.reduce((sum, each) => sum + each, 0) <= 20_000, 'longer than its stream')
    }
  )
}

/** `input` is a boot part before it is packed. Its extents must lie in their streams, its pages in RAM; there is one encoding of each, but for a code. */
function bootPart(input: Uint8Array, random: Random): string | undefined {
  const plain = random() < 0.9
  return attempt(
    IMAGE,
    () => decodeBootPart(plain ? Buffer.concat([Buffer.of(1), pack(input)]) : input, BOOT_RAM_PAGES, BOOT_STREAMS),
    value => {
      for (const { ordinal, offset, length } of value.extents) {
        assert.ok(offset + length <= (BOOT_STREAMS[ordinal]?.dataBytes ?? 0), 'an extent lies outside of its stream')
      }
      assert.ok(value.pages.every(({ page }) => page < BOOT_RAM_PAGES))
      const again = unpack(encodeBootPart(value).subarray(1), input.length + 1)
      // The first builds wrote a way to touch a page as 2 that is 1 since.
      const same =
        again.length === input.length && input.every((byte, i) => byte === again[i] || (byte === 2 && again[i] === 1))
      if (plain) assert.ok(same, 'another encoding of the same boot part')
    }
  )
}

const bootSeed = (): Uint8Array => Uint8Array.from(unpack(encodeBootPart(bootFixture()).subarray(1), 1 << 16))
const lengthsSeed = (): Uint8Array => Uint8Array.from(unpack(encodeExtentLengths(new Uint32Array(30).fill(600)), 121))
const segmentsSeed = (numbers: readonly number[]): Uint8Array =>
  Uint8Array.from(unpack(encodeSegments(table(), numbers), 1 << 18))

export const indexTargets: readonly Target[] = [
  {
    name: 'page-directory',
    group: 'images',
    summary: 'the directory of a page table',
    seeds: () => [directorySeed()],
    run: directory
  },
  {
    name: 'segments',
    group: 'images',
    summary: 'groups of segments of a page table',
    seeds: () => [segmentsSeed([0]), segmentsSeed([1, 2])],
    run: segments
  },
  {
    name: 'extent-lengths',
    group: 'images',
    summary: 'lengths of extents',
    seeds: () => [lengthsSeed()],
    run: lengths
  },
  { name: 'boot-part', group: 'images', summary: 'the boot part of an image', seeds: () => [bootSeed()], run: bootPart }
]
