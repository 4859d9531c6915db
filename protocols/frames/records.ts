/**
 * The frames protocol: what two switches say to each other over the `frames` channel. One message is a batch of records
 * of one group and generation. Integers are big-endian.
 *
 *     batch   u8 format = 2, name group, u32 generation, records to the end
 *     name    u8 length (1..255), UTF-8
 *     record  u8 kind, then
 *             kind 1, a frame: from, packet
 *             kind 2, a turn: from; the source is of `colour` now and had sent `sequence` frames to this destination before
 *             kind 3, a name: takes the next place in the batch's table of names, from 0
 *             kind 4, a frame to a VM of another group: u8 source, u8 group, u8 destination (places), packet
 *     from    u8 source, u8 destination (places in the table of names), u32 colour, u48 sequence
 *     packet  u8 number of the receiving NIC, u24 length, the Ethernet frame
 *
 * VMs go by name and not by a place in the group's record, so that peers which know different versions of that record
 * understand each other; a name stands before its first use, so that a batch can be written as its frames come. NIC and
 * length stand right before a frame, where QEMU's `-netdev stream` has a u32 length: for a VM's first NIC both are the
 * same, and what comes in from one side goes out on the other as it is.
 */
import { DiapauseError } from '../../node/errors.ts'

/** NET_BUFSIZE of QEMU is larger, but no Ethernet frame is: 64 KiB of IP packet and its header. */
export const MAX_FRAME_BYTES = 65_550
/** Two MAC addresses and a type. */
export const MIN_FRAME_BYTES = 14
/** A batch is sent when it has grown to this. 64 KiB: one Noise record's worth. */
export const BATCH_TARGET_BYTES = 65_536
/** No honest batch is larger: the target, one frame beyond it, and the largest table of names. */
export const MAX_BATCH_BYTES = BATCH_TARGET_BYTES + MAX_FRAME_BYTES + 257 * 257 + 64

const FORMAT = 2
const KIND_FRAME = 1
const KIND_TURN = 2
const KIND_NAME = 3
const KIND_FOREIGN = 4
const FOREIGN_HEAD_BYTES = 4
const RECORD_HEAD_BYTES = 13
const MAX_NAME_BYTES = 255
const MAX_NAMES = 255
/** Of a frame to a VM of another group. */
const NAMES_OF_RECORD = 3
const EMPTY = Buffer.alloc(0)
/** A few small frames; larger batches grow. */
const MIN_BUFFER_BYTES = 1024

export interface FrameRecord {
  readonly source: string
  readonly destination: string
  readonly colour: number
  /** Of a frame: its number in the channel, from 1. Of a turn: frames sent before it. */
  readonly sequence: number
  /** Of the destination. Where a record is written, it takes the place of what the packet says. */
  readonly nic: number
  /** u8 NIC, u24 length and the frame; undefined: a turn record. */
  readonly packet: Uint8Array | undefined
  /** The destination's, where it is not the batch's: `colour` and `sequence` are 0 then. */
  readonly group?: string
}

export interface FrameBatch {
  readonly group: string
  readonly generation: number
  readonly records: readonly FrameRecord[]
}

/** Writes batches of one group and generation, one after the other: each frame is copied once, as it comes. */
export class BatchWriter {
  readonly #group: Buffer
  readonly #generation: number
  #out = Buffer.alloc(0)
  #bytes = 0
  #frames = 0
  #turns = 0
  readonly #places = new Map<string, number>()
  /** What the last batch needed: the next is likely to need as much. */
  #sizeHint = MIN_BUFFER_BYTES

  /** Throws RangeError on a name that the format has no room for, as `add` does. */
  constructor(group: string, generation: number) {
    this.#group = nameBytes(group)
    this.#generation = generation
  }

  /** Of the batch that is being written; 0: nothing has been added. */
  get bytes(): number {
    return this.#bytes
  }

  /** There may be no room for the names of another record: to be taken first. */
  get full(): boolean {
    return this.#places.size > MAX_NAMES - NAMES_OF_RECORD
  }

