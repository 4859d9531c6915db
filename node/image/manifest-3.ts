/**
 * Manifests of format 3, which is read and not written any more (`manifest-frame.ts`): as those of today, of images that do not
 * say which pages a VM touches first. There is one encoding of each, and no other is taken. Pure but for hashes.
 */
import { z } from 'zod'
import { invalid, streamNames } from './manifest-checks.ts'
import type { ImageHead } from './manifest.ts'
import { openFrame, parseHeader } from './manifest-frame.ts'
import { disksSchema, imageOf, imageSchema, streamNamesSchema } from './manifest-schema.ts'

export const FORMAT_3 = 3

const headerSchema = z.strictObject({ ...imageSchema, disks: disksSchema, streams: streamNamesSchema })

/** `bytes` begin with `magic` and FORMAT_3. MANIFEST_INVALID. */
export function decodeManifest3(bytes: Uint8Array, magic: Uint8Array): ImageHead {
  const { header, more } = openFrame(bytes, magic)
  const { disks, ...rest } = parseHeader(headerSchema, header)
  more.end()
  streamNames(rest.streams)
  const head = { ...rest, ...(disks.length > 0 && { disks }) }
  if (!header.equals(Buffer.from(headerText(head)))) throw invalid('its header is written otherwise')
  return head
}

/** Names in a fixed order. */
function headerText(head: ImageHead): string {
  const disks = (head.disks ?? []).map(({ blocks }) => ({ blocks }))
  const streams = head.streams.map(({ stream, manifest }) => ({ stream, manifest }))
  return JSON.stringify({ ...imageOf(head), disks, streams } satisfies z.output<typeof headerSchema>)
}
