/**
 * QEMU's migration stream, both ways. Pure: bytes in, pages and bytes out.
 *
 * Reading: `SnapshotParser` takes a background snapshot as it comes. The stream is
 *
 *     'QEVM' version | configuration | section ram START: block list | section ram PART: pages … | devices … | EOF | vmdesc
 *
 * and a section is type, id, (name, instance, version at START and FULL), RAM records up to EOS, footer. A RAM record is
 * a u64: the page's offset with flags in its low 12 bits; then the block's name unless SAME_BLOCK; then one fill byte or
 * 4096 bytes. Devices have no lengths, so they are kept as they are, and end where the stream ends with EOF and a
 * vmdesc section (JSON) whose length fits. No record is larger than a page and its header, so that is all the parser
 * keeps between two chunks; a page that lies within a chunk is handed on as a view of it, not copied.
 *
 * Writing: `postcopy*` make the stream of a post-copy migration out of a `MachineState`, in the order
 * header, pages of small blocks, discard, run, pages …, finish. `ReturnPath` reads what the target asks for.
 *
 * Checked against QEMU 7.2.22: everything is big-endian, RAM section version 4, pages of 4096 bytes. Whatever is not
 * known here (another version, compression, multifd, a second live section) is refused by name and never guessed.
 */
import { DiapauseError } from '../errors.ts'

export const PAGE_BYTES = 4096
/** The block that holds the guest's RAM; all others (ROMs, video memory, tables) are small. */
export const MAIN_BLOCK = 'pc.ram'

const MAGIC = 0x5145564d
const STREAM_VERSION = 3
const RAM_VERSION = 4
const SECTION = { eof: 0, start: 1, part: 2, end: 3, full: 4, vmdesc: 6, configuration: 7, command: 8, footer: 0x7e }
const PAGE = { zero: 0x02, memSize: 0x04, data: 0x08, eos: 0x10, sameBlock: 0x20 }
const COMMAND = {
  openReturnPath: 1,
  postcopyAdvise: 3,
  postcopyListen: 4,
  postcopyRun: 5,
  postcopyRamDiscard: 6,
  packaged: 7
}
const RETURN = { shut: 1, pong: 2, requestPagesOf: 3, requestPages: 4 }
const NAME_BYTES = 256 // a length byte and up to 255 more
const RECORD_BYTES = 8 + NAME_BYTES + PAGE_BYTES

/** Bounds of what a stream may make us keep: several times what a `pc` machine needs. */
export const STREAM_LIMITS = Object.freeze({
  configBytes: 2048,
  blocks: 256,
  deviceBytes: 64 << 20
})

export interface RamBlock {
  readonly name: string
  /** A multiple of 4096. */
  readonly length: number
}

/** All of a machine but its pages. `config` and `ramHeader` are sections as QEMU wrote them. */
export interface MachineState {
  readonly config: Uint8Array
  readonly ramHeader: Uint8Array
  readonly ramId: number
  readonly blocks: readonly RamBlock[]
  readonly devices: Uint8Array
}

export interface SnapshotHandler {
  /** The RAM blocks are known; comes once, before any page. */
  blocks(blocks: readonly RamBlock[]): void
  /** One page; `bytes` is undefined for a page of zeros, and else a view that is valid during the call only. */
  page(block: number, offset: number, bytes: Uint8Array | undefined): void
}

type State = 'magic' | 'section' | 'blocks' | 'records' | 'footer' | 'devices'

/**
 * Incremental parser of a background snapshot. `push` every chunk, then `end`.
 * Errors: MIGRATION_STREAM_INVALID (not such a stream), _UNSUPPORTED (a feature or version not known here), _LIMIT,
 * _TRUNCATED. After an error the parser is of no more use.
 */
export class SnapshotParser {
  readonly #handler: SnapshotHandler
  readonly #carry = new Uint8Array(2 * RECORD_BYTES)
  readonly #carryView = new DataView(this.#carry.buffer)
  #carried = 0
  #state: State = 'magic'
  #config: Uint8Array | undefined
  #ramHeader: Uint8Array | undefined
  #ramId = 0
  readonly #blocks: RamBlock[] = []
  readonly #blockByName = new Map<string, number>()
  #blockBytesLeft = 0
  #block = -1
  #devices = new Uint8Array(1 << 16)
  #deviceBytes = 0

  constructor(handler: SnapshotHandler) {
    this.#handler = handler
  }

