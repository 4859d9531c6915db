/** The stored formats of images: they come back from the disks of other peers. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ImageManifest, StreamManifest } from '../../node/ports.ts'
import { ByteReader } from '../../node/image/bytes.ts'
import { EXTENT_PAGES } from '../../node/image/extents.ts'
import { MAX_PIECE_BYTES, openPieces, sealPiece } from '../../node/image/frame-pieces.ts'
import { decodeMachine, encodeMachine } from '../../node/image/machine.ts'
import { decodeManifest, encodeManifest, readManifest } from '../../node/image/manifest.ts'
import { decodeStreamManifest, encodeStreamManifest } from '../../node/image/stream-manifest.ts'
import { decodePageIndex1 } from '../../node/image/page-index-1.ts'
import { PageTable } from '../../node/image/page-table.ts'
import { pack, SALT_BYTES, StreamSeal, unpack } from '../../node/image/seal.ts'
import type { Random } from '../../protocols/core.ts'
import { encodePageIndex1 } from '../unit/image/page-index-1.ts'
import { mutate } from './mutate.ts'
import { machineParts } from './stream-targets.ts'
import { attempt, chunksOf, refusal, type Target } from './target.ts'

const IMAGE = /^IMAGE_INVALID$/

const FIXTURES = join(import.meta.dirname, '../unit/image/fixtures')

/** One of each format that there ever was. */
const fixtures = (name: string): Uint8Array[] =>
  readdirSync(FIXTURES)
    .filter(file => file.startsWith(name))
    .sort()
    .map(file => new Uint8Array(readFileSync(join(FIXTURES, file))))

// ---------------------------------------------------------------------------------------------- manifests

const streamOf = (epoch: number, grids: number): StreamManifest => ({
  stream: `bank/vm-1/3/${epoch}`,
  k: 2,
  m: 1,
  holders: ['p', 'q', 'r', 's'],
  dataBytes: grids * 8 * 4096 - 5,
  grids: Array.from({ length: grids }, (_, i) => ({ symbolBytes: 4096, hashes: new Uint8Array(4 * 3 * 16).fill(i) }))
})

const manifestOf = (streams: readonly StreamManifest[]): ImageManifest => ({
  group: 'bank',
  vm: 'vm-1',
  generation: 3,
  epoch: 17,
  memoryMiB: 256,
  accel: 'tcg',
  streams,
  machine: { offset: 1000, length: 10 },
  index: { offset: 1010, length: 20 },
  frames: { offset: 1030, length: 0 },
  stats: {
    pages: 65_536,
    pagesNonZero: 4,
    pagesChanged: 3,
    bytesRaw: 2 ** 40,
    bytesData: 5,
    bytesStored: 9,
    inFlightFrames: 1
  }
})

/** Manifests of older formats, with all of their streams, are the same in today's. */
async function manifest(input: Uint8Array): Promise<string | undefined> {
  let value: ReturnType<typeof decodeManifest>
  try {
    value = decodeManifest(input)
  } catch (error) {
    return refusal(error, /^MANIFEST_INVALID$/)
  }
  const streams = value.streams.flatMap(stream => ('grids' in stream ? stream : []))
  assert.ok(streams.length === 0 || streams.length === value.streams.length, 'some streams are here, and some are not')
  if (streams.length === 0) return undefined
  const { hash, objects } = encodeManifest({ ...value, streams })
  const stored = [...objects, ...streams.map(encodeStreamManifest)]
  const get = async (name: string) => stored.find(each => each.hash === name)?.bytes ?? new Uint8Array()
  assert.deepEqual(await readManifest(hash, get), value)
  return undefined
}

/** There is one encoding of each, and no other is taken. */
const streamManifest = (input: Uint8Array): string | undefined =>
  attempt(
    /^MANIFEST_INVALID$/,
    () => decodeStreamManifest(input),
    value => {
      assert.ok(Buffer.from(input).equals(encodeStreamManifest(value).bytes), 'another encoding of the same manifest')
    }
  )

/** But for those of format 1, half of the time with a checksum that fits, as somebody makes one who means harm. */
function mutateManifest(input: Uint8Array, random: Random, seeds: readonly Uint8Array[]): Uint8Array {
  if (random() < 0.5 || input[0] === 1) return mutate(input, random, seeds)
  const body = mutate(input.subarray(0, -32), random, seeds)
  return Buffer.concat([body, createHash('sha256').update(body).digest()])
}

// ---------------------------------------------------------------------------------------------- page index

const PAGES = 600
const INDEXED = [streamOf(9, 2), streamOf(17, 3)]

/** Pages in two streams, in order and out of it, and zero pages between them. */
function indexSeed(): Uint8Array {
  const table = new PageTable(PAGES)
  for (let page = 0; page < PAGES; page++) {
    if (page % 5 === 0) continue
    if (page % 7 === 0) table.place(page, 1, 100 - (page % 90))
    else table.place(page, 0, page % (30 * EXTENT_PAGES))
  }
  const streams = [30, 7].map((extents, i) => ({
    salt: new Uint8Array(SALT_BYTES).fill(i),
    extentLengths: new Uint32Array(extents).fill(700 + i),
    pages: extents * EXTENT_PAGES - i
  }))
  return repack(encodePageIndex1(table, [0, 1], streams), bytes => unpack(bytes, 1 << 20))
}

