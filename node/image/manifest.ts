/**
 * The manifest of an image as bytes, format 2:
 *
 *     "diapause image\n" | u8 format = 2 | u32 bytes of the header | header | hashes | SHA-256 of all before
 *
 * The header is JSON: what the image is of, how its bytes are made, and where they are, so that a person with `strings`
 * understands one that nobody else can read any more. Behind it are the hashes of all symbols, stream by stream and
 * grid by grid, which the header gives the sizes of. Numbers before it are little-endian.
 *
 * Whoever has a manifest alone can tell whether it is whole, by the checksum at its end. It is named by the SHA-256 of all its
 * bytes, and a group's register holds that name: so whoever has the name can check that the manifest, and through the
 * hashes in it every symbol, is what was committed. There is one encoding of each manifest, and decoding takes no other.
 *
 * What changes here is a new format; older ones stay readable (`manifest-1.ts`; one of each is kept in
 * `test/unit/image/fixtures`). Pure but for hashes.
 */
import { hash } from 'node:crypto'
import { z } from 'zod'
import { messageOf } from '../errors.ts'
import type { GridManifest, ImageManifest, StreamManifest } from '../ports.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { decodeManifest1, FORMAT_1 } from './manifest-1.ts'
import {
  ACCEL,
  consistent,
  gridOf,
  hashBytesOf,
  invalid,
  MAX_HOLDER_BYTES,
  MAX_HOLDERS,
  MAX_ID_BYTES,
  MAX_MANIFEST_BYTES,
  MAX_STREAM_BYTES,
  STATS
} from './manifest-checks.ts'
import { MAX_INDEX_STREAMS } from './page-index.ts'

const MAGIC = Buffer.from('diapause image\n')
const FORMAT = 2
const HEADER_AT = MAGIC.length + 1 + 4
const CHECK_BYTES = 32
/** Of 64 streams, each with a name and a hundred holders, a tenth of it. */
const MAX_HEADER_BYTES = 4 << 20

/** How the bytes are made. Whoever makes them otherwise writes another word here, and older versions say that they cannot. */
const MADE = {
  pages: '4096 bytes, 16 to an extent',
  packed: 'zstd',
  sealed: 'AES-256-GCM',
  coded: 'Reed-Solomon on diagonals',
  hashed: 'SHA-256, first 16 bytes of each symbol'
} as const

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)
const id = z.string().max(MAX_ID_BYTES)
const range = z.strictObject({ offset: count, length: count })

const streamSchema = z.strictObject({
  stream: z.string().max(MAX_STREAM_BYTES),
  k: count,
  m: count,
  dataBytes: count,
  holders: z.array(z.string().max(MAX_HOLDER_BYTES)).max(MAX_HOLDERS),
  /** Bytes of a symbol, and how many grids have such symbols one after the other. */
  grids: z.array(z.tuple([count, count.min(1)])).min(1)
})

const headerSchema = z.strictObject({
  group: id,
  vm: id,
  generation: count,
  epoch: count,
  memoryMiB: count.min(1),
  accel: z.enum(ACCEL),
  made: z.strictObject({
    pages: z.literal(MADE.pages),
    packed: z.literal(MADE.packed),
    sealed: z.literal(MADE.sealed),
    coded: z.literal(MADE.coded),
    hashed: z.literal(MADE.hashed)
  }),
  /** Of the last stream. */
  machine: range,
  index: range,
  frames: range,
  stats: z.strictObject({
    pages: count,
    pagesNonZero: count,
    pagesChanged: count,
    bytesRaw: count,
    bytesData: count,
    bytesStored: count,
    inFlightFrames: count
  }),
  streams: z.array(streamSchema).min(1).max(MAX_INDEX_STREAMS)
})
type Header = z.output<typeof headerSchema>

/** Hex SHA-256: the manifest's name. */
export const manifestHash = (bytes: Uint8Array): string => hash('sha256', bytes)

export function encodeManifest(manifest: ImageManifest): Uint8Array {
  const out = new ByteWriter(4096)
    .raw(MAGIC)
    .u8(FORMAT)
    .blob(Buffer.from(headerText(manifest)))
  for (const { grids } of manifest.streams) for (const { hashes } of grids) out.raw(hashes)
  return out
    .raw(hash('sha256', out.bytes(), 'buffer'))
    .bytes()
    .slice()
}

/** MANIFEST_INVALID for anything that `encodeManifest`, of this version or an older one, would not have written. */
export function decodeManifest(bytes: Uint8Array): ImageManifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw invalid(`${bytes.length} bytes`)
  if (bytes[0] === FORMAT_1) return decodeManifest1(bytes)
  const begins = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, MAGIC.length)).equals(MAGIC)
  if (!begins || bytes.length < HEADER_AT + CHECK_BYTES) throw invalid('it does not begin as one')
  const format = bytes[MAGIC.length]
  if (format !== FORMAT) throw invalid(`format ${format}, and this version reads ${FORMAT_1} and ${FORMAT}`)
  const checked = bytes.subarray(0, -CHECK_BYTES)
  if (!hash('sha256', checked, 'buffer').equals(bytes.subarray(-CHECK_BYTES)))
    throw invalid('it is damaged, or not whole')
  const reader = new ByteReader(checked.subarray(MAGIC.length + 1), invalid)
  const header = Buffer.from(reader.blob(MAX_HEADER_BYTES))
  const { made: _, streams, ...rest } = readHeader(header.toString())
  const manifest = consistent({ ...rest, streams: streams.map(stream => readStream(stream, reader)) })
  reader.end()
  if (!header.equals(Buffer.from(headerText(manifest)))) throw invalid('its header is written otherwise')
  return manifest
}

function readHeader(text: string): Header {
  try {
    return headerSchema.parse(JSON.parse(text))
  } catch (cause) {
    throw invalid(`its header: ${messageOf(cause).slice(0, 300)}`, cause)
  }
}

/** The hashes of its grids come next in `reader`. */
function readStream({ grids: runs, ...stream }: Header['streams'][number], reader: ByteReader): StreamManifest {
  const grids: GridManifest[] = []
  for (const [symbolBytes, times] of runs) {
    const hashBytes = hashBytesOf(stream, symbolBytes)
    for (let i = 0; i < times; i++) grids.push(gridOf(symbolBytes, reader.raw(hashBytes)))
  }
  return { ...stream, grids }
}

/** Names in a fixed order. */
function headerText(manifest: ImageManifest): string {
  const { group, vm, generation, epoch, memoryMiB, accel, machine, index, frames, stats, streams } = manifest
  const range = ({ offset, length }: ImageManifest['machine']) => ({ offset, length })
  const header: Header = {
    group,
    vm,
    generation,
    epoch,
    memoryMiB,
    accel,
    made: MADE,
    machine: range(machine),
    index: range(index),
    frames: range(frames),
    stats: Object.fromEntries(STATS.map(name => [name, stats[name]])) as Header['stats'],
    streams: streams.map(({ stream, k, m, dataBytes, holders, grids }) => {
      return { stream, k, m, dataBytes, holders: [...holders], grids: runsOf(grids) }
    })
  }
  return JSON.stringify(header)
}

function runsOf(grids: readonly GridManifest[]): [number, number][] {
  const runs: [number, number][] = []
  for (const { symbolBytes } of grids) {
    const last = runs.at(-1)
    if (last?.[0] === symbolBytes) last[1]++
    else runs.push([symbolBytes, 1])
  }
  return runs
}