  push(chunk: Uint8Array): void {
    let at = 0
    if (this.#carried > 0) {
      // The kept bytes are the beginning of one item, which therefore ends in this chunk or a later one.
      const had = this.#carried
      const taken = Math.min(chunk.length, this.#carry.length - had)
      this.#carry.set(chunk.subarray(0, taken), had)
      const used = this.#item(this.#carry, this.#carryView, 0, had + taken)
      if (used === 0) {
        this.#carried = had + taken
        if (taken < chunk.length) throw invalid('a record is longer than any record can be')
        return
      }
      at = used - had
      this.#carried = 0
    }
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    while (at < chunk.length) {
      if (this.#state === 'devices') return this.#keepDevices(chunk.subarray(at))
      const used = this.#item(chunk, view, at, chunk.length)
      if (used === 0) break
      at += used
    }
    const rest = chunk.length - at
    if (rest > this.#carry.length) throw invalid('a record is longer than any record can be')
    this.#carry.set(chunk.subarray(at), 0)
    this.#carried = rest
  }

  /** The stream is over: the machine without its pages. */
  end(): MachineState {
    if (this.#state !== 'devices' || !this.#config || !this.#ramHeader) throw truncated('before the device state')
    const all = this.#devices.subarray(0, this.#deviceBytes)
    const view = new DataView(all.buffer, all.byteOffset, all.byteLength)
    for (let i = all.length - 6; i > 0; i--) {
      if (all[i] === SECTION.eof && all[i + 1] === SECTION.vmdesc && view.getUint32(i + 2) === all.length - i - 6) {
        const devices = all.slice(0, i)
        return {
          config: this.#config,
          ramHeader: this.#ramHeader,
          ramId: this.#ramId,
          blocks: this.#blocks,
          devices
        }
      }
    }
    throw truncated('within the device state')
  }

  /** Parses one item at `at` and returns its length; 0 where it is not all there yet. */
  #item(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    switch (this.#state) {
      case 'magic':
        return this.#magic(view, at, end)
      case 'section':
        return this.#section(bytes, view, at, end)
      case 'blocks':
        return this.#blockEntry(bytes, view, at, end)
      case 'records':
        return this.#record(bytes, view, at, end)
      case 'footer':
        return this.#footer(view, at, end)
      case 'devices':
        return 0
    }
  }

  #magic(view: DataView, at: number, end: number): number {
    if (end - at < 8) return 0
    if (view.getUint32(at) !== MAGIC) throw invalid('it does not begin with QEVM')
    const version = view.getUint32(at + 4)
    if (version !== STREAM_VERSION) throw unsupported(`stream version ${version}, not ${STREAM_VERSION}`)
    this.#state = 'section'
    return 8
  }

  #section(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    const type = view.getUint8(at)
    if (!this.#config) {
      if (type !== SECTION.configuration) throw unsupported('a stream without configuration section')
      return this.#configuration(bytes, view, at, end)
    }
    if (end - at < 5) return 0
    if (type === SECTION.part || type === SECTION.end) {
      const id = view.getUint32(at + 1)
      if (!this.#ramHeader || id !== this.#ramId) throw unsupported(`a live section ${id} that is not ram`)
      this.#state = 'records'
      return 5
    }
    if (type !== SECTION.start && type !== SECTION.full) throw invalid(`section type ${type} where a section begins`)
    if (end - at < 6) return 0
    const length = 6 + view.getUint8(at + 5) + 8
    if (end - at < length) return 0
    const name = latin1(bytes, at + 6, length - 14)
    if (name !== 'ram') {
      if (type === SECTION.start) throw unsupported(`a live section of ${JSON.stringify(name)}`)
      if (!this.#ramHeader) throw invalid('device state before RAM')
      this.#state = 'devices'
      this.#keepDevices(bytes.subarray(at, at + length))
      return length
    }
    const version = view.getUint32(at + length - 4)
    if (version !== RAM_VERSION) throw unsupported(`RAM section version ${version}, not ${RAM_VERSION}`)
    if (this.#ramHeader) throw invalid('RAM begins twice')
    this.#ramId = view.getUint32(at + 1)
    this.#ramHeader = bytes.slice(at, at + length)
    this.#state = 'records'
    return length
  }

  #configuration(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    if (end - at < 5) return 0
    const length = view.getUint32(at + 1)
    if (length > STREAM_LIMITS.configBytes) throw limit(`configuration of ${length} bytes`)
    if (end - at < 5 + length) return 0
    this.#config = bytes.slice(at, at + 5 + length)
    return 5 + length
  }

  #blockEntry(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    const nameLength = view.getUint8(at)
    if (end - at < 9 + nameLength) return 0
    const name = latin1(bytes, at + 1, nameLength)
    const length = Number(view.getBigUint64(at + 1 + nameLength))
    if (nameLength === 0 || this.#blockByName.has(name)) throw invalid('a RAM block without a name of its own')
    if (length === 0 || length % PAGE_BYTES !== 0 || length > this.#blockBytesLeft) {
      throw invalid(`RAM block ${JSON.stringify(name)} of ${length} bytes`)
    }
    if (this.#blocks.length === STREAM_LIMITS.blocks) throw limit(`more than ${STREAM_LIMITS.blocks} RAM blocks`)
    this.#blockByName.set(name, this.#blocks.length)
    this.#blocks.push({ name, length })
    this.#blockBytesLeft -= length
    if (this.#blockBytesLeft === 0) {
      this.#state = 'records'
      this.#handler.blocks(this.#blocks)
    }
    return 9 + nameLength
  }

  #record(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    if (end - at < 8) return 0
    const low = view.getUint32(at + 4)
    const flags = low & 0xfff
    const offset = view.getUint32(at) * 0x1_0000_0000 + (low - flags)
    if (flags === PAGE.memSize) return this.#memSize(offset)
    if (flags === PAGE.eos) {
      this.#state = 'footer'
      return 8
    }
    const kind = flags & ~PAGE.sameBlock
    if (kind !== PAGE.zero && kind !== PAGE.data) throw unsupported(`RAM record with flags 0x${flags.toString(16)}`)
    let next = at + 8
    let block = this.#block
    if ((flags & PAGE.sameBlock) === 0) {
      if (next >= end) return 0
      const nameLength = view.getUint8(next)
      if (end < next + 1 + nameLength) return 0
      block = this.#blockNamed(bytes, next + 1, nameLength)
      next += 1 + nameLength
    }
    if (next + (kind === PAGE.zero ? 1 : PAGE_BYTES) > end) return 0
    const length = this.#blocks[block]?.length
    if (length === undefined) throw invalid('a page before any block was named')
    if (offset >= length) throw invalid(`a page at ${offset}, behind the end of its block`)
    this.#block = block
    if (kind === PAGE.zero) {
      if (view.getUint8(next) !== 0) throw unsupported('a page filled with a byte that is not zero')
      this.#handler.page(block, offset, undefined)
      return next + 1 - at
    }
    this.#handler.page(block, offset, bytes.subarray(next, next + PAGE_BYTES))
    return next + PAGE_BYTES - at
  }

  #memSize(total: number): number {
    if (this.#blocks.length > 0) throw invalid('the list of RAM blocks comes twice')
    if (total === 0 || !Number.isSafeInteger(total)) throw invalid(`RAM of ${total} bytes`)
    this.#blockBytesLeft = total
    this.#state = 'blocks'
    return 8
  }

  /** Pages come in runs of one block, so the last name is compared before the map is asked. */
  #blockNamed(bytes: Uint8Array, at: number, length: number): number {
    const name = latin1(bytes, at, length)
    if (this.#blocks[this.#block]?.name === name) return this.#block
    const block = this.#blockByName.get(name)
    if (block === undefined) throw invalid(`a page of an unknown block ${JSON.stringify(name)}`)
    return block
  }

  #footer(view: DataView, at: number, end: number): number {
    if (end - at < 5) return 0
    if (view.getUint8(at) !== SECTION.footer || view.getUint32(at + 1) !== this.#ramId) {
      throw invalid('a section without its footer')
    }
    this.#state = 'section'
    return 5
  }

  #keepDevices(bytes: Uint8Array): void {
    const size = this.#deviceBytes + bytes.length
    if (size > STREAM_LIMITS.deviceBytes) throw limit(`device state of more than ${STREAM_LIMITS.deviceBytes} bytes`)
    if (size > this.#devices.length) {
      const larger = new Uint8Array(Math.max(size, 2 * this.#devices.length))
      larger.set(this.#devices.subarray(0, this.#deviceBytes))
      this.#devices = larger
    }
    this.#devices.set(bytes, this.#deviceBytes)
    this.#deviceBytes = size
  }
}

// ---------------------------------------------------------------------------------------------- the source of a post-copy

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
    this.#handler.pages(this.#block, Number(view.getBigUint64(at)), view.getUint32(at + 8))
  }
}

// ---------------------------------------------------------------------------------------------- small pieces

function latin1(bytes: Uint8Array, at: number, length: number): string {
  let text = ''
  for (let i = at; i < at + length; i++) text += String.fromCharCode(bytes[i] ?? 0)
  return text
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

const invalid = (what: string) =>
  new DiapauseError('MIGRATION_STREAM_INVALID', `this is no migration stream of QEMU: ${what}`)
const unsupported = (what: string) =>
  new DiapauseError('MIGRATION_STREAM_UNSUPPORTED', `QEMU's stream uses what is not supported here: ${what}`)
const limit = (what: string) => new DiapauseError('MIGRATION_STREAM_LIMIT', `QEMU's stream is out of bounds: ${what}`)
const truncated = (where: string) =>
  new DiapauseError('MIGRATION_STREAM_TRUNCATED', `QEMU's stream ended ${where}: QEMU was stopped or has failed`)
const returnPath = (what: string) =>
  new DiapauseError('MIGRATION_STREAM_RETURN_PATH', `QEMU's return path brought what post-copy does not send: ${what}`)
