/** What this peer's disk gives back: level's own files, before level opens them, and what stands in entries and lines of ours. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { parseLocation, parseSegment } from '../../node/store/catalog.ts'
import { entryOf } from '../../node/store/decision-log.ts'
import { epochOf, lineOf } from '../../node/store/epoch-history.ts'
import { logDamage, maskedCrc, recordsIn } from '../../node/store/level-log.ts'
import { liveTables, tableDamage } from '../../node/store/level-table.ts'
import { ENTRY, SEEN } from './message-seeds.ts'
import { mutate } from './mutate.ts'
import type { Target } from './target.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const textOf = (input: Uint8Array): string => Buffer.from(input).toString('utf8')
const stored = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(join(import.meta.dirname, 'corpus', `${name}.bin`)))

// ---------------------------------------------------------------------------------------------- logs of level

const LOG_HEADER_BYTES = 7

/** The same with the right checksum of every record whose length is in bounds: what somebody makes who means it. */
function sealedLog(log: Uint8Array): Uint8Array {
  const sealed = Buffer.from(log)
  for (let at = 0; at + LOG_HEADER_BYTES <= sealed.length; ) {
    const end = at + LOG_HEADER_BYTES + sealed.readUInt16LE(at + 4)
    if (end > sealed.length) break
    sealed.writeUInt32LE(maskedCrc(sealed.subarray(at + 6, end)), at)
    at = end
  }
  return sealed
}

/** A log or a manifest: what is read of it is no more than it has, and damage lies within it. */
function levelLog(input: Uint8Array): string | undefined {
  const at = logDamage(input)
  assert.ok(at === undefined || (at >= 0 && at < input.length), `damage at byte ${at}`)
  const read = [...recordsIn(input)].reduce((sum, record) => sum + record.length, 0)
  assert.ok(read <= input.length, `${read} bytes of ${input.length}`)
  for (const { names, bytes: length } of liveTables(input)) assert.ok(names.length === 2 && length >= 0)
  return at === undefined ? undefined : 'damaged'
}

// ---------------------------------------------------------------------------------------------- tables of level

/** A table of one block of data, as level writes it, but for its index. `kind`: 1 is Snappy. */
export function tableOf(index: Uint8Array, kind: number): Uint8Array {
  const sealed = (block: Uint8Array, type: number): Buffer => {
    const trailer = Buffer.of(type, 0, 0, 0, 0)
    trailer.writeUInt32LE(maskedCrc(Buffer.concat([block, trailer.subarray(0, 1)])), 1)
    return Buffer.concat([block, trailer])
  }
  const [data, meta] = [sealed(DATA, 0), sealed(Buffer.of(0, 0, 0, 0, 1, 0, 0, 0), 0)]
  const footer = Buffer.alloc(48)
  const indexAt = data.length + meta.length
  footer.set([data.length, meta.length - 5, ...varint(indexAt), ...varint(index.length)])
  footer.writeBigUInt64LE(0xdb4775248b80fb57n, 40)
  return Uint8Array.from(Buffer.concat([data, meta, sealed(index, kind), footer]))
}

const DATA = Buffer.of(1, 2, 3)

/** Its index: shared, own and value's bytes, the key, where the block is and how long; one restart. */
const INDEX = Buffer.of(0, 1, 2, 97, 0, DATA.length, 0, 0, 0, 0, 1, 0, 0, 0)

/** As it is; and packed: a run, and a copy of three bytes from four before. */
const indexSeeds = (): Uint8Array[] => {
  const run = INDEX.subarray(0, -3)
  const packed = [INDEX.length, (run.length - 1) << 2, ...run, ((3 - 1) << 2) + 2, 4, 0]
  return [Uint8Array.of(0, ...INDEX), Uint8Array.of(1, ...packed)]
}

const varint = (value: number): number[] => (value < 128 ? [value] : [128 + (value % 128), ...varint(value >>> 7)])

/** As a table; and, as every bit there is under a checksum, as an index in a table that is right but for that. */
function levelTable(input: Uint8Array): string | undefined {
  const tables = [input, tableOf(input.subarray(1), (input[0] ?? 0) % 3)]
  const damage = tables.map(table => tableDamage(table, table.length))
  assert.ok(damage.every(each => each === undefined || each.length > 0))
  return damage.includes(undefined) ? undefined : 'damaged'
}

// ---------------------------------------------------------------------------------------------- entries and lines of ours

const location = (payloadBytes: number, checksums: number): Uint8Array => {
  const entry = Buffer.alloc(12 + 4 * checksums, 7)
  entry.writeUInt32LE(payloadBytes, 8)
  return Uint8Array.from(entry)
}

/** An entry of the index of shards is understood or not there. */
function storeIndex(input: Uint8Array): string | undefined {
  const place = parseLocation(input)
  if (place !== undefined) assert.ok(place.payloadBytes > 0 && place.checksums.length > 0)
  const segment = parseSegment('s/0000000a', input)
  if (segment !== undefined) assert.ok([segment.bytes, segment.records].every(Number.isSafeInteger))
  return place === undefined && segment === undefined ? 'no entry' : undefined
}

/** A line of the history of epochs, or an entry of the decision log: what is read of it is written as it was. */
function storeLine(input: Uint8Array): string | undefined {
  const text = textOf(input)
  const seen = epochOf(text) ?? epochOf(`${crc32(text).toString(16).padStart(8, '0')} ${text}`)
  if (seen !== undefined) assert.deepEqual(epochOf(lineOf(seen).trimEnd()), seen)
  const entry = entryOf(text)
  if (entry !== undefined) assert.deepEqual(entryOf(JSON.stringify(entry)), entry)
  return seen === undefined && entry === undefined ? 'no line' : undefined
}

export const storeTargets: readonly Target[] = [
  {
    name: 'level-log',
    group: 'texts',
    summary: "level's log and its manifest, before level mends them",
    seeds: () => [stored('level-log'), stored('level-manifest')],
    mutate: (input, random, seeds) => (random() < 0.5 ? sealedLog : Uint8Array.from)(mutate(input, random, seeds)),
    run: levelLog
  },
  {
    name: 'level-table',
    group: 'texts',
    summary: "level's tables, with checksums that are right and wrong",
    seeds: () => [stored('level-table'), ...indexSeeds()],
    run: levelTable
  },
  {
    name: 'store-index',
    group: 'texts',
    summary: 'the index of shards: entries of places and of segments',
    seeds: () => [location(20_000, 2), bytes(JSON.stringify({ stream: 'bank/vm1/2/5', bytes: 900, records: 3 }))],
    run: storeIndex
  },
  {
    name: 'store-lines',
    group: 'texts',
    summary: 'lines of the history of epochs, entries of the decision log',
    seeds: () => [bytes(lineOf(SEEN).trimEnd()), bytes(JSON.stringify(SEEN)), bytes(JSON.stringify(ENTRY))],
    run: storeLine
  }
]
