/**
 * The manifest of an image as bytes, format 4 (`manifest-frame.ts`): what the image is of, where its parts are, and the
 * streams that it leans on, each by its id and by the hash of that stream's own manifest (`stream-manifest.ts`), which was
 * stored with the epoch that made the stream. So what an epoch stores is one manifest of a stream and one of an image, and
 * both are as large as what has changed.
 *
 * Whoever has a manifest alone can tell whether it is whole, by the checksum at its end. It is named by the SHA-256 of all its
 * bytes, and a group's register holds that name: so whoever has the name can check that the manifest, and through the
 * hashes in it those of its streams and every symbol, is what was committed. There is one encoding of each manifest, and
 * decoding takes no other.
 *
 * What changes here is a new format; older ones stay readable (`manifest-1.ts` to `manifest-3.ts`; one of each is kept in
 * `test/unit/image/fixtures`). Pure but for hashes.
 */
import { hash } from 'node:crypto'
import { z } from 'zod'
import { talkOf, talksSchema } from '../../protocols/talks.ts'
import type { ByteRange, ImageManifest, StreamId, StreamManifest } from '../ports.ts'
import { decodeManifest1, FORMAT_1 } from './manifest-1.ts'
import { decodeManifest2, FORMAT_2 } from './manifest-2.ts'
import { decodeManifest3, FORMAT_3 } from './manifest-3.ts'
import { consistent, invalid, streamNames } from './manifest-checks.ts'
import { encodeFrame, formatOf, openFrame, parseHeader } from './manifest-frame.ts'
import { disksSchema, imageOf, imageSchema, rangeOf, rangeSchema, streamNamesSchema } from './manifest-schema.ts'
import { decodeStreamManifest, encodeStreamManifest, isStreamManifest, type StoredObject } from './stream-manifest.ts'

const MAGIC = Buffer.from('diapause image\n')
const FORMAT = 4

/** Of an image without one. */
const NO_BOOT: ByteRange = { offset: 0, length: 0 }

const headerSchema = z.strictObject({
  ...imageSchema,
  boot: rangeSchema,
  disks: disksSchema,
  streams: streamNamesSchema,
  /** Absent: none. */
  talks: talksSchema.optional()
})

/** An image whose streams' own manifests are elsewhere. */
export type ImageHead = Omit<ImageManifest, 'streams'> & { readonly streams: readonly StreamName[] }

export interface StreamName {
  readonly stream: StreamId
  /** Hash of the stream's manifest. */
  readonly manifest: string
}

/** Hex SHA-256: the manifest's name. */
export const manifestHash = (bytes: Uint8Array): string => hash('sha256', bytes)

/** Hashes of the manifests of streams that were read or written: a stream never changes. */
const names = new WeakMap<StreamManifest, string>()

function nameOf(stream: StreamManifest): string {
  let name = names.get(stream)
  if (name === undefined) {
    name = encodeStreamManifest(stream).hash
    names.set(stream, name)
  }
  return name
}

/** The name of the image, and what is to be stored of it: older streams' manifests have been stored by then. */
export function encodeManifest(manifest: ImageManifest): { hash: string; objects: readonly StoredObject[] } {
  const last = manifest.streams.at(-1)
  if (last === undefined) throw invalid('its streams')
  const own = encodeStreamManifest(last)
  names.set(last, own.hash)
  const streams = manifest.streams.map(stream => ({ stream: stream.stream, manifest: nameOf(stream) }))
  const bytes = encodeFrame(MAGIC, FORMAT, headerText({ ...manifest, streams }), [])
  const image = { hash: manifestHash(bytes), bytes }
  return { hash: image.hash, objects: [own, image] }
}

/** MANIFEST_INVALID for anything that `encodeManifest`, of this version or an older one, would not have written. */
export function decodeManifest(bytes: Uint8Array): ImageManifest | ImageHead {
  const format = formatOf(bytes, MAGIC)
  if (format === undefined && bytes[0] === FORMAT_1) return decodeManifest1(bytes)
  if (format === FORMAT_2) return decodeManifest2(bytes, MAGIC)
  if (format === FORMAT_3) return decodeManifest3(bytes, MAGIC)
  if (format === undefined) throw invalid('it does not begin as one')
  if (format !== FORMAT) throw invalid(`format ${format}, and this version reads ${FORMAT_1} to ${FORMAT}`)
  const { header, more } = openFrame(bytes, MAGIC)
  const { disks, boot, talks, ...rest } = parseHeader(headerSchema, header)
  more.end()
  streamNames(rest.streams)
  const parts = { ...(disks.length > 0 && { disks }), ...(boot.length > 0 && { boot }) }
  const head = { ...rest, ...parts, ...(talks !== undefined && { talks }) }
  if (!header.equals(Buffer.from(headerText(head)))) throw invalid('its header is written otherwise')
  return head
}

/** Names in a fixed order. */
function headerText(head: ImageHead): string {
  const disks = (head.disks ?? []).map(({ blocks }) => ({ blocks }))
  const streams = head.streams.map(({ stream, manifest }) => ({ stream, manifest }))
  const boot = rangeOf(head.boot ?? NO_BOOT)
  const talks = head.talks?.length ? { talks: head.talks.map(talkOf) } : {}
  return JSON.stringify({ ...imageOf(head), boot, disks, streams, ...talks } satisfies z.output<typeof headerSchema>)
}

/** `get`: the bytes of that name, as they should be. MANIFEST_INVALID, and what `get` rejects with. */
export async function readManifest(name: string, get: (hash: string) => Promise<Uint8Array>): Promise<ImageManifest> {
  const manifest = decodeManifest(await get(name))
  if (isWhole(manifest)) return manifest
  const streams = await Promise.all(
    manifest.streams.map(async ({ stream, manifest: hash }) => streamOf(stream, hash, await get(hash)))
  )
  return consistent({ ...manifest, streams })
}

function isWhole(manifest: ImageManifest | ImageHead): manifest is ImageManifest {
  return manifest.streams.every(stream => 'grids' in stream)
}

function streamOf(stream: StreamId, name: string, bytes: Uint8Array): StreamManifest {
  if (manifestHash(bytes) !== name) throw invalid(`the manifest of ${stream} is another`)
  const manifest = decodeStreamManifest(bytes)
  if (manifest.stream !== stream)
    throw invalid(`what should be the manifest of ${stream} is that of ${manifest.stream}`)
  names.set(manifest, name)
  return manifest
}

/** What an object that `encodeManifest` made, of this version or an older one, is of, and what it leads to. MANIFEST_INVALID. */
export function describeManifest(bytes: Uint8Array): {
  readonly about: StreamId
  readonly streams: readonly { readonly stream: StreamId; readonly manifest?: string }[]
} {
  if (isStreamManifest(bytes)) return { about: decodeStreamManifest(bytes).stream, streams: [] }
  const { group, vm, generation, epoch, streams } = decodeManifest(bytes)
  return { about: `${group}/${vm}/${generation}/${epoch}`, streams }
}
