/**
 * The frames protocol: what two switches say to each other over the `frames` channel. One message is a batch of records
 * of one group and generation. Integers are big-endian.
 *
 *     batch   u8 format = 1, name group, u32 generation, u8 n, n × name, records to the end
 *     name    u8 length (1..255), UTF-8
 *     record  u8 kind, u8 source, u8 destination (both: places in the table of names), u32 colour, u48 sequence
 *             kind 1, a frame: then u32 length, the Ethernet frame
 *             kind 2, a turn: the source is of `colour` now and had sent `sequence` frames to this destination before
 *
 * VMs go by name and not by a place in the group's record, so that peers which know different versions of that record
 * understand each other. A length stands right before its frame, as QEMU's `-netdev stream` has it: what comes in from
 * one side goes out on the other as it is (`packet` below).
 */
import { DiapauseError } from '../../node/errors.ts'

/** NET_BUFSIZE of QEMU is larger, but no Ethernet frame is: 64 KiB of IP packet and its header. */
export const MAX_FRAME_BYTES = 65_550
/** Two MAC addresses and a type. */
export const MIN_FRAME_BYTES = 14
/** A batch is sent when it has grown to this. 64 KiB: one Noise record's worth. */
export const BATCH_TARGET_BYTES = 65_536
/** No honest batch is larger: the target, one frame beyond it, and the largest table of names. */
export const MAX_BATCH_BYTES = BATCH_TARGET_BYTES + MAX_FRAME_BYTES + 256 * 256 + 64

const FORMAT = 1
const KIND_FRAME = 1
const KIND_TURN = 2
const RECORD_HEAD_BYTES = 13
const MAX_NAME_BYTES = 255
const MAX_NAMES = 255

export interface FrameRecord {
  readonly source: string
  readonly destination: string
  readonly colour: number
  /** Of a frame: its number in the channel, from 1. Of a turn: frames sent before it. */
  readonly sequence: number
  /** u32 length and the frame; undefined: a turn record. */
  readonly packet: Uint8Array | undefined
}

export interface FrameBatch {
  readonly group: string
  readonly generation: number
  readonly records: readonly FrameRecord[]
}

/** Bytes that `record` adds to a batch, names aside. */
export const recordBytes = (record: FrameRecord): number => RECORD_HEAD_BYTES + (record.packet?.length ?? 0)

/** One copy of every frame into one message. Throws RangeError on more names or longer ones than the format has room for. */
export function encodeBatch(batch: FrameBatch): Uint8Array {
  const places = new Map<string, number>()
  let bytes = 0
  for (const record of batch.records) {
    if (!places.has(record.source)) places.set(record.source, places.size)
    if (!places.has(record.destination)) places.set(record.destination, places.size)
    bytes += recordBytes(record)
  }
  if (places.size > MAX_NAMES) throw new RangeError(`${places.size} VMs in one batch of frames; at most ${MAX_NAMES}`)
  const group = nameBytes(batch.group)
  const names = [...places.keys()].map(nameBytes)
  const headBytes = 1 + 1 + group.length + 4 + 1 + names.reduce((sum, name) => sum + 1 + name.length, 0)
  const out = Buffer.allocUnsafeSlow(headBytes + bytes)
  out[0] = FORMAT
  let at = putName(out, 1, group)
  at = out.writeUInt32BE(batch.generation, at)
  at = out.writeUInt8(names.length, at)
  for (const name of names) at = putName(out, at, name)
  for (const record of batch.records) {
    out[at] = record.packet === undefined ? KIND_TURN : KIND_FRAME
    out[at + 1] = places.get(record.source) as number
    out[at + 2] = places.get(record.destination) as number
    out.writeUInt32BE(record.colour, at + 3)
    out.writeUIntBE(record.sequence, at + 7, 6)
    at += RECORD_HEAD_BYTES
    if (record.packet === undefined) continue
    out.set(record.packet, at)
    at += record.packet.length
  }
  return out
}

/**
 * Checks everything; packets are views of `message`. FRAMES_FORMAT: of another version of diapause. FRAMES_MALFORMED:
 * anything else that `encodeBatch` does not make.
 */
export function decodeBatch(message: Uint8Array): FrameBatch {
  if (message.length > MAX_BATCH_BYTES) throw malformed(`${message.length} bytes; at most ${MAX_BATCH_BYTES}`)
  const bytes = Buffer.from(message.buffer, message.byteOffset, message.length)
  const reader = new Reader(bytes)
  const format = reader.u8()
  if (format !== FORMAT) {
    throw new DiapauseError(
      'FRAMES_FORMAT',
      `frames of format ${format} have come, this peer speaks ${FORMAT}: run the same version of diapause on all peers`
    )
  }
  const group = reader.name()
  const generation = reader.u32()
  const names = Array.from({ length: reader.u8() }, () => reader.name())
  const records: FrameRecord[] = []
  while (!reader.ended) records.push(reader.record(names))
  return { group, generation, records }
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
    const name = this.#bytes.toString('utf8', from, from + length)
    if (Buffer.byteLength(name) !== length) throw malformed('a name that is not UTF-8')
    return name
  }

  record(names: readonly string[]): FrameRecord {
    const at = this.#take(RECORD_HEAD_BYTES)
    const bytes = this.#bytes
    const kind = bytes[at]
    const source = names[bytes[at + 1] as number]
    const destination = names[bytes[at + 2] as number]
    if (kind !== KIND_FRAME && kind !== KIND_TURN) throw malformed(`a record of kind ${kind}`)
    if (source === undefined || destination === undefined) throw malformed('a record of a VM that is not in the table')
    const colour = bytes.readUInt32BE(at + 3)
    const sequence = bytes.readUIntBE(at + 7, 6)
    if (kind === KIND_TURN) return { source, destination, colour, sequence, packet: undefined }
    if (sequence === 0) throw malformed('a frame with number 0')
    const length = this.u32()
    if (length < MIN_FRAME_BYTES || length > MAX_FRAME_BYTES) throw malformed(`a frame of ${length} bytes`)
    const from = this.#take(length)
    return { source, destination, colour, sequence, packet: bytes.subarray(from - 4, from + length) }
  }

  #take(count: number): number {
    const at = this.#at
    if (count > this.#bytes.length - at) throw malformed('it ends in the middle')
    this.#at = at + count
    return at
  }
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
