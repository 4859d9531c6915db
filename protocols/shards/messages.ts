/**
 * What peers say to each other about shards, on the channel 'bulk'. A message is
 *
 *   version:u8 = 1 | header bytes:u16 little-endian | header (MessagePack array) | payload (raw bytes, never packed)
 *
 * The header begins with kind and request id; the id is the asker's, and an answer repeats it. Every request is answered
 * once, with `ok` or `error`, or never (the connection broke, or the answer found no room): askers have timeouts, and
 * every request may be sent again, since each says what shall be and not what shall change.
 *
 * | kind        | header after kind and id    | payload       | the receiver must                                        |
 * |-------------|-----------------------------|---------------|----------------------------------------------------------|
 * | put         | stream, grid, column        | the column    | store it durably, then answer `ok`; SHARD_STALE for an   |
 * |             |                             |               | older generation than that of the VM's record            |
 * | get         | stream, grid, column,       |               | answer `ok` with the bytes of all ranges, end to end     |
 * |             | [offset, length, …]         |               |                                                          |
 * | putManifest | hash                        | the manifest  | check the hash, store durably, then answer `ok`          |
 * | getManifest | hash                        |               | answer `ok` with it, or MANIFEST_MISSING                 |
 * | have        | stream                      |               | answer `ok` with `packColumns`: the columns that it has  |
 * |             |                             |               | of the stream, and of how many grids each                |
 * | check       | stream, column, first grid, |               | read these columns of its disk to the end and check      |
 * |             | grids                       |               | them; answer `ok` with a byte for each: CHECKED          |
 * | file        | hash, offset                |               | answer `ok` with a piece of the file of that content that |
 * |             |                             |               | it keeps for VMs to boot from, empty at its end, or      |
 * |             |                             |               | FILE_MISSING                                             |
 * | paths       | paths of files              |               | answer `ok` with a byte for each: 1 where it has a file  |
 * |             |                             |               | there that a VM could boot from                          |
 * | repair      |                             |               | look at once for columns that it should rebuild; `ok`    |
 * | cancel      |                             |               | not answer the `get` of this id, if it has not yet; it   |
 * |             |                             |               | is itself not answered                                   |
 * | ok          |                             | as asked      | match it with its request; drop it where none waits      |
 * | error       | code, message               |               | likewise                                                 |
 */
import { DiapauseError } from '../../node/errors.ts'
import { type MsgpackLimits, packMessage, unpackMessage } from '../msgpack.ts'

const VERSION = 1
const PREFIX_BYTES = 3
const MAX_HEADER_BYTES = 4_096
const LIMITS: MsgpackLimits = { depth: 2, tokens: 256 }
/** Columns of a stream are at most 255. */
const HAVE_LIMITS: MsgpackLimits = { depth: 1, tokens: 1 + 2 * 255 }

/** The transport's largest bulk message (8 MiB) less the largest header: columns and manifests beyond it cannot travel. */
export const MAX_PAYLOAD_BYTES = (8 << 20) - PREFIX_BYTES - MAX_HEADER_BYTES
/** A codeword has at most 30 symbols, and no more are asked of one column at once. */
export const MAX_RANGES = 30
/** Grids of one column that are checked for one request: at most 80 MB, which a slow disk reads before askers give up. A guess. */
export const MAX_CHECKED = 16
/** What stands for each grid in the answer to a `check`. */
export const CHECKED = ['whole', 'damaged', 'missing'] as const
/** In one `paths`: two of each VM of a group. */
export const MAX_PATHS = 128
/** Of a `paths`, each of at most 4,096 bytes. */
const PATHS_LIMITS: MsgpackLimits = { depth: 1, tokens: 1 + MAX_PATHS }

export interface Range {
  readonly offset: number
  readonly length: number
}

/** A column of a stream, and in how many of its grids it is there. */
export interface HeldColumn {
  readonly column: number
  readonly grids: number
}

export type ShardRequest =
  | { kind: 'put'; id: number; stream: string; grid: number; column: number; payload: Uint8Array }
  | { kind: 'get'; id: number; stream: string; grid: number; column: number; ranges: readonly Range[] }
  | { kind: 'putManifest'; id: number; hash: string; payload: Uint8Array }
  | { kind: 'getManifest'; id: number; hash: string }
  | { kind: 'have'; id: number; stream: string }
  | { kind: 'check'; id: number; stream: string; column: number; firstGrid: number; grids: number }
  | { kind: 'repair'; id: number }
  | { kind: 'file'; id: number; hash: string; offset: number }
  | { kind: 'paths'; id: number; paths: readonly string[] }

