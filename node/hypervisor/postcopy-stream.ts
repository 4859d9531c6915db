/**
 * The source's side of a post-copy migration as bytes: what it sends, and the return path on which the target asks for
 * pages. Pure. The order is header, pages of small blocks, discard, run, then pages in any order, finish.
 */
import { DiapauseError } from '../errors.ts'
import {
  latin1,
  MAGIC,
  MAIN_BLOCK,
  type MachineState,
  NAME_BYTES,
  PAGE,
  PAGE_BYTES,
  SECTION,
  STREAM_VERSION
} from './migration-format.ts'

const COMMAND = {
  openReturnPath: 1,
  postcopyAdvise: 3,
  postcopyListen: 4,
  postcopyRun: 5,
  postcopyRamDiscard: 6,
  packaged: 7
}
const RETURN = { shut: 1, pong: 2, requestPagesOf: 3, requestPages: 4 }

/** What opens the stream: return path, post-copy advised, the list of RAM blocks. */
export function postcopyHeader(machine: MachineState): Uint8Array {
  const total = machine.blocks.reduce((sum, block) => sum + block.length, 0)
  return Buffer.concat([
    u32(MAGIC),
    u32(STREAM_VERSION),
    machine.config,
    command(COMMAND.openReturnPath),
    command(COMMAND.postcopyAdvise, u64(PAGE_BYTES), u64(PAGE_BYTES)), // summary of page sizes, target's page size
    machine.ramHeader,
    u64(total + PAGE.memSize),
    ...machine.blocks.flatMap(block => [name(block.name), u64(block.length)]),
    u64(PAGE.eos),
    footer(machine.ramId)
  ])
}

export interface PageToSend {
  readonly offset: number
  /** 4096 bytes; undefined: zeros. */
  readonly bytes: Uint8Array | undefined
}

/** One section with pages of one block. The bytes are copied. */
export function postcopyPages(ramId: number, block: string, pages: readonly PageToSend[]): Uint8Array {
  const blockName = name(block)
  let size = 5 + 8 + 5 + (pages.length > 0 ? blockName.length : 0)
  for (const page of pages) size += 8 + (page.bytes ? PAGE_BYTES : 1)
  const out = Buffer.allocUnsafe(size)
  let at = out.writeUInt8(SECTION.part, 0)
  at = out.writeUInt32BE(ramId, at)
  let same = 0
  for (const page of pages) {
    at = putU64(out, page.offset + (page.bytes ? PAGE.data : PAGE.zero) + same, at)
    if (same === 0) at += blockName.copy(out, at)
    same = PAGE.sameBlock
    if (page.bytes) {
      out.set(page.bytes, at)
      at += PAGE_BYTES
    } else at = out.writeUInt8(0, at)
  }
  at = putU64(out, PAGE.eos, at)
  at = out.writeUInt8(SECTION.footer, at)
  out.writeUInt32BE(ramId, at)
  return out
}

/**
 * Discards the first page of RAM, which must not have been sent. QEMU 7.2 must see at least one discard before 'listen':
 * else its state stays at 'advise', pages take the pre-copy path and the listening thread faults on its own memory.
 */
export function postcopyDiscard(): Uint8Array {
  const version = Buffer.of(0)
  return command(COMMAND.postcopyRamDiscard, version, name(MAIN_BLOCK), Buffer.of(0), u64(0), u64(PAGE_BYTES))
}

/** Device state and the order to run, as one package. */
export function postcopyRun(machine: MachineState): Uint8Array {
  const body = Buffer.concat([command(COMMAND.postcopyListen), machine.devices, command(COMMAND.postcopyRun)])
  return Buffer.concat([command(COMMAND.packaged, u32(body.length)), body])
}

/** Every page has been sent. */
export function postcopyFinish(ramId: number): Uint8Array {
  return Buffer.concat([Buffer.of(SECTION.end), u32(ramId), u64(PAGE.eos), footer(ramId), Buffer.of(SECTION.eof)])
}

export interface ReturnPathHandler {
  /** The target lacks bytes [offset, offset + length) of a block. */
  pages(block: string, offset: number, length: number): void
  /** The target is done; 0 is success. */
  shut(status: number): void
  pong(value: number): void
}

/**
 * Reads the return path: u16 type, u16 length, body. Keeps at most one message.
 * MIGRATION_STREAM_RETURN_PATH for anything that post-copy does not send.
 */
export class ReturnPath {
  readonly #handler: ReturnPathHandler
  #rest = new Uint8Array(0)
  #block: string | undefined

  constructor(handler: ReturnPathHandler) {
    this.#handler = handler
  }

  push(chunk: Uint8Array): void {
    let bytes = chunk
    if (this.#rest.length > 0) {
      bytes = new Uint8Array(this.#rest.length + chunk.length)
      bytes.set(this.#rest)
      bytes.set(chunk, this.#rest.length)
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    let at = 0
    while (bytes.length - at >= 4) {
      const type = view.getUint16(at)
      const length = view.getUint16(at + 2)
      if (length > 12 + NAME_BYTES) throw returnPath(`message ${type} of ${length} bytes`)
      if (bytes.length - at < 4 + length) break
      this.#message(type, bytes, view, at + 4, length)
      at += 4 + length
    }
    this.#rest = bytes.slice(at)
  }

  #message(type: number, bytes: Uint8Array, view: DataView, at: number, length: number): void {
    if (type === RETURN.shut || type === RETURN.pong) {
      if (length !== 4) throw returnPath(`message ${type} of ${length} bytes`)
      const value = view.getUint32(at)
      return type === RETURN.shut ? this.#handler.shut(value) : this.#handler.pong(value)
    }
    if (type === RETURN.requestPagesOf && length > 13 && length === 13 + view.getUint8(at + 12)) {
      this.#block = latin1(bytes, at + 13, length - 13)
    } else if (type !== RETURN.requestPages || length !== 12) {
      throw returnPath(`message ${type} of ${length} bytes`)
    }
    if (this.#block === undefined) throw returnPath('a page request before any block was named')
    const [offset, count] = [Number(view.getBigUint64(at)), view.getUint32(at + 8)]
    if (!Number.isSafeInteger(offset + count)) throw returnPath(`a request of ${count} bytes at ${offset}`)
    this.#handler.pages(this.#block, offset, count)
  }
}

function command(id: number, ...data: Uint8Array[]): Buffer {
  const body = Buffer.concat(data)
  return Buffer.concat([Buffer.of(SECTION.command), u16(id), u16(body.length), body])
}

const footer = (ramId: number): Buffer => Buffer.concat([Buffer.of(SECTION.footer), u32(ramId)])
const name = (text: string): Buffer => Buffer.concat([Buffer.of(text.length), Buffer.from(text, 'latin1')])

function u16(value: number): Buffer {
  const out = Buffer.alloc(2)
  out.writeUInt16BE(value)
  return out
}

function u32(value: number): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32BE(value)
  return out
}

function u64(value: number): Buffer {
  const out = Buffer.alloc(8)
  putU64(out, value, 0)
  return out
}

function putU64(out: Buffer, value: number, at: number): number {
  out.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at)
  return out.writeUInt32BE(value % 0x1_0000_0000, at + 4)
}

const returnPath = (what: string) =>
  new DiapauseError('MIGRATION_STREAM_RETURN_PATH', `QEMU's return path brought what post-copy does not send: ${what}`)
