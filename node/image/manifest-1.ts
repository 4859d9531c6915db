/**
 * Manifests of format 1, which is read and not written any more: fixed fields without names, and nothing by which a
 * manifest alone could be checked. There is one encoding of each, and no other is taken. Pure.
 */
import type { ByteRange, GridManifest, ImageManifest, ImageStats, StreamManifest } from '../ports.ts'
import { ByteReader } from './bytes.ts'
import {
  ACCEL,
  consistent,
  gridOf,
  hashBytesOf,
  invalid,
  MAX_HOLDER_BYTES,
  MAX_HOLDERS,
  MAX_ID_BYTES,
  MAX_INDEX_STREAMS,
  MAX_STREAM_BYTES,
  STATS
} from './manifest-checks.ts'

export const FORMAT_1 = 1

/** `bytes` begin with FORMAT_1. MANIFEST_INVALID. */
export function decodeManifest1(bytes: Uint8Array): ImageManifest {
  const reader = new ByteReader(bytes.subarray(1), invalid)
  const [group, vm] = [reader.text(MAX_ID_BYTES), reader.text(MAX_ID_BYTES)]
  const [generation, epoch, memoryMiB] = [reader.u53(), reader.u53(), reader.u32()]
  const accel = ACCEL[reader.u8()]
  if (accel === undefined || memoryMiB === 0) throw invalid('accelerator or memory')
  const [machine, index, frames] = [readRange(reader), readRange(reader), readRange(reader)]
  const stats = Object.fromEntries(STATS.map(name => [name, reader.u53()])) as unknown as ImageStats
  const streams: StreamManifest[] = []
  for (let left = reader.count(MAX_INDEX_STREAMS, 20); left > 0; left--) streams.push(readStream(reader))
  reader.end()
  return consistent({ group, vm, generation, epoch, memoryMiB, accel, streams, machine, index, frames, stats })
}

function readStream(reader: ByteReader): StreamManifest {
  const stream = reader.text(MAX_STREAM_BYTES)
  const [k, m, dataBytes] = [reader.u8(), reader.u8(), reader.u53()]
  const holders = Array.from({ length: reader.count(MAX_HOLDERS, 2) }, () => reader.text(MAX_HOLDER_BYTES))
  const grids: GridManifest[] = []
  for (let left = reader.count(1 << 20, 4); left > 0; left--) {
    const symbolBytes = reader.u32()
    grids.push(gridOf(symbolBytes, reader.raw(hashBytesOf({ holders, k, m }, symbolBytes))))
  }
  return { stream, k, m, holders, dataBytes, grids }
}

const readRange = (reader: ByteReader): ByteRange => ({ offset: reader.u53(), length: reader.u53() })
