/**
 * One client's side of NBD as a server hears it, in any chunks: fixed newstyle handshake, then requests. Pure. Limits come
 * first, because the client is not trusted (a QEMU whose guest may have broken out of it): the length of an option, then
 * its shape; the length of a request, then its place. What the protocol can refuse with an error is refused so; where
 * bytes can no longer be told apart the connection ends, with the reason.
 *
 * The caller hands bytes over (`push`), and takes what they mean one by one (`next`), so that it can leave them lie while it
 * has enough to do.
 */
import {
  ALLOCATION,
  blockSizeInfo,
  Command,
  COOKIE_BYTES,
  exportInfo,
  exportName,
  FIXED_NEWSTYLE,
  FORCE_UNIT_ACCESS,
  greeting,
  Info,
  metaContext,
  NbdError,
  NO_ZEROES,
  ONE_EXTENT,
  Option,
  OPTION_HEADER_BYTES,
  OPTION_MAGIC,
  optionReply,
  OptionReply,
  REQUEST_BYTES,
  REQUEST_MAGIC,
  errorChunk,
  simpleReply
} from './wire.ts'

/** Longest option taken: a name of 4,096 bytes (the protocol's limit) and some queries. */
export const MAX_OPTION_BYTES = 8_192
/** What clients take for granted where nothing is said (proto.md, "Block size constraints"). */
export const MAX_REQUEST_BYTES = 32 << 20
/** Options before a disk is chosen; QEMU sends four. A guess that bounds what a client without aim may cost. */
const MAX_OPTIONS = 64
const CLIENT_FLAGS_BYTES = 4
const PREFERRED_BYTES = 4_096

export interface ServedDisk {
  readonly name: string
  readonly bytes: number
}

interface RangeRequest {
  /** Of the client's choice; goes back with each answer. */
  readonly cookie: Uint8Array
  readonly disk: string
  readonly offset: number
  /** Not 0; within the disk. */
  readonly length: number
}

export type NbdEvent =
  | { readonly kind: 'send'; readonly bytes: Uint8Array }
  /** Of MAX_REQUEST_BYTES at most. `structured`: to be answered in chunks. */
  | ({ readonly kind: 'read'; readonly structured: boolean } & RangeRequest)
  /** Of up to 4 GiB; `one`: a single extent is asked for. */
  | ({ readonly kind: 'status'; readonly one: boolean } & RangeRequest)
  /** Nothing more is taken. `why` where the client has broken the protocol. */
  | { readonly kind: 'close'; readonly why?: string }

type Phase = 'flags' | 'options' | 'requests' | 'closed'

export class NbdSession {
  readonly #disks: readonly ServedDisk[]
  #phase: Phase = 'flags'
  /** What has come and was not understood yet. */
  #bytes: Uint8Array = new Uint8Array(0)
  /** Bytes of a refused write that are thrown away as they come. */
  #toSkip = 0
  #refused: Uint8Array | undefined
  #options = 0
  #structured = false
  /** The disk for which block status was negotiated. */
  #statusOf: string | undefined
  #disk: ServedDisk | undefined
  readonly #ready: NbdEvent[] = [{ kind: 'send', bytes: greeting() }]

  constructor(disks: readonly ServedDisk[]) {
    this.#disks = disks
  }

