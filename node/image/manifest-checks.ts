/** What holds of every manifest, whatever format it was read from. Pure. */
import { gridDataBytes, gridHashBytes, gridShape } from '../erasure/grid.ts'
import { hasCode, DiapauseError, messageOf } from '../errors.ts'
import type { GridManifest, ImageManifest, ImageStats, StreamManifest } from '../ports.ts'

/** 400 bytes a grid of 960 KiB: enough for images of about 100 GB. */
export const MAX_MANIFEST_BYTES = 64 << 20
export const MAX_ID_BYTES = 512
export const MAX_STREAM_BYTES = 2 * MAX_ID_BYTES
export const MAX_HOLDERS = 255
export const MAX_HOLDER_BYTES = 128
export const ACCEL = ['tcg', 'kvm'] as const
export const STATS = [
  'pages',
  'pagesNonZero',
  'pagesChanged',
  'bytesRaw',
  'bytesData',
  'bytesStored',
  'inFlightFrames'
] as const satisfies readonly (keyof ImageStats)[]

type Columns = Pick<StreamManifest, 'holders' | 'k' | 'm'>

/** Bytes of hashes of one grid. MANIFEST_INVALID where there is no such grid. */
export function hashBytesOf({ holders, k, m }: Columns, symbolBytes: number): number {
  try {
    return gridHashBytes(gridShape({ columns: holders.length, k, m, symbolBytes }))
  } catch (error) {
    throw hasCode(error, 'ERASURE_SHAPE') ? invalid(messageOf(error)) : error
  }
}

/** The next grid. Its hashes are copied: a view would keep the whole manifest alive, and move between threads with all of it. */
export const gridOf = (symbolBytes: number, hashes: Uint8Array): GridManifest => ({
  symbolBytes,
  hashes: new Uint8Array(hashes)
})

/** The manifest itself. MANIFEST_INVALID where its parts contradict each other. Its grids have been through `hashBytesOf`. */
export function consistent(manifest: ImageManifest): ImageManifest {
  const { streams, machine, index, frames } = manifest
  const last = streams.at(-1)
  if (!last || new Set(streams.map(({ stream }) => stream)).size !== streams.length) throw invalid('its streams')
  for (const { stream, holders, k, dataBytes, grids } of streams) {
    const sizes = grids.map(({ symbolBytes }) => gridDataBytes({ columns: holders.length, k, symbolBytes }))
    const capacity = sizes.reduce((sum, size) => sum + size, 0)
    if (dataBytes > capacity || dataBytes <= capacity - (sizes.at(-1) ?? 0)) throw invalid(`the grids of ${stream}`)
  }
  for (const { offset, length } of [machine, index, frames]) {
    if (offset + length > last.dataBytes) throw invalid('a part lies outside of its stream')
  }
  return manifest
}

export const invalid = (what: string, cause?: unknown) =>
  new DiapauseError('MANIFEST_INVALID', `this is no manifest of an image, or one of another version: ${what}`, {
    cause
  })
