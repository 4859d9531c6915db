/**
 * The manifest of one stream as bytes (`manifest-frame.ts`): whose it is, where its shards lie, and behind the header the
 * hashes of all symbols, grid by grid. It is written once, with the epoch that makes the stream, and named by the SHA-256 of its
 * bytes, by which images refer to it: so an image's own manifest is as small as what the epoch changed. There is one
 * encoding of each, and decoding takes no other. Pure but for hashes.
 */
import { hash } from 'node:crypto'
import { z } from 'zod'
import type { GridManifest, StreamManifest } from '../ports.ts'
import type { ByteReader } from './bytes.ts'
import {
  checkedStream,
  gridOf,
  hashBytesOf,
  invalid,
  MAX_HOLDER_BYTES,
  MAX_HOLDERS,
  MAX_STREAM_BYTES
} from './manifest-checks.ts'
import { encodeFrame, formatOf, openFrame, parseHeader } from './manifest-frame.ts'

const MAGIC = Buffer.from('diapause stream\n')
const FORMAT = 1

/** How the bytes are made. Whoever makes them otherwise writes another word here, and older versions say that they cannot. */
const MADE = {
  pages: '4096 bytes, 16 to an extent',
  packed: 'zstd, or 0 and as it is',
  sealed: 'AES-256-GCM',
  coded: 'Reed-Solomon on diagonals',
  hashed: 'SHA-256, first 16 bytes of each symbol'
} as const

const count = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER)

/** A stream in a header: what its shards are and where. */
export const shardsSchema = {
  stream: z.string().max(MAX_STREAM_BYTES),
  k: count,
  m: count,
  dataBytes: count,
  holders: z.array(z.string().max(MAX_HOLDER_BYTES)).max(MAX_HOLDERS),
  /** Bytes of a symbol, and how many grids have such symbols one after the other. */
  grids: z.array(z.tuple([count, count.min(1)])).min(1)
}

const headerSchema = z.strictObject({
  made: z.strictObject({
    pages: z.literal(MADE.pages),
    packed: z.literal(MADE.packed),
    sealed: z.literal(MADE.sealed),
    coded: z.literal(MADE.coded),
    hashed: z.literal(MADE.hashed)
  }),
  key: count,
  ...shardsSchema
})

export interface StoredObject {
  /** Hex SHA-256 of the bytes: the name. */
  readonly hash: string
  readonly bytes: Uint8Array
}

/** Whether these are meant to be the manifest of a stream. */
export const isStreamManifest = (bytes: Uint8Array): boolean => formatOf(bytes, MAGIC) !== undefined

export function encodeStreamManifest(stream: StreamManifest): StoredObject {
  const hashes = stream.grids.map(grid => grid.hashes)
  const bytes = encodeFrame(MAGIC, FORMAT, headerText(stream), hashes)
  return { hash: hash('sha256', bytes), bytes }
}

/** MANIFEST_INVALID. */
export function decodeStreamManifest(bytes: Uint8Array): StreamManifest {
  const format = formatOf(bytes, MAGIC)
  if (format === undefined) throw invalid('it does not begin as that of a stream')
  if (format !== FORMAT) throw invalid(`format ${format} of a stream's, and this version reads ${FORMAT}`)
  const { header, more } = openFrame(bytes, MAGIC)
  const { made: _, key, ...rest } = parseHeader(headerSchema, header)
  const stream = checkedStream({ ...readGrids(rest, more), ...(key === 0 ? {} : { key }) })
  more.end()
  if (!header.equals(Buffer.from(headerText(stream)))) throw invalid('its header is written otherwise')
  return stream
}

/** Names in a fixed order. */
function headerText(stream: StreamManifest): string {
  return JSON.stringify({ made: MADE, key: stream.key ?? 0, ...shardsOf(stream) } satisfies z.output<
    typeof headerSchema
  >)
}

type Shards = Omit<z.output<typeof headerSchema>, 'made' | 'key'>

/** A stream as headers have it, names in a fixed order. */
export function shardsOf({ stream, k, m, dataBytes, holders, grids }: StreamManifest): Shards {
  return { stream, k, m, dataBytes, holders: [...holders], grids: runsOf(grids) }
}

/** The hashes of its grids come next in `reader`. */
export function readGrids({ grids: runs, ...stream }: Shards, reader: ByteReader): StreamManifest {
  const grids: GridManifest[] = []
  for (const [symbolBytes, times] of runs) {
    const hashBytes = hashBytesOf(stream, symbolBytes)
    for (let i = 0; i < times; i++) grids.push(gridOf(symbolBytes, reader.raw(hashBytes)))
  }
  return { ...stream, grids }
}

function runsOf(grids: readonly GridManifest[]): [number, number][] {
  const runs: [number, number][] = []
  for (const { symbolBytes } of grids) {
    const last = runs.at(-1)
    if (last?.[0] === symbolBytes) last[1]++
    else runs.push([symbolBytes, 1])
  }
  return runs
}
