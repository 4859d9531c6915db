/**
 * How manifests of images and of streams are laid out, whatever they say:
 *
 *     magic | u8 format | u32 bytes of the header | header | more, as the header says | SHA-256 of all before
 *
 * The header is JSON, so that a person with `strings` understands one that nobody else can read any more. Numbers before it
 * are little-endian. Pure but for hashes.
 */
import { hash } from 'node:crypto'
import type { z } from 'zod'
import { messageOf } from '../errors.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { invalid, MAX_MANIFEST_BYTES } from './manifest-checks.ts'

const CHECK_BYTES = 32
/** Of 64 streams, each with a name and a hundred holders, a tenth of it. */
const MAX_HEADER_BYTES = 4 << 20

export function encodeFrame(
  magic: Uint8Array,
  format: number,
  header: string,
  more: readonly Uint8Array[]
): Uint8Array {
  const out = new ByteWriter(4096).raw(magic).u8(format).blob(Buffer.from(header))
  for (const bytes of more) out.raw(bytes)
  return out
    .raw(hash('sha256', out.bytes(), 'buffer'))
    .bytes()
    .slice()
}

/** Undefined where it does not begin with `magic`. MANIFEST_INVALID where it is larger than any may be. */
export function formatOf(bytes: Uint8Array, magic: Uint8Array): number | undefined {
  if (bytes.length > MAX_MANIFEST_BYTES) throw invalid(`${bytes.length} bytes`)
  const begins = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, magic.length)).equals(magic)
  return begins ? bytes[magic.length] : undefined
}

/** `bytes` begin with `magic` and a format. MANIFEST_INVALID where they are not whole. */
export function openFrame(bytes: Uint8Array, magic: Uint8Array): { header: Buffer; more: ByteReader } {
  if (bytes.length < magic.length + 1 + 4 + CHECK_BYTES) throw invalid('it does not begin as one')
  const checked = bytes.subarray(0, -CHECK_BYTES)
  if (!hash('sha256', checked, 'buffer').equals(bytes.subarray(-CHECK_BYTES)))
    throw invalid('it is damaged, or not whole')
  const more = new ByteReader(checked.subarray(magic.length + 1), invalid)
  return { header: Buffer.from(more.blob(MAX_HEADER_BYTES)), more }
}

export function parseHeader<S extends z.ZodType>(schema: S, header: Buffer): z.output<S> {
  try {
    return schema.parse(JSON.parse(header.toString()))
  } catch (cause) {
    throw invalid(`its header: ${messageOf(cause).slice(0, 300)}`, cause)
  }
}
