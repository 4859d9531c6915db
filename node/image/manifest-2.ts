/**
 * Manifests of format 2, which is read and not written any more (`manifest-frame.ts`): all that is known of the image's
 * streams stands in the image's own manifest, their hashes behind the header. There is one encoding of each, and no other
 * is taken. Pure but for hashes.
 */
import { z } from 'zod'
import type { ImageManifest } from '../ports.ts'
import { consistent, invalid, MAX_INDEX_STREAMS } from './manifest-checks.ts'
import { openFrame, parseHeader } from './manifest-frame.ts'
import { imageOf, imageSchema } from './manifest-schema.ts'
import { readGrids, shardsOf, shardsSchema } from './stream-manifest.ts'

export const FORMAT_2 = 2

const MADE = {
  pages: '4096 bytes, 16 to an extent',
  packed: 'zstd',
  sealed: 'AES-256-GCM',
  coded: 'Reed-Solomon on diagonals',
  hashed: 'SHA-256, first 16 bytes of each symbol'
} as const

const { machine, index, frames, stats, ...about } = imageSchema

const headerSchema = z.strictObject({
  ...about,
  made: z.strictObject({
    pages: z.literal(MADE.pages),
    packed: z.literal(MADE.packed),
    sealed: z.literal(MADE.sealed),
    coded: z.literal(MADE.coded),
    hashed: z.literal(MADE.hashed)
  }),
  machine,
  index,
  frames,
  stats,
  streams: z.array(z.strictObject(shardsSchema)).min(1).max(MAX_INDEX_STREAMS)
})

/** `bytes` begin with `magic` and FORMAT_2. MANIFEST_INVALID. */
export function decodeManifest2(bytes: Uint8Array, magic: Uint8Array): ImageManifest {
  const { header, more } = openFrame(bytes, magic)
  const { made: _, streams, ...rest } = parseHeader(headerSchema, header)
  const manifest = consistent({ ...rest, streams: streams.map(stream => readGrids(stream, more)) })
  more.end()
  if (!header.equals(Buffer.from(headerText(manifest)))) throw invalid('its header is written otherwise')
  return manifest
}

/** Names in a fixed order. */
function headerText(manifest: ImageManifest): string {
  const { machine, index, frames, stats, ...about } = imageOf(manifest)
  const parts = { machine, index, frames, stats }
  return JSON.stringify({ ...about, made: MADE, ...parts, streams: manifest.streams.map(shardsOf) })
}