export type ShardAnswer =
  | { kind: 'ok'; id: number; payload: Uint8Array }
  | { kind: 'error'; id: number; code: string; message: string }

/** Of the request with this id. */
export type ShardCancel = { kind: 'cancel'; id: number }

export type ShardMessage = ShardRequest | ShardAnswer | ShardCancel

/** `ok` as it is sent: the payload in pieces, so that nothing is copied. */
export type OutgoingOk = { kind: 'ok'; id: number; payload: readonly Uint8Array[] }
type Outgoing = Exclude<ShardMessage, { kind: 'ok' }> | OutgoingOk

/** By their numbers on the wire: new ones come last. `unused` was one that nobody ever sent. */
const KINDS = [
  'put',
  'get',
  'putManifest',
  'getManifest',
  'unused',
  'ok',
  'error',
  'have',
  'check',
  'repair',
  'cancel',
  'file',
  'paths'
] as const

/** The parts to hand to the transport. */
export function encodeMessage(message: Outgoing): Uint8Array[] {
  const header = packMessage([KINDS.indexOf(message.kind), message.id, ...fieldsOf(message)])
  const prefix = Buffer.alloc(PREFIX_BYTES)
  prefix[0] = VERSION
  prefix.writeUInt16LE(header.length, 1)
  const parts: Uint8Array[] = [prefix, header]
  if (message.kind === 'ok') parts.push(...message.payload)
  else if ('payload' in message) parts.push(message.payload)
  else if (message.kind === 'paths') parts.push(packMessage(message.paths))
  return parts
}

function fieldsOf(message: Outgoing): unknown[] {
  switch (message.kind) {
    case 'put':
      return [message.stream, message.grid, message.column]
    case 'get':
      return [
        message.stream,
        message.grid,
        message.column,
        message.ranges.flatMap(({ offset, length }) => [offset, length])
      ]
    case 'putManifest':
    case 'getManifest':
      return [message.hash]
    case 'have':
      return [message.stream]
    case 'check':
      return [message.stream, message.column, message.firstGrid, message.grids]
    case 'file':
      return [message.hash, message.offset]
    case 'ok':
    case 'repair':
    case 'cancel':
    case 'paths':
      return []
    case 'error':
      return [message.code.slice(0, 64), message.message.slice(0, 500)]
  }
}

/** Limits, then version, then shape. Payloads are views of `bytes`. SHARD_MESSAGE for anything else. */
export function parseMessage(bytes: Uint8Array): ShardMessage {
  if (bytes.length < PREFIX_BYTES) throw wrong('it is shorter than its prefix')
  if (bytes[0] !== VERSION)
    throw wrong(`its version is ${bytes[0]}, and this peer speaks ${VERSION}; update the older peer`)
  const headerBytes = (bytes[1] ?? 0) + 256 * (bytes[2] ?? 0)
  if (headerBytes > MAX_HEADER_BYTES || PREFIX_BYTES + headerBytes > bytes.length) throw wrong('its header is too long')
  const payload = bytes.subarray(PREFIX_BYTES + headerBytes)
  if (payload.length > MAX_PAYLOAD_BYTES) throw wrong(`its payload has ${payload.length} bytes`)
  const header = headerOf(bytes.subarray(PREFIX_BYTES, PREFIX_BYTES + headerBytes))
  const kind = KINDS[whole(header[0], KINDS.length - 1, 'kind')]
  const id = whole(header[1], Number.MAX_SAFE_INTEGER, 'id')
  const fields = header.slice(2)
  switch (kind) {
    case 'put':
      return { kind, id, ...placeOf(fields, 3), payload }
    case 'get':
      return { kind, id, ...placeOf(fields, 4), ranges: rangesOf(fields[3]) }
    case 'putManifest':
      arity(fields, 1)
      return { kind, id, hash: hashOf(fields), payload }
    case 'getManifest':
      arity(fields, 1)
      return { kind, id, hash: hashOf(fields) }
    case 'file':
      arity(fields, 2)
      return { kind, id, hash: hashOf(fields), offset: whole(fields[1], Number.MAX_SAFE_INTEGER, 'offset') }
    case 'paths':
      arity(fields, 0)
      return { kind, id, paths: pathsOf(payload) }
    case 'have':
      arity(fields, 1)
      return { kind, id, stream: text(fields[0], 255, 'stream') }
    case 'check':
      return { kind, id, ...checkOf(fields) }
    case 'repair':
    case 'cancel':
      arity(fields, 0)
      return { kind, id }
    case 'ok':
      arity(fields, 0)
      return { kind, id, payload }
    case 'error':
      arity(fields, 2)
      return { kind, id, code: text(fields[0], 64, 'code'), message: text(fields[1], 2_000, 'message') }
    default:
      throw wrong('its kind is unknown')
  }
}