  /** Takes what came from the client; copies it where it is kept. */
  push(chunk: Uint8Array): void {
    if (this.#phase === 'closed') return
    let rest = chunk
    if (this.#bytes.length === 0 && this.#toSkip > 0) {
      const skipped = Math.min(this.#toSkip, rest.length)
      this.#toSkip -= skipped
      rest = rest.subarray(skipped)
    }
    this.#bytes = Buffer.concat([this.#bytes, rest])
  }

  /** What is next; undefined: more bytes must come. */
  next(): NbdEvent | undefined {
    while (this.#ready.length === 0) {
      const events = this.#step()
      if (events === undefined) return undefined
      this.#ready.push(...events)
    }
    return this.#ready.shift()
  }

  #step(): readonly NbdEvent[] | undefined {
    if (this.#toSkip > 0) this.#toSkip -= this.#take(Math.min(this.#toSkip, this.#bytes.length))?.length ?? 0
    if (this.#phase === 'closed' || this.#toSkip > 0) return undefined
    if (this.#refused !== undefined) {
      const cookie = this.#refused
      this.#refused = undefined
      return send(simpleReply(cookie, NbdError.notPermitted))
    }
    if (this.#phase === 'flags') return this.#flags()
    return this.#phase === 'options' ? this.#option() : this.#request()
  }

  #flags(): readonly NbdEvent[] | undefined {
    const flags = this.#take(CLIENT_FLAGS_BYTES)
    if (flags === undefined) return undefined
    const value = view(flags).getUint32(0)
    // Without fixed newstyle options cannot be refused, so none but those of the first days could follow.
    if ((value & FIXED_NEWSTYLE) === 0 || (value & ~(FIXED_NEWSTYLE | NO_ZEROES)) !== 0) {
      return this.#close(`its flags are ${value}: only the fixed newstyle handshake is spoken here`)
    }
    this.#phase = 'options'
    return []
  }

  #option(): readonly NbdEvent[] | undefined {
    if (this.#bytes.length < OPTION_HEADER_BYTES) return undefined
    const header = view(this.#bytes)
    const [option, length] = [header.getUint32(8), header.getUint32(12)]
    if (header.getBigUint64(0) !== OPTION_MAGIC) return this.#close('an option does not begin as one')
    if (length > MAX_OPTION_BYTES) return this.#close(`option ${option} has ${length} bytes`)
    const taken = this.#take(OPTION_HEADER_BYTES + length)
    if (taken === undefined) return undefined
    if (++this.#options > MAX_OPTIONS) return this.#close(`it has sent ${MAX_OPTIONS} options and chosen no disk`)
    return this.#answerOption(option, taken.subarray(OPTION_HEADER_BYTES))
  }

  #answerOption(option: number, data: Uint8Array): readonly NbdEvent[] {
    const refuse = (type: number) => send(optionReply(option, type))
    switch (option) {
      case Option.abort:
        return [...refuse(OptionReply.ack), ...this.#close()]
      case Option.list:
        if (data.length > 0) return refuse(OptionReply.invalid)
        return send(
          ...this.#disks.map(({ name }) => optionReply(option, OptionReply.server, exportName(name))),
          optionReply(option, OptionReply.ack)
        )
      case Option.structuredReply:
        if (data.length > 0) return refuse(OptionReply.invalid)
        this.#structured = true
        return refuse(OptionReply.ack)
      case Option.info:
      case Option.go:
        return this.#chooseDisk(option, data)
      case Option.listMeta:
      case Option.setMeta:
        return this.#metaContexts(option, data)
      default:
        // The first of all options cannot be refused: its name is all that it is, and its answer the disk.
        return option === 1 ? this.#close('it chose a disk by the option of old') : refuse(OptionReply.unsupported)
    }
  }

  #chooseDisk(option: number, data: Uint8Array): readonly NbdEvent[] {
    const refuse = (type: number) => send(optionReply(option, type))
    const reader = new Fields(data)
    const name = reader.text()
    const infos = reader.numbers16()
    if (name === undefined || infos === undefined || !reader.ended) return refuse(OptionReply.invalid)
    const disk = this.#disks.find(each => each.name === name)
    if (disk === undefined) return refuse(OptionReply.unknown)
    const info = (bytes: Uint8Array) => optionReply(option, OptionReply.info, bytes)
    const replies = [info(exportInfo(disk.bytes))]
    if (infos.includes(Info.blockSize)) replies.push(info(blockSizeInfo(PREFERRED_BYTES, MAX_REQUEST_BYTES)))
    if (option === Option.go) {
      this.#disk = disk
      this.#phase = 'requests'
    }
    return send(...replies, optionReply(option, OptionReply.ack))
  }

  #metaContexts(option: number, data: Uint8Array): readonly NbdEvent[] {
    const refuse = (type: number) => send(optionReply(option, type))
    const listed = option === Option.listMeta
    if (!listed) this.#statusOf = undefined // whatever comes of it, what was negotiated before is void
    const reader = new Fields(data)
    const name = reader.text()
    const queries = reader.texts()
    if (name === undefined || queries === undefined || !reader.ended) return refuse(OptionReply.invalid)
    if (!this.#structured) return refuse(OptionReply.invalid)
    if (!this.#disks.some(disk => disk.name === name)) return refuse(OptionReply.unknown)
    const meant = queries.includes(ALLOCATION) || (listed && (queries.length === 0 || queries.includes('base:')))
    if (meant && !listed) this.#statusOf = name
    const found = meant ? [optionReply(option, OptionReply.metaContext, metaContext(listed))] : []
    return send(...found, optionReply(option, OptionReply.ack))
  }

  #request(): readonly NbdEvent[] | undefined {
    const bytes = this.#take(REQUEST_BYTES)
    if (bytes === undefined) return undefined
    const fields = view(bytes)
    if (fields.getUint32(0) !== REQUEST_MAGIC) return this.#close('a request does not begin as one')
    const [flags, command] = [fields.getUint16(4), fields.getUint16(6)]
    const cookie = Uint8Array.from(bytes.subarray(8, 8 + COOKIE_BYTES))
    const [offset, length] = [Number(fields.getBigUint64(16)), fields.getUint32(24)]
    const invalid = (): readonly NbdEvent[] => this.#refuse(command, cookie, NbdError.invalid)
    switch (command) {
      case Command.disconnect:
        return this.#close()
      case Command.write:
        if (length > MAX_REQUEST_BYTES) return this.#close(`it writes ${length} bytes at once`)
        this.#toSkip = length
        this.#refused = cookie
        return []
      case Command.trim:
      case Command.writeZeroes:
        return this.#refuse(command, cookie, NbdError.notPermitted)
      case Command.flush:
        return flags === 0 ? send(simpleReply(cookie)) : invalid()
      case Command.read: {
        if ((flags & ~FORCE_UNIT_ACCESS) !== 0 || length > MAX_REQUEST_BYTES) return invalid()
        const disk = this.#within(offset, length)
        if (disk === undefined) return invalid()
        return [{ kind: 'read', structured: this.#structured, cookie, disk: disk.name, offset, length }]
      }
      case Command.blockStatus: {
        if ((flags & ~(FORCE_UNIT_ACCESS | ONE_EXTENT)) !== 0) return invalid()
        const disk = this.#within(offset, length)
        if (disk === undefined || this.#statusOf !== disk.name) return invalid()
        return [{ kind: 'status', one: (flags & ONE_EXTENT) !== 0, cookie, disk: disk.name, offset, length }]
      }
      default:
        return invalid()
    }
  }

  /** The disk, where the range lies in it. */
  #within(offset: number, length: number): ServedDisk | undefined {
    const end = this.#disk?.bytes ?? 0
    return length > 0 && offset <= end && length <= end - offset ? this.#disk : undefined
  }

  #refuse(command: number, cookie: Uint8Array, error: number): readonly NbdEvent[] {
    const chunks = this.#structured && (command === Command.read || command === Command.blockStatus)
    return send(chunks ? errorChunk(cookie, error) : simpleReply(cookie, error))
  }

  #close(why?: string): readonly NbdEvent[] {
    this.#phase = 'closed'
    this.#bytes = new Uint8Array(0)
    return [why === undefined ? { kind: 'close' } : { kind: 'close', why }]
  }

  #take(length: number): Uint8Array | undefined {
    if (this.#bytes.length < length) return undefined
    const taken = this.#bytes.subarray(0, length)
    this.#bytes = this.#bytes.subarray(length)
    return taken
  }
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const send = (...replies: readonly Uint8Array[]): readonly NbdEvent[] => replies.map(bytes => ({ kind: 'send', bytes }))

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Reads the data of an option; undefined where it is not what it should be. */
class Fields {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get ended(): boolean {
    return this.#at === this.#bytes.length
  }

  text(): string | undefined {
    const length = this.#number(4)
    if (length === undefined || length > this.#bytes.length - this.#at) return undefined
    const bytes = this.#bytes.subarray(this.#at, (this.#at += length))
    try {
      return utf8.decode(bytes)
    } catch {
      return undefined
    }
  }

  /** A list of texts behind their number. */
  texts(): string[] | undefined {
    const count = this.#number(4)
    // A text has 4 bytes at least, so a number that lies is found before much is made of it.
    if (count === undefined || 4 * count > this.#bytes.length - this.#at) return undefined
    const texts: string[] = []
    for (let i = 0; i < count; i++) {
      const text = this.text()
      if (text === undefined) return undefined
      texts.push(text)
    }
    return texts
  }

  /** A list of 16-bit numbers behind their number. */
  numbers16(): number[] | undefined {
    const count = this.#number(2)
    if (count === undefined || 2 * count > this.#bytes.length - this.#at) return undefined
    return Array.from({ length: count }, () => this.#number(2) ?? 0)
  }

  #number(bytes: 2 | 4): number | undefined {
    if (bytes > this.#bytes.length - this.#at) return undefined
    const at = this.#at
    this.#at += bytes
    return bytes === 2 ? view(this.#bytes).getUint16(at) : view(this.#bytes).getUint32(at)
  }
}
