/**
 * The source's side of a post-copy migration as bytes: what it sends, and the return path on which the target asks for
 * pages. Pure. The order is header, pages of small blocks, discard, run, then pages in any order, finish.
 */
import { DiapauseError } from '../errors.ts'
import { latin1, MAIN_BLOCK, type MachineState, NAME_BYTES, PAGE_BYTES, SECTION } from './migration-format.ts'
import { nameOf, ramEnd, ramSetup, streamHead, u32, u64 } from './migration-writer.ts'

export { type PageToSend, ramPages as postcopyPages } from './migration-writer.ts'

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
  return Buffer.concat([
    streamHead(machine),
    command(COMMAND.openReturnPath),
    command(COMMAND.postcopyAdvise, u64(PAGE_BYTES), u64(PAGE_BYTES)), // summary of page sizes, target's page size
    ramSetup(machine)
  ])
}

/** Of one command, whose length is a u16. */
const MAX_DISCARDS = 4000

/**
 * Discards all of RAM but the pages that were sent before it, ascending, the first of RAM not among them: so what the target's
 * kernel has put around them (a huge page for a small one) does not pass for what will come. Without pages, the first of
 * RAM alone is discarded. QEMU 7.2 must see at least one discard before 'listen':
 * else its state stays at 'advise', pages take the pre-copy path and the listening thread faults on its own memory.
 */
export function postcopyDiscard(sent: readonly number[] = [], ramPages = 1): Uint8Array {
  const ranges: Buffer[] = []
  let from = 0
  for (const page of [...sent, ramPages]) {
    if (page > from) ranges.push(Buffer.concat([u64(from * PAGE_BYTES), u64((page - from) * PAGE_BYTES)]))
    from = page + 1
  }
  const head = [Buffer.of(0), nameOf(MAIN_BLOCK), Buffer.of(0)] // version; the end of the name
  const commands: Buffer[] = []
  for (let at = 0; at < ranges.length; at += MAX_DISCARDS) {
    commands.push(command(COMMAND.postcopyRamDiscard, ...head, ...ranges.slice(at, at + MAX_DISCARDS)))
  }
  return Buffer.concat(commands)
}

/** Device state and the order to run, as one package. */
export function postcopyRun(machine: MachineState): Uint8Array {
  const body = Buffer.concat([command(COMMAND.postcopyListen), machine.devices, command(COMMAND.postcopyRun)])
  return Buffer.concat([command(COMMAND.packaged, u32(body.length)), body])
}

/** Every page has been sent. */
export function postcopyFinish(ramId: number): Uint8Array {
  return Buffer.concat([ramEnd(ramId), Buffer.of(SECTION.eof)])
}

/** What the target says when it has every page: that all went well. */
export const SHUT: Uint8Array = Uint8Array.of(0, RETURN.shut, 0, 4, 0, 0, 0, 0)

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

function u16(value: number): Buffer {
  const out = Buffer.alloc(2)
  out.writeUInt16BE(value)
  return out
}

const returnPath = (what: string) =>
  new DiapauseError('MIGRATION_STREAM_RETURN_PATH', `QEMU's return path brought what post-copy does not send: ${what}`)
