/**
 * QEMU's migration stream, both ways. Pure: bytes in, pages and bytes out.
 *
 * Reading: `SnapshotParser` takes a background snapshot as it comes. The stream is
 *
 *     'QEVM' version | configuration | section ram START: block list | section ram PART: pages … | devices … | EOF | vmdesc
 *
 * and a section is type, id, (name, instance, version at START and FULL), RAM records up to EOS, footer. A RAM record is
 * a u64: the page's offset with flags in its low 12 bits; then the block's name unless SAME_BLOCK; then one fill byte or
 * 4096 bytes. Devices have no lengths, so they are kept as they are (`device-sections.ts`). No record is larger than a page and its header, so that is all the parser
 * keeps between two chunks; a page that lies within a chunk is handed on as a view of it, not copied.
 *
 * A stream of devices alone (x-ignore-shared, device-state.ts) differs in two places, and is known by the first: the
 * configuration has a subsection that names the capability, and in the block list an address follows each length. The
 * shared blocks then have no pages. Both are dropped, so that the machine is the same however it was captured.
 *
 * Writing: `migration-writer.ts` (what a file holds), `devices-stream.ts` (no RAM) and `postcopy-stream.ts`, which are to be had
 * from here too.
 *
 * Checked against QEMU 7.2.22: everything is big-endian, RAM section version 4, pages of 4096 bytes. Whatever is not
 * known here (another version, compression, multifd, a second live section) is refused by name and never guessed.
 */
import { DiapauseError } from '../errors.ts'
import { readDevices } from './device-sections.ts'
import { IGNORE_SHARED } from './devices-stream.ts'
import {
  latin1,
  machineProblem,
  MAGIC,
  type MachineState,
  NAME_BYTES,
  PAGE,
  PAGE_BYTES,
  RAM_VERSION,
  type RamBlock,
  SECTION,
  STREAM_LIMITS,
  STREAM_VERSION
} from './migration-format.ts'

export {
  machineProblem,
  machineTypeOf,
  MAIN_BLOCK,
  type MachineState,
  PAGE_BYTES,
  type RamBlock,
  STREAM_LIMITS
} from './migration-format.ts'
export { devicesStream } from './devices-stream.ts'
export { migrationHead, migrationTail, ramPages } from './migration-writer.ts'
export { PostcopyFile } from './postcopy-file.ts'
export * from './postcopy-stream.ts'

const RECORD_BYTES = 8 + NAME_BYTES + PAGE_BYTES

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
 * _TRUNCATED. Each names the byte of the stream, also in `details.offset`: where the record begins that is wrong, or the
 * stream ends. What it says does not depend on where chunks end. After an error the parser is of no more use.
 */
