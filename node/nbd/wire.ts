/**
 * NBD on the wire: numbers, and the messages of a server. Pure. Source: doc/proto.md of the NBD project (github.com/
 * NetworkBlockDevice/nbd); all numbers are big endian.
 */

export const OPTION_MAGIC = 0x49484156454f5054n // IHAVEOPT
export const REQUEST_MAGIC = 0x25609513
const GREETING_MAGIC = 0x4e42444d41474943n // NBDMAGIC
const OPTION_REPLY_MAGIC = 0x3e889045565a9n
const SIMPLE_REPLY_MAGIC = 0x67446698
const STRUCTURED_REPLY_MAGIC = 0x668e33ef

export const OPTION_HEADER_BYTES = 16
export const REQUEST_BYTES = 28
export const COOKIE_BYTES = 8

/** Flags of both greetings. */
export const FIXED_NEWSTYLE = 1
export const NO_ZEROES = 2

export const Option = { abort: 2, list: 3, info: 6, go: 7, structuredReply: 8, listMeta: 9, setMeta: 10 } as const

export const OptionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x80000001,
  invalid: 0x80000003,
  unknown: 0x80000006
} as const

export const Info = { export: 0, blockSize: 3 } as const

export const Command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6, blockStatus: 7 } as const

/** Flags of commands. */
export const FORCE_UNIT_ACCESS = 1
export const ONE_EXTENT = 8

/** Errors of commands: Linux's numbers. */
export const NbdError = { notPermitted: 1, io: 5, invalid: 22 } as const

const Chunk = { none: 0, data: 1, hole: 2, blockStatus: 5, error: 0x8001 } as const
const LAST_CHUNK = 1

/** Says that flags follow, that the disk is never written, is flushed, and is the same on every connection. */
const DISK_FLAGS = 1 | 2 | 4 | 256

/** The only meta context, and its number. */
export const ALLOCATION = 'base:allocation'
const ALLOCATION_ID = 1
const STATE_HOLE = 1

const bytesOf = (...parts: readonly (string | Uint8Array | readonly [bytes: 2 | 4 | 8, value: number | bigint])[]) =>
  Buffer.concat(
    parts.map(part => {
      if (typeof part === 'string') return Buffer.from(part)
      if (part instanceof Uint8Array) return part
      const [bytes, value] = part
      const number = Buffer.alloc(8)
      number.writeBigUInt64BE(BigInt(value))
      return number.subarray(8 - bytes)
    })
  )

export const greeting = (): Uint8Array =>
  bytesOf([8, GREETING_MAGIC], [8, OPTION_MAGIC], [2, FIXED_NEWSTYLE | NO_ZEROES])

export const optionReply = (option: number, type: number, data: Uint8Array = new Uint8Array(0)): Uint8Array =>
  bytesOf([8, OPTION_REPLY_MAGIC], [4, option], [4, type], [4, data.length], data)

export const exportName = (name: string): Uint8Array => bytesOf([4, Buffer.byteLength(name)], name)

export const exportInfo = (bytes: number): Uint8Array => bytesOf([2, Info.export], [8, bytes], [2, DISK_FLAGS])

/** What clients should ask for: any range, best of `preferred` bytes, `most` at most. */
export const blockSizeInfo = (preferred: number, most: number): Uint8Array =>
  bytesOf([2, Info.blockSize], [4, 1], [4, preferred], [4, most])

/** A context is listed with number 0. */
export const metaContext = (listed: boolean): Uint8Array => bytesOf([4, listed ? 0 : ALLOCATION_ID], ALLOCATION)

/** Bytes of the disk follow where there is no error. */
export const simpleReply = (cookie: Uint8Array, error = 0): Uint8Array =>
  bytesOf([4, SIMPLE_REPLY_MAGIC], [4, error], cookie)

const chunk = (cookie: Uint8Array, type: number, last: boolean, bytes: number) =>
  bytesOf([4, STRUCTURED_REPLY_MAGIC], [2, last ? LAST_CHUNK : 0], [2, type], cookie, [4, bytes])

/** `length` bytes of the disk at `offset` follow. */
export const dataChunk = (cookie: Uint8Array, offset: number, length: number): Uint8Array =>
  bytesOf(chunk(cookie, Chunk.data, false, 8 + length), [8, offset])

export const holeChunk = (cookie: Uint8Array, offset: number, length: number): Uint8Array =>
  bytesOf(chunk(cookie, Chunk.hole, false, 12), [8, offset], [4, length])

export const errorChunk = (cookie: Uint8Array, error: number): Uint8Array =>
  bytesOf(chunk(cookie, Chunk.error, true, 6), [4, error], [2, 0])

/** Ends a reply of several chunks. */
export const endChunk = (cookie: Uint8Array): Uint8Array => chunk(cookie, Chunk.none, true, 0)

/**
 * Zeros are told as a hole whose content is not told, which the protocol allows. It is what QEMU takes for "nothing here":
 * its block-stream leaves such ranges alone, where it would fetch zeros that are told as such, and write them to a qcow2
 * layer as entries, 2 MiB for each GiB of the disk (block/nbd.c, nbd_client_co_block_status; block/stream.c).
 */
export function blockStatusChunk(
  cookie: Uint8Array,
  extents: readonly { readonly length: number; readonly zero: boolean }[]
): Uint8Array {
  const body = Buffer.alloc(4 + 8 * extents.length)
  body.writeUInt32BE(ALLOCATION_ID)
  for (const [i, { length, zero }] of extents.entries()) {
    body.writeUInt32BE(length, 4 + 8 * i)
    body.writeUInt32BE(zero ? STATE_HOLE : 0, 8 + 8 * i)
  }
  return bytesOf(chunk(cookie, Chunk.blockStatus, true, body.length), body)
}