  /** Not where it is `full`. */
  add(record: FrameRecord): void {
    if (this.#bytes === 0) this.#begin()
    const { packet, group } = record
    // The records of names are written before the record that needs them.
    const source = this.#placeOf(record.source)
    const between = group === undefined ? undefined : this.#placeOf(group)
    const destination = this.#placeOf(record.destination)
    this.#reserve(RECORD_HEAD_BYTES + (packet?.length ?? 0))
    const out = this.#out
    const at = this.#bytes
    out[at + 1] = source
    if (between === undefined) {
      out[at] = packet === undefined ? KIND_TURN : KIND_FRAME
      out[at + 2] = destination
      out.writeUInt32BE(record.colour, at + 3)
      out.writeUIntBE(record.sequence, at + 7, 6)
      this.#bytes += RECORD_HEAD_BYTES
    } else {
      out[at] = KIND_FOREIGN
      out[at + 2] = between
      out[at + 3] = destination
      this.#bytes += FOREIGN_HEAD_BYTES
    }
    if (packet === undefined) this.#turns++
    else this.#addPacket(packet, record.nic)
  }

  #addPacket(packet: Uint8Array, nic: number): void {
    this.#out.set(packet, this.#bytes)
    this.#out[this.#bytes] = nic
    this.#bytes += packet.length
    this.#frames++
  }

  /** The batch, the caller's now, and how many frames and turns are in it. */
  take(): { readonly message: Uint8Array; readonly frames: number; readonly turns: number } {
    const taken = { message: this.#out.subarray(0, this.#bytes), frames: this.#frames, turns: this.#turns }
    this.#sizeHint = Math.max(MIN_BUFFER_BYTES, 2 ** Math.ceil(Math.log2(this.#bytes)))
    this.#out = EMPTY
    this.#bytes = 0
    this.#frames = 0
    this.#turns = 0
    this.#places.clear()
    return taken
  }

  #begin(): void {
    const group = this.#group
    // Of the pool where it is small: memory of its own would cost as much as the rest of a batch of one frame.
    this.#out = Buffer.allocUnsafe(Math.max(this.#sizeHint, group.length + MIN_BUFFER_BYTES))
    this.#out[0] = FORMAT
    this.#bytes = this.#out.writeUInt32BE(this.#generation, putName(this.#out, 1, group))
  }

