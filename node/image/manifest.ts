/**
 * The manifest of an image as bytes. It is named by the SHA-256 of them, and a group's register holds that name: so
 * whoever has the name can check that the manifest, and through the hashes in it every symbol, is what was committed.
 * There is one encoding of each manifest, and decoding accepts no other. Pure but for the hash.
 */
import { hash } from 'node:crypto'
import { hasCode, DiapauseError, messageOf } from '../errors.ts'
import { gridDataBytes, gridHashBytes, gridShape } from '../erasure/grid.ts'
import type { ByteRange, GridManifest, ImageManifest, ImageStats, StreamManifest } from '../ports.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { MAX_INDEX_STREAMS } from './page-index.ts'

const FORMAT = 1
/** 400 bytes a grid of 960 KiB: enough for images of about 100 GB. */
export const MAX_MANIFEST_BYTES = 64 << 20
const MAX_ID_BYTES = 512
const ACCEL = ['tcg', 'kvm'] as const
const STATS = [
  'pages',
  'pagesNonZero',
  'pagesChanged',
  'bytesRaw',
  'bytesData',
  'bytesStored',
  'inFlightFrames'
] as const satisfies readonly (keyof ImageStats)[]

/** Hex SHA-256: the manifest's name. */
export const manifestHash = (bytes: Uint8Array): string => hash('sha256', bytes)

export function encodeManifest(manifest: ImageManifest): Uint8Array {
  const out = new ByteWriter(4096).u8(FORMAT).text(manifest.group).text(manifest.vm)
  out.u53(manifest.generation).u53(manifest.epoch).u32(manifest.memoryMiB).u8(ACCEL.indexOf(manifest.accel))
  for (const range of [manifest.machine, manifest.index, manifest.frames]) out.u53(range.offset).u53(range.length)
  for (const name of STATS) out.u53(manifest.stats[name])
  out.u32(manifest.streams.length)
  for (const stream of manifest.streams) {
    out.text(stream.stream).u8(stream.k).u8(stream.m).u53(stream.dataBytes).u32(stream.holders.length)
    for (const holder of stream.holders) out.text(holder)
    out.u32(stream.grids.length)
    for (const grid of stream.grids) out.u32(grid.symbolBytes).raw(grid.hashes)
  }
  return out.bytes().slice()
}

/** MANIFEST_INVALID for anything that `encodeManifest` would not have written. */
export function decodeManifest(bytes: Uint8Array): ImageManifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw invalid(`${bytes.length} bytes`)
  const reader = new ByteReader(bytes, invalid)
  const format = reader.u8()
  if (format !== FORMAT) throw invalid(`format ${format}, and this version reads ${FORMAT}`)
  const [group, vm] = [reader.text(MAX_ID_BYTES), reader.text(MAX_ID_BYTES)]
  const [generation, epoch, memoryMiB] = [reader.u53(), reader.u53(), reader.u32()]
  const accel = ACCEL[reader.u8()]
  if (accel === undefined || memoryMiB === 0) throw invalid('accelerator or memory')
  const [machine, index, frames] = [readRange(reader), readRange(reader), readRange(reader)]
  const stats = Object.fromEntries(STATS.map(name => [name, reader.u53()])) as unknown as ImageStats
  const streams: StreamManifest[] = []
  for (let left = reader.count(MAX_INDEX_STREAMS, 20); left > 0; left--) streams.push(readStream(reader))
  reader.end()
  const last = streams.at(-1)
  if (!last || new Set(streams.map(stream => stream.stream)).size !== streams.length) throw invalid('its streams')
  for (const range of [machine, index, frames]) {
    if (range.offset + range.length > last.dataBytes) throw invalid('a part lies outside of its stream')
  }
  return { format: 1, group, vm, generation, epoch, memoryMiB, accel, streams, machine, index, frames, stats }
}

function readStream(reader: ByteReader): StreamManifest {
  const stream = reader.text(2 * MAX_ID_BYTES)
  const [k, m, dataBytes] = [reader.u8(), reader.u8(), reader.u53()]
  const holders = Array.from({ length: reader.count(255, 2) }, () => reader.text(128))
  const grids: GridManifest[] = []
  let [capacity, before] = [0, 0]
  for (let left = reader.count(1 << 20, 4); left > 0; left--) {
    const shape = shapeOf({ columns: holders.length, k, m, symbolBytes: reader.u32() })
    before = capacity
    capacity += gridDataBytes(shape)
    // A copy: the view would keep the whole manifest alive, and moves between threads with all of it.
    grids.push({ symbolBytes: shape.symbolBytes, hashes: new Uint8Array(reader.raw(gridHashBytes(shape))) })
  }
  if (grids.length === 0 || dataBytes > capacity || dataBytes <= before) throw invalid(`the grids of ${stream}`)
  return { stream, k, m, holders, dataBytes, grids }
}

function shapeOf(shape: Parameters<typeof gridShape>[0]): ReturnType<typeof gridShape> {
  try {
    return gridShape(shape)
  } catch (error) {
    throw hasCode(error, 'ERASURE_SHAPE') ? invalid(messageOf(error)) : error
  }
}

const readRange = (reader: ByteReader): ByteRange => ({ offset: reader.u53(), length: reader.u53() })

const invalid = (what: string) =>
  new DiapauseError('MANIFEST_INVALID', `this is no manifest of an image, or one of another version: ${what}`)
