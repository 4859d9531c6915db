/**
 * A bound on MessagePack from the network, to be passed before a decoder sees it. msgpackr is fast and trusting: nesting
 * overflows its stack, a claimed length makes it reserve memory, and extension types reach `Error`, `RegExp` and code
 * generation (records). So the tokens are walked first: every length within the bytes at hand, a bounded number of
 * tokens, bounded depth, no extensions (but the one that stands for `undefined`), nothing after the value.
 *
 * Format: https://github.com/msgpack/msgpack/blob/master/spec.md
 */
import { Packr, Unpackr } from 'msgpackr'
import { DiapauseError, messageOf } from '../node/errors.ts'

export interface MsgpackLimits {
  readonly depth: number
  /** Values, keys and containers together. */
  readonly tokens: number
}

// No records: objects are plain maps, and what arrives can define no shapes.
const packr = new Packr({ useRecords: false })
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true })

/** Bytes of `value`: a view of a shared pool, never to be transferred to another thread. */
export function packMessage(value: unknown): Uint8Array {
  return packr.pack(value)
}

/** The value. Binary values in it are views of `bytes`. Throws MSGPACK_LIMIT or MSGPACK_SYNTAX. */
export function unpackMessage(bytes: Uint8Array, limits: MsgpackLimits): unknown {
  checkMsgpack(bytes, limits)
  try {
    return unpackr.unpack(bytes)
  } catch (cause) {
    throw new DiapauseError('MSGPACK_SYNTAX', `no MessagePack value: ${messageOf(cause)}`, { cause })
  }
}

const limit = (what: string): DiapauseError => new DiapauseError('MSGPACK_LIMIT', `MessagePack with ${what}`)
const syntax = (what: string): DiapauseError => new DiapauseError('MSGPACK_SYNTAX', `MessagePack with ${what}`)

/** Throws unless `bytes` is exactly one value within `limits`. Works without recursion and without reserving memory. */
export function checkMsgpack(bytes: Uint8Array, limits: MsgpackLimits): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  /** Values still to come in each open container, the outermost first. */
  const open: number[] = [1]
  let at = 0
  let tokens = 0
  while (open.length > 0) {
    const left = open[open.length - 1] as number
    if (left === 0) {
      open.pop()
      continue
    }
    open[open.length - 1] = left - 1
    if (++tokens > limits.tokens) throw limit(`over ${limits.tokens} values`)
    if (at >= bytes.length) throw syntax('a value cut short')
    const token = readToken(view, at)
    at += token.bytes
    if (at > bytes.length) throw syntax('a value cut short')
    if (token.children > 0) {
      if (token.children > bytes.length - at) throw syntax('more members claimed than there are bytes')
      if (open.length > limits.depth) throw limit(`nesting over ${limits.depth}`)
      open.push(token.children)
    }
  }
  if (at !== bytes.length) throw syntax('bytes after the value')
}

interface Token {
  /** Its own bytes, with the content of strings and binaries. */
  readonly bytes: number
  /** Values that follow and belong to it. */
  readonly children: number
}

const scalar = (bytes: number): Token => ({ bytes, children: 0 })

function readToken(view: DataView, at: number): Token {
  const type = view.getUint8(at)
  if (type <= 0x7f || type >= 0xe0) return scalar(1)
  if (type <= 0x8f) return { bytes: 1, children: (type & 0x0f) * 2 }
  if (type <= 0x9f) return { bytes: 1, children: type & 0x0f }
  if (type <= 0xbf) return scalar(1 + (type & 0x1f))
  const fixed = FIXED_BYTES[type]
  if (fixed !== undefined) return scalar(fixed)
  const width = LENGTH_BYTES[type]
  if (width !== undefined) {
    if (at + 1 + width > view.byteLength) throw syntax('a length cut short')
    const length = width === 1 ? view.getUint8(at + 1) : width === 2 ? view.getUint16(at + 1) : view.getUint32(at + 1)
    if (type >= 0xde) return { bytes: 1 + width, children: length * 2 }
    if (type >= 0xdc) return { bytes: 1 + width, children: length }
    return scalar(1 + width + length)
  }
  // fixext 1 of type 0 with byte 0 is how msgpackr writes `undefined`.
  if (type === 0xd4 && at + 3 <= view.byteLength && view.getUint16(at + 1) === 0) return scalar(3)
  throw syntax(`the forbidden type 0x${type.toString(16)}`)
}

/** nil, booleans, floats and integers: type → bytes with the type. */
const FIXED_BYTES: Readonly<Record<number, number>> = {
  0xc0: 1,
  0xc2: 1,
  0xc3: 1,
  0xca: 5,
  0xcb: 9,
  0xcc: 2,
  0xcd: 3,
  0xce: 5,
  0xcf: 9,
  0xd0: 2,
  0xd1: 3,
  0xd2: 5,
  0xd3: 9
}

/** Binaries, strings, arrays (0xdc, 0xdd) and maps (0xde, 0xdf): type → bytes of their length. */
const LENGTH_BYTES: Readonly<Record<number, number>> = {
  0xc4: 1,
  0xc5: 2,
  0xc6: 4,
  0xd9: 1,
  0xda: 2,
  0xdb: 4,
  0xdc: 2,
  0xdd: 4,
  0xde: 2,
  0xdf: 4
}