function headerOf(bytes: Uint8Array): unknown[] {
  let header: unknown
  try {
    header = unpackMessage(bytes, LIMITS)
  } catch (cause) {
    throw wrong('its header is no MessagePack within limits', cause)
  }
  if (!Array.isArray(header)) throw wrong('its header is no array')
  return header
}

function placeOf(fields: unknown[], count: number): { stream: string; grid: number; column: number } {
  arity(fields, count)
  const grid = whole(fields[1], 0xffff_ffff, 'grid')
  return { stream: text(fields[0], 255, 'stream'), grid, column: whole(fields[2], 254, 'column') }
}

function checkOf(fields: unknown[]): { stream: string; column: number; firstGrid: number; grids: number } {
  arity(fields, 4)
  return {
    stream: text(fields[0], 255, 'stream'),
    column: whole(fields[1], 254, 'column'),
    firstGrid: whole(fields[2], 0xffff_ffff, 'grid'),
    grids: whole(fields[3], MAX_CHECKED, 'number of grids')
  }
}

function rangesOf(field: unknown): Range[] {
  if (!Array.isArray(field) || field.length === 0 || field.length % 2 !== 0 || field.length > 2 * MAX_RANGES) {
    throw wrong(`it asks for no ranges or for over ${MAX_RANGES}`)
  }
  const ranges: Range[] = []
  let total = 0
  for (let i = 0; i < field.length; i += 2) {
    const range = {
      offset: whole(field[i], 0xffff_ffff, 'offset'),
      length: whole(field[i + 1], MAX_PAYLOAD_BYTES, 'length')
    }
    total += range.length
    ranges.push(range)
  }
  if (total > MAX_PAYLOAD_BYTES) throw wrong(`it asks for ${total} bytes at once`)
  return ranges
}

/** The payload that answers a `have`. */
export function packColumns(columns: readonly HeldColumn[]): Uint8Array {
  const sent = columns.filter(({ column }) => column <= 254)
  return packMessage(sent.flatMap(({ column, grids }) => [column, grids]))
}

/** SHARD_MESSAGE for anything that `packColumns` does not make. */
export function parseColumns(payload: Uint8Array): HeldColumn[] {
  let flat: unknown
  try {
    flat = unpackMessage(payload, HAVE_LIMITS)
  } catch (cause) {
    throw wrong('its columns are no MessagePack within limits', cause)
  }
  if (!Array.isArray(flat) || flat.length % 2 !== 0) throw wrong('its columns are no pairs')
  const columns: HeldColumn[] = []
  for (let i = 0; i < flat.length; i += 2) {
    columns.push({ column: whole(flat[i], 254, 'column'), grids: whole(flat[i + 1], 2 ** 32, 'number of grids') })
  }
  return columns
}

function pathsOf(payload: Uint8Array): string[] {
  let paths: unknown
  try {
    paths = unpackMessage(payload, PATHS_LIMITS)
  } catch (cause) {
    throw wrong('its paths are no MessagePack within limits', cause)
  }
  if (!Array.isArray(paths)) throw wrong('its paths are no list')
  return paths.map(path => text(path, 4096, 'path'))
}

function hashOf(fields: unknown[]): string {
  const hash = text(fields[0], 64, 'hash')
  if (!/^[0-9a-f]{64}$/.test(hash)) throw wrong('its hash is no SHA-256 in hex')
  return hash
}

function arity(fields: unknown[], count: number): void {
  if (fields.length !== count) throw wrong(`it has ${fields.length} fields instead of ${count}`)
}

function whole(value: unknown, most: number, what: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= most) return value
  throw wrong(`its ${what} is no whole number up to ${most}`)
}

function text(value: unknown, most: number, what: string): string {
  if (typeof value === 'string' && value.length > 0 && value.length <= most) return value
  throw wrong(`its ${what} is no text of 1 to ${most} characters`)
}

function wrong(why: string, cause?: unknown): DiapauseError {
  return new DiapauseError('SHARD_MESSAGE', `a message about shards was refused: ${why}`, { cause })
}
