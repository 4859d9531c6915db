/** What holds of every manifest, whatever format it was read from. Pure. */
import { gridDataBytes, gridHashBytes, gridShape } from '../erasure/grid.ts'
import { hasCode, DiapauseError, messageOf } from '../errors.ts'
import type { GridManifest, ImageManifest, ImageStats, StreamManifest } from '../ports.ts'

/** 400 bytes a grid of 960 KiB: enough for images of about 100 GB. */
export const MAX_MANIFEST_BYTES = 64 << 20
/** A bound against nonsense; images have at most MAX_STREAMS, and a few more where that number is lowered one day. */
export const MAX_INDEX_STREAMS = 64
export const MAX_ID_BYTES = 512
export const MAX_STREAM_BYTES = 2 * MAX_ID_BYTES
/** virtio-blk devices that fit on a `pc` machine's bus, and more. */
export const MAX_DISKS = 64
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

/** The stream itself. MANIFEST_INVALID where its grids are not as long as it is. They have been through `hashBytesOf`. */
export function checkedStream(manifest: StreamManifest): StreamManifest {
  const { stream, holders, k, dataBytes, grids } = manifest
  const sizes = grids.map(({ symbolBytes }) => gridDataBytes({ columns: holders.length, k, symbolBytes }))
  const capacity = sizes.reduce((sum, size) => sum + size, 0)
  if (dataBytes > capacity || dataBytes <= capacity - (sizes.at(-1) ?? 0)) throw invalid(`the grids of ${stream}`)
  return manifest
}

/** MANIFEST_INVALID where there are none, or two of one name. */
export function streamNames(streams: readonly Pick<StreamManifest, 'stream'>[]): void {
  if (streams.length === 0 || new Set(streams.map(({ stream }) => stream)).size !== streams.length) {
    throw invalid('its streams')
  }
}

/** The manifest itself. MANIFEST_INVALID where its parts contradict each other. */
export function consistent(manifest: ImageManifest): ImageManifest {
  const { streams, machine, index, frames, boot = machine } = manifest
  streamNames(streams)
  for (const stream of streams) checkedStream(stream)
  for (const { offset, length } of [machine, index, frames, boot]) {
    if (offset + length > (streams.at(-1)?.dataBytes ?? 0)) throw invalid('a part lies outside of its stream')
  }
  return manifest
}

export const invalid = (what: string, cause?: unknown) =>
  new DiapauseError('MANIFEST_INVALID', `this is no manifest of an image, or one of another version: ${what}`, {
    cause
  })
