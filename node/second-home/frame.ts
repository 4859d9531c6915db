/**
 * How objects that describe others are laid out:
 *
 *     "diapause home KIND\n" | u8 format | u32 bytes of the header, little-endian | header, JSON | more | SHA-256 of all before
 *
 * JSON, so that a person with `strings` understands one that nobody else can read any more. Pure but for hashes.
 */
import { hash } from 'node:crypto'
import { z } from 'zod'
import { DiapauseError, messageOf } from '../errors.ts'
import { HOME_FORMAT } from './layout.ts'

const CHECK_BYTES = 32
/** Of an epoch of 64 VMs with 64 streams each, a hundred bytes a stream, a quarter of it. */
const MAX_HEADER_BYTES = 4 << 20

export type FrameKind = 'epoch' | 'stream'

const magicOf = (kind: FrameKind): Buffer => Buffer.from(`diapause home ${kind}\n`)

export function encodeFrame(kind: FrameKind, header: Uint8Array, more: Uint8Array): Uint8Array {
  const head = Buffer.alloc(5)
  head.writeUInt8(HOME_FORMAT, 0)
  head.writeUInt32LE(header.length, 1)
  const bytes = Buffer.concat([magicOf(kind), head, header, more])
  return Buffer.concat([bytes, hash('sha256', bytes, 'buffer')])
}

/** HOME_INVALID where it is not whole, not of this kind, or of another version. */
export function openFrame(kind: FrameKind, bytes: Uint8Array): { readonly header: Buffer; readonly more: Buffer } {
  const magic = magicOf(kind)
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  if (!all.subarray(0, magic.length).equals(magic)) throw invalid(`it does not begin as one of kind ${kind}`)
  const at = magic.length + 5
  if (all.length < at + CHECK_BYTES) throw invalid('it is not whole')
  const format = all.readUInt8(magic.length)
  if (format !== HOME_FORMAT) throw invalid(`it is of format ${format}, and this version reads ${HOME_FORMAT}`)
  const checked = all.subarray(0, -CHECK_BYTES)
  if (!hash('sha256', checked, 'buffer').equals(all.subarray(-CHECK_BYTES)))
    throw invalid('it is damaged, or not whole')
  const length = all.readUInt32LE(magic.length + 1)
  if (length > MAX_HEADER_BYTES || at + length > checked.length) throw invalid(`a header of ${length} bytes`)
  return { header: checked.subarray(at, at + length), more: checked.subarray(at + length) }
}

/** HOME_INVALID. */
export function parseJson<S extends z.ZodType>(schema: S, bytes: Uint8Array): z.output<S> {
  try {
    return schema.parse(JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString()))
  } catch (cause) {
    throw invalid(messageOf(cause).slice(0, 300), cause)
  }
}

export const invalid = (what: string, cause?: unknown) =>
  new DiapauseError('HOME_INVALID', `an object of the second home cannot be read: ${what}`, { cause })