  #placeOf(vm: string): number {
    let place = this.#places.get(vm)
    if (place === undefined) {
      place = this.#places.size
      if (place >= MAX_NAMES) throw new RangeError(`more than ${MAX_NAMES} VMs in one batch of frames`)
      const name = nameBytes(vm)
      this.#reserve(2 + name.length)
      this.#out[this.#bytes] = KIND_NAME
      this.#bytes = putName(this.#out, this.#bytes + 1, name)
      this.#places.set(vm, place)
    }
    return place
  }

  #reserve(count: number): void {
    const needed = this.#bytes + count
    if (needed <= this.#out.length) return
    const grown = Buffer.allocUnsafeSlow(Math.max(needed, this.#out.length * 2))
    grown.set(this.#out.subarray(0, this.#bytes))
    this.#out = grown
  }
}

/**
 * Checks everything; packets are views of `message`. FRAMES_FORMAT: of another version of diapause. FRAMES_MALFORMED:
 * anything else that `BatchWriter` does not make.
 */
export function decodeBatch(message: Uint8Array): FrameBatch {
  if (message.length > MAX_BATCH_BYTES) throw malformed(`${message.length} bytes; at most ${MAX_BATCH_BYTES}`)
  const reader = new Reader(Buffer.isBuffer(message) ? message : bufferOf(message))
  const format = reader.u8()
  if (format !== FORMAT) {
    throw new DiapauseError(
      'FRAMES_FORMAT',
      `frames of format ${format} have come, this peer speaks ${FORMAT}: run the same version of diapause on all peers`
    )
  }
  const group = reader.name()
  const generation = reader.u32()
  const names: string[] = []
  const records: FrameRecord[] = []
  while (!reader.ended) {
    const kind = reader.u8()
    if (kind !== KIND_NAME) records.push(reader.record(kind, names))
    else if (names.length < MAX_NAMES) names.push(reader.name())
    else throw malformed(`more than ${MAX_NAMES} names`)
  }
  return { group, generation, records }
}

const bufferOf = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)

interface KnownName {
  readonly bytes: Uint8Array
  readonly name: string
}

/** As many as differ in the sum below; the last name with each. */
const knownNames: (KnownName | undefined)[] = Array.from({ length: 256 })

/**
 * The same few names come with every batch, and a string that was made once is found in maps at once, where a new one is
 * decoded, checked and hashed first. FRAMES_MALFORMED.
 */
function nameOf(bytes: Buffer, from: number, length: number): string {
  let sum = length
  for (let i = 0; i < length; i++) sum = (sum * 31 + (bytes[from + i] as number)) & 0xff
  const known = knownNames[sum]
  if (known !== undefined && isAt(bytes, from, length, known.bytes)) return known.name
  const name = bytes.toString('utf8', from, from + length)
  const own = Buffer.from(name)
  if (!isAt(bytes, from, length, own)) throw malformed('a name that is not UTF-8')
  knownNames[sum] = { bytes: own, name }
  return name
}

function isAt(bytes: Uint8Array, from: number, length: number, wanted: Uint8Array): boolean {
  if (wanted.length !== length) return false
  for (let i = 0; i < length; i++) if (bytes[from + i] !== wanted[i]) return false
  return true
}

class Reader {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get ended(): boolean {
    return this.#at === this.#bytes.length
  }

  u8(): number {
    return this.#bytes[this.#take(1)] as number
  }

  u32(): number {
    return this.#bytes.readUInt32BE(this.#take(4))
  }

  name(): string {
    const length = this.u8()
    if (length === 0) throw malformed('an empty name')
    const from = this.#take(length)
    return nameOf(this.#bytes, from, length)
  }

  /** The rest of a record of `kind`. */
  record(kind: number, names: readonly string[]): FrameRecord {
    if (kind === KIND_FOREIGN) return this.#foreign(names)
    if (kind !== KIND_FRAME && kind !== KIND_TURN) throw malformed(`a record of kind ${kind}`)
    const at = this.#take(RECORD_HEAD_BYTES - 1)
    const bytes = this.#bytes
    const source = nameAt(names, bytes[at])
    const destination = nameAt(names, bytes[at + 1])
    const colour = bytes.readUInt32BE(at + 2)
    const sequence = bytes.readUIntBE(at + 6, 6)
    if (kind === KIND_TURN) return { source, destination, colour, sequence, nic: 0, packet: undefined }
    if (sequence === 0) throw malformed('a frame with number 0')
    return { source, destination, colour, sequence, ...this.#packet() }
  }

  #foreign(names: readonly string[]): FrameRecord {
    const at = this.#take(FOREIGN_HEAD_BYTES - 1)
    const bytes = this.#bytes
    const source = nameAt(names, bytes[at])
    const group = nameAt(names, bytes[at + 1])
    const destination = nameAt(names, bytes[at + 2])
    return { source, destination, group, colour: 0, sequence: 0, ...this.#packet() }
  }

  #packet(): { readonly nic: number; readonly packet: Uint8Array } {
    const at = this.#take(4)
    const bytes = this.#bytes
    const length = bytes.readUIntBE(at + 1, 3)
    if (length < MIN_FRAME_BYTES || length > MAX_FRAME_BYTES) throw malformed(`a frame of ${length} bytes`)
    this.#take(length)
    return { nic: bytes[at] as number, packet: bytes.subarray(at, at + 4 + length) }
  }

  #take(count: number): number {
    const at = this.#at
    if (count > this.#bytes.length - at) throw malformed('it ends in the middle')
    this.#at = at + count
    return at
  }
}

function nameAt(names: readonly string[], place: number | undefined): string {
  const name = names[place as number]
  if (name === undefined) throw malformed('a record of a VM that was not named')
  return name
}

function nameBytes(name: string): Buffer {
  const bytes = Buffer.from(name)
  if (bytes.length === 0 || bytes.length > MAX_NAME_BYTES) {
    throw new RangeError(
      `the name ${JSON.stringify(name)} has ${bytes.length} bytes; 1 to ${MAX_NAME_BYTES} are possible`
    )
  }
  return bytes
}

function putName(out: Buffer, at: number, name: Buffer): number {
  out[at] = name.length
  out.set(name, at + 1)
  return at + 1 + name.length
}

const malformed = (what: string) => new DiapauseError('FRAMES_MALFORMED', `a batch of frames is malformed: ${what}`)