/** The packed parts of an index through `change`; from where it is no index, all that is left as it is. */
function repack(index: Uint8Array, change: (bytes: Uint8Array) => Uint8Array): Uint8Array {
  const parts: Uint8Array[] = []
  const reader = new ByteReader(index, () => new RangeError('it ends'))
  let at = 0
  const raw = (bytes: number): void => {
    parts.push(reader.raw(bytes))
    at += bytes
  }
  const blob = (): void => {
    const bytes = reader.blob(index.length)
    const changed = change(bytes)
    const length = Buffer.alloc(4)
    length.writeUInt32LE(changed.length)
    parts.push(length, changed)
    at += 4 + bytes.length
  }
  try {
    raw(9)
    for (let left = Buffer.from(index).readUInt32LE(5); left > 0; left--) {
      raw(SALT_BYTES + 8)
      blob()
    }
    while (at < index.length) blob()
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    parts.push(index.subarray(at))
  }
  return Uint8Array.from(Buffer.concat(parts))
}

/** `input` is an index whose parts are not packed yet. Every page must lie where its stream has an extent. */
function pageIndex(input: Uint8Array, random: Random): string | undefined {
  const packed = random() < 0.9 ? repack(input, pack) : input
  return attempt(
    IMAGE,
    () => decodePageIndex1(packed, PAGES, 0, INDEXED),
    table => {
      for (let page = 0; page < PAGES; page++) {
        const place = table.placeOf(page)
        if (place === undefined) continue
        const extent = Math.floor(place.locator / EXTENT_PAGES)
        assert.ok(extent < (table.streams[place.slot]?.extentLengths.length ?? 0), `page ${page} lies nowhere`)
      }
    }
  )
}

// ---------------------------------------------------------------------------------------------- machine, frames

/** `input` is a machine part before it is packed. There is one encoding of each. */
function machine(input: Uint8Array, random: Random): string | undefined {
  const plain = random() < 0.9
  return attempt(
    IMAGE,
    () => decodeMachine(plain ? pack(input) : input),
    value => {
      const again = unpack(encodeMachine(value), input.length + 1)
      if (plain) assert.ok(Buffer.from(input).equals(again), 'another encoding of the same machine')
    }
  )
}

const SEAL = new StreamSeal(new Uint8Array(32).fill(7), 'g/v/1/1', new Uint8Array(SALT_BYTES))

/** `input` becomes the content of sealed pieces, packed or not; or what was sealed, and then damaged. */
async function framePieces(input: Uint8Array, random: Random): Promise<string | undefined> {
  const [how, pieces] = [random(), chunksOf(input, random, 4)]
  const seal = (piece: Uint8Array, index: number): Uint8Array[] => {
    if (how < 0.4) return [...sealPiece(SEAL, index, piece)]
    const sealed = SEAL.seal('frames', index, piece)
    const length = Buffer.alloc(4)
    length.writeUInt32BE(sealed.length)
    return [length, sealed]
  }
  const stored = how < 0.7 ? Buffer.concat(pieces.flatMap(seal)) : Buffer.from(input)
  const read = async (offset: number, length: number): Promise<Uint8Array> => stored.subarray(offset, offset + length)
  const got: Uint8Array[] = []
  try {
    for await (const piece of openPieces(Promise.resolve(SEAL), { offset: 0, length: stored.length }, read)) {
      assert.ok(piece.length <= MAX_PIECE_BYTES, 'a piece beyond the limit')
      got.push(piece)
    }
  } catch (error) {
    return refusal(error, /^IMAGE_(INVALID|SEAL)$/)
  }
  if (how < 0.4) assert.deepEqual(Buffer.concat(got), Buffer.concat(pieces))
  return undefined
}

const frameSeed = (): Uint8Array =>
  Uint8Array.from(Buffer.concat([0, 1].flatMap(i => [...sealPiece(SEAL, i, new Uint8Array(300).fill(i))])))

export const imageTargets: readonly Target[] = [
  {
    name: 'manifest',
    group: 'images',
    summary: 'the manifest of an image',
    seeds: () => [encodeManifest(manifestOf(INDEXED)).objects[1]?.bytes ?? new Uint8Array(), ...fixtures('manifest')],
    mutate: mutateManifest,
    run: manifest
  },
  {
    name: 'stream-manifest',
    group: 'images',
    summary: 'the manifest of a stream',
    seeds: () => [...INDEXED.map(stream => encodeStreamManifest(stream).bytes), ...fixtures('stream-manifest')],
    mutate: mutateManifest,
    run: streamManifest
  },
  {
    name: 'page-index',
    group: 'images',
    summary: 'the page index of format 1',
    seeds: () => [indexSeed()],
    run: pageIndex
  },
  { name: 'machine', group: 'images', summary: 'the machine part', seeds: machineParts, run: machine },
  {
    name: 'frame-pieces',
    group: 'images',
    summary: 'in-flight frames, sealed by whoever has the key',
    seeds: () => [frameSeed(), pack(new Uint8Array(5000).fill(3)), pack(new Uint8Array(2 * MAX_PIECE_BYTES))],
    run: framePieces
  }
]