export class SnapshotParser {
  readonly #handler: SnapshotHandler
  readonly #carry = new Uint8Array(2 * RECORD_BYTES)
  readonly #carryView = new DataView(this.#carry.buffer)
  #carried = 0
  /** Of all chunks before the one at hand. */
  #streamBytes = 0
  /** Where in the stream the item begins that is being parsed. */
  #itemAt = 0
  #state: State = 'magic'
  #config: Uint8Array | undefined
  /** Bytes behind each block's length. */
  #addressBytes = 0
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
      this.#itemAt = this.#streamBytes - had
      const used = this.#item(this.#carry, this.#carryView, 0, had + taken)
      if (used === 0) {
        this.#carried = had + taken
        if (taken < chunk.length) throw this.#invalid('a record is longer than any record can be')
        this.#streamBytes += chunk.length
        return
      }
      at = used - had
      this.#carried = 0
    }
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    while (at < chunk.length) {
      if (this.#state === 'devices') {
        this.#keepDevices(chunk.subarray(at))
        at = chunk.length
        break
      }
      this.#itemAt = this.#streamBytes + at
      const used = this.#item(chunk, view, at, chunk.length)
      if (used === 0) break
      at += used
    }
    const rest = chunk.length - at
    if (rest > this.#carry.length) throw this.#invalid('a record is longer than any record can be')
    this.#carry.set(chunk.subarray(at), 0)
    this.#carried = rest
    this.#streamBytes += chunk.length
  }

  /** The stream is over: the machine without its pages. */
  end(): MachineState {
    const [config, ramHeader, ramId, blocks] = [this.#config, this.#ramHeader, this.#ramId, this.#blocks]
    if (this.#state !== 'devices' || !config || !ramHeader) throw this.#truncated('before the device state')
    const all = this.#devices.subarray(0, this.#deviceBytes)
    const found = readDevices(all)
    if (found === undefined) throw this.#truncated('within the device state')
    if ('problem' in found) throw this.#invalid(found.problem, this.#streamBytes - all.length + found.at)
    const machine = { config, ramHeader, ramId, blocks, devices: all.slice(0, found.length) }
    const problem = machineProblem(machine)
    if (problem !== undefined) throw this.#invalid(problem, 0)
    return machine
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
    if (view.getUint32(at) !== MAGIC) throw this.#invalid('it does not begin with QEVM')
    const version = view.getUint32(at + 4)
    if (version !== STREAM_VERSION) throw this.#unsupported(`stream version ${version}, not ${STREAM_VERSION}`)
    this.#state = 'section'
    return 8
  }

  #section(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    const type = view.getUint8(at)
    if (!this.#config) {
      if (type !== SECTION.configuration) throw this.#unsupported('a stream without configuration section')
      return this.#configuration(bytes, view, at, end)
    }
    if (type === SECTION.subsection) return this.#capabilities(bytes, at, end)
    if (end - at < 5) return 0
    if (type === SECTION.part || type === SECTION.end) {
      const id = view.getUint32(at + 1)
      if (!this.#ramHeader || id !== this.#ramId) throw this.#unsupported(`a live section ${id} that is not ram`)
      this.#state = 'records'
      return 5
    }
    if (type !== SECTION.start && type !== SECTION.full)
      throw this.#invalid(`section type ${type} where a section begins`)
    if (end - at < 6) return 0
    const length = 6 + view.getUint8(at + 5) + 8
    if (end - at < length) return 0
    const name = latin1(bytes, at + 6, length - 14)
    if (name !== 'ram') {
      if (type === SECTION.start) throw this.#unsupported(`a live section of ${JSON.stringify(name)}`)
      if (!this.#ramHeader) throw this.#invalid('device state before RAM')
      this.#state = 'devices'
      this.#keepDevices(bytes.subarray(at, at + length))
      return length
    }
    const version = view.getUint32(at + length - 4)
    if (version !== RAM_VERSION) throw this.#unsupported(`RAM section version ${version}, not ${RAM_VERSION}`)
    if (this.#ramHeader || type !== SECTION.start) throw this.#invalid('RAM begins twice, or as what it is not')
    this.#ramId = view.getUint32(at + 1)
    this.#ramHeader = bytes.slice(at, at + length)
    this.#state = 'records'
    return length
  }

  #configuration(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    if (end - at < 5) return 0
    const length = view.getUint32(at + 1)
    if (length > STREAM_LIMITS.configBytes) throw this.#limit(`configuration of ${length} bytes`)
    if (end - at < 5 + length) return 0
    this.#config = bytes.slice(at, at + 5 + length)
    return 5 + length
  }

  /** Follows the configuration where a capability is on that changes the format. x-ignore-shared is the one known. */
  #capabilities(bytes: Uint8Array, at: number, end: number): number {
    if (this.#ramHeader || this.#addressBytes > 0) throw this.#invalid('a subsection where a section begins')
    if (end - at < IGNORE_SHARED.length) return 0
    if (IGNORE_SHARED.some((byte, i) => bytes[at + i] !== byte))
      throw this.#unsupported('a configuration not known here')
    this.#addressBytes = 8
    return IGNORE_SHARED.length
  }

  #blockEntry(bytes: Uint8Array, view: DataView, at: number, end: number): number {
    const nameLength = view.getUint8(at)
    const entryLength = 9 + nameLength + this.#addressBytes
    if (end - at < entryLength) return 0
    const name = latin1(bytes, at + 1, nameLength)
    const length = Number(view.getBigUint64(at + 1 + nameLength))
    if (nameLength === 0 || this.#blockByName.has(name)) throw this.#invalid('a RAM block without a name of its own')
    if (length === 0 || length % PAGE_BYTES !== 0 || length > this.#blockBytesLeft) {
      throw this.#invalid(`RAM block ${JSON.stringify(name)} of ${length} bytes`)
    }
    if (this.#blocks.length === STREAM_LIMITS.blocks) throw this.#limit(`more than ${STREAM_LIMITS.blocks} RAM blocks`)
    this.#blockByName.set(name, this.#blocks.length)
    this.#blocks.push({ name, length })
    this.#blockBytesLeft -= length
    if (this.#blockBytesLeft === 0) {
      this.#state = 'records'
      this.#handler.blocks(this.#blocks)
    }
    return entryLength
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
    if (kind !== PAGE.zero && kind !== PAGE.data)
      throw this.#unsupported(`RAM record with flags 0x${flags.toString(16)}`)
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
    if (length === undefined) throw this.#invalid('a page before any block was named')
    if (offset >= length) throw this.#invalid(`a page at ${offset}, behind the end of its block`)
    this.#block = block
    if (kind === PAGE.zero) {
      if (view.getUint8(next) !== 0) throw this.#unsupported('a page filled with a byte that is not zero')
      this.#handler.page(block, offset, undefined)
      return next + 1 - at
    }
    this.#handler.page(block, offset, bytes.subarray(next, next + PAGE_BYTES))
    return next + PAGE_BYTES - at
  }

  #memSize(total: number): number {
    if (this.#blocks.length > 0) throw this.#invalid('the list of RAM blocks comes twice')
    if (total === 0 || !Number.isSafeInteger(total)) throw this.#invalid(`RAM of ${total} bytes`)
    this.#blockBytesLeft = total
    this.#state = 'blocks'
    return 8
  }

  /** Pages come in runs of one block, so the last name is compared before the map is asked. */
  #blockNamed(bytes: Uint8Array, at: number, length: number): number {
    const name = latin1(bytes, at, length)
    if (this.#blocks[this.#block]?.name === name) return this.#block
    const block = this.#blockByName.get(name)
    if (block === undefined) throw this.#invalid(`a page of an unknown block ${JSON.stringify(name)}`)
    return block
  }

  #footer(view: DataView, at: number, end: number): number {
    if (end - at < 5) return 0
    if (view.getUint8(at) !== SECTION.footer || view.getUint32(at + 1) !== this.#ramId) {
      throw this.#invalid('a section without its footer')
    }
    this.#state = 'section'
    return 5
  }

  #keepDevices(bytes: Uint8Array): void {
    const size = this.#deviceBytes + bytes.length
    if (size > STREAM_LIMITS.deviceBytes)
      throw this.#limit(`device state of more than ${STREAM_LIMITS.deviceBytes} bytes`)
    if (size > this.#devices.length) {
      const larger = new Uint8Array(Math.max(size, 2 * this.#devices.length))
      larger.set(this.#devices.subarray(0, this.#deviceBytes))
      this.#devices = larger
    }
    this.#devices.set(bytes, this.#deviceBytes)
    this.#deviceBytes = size
  }

  #truncated(where: string): DiapauseError {
    const at = this.#streamBytes
    const message = `QEMU's stream ended at byte ${at}, ${where}: QEMU was stopped or has failed`
    return failed('TRUNCATED', message, at)
  }

  #invalid(what: string, at = this.#itemAt): DiapauseError {
    return failed('INVALID', `QEMU's stream is wrong at byte ${at}: ${what}`, at)
  }

  #unsupported(what: string): DiapauseError {
    const at = this.#itemAt
    return failed('UNSUPPORTED', `QEMU's stream uses at byte ${at} what is not supported here: ${what}`, at)
  }

  #limit(what: string): DiapauseError {
    return failed('LIMIT', `QEMU's stream is out of bounds at byte ${this.#itemAt}: ${what}`, this.#itemAt)
  }
}

const failed = (kind: string, message: string, offset: number) =>
  new DiapauseError(`MIGRATION_STREAM_${kind}`, message, { details: { offset } })
