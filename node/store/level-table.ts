/**
 * Looks for damage in the tables of LevelDB. Each block of a table has a checksum, which LevelDB checks only where a reader asks
 * for it, and `level` does not: a bit that turns in a key makes it another key, and the one that was written is gone without a
 * word (2 of 160 stores with a few turned bits in a table were read so).
 *
 * Format (doc/table_format.md of LevelDB): blocks without gaps, each followed by its type (0: as it is, 1: Snappy) and the
 * masked CRC-32C of block and type; at the end 48 bytes with the places of two blocks that tell those of all others, and a magic
 * number. Which tables count is in the manifest, a log (doc/impl.md): each record adds some and removes some.
 */
import { maskedCrc, recordsIn } from './level-log.ts'

const FOOTER_BYTES = 48
const TRAILER_BYTES = 5
const MAGIC = 0xdb4775248b80fb57n
const SNAPPY = 1
/** The most that bytes can stand for: 3 for a copy of 64 (format_description.txt of Snappy, section 2.2.2). */
const MOST_EXPANSION = 64 / 3
/** In a manifest's records; behind every other stands one number. */
const TAGS = { comparator: 1, compactPointer: 5, removed: 6, added: 7 }

export interface LiveTable {
  /** What its file may be called: LevelDB has had two endings. */
  readonly names: readonly string[]
  readonly bytes: number
}

/** Of a manifest; what follows where it is damaged is left out, which LevelDB refuses by itself. */
export function liveTables(manifest: Uint8Array): LiveTable[] {
  const live = new Map<number, number>()
  try {
    for (const record of recordsIn(manifest)) takeEdit(new Reader(record), live)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
  }
  return [...live].map(([number, bytes]) => {
    const name = String(number).padStart(6, '0')
    return { names: [`${name}.ldb`, `${name}.sst`], bytes }
  })
}

/** What one record of a manifest adds to `live`, number → bytes, and removes. */
function takeEdit(input: Reader, live: Map<number, number>): void {
  while (!input.ended) {
    const tag = input.varint()
    if (tag !== TAGS.comparator) input.varint() // a number, or the level of what follows
    if (tag === TAGS.comparator || tag === TAGS.compactPointer) input.slice()
    else if (tag === TAGS.removed) live.delete(input.varint())
    else if (tag === TAGS.added) {
      live.set(input.varint(), input.varint())
      for (const _ of ['smallest', 'largest']) input.slice()
    }
  }
}

interface Place {
  readonly offset: number
  readonly bytes: number
}

/** What is wrong with a table, for people; undefined where every byte of its blocks is as it was written. `bytes`: its length. */
export function tableDamage(table: Uint8Array, bytes: number): string | undefined {
  if (table.length !== bytes || bytes < FOOTER_BYTES)
    return `it has ${table.length} bytes, and was written with ${bytes}`
  const end = bytes - FOOTER_BYTES
  const footer = Buffer.from(table.buffer, table.byteOffset + end, FOOTER_BYTES)
  try {
    const ends = new Reader(footer)
    const [meta, index] = [placeIn(ends), placeIn(ends)]
    const padded =
      footer.readBigUInt64LE(FOOTER_BYTES - 8) === MAGIC && ends.rest.subarray(0, -8).every(byte => byte === 0)
    if (!padded) return 'its end is damaged'
    const all = [...placesIn(table, meta), ...placesIn(table, index), meta, index].sort((a, b) => a.offset - b.offset)
    let at = 0
    for (const place of all) {
      if (place.offset !== at) return `what is at byte ${at} is nowhere told of`
      blockAt(table, place)
      at += place.bytes + TRAILER_BYTES
    }
    return at === end ? undefined : `what is at byte ${at} is nowhere told of`
  } catch (error) {
    if (error instanceof RangeError) return error.message
    throw error
  }
}

const placeIn = (input: Reader): Place => ({ offset: input.varint(), bytes: input.varint() })

/** A block as it was before it was compressed, its checksum checked. RangeError: it is damaged. */
function blockAt(table: Uint8Array, { offset, bytes }: Place): Uint8Array {
  const end = offset + bytes
  if (end + TRAILER_BYTES > table.length) throw new RangeError(`a block ends at byte ${end}, behind the table's end`)
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength)
  if (view.getUint32(end + 1, true) !== maskedCrc(table.subarray(offset, end + 1)))
    throw new RangeError(`the block at byte ${offset} fails its checksum`)
  const block = table.subarray(offset, end)
  return table[end] === SNAPPY ? unsnappy(block) : block
}

/** The places that an index block tells. */
function placesIn(table: Uint8Array, place: Place): Place[] {
  const block = blockAt(table, place)
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength)
  const end = block.length - 4 - 4 * view.getUint32(block.length - 4, true)
  if (end < 0) throw new RangeError('a block tells of more restarts than it has bytes')
  const input = new Reader(block.subarray(0, end))
  const found: Place[] = []
  while (!input.ended) {
    input.varint() // bytes of the key that it shares with the one before
    const [rest, value] = [input.varint(), input.varint()]
    input.take(rest)
    found.push(placeIn(new Reader(input.take(value))))
  }
  return found
}

/**
 * Snappy without frames (format_description.txt of Snappy): runs of bytes, and copies of what came before. RangeError, also where a
 * length is claimed that no block of so many bytes can have: a checksum is right for whoever makes one.
 */
function unsnappy(block: Uint8Array): Uint8Array {
  const input = new Reader(block)
  const length = input.varint()
  if (length > block.length * MOST_EXPANSION) throw new RangeError('a compressed block is damaged')
  const out = Buffer.alloc(length)
  let at = 0
  while (!input.ended) {
    const tag = input.byte()
    if ((tag & 3) === 0) {
      const short = tag >>> 2
      const run = input.take(1 + (short < 60 ? short : input.little(short - 59)))
      out.set(run, at)
      at += run.length
      continue
    }
    const near = (tag & 3) === 1
    const copied = near ? 4 + ((tag >>> 2) & 7) : 1 + (tag >>> 2)
    const back = near ? ((tag >>> 5) << 8) | input.byte() : input.little((tag & 3) === 2 ? 2 : 4)
    if (back === 0 || back > at || at + copied > out.length) throw new RangeError('a compressed block is damaged')
    for (let i = 0; i < copied; i++, at++) out[at] = out[at - back] ?? 0
  }
  if (at !== out.length) throw new RangeError('a compressed block is damaged')
  return out
}

/** Numbers and slices, one after the other. RangeError where bytes are lacking. */
class Reader {
  readonly #bytes: Uint8Array
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get ended(): boolean {
    return this.#at >= this.#bytes.length
  }

  get rest(): Uint8Array {
    return this.#bytes.subarray(this.#at)
  }

  byte(): number {
    return this.little(1)
  }

  /** Seven bits a byte, the lowest first. */
  varint(): number {
    let value = 0
    for (let factor = 1; ; factor *= 128) {
      const byte = this.byte()
      value += (byte & 127) * factor
      if (byte < 128) return value
      if (factor > 2 ** 49) throw new RangeError('a number is damaged')
    }
  }

  little(bytes: number): number {
    return this.take(bytes).reduceRight((value, byte) => value * 256 + byte, 0)
  }

  slice(): Uint8Array {
    return this.take(this.varint())
  }

  take(bytes: number): Uint8Array {
    const end = this.#at + bytes
    if (end > this.#bytes.length) throw new RangeError('a block ends early')
    const taken = this.#bytes.subarray(this.#at, end)
    this.#at = end
    return taken
  }
}
