/**
 * Bits that turn and files that end early, in the directory of a shard store, and what each of them has hit: which column,
 * a segment's header, a manifest, or bytes that nobody reads any more. Files are read as they lie, without the store.
 */
import { closeSync, openSync, readdirSync, readFileSync, truncateSync, writeSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { parseSegmentHeader, recordHeadBytes, streamHash } from '../../node/store/record.ts'
import { scanSegment } from '../../node/store/scan.ts'

export interface Damage {
  readonly kind: 'column' | 'header' | 'manifest' | 'dead'
  readonly how: 'flip' | 'truncation'
  /** Of a column `STREAM GRID COLUMN`, of a manifest its name. A truncation has several. */
  readonly hits: readonly string[]
}

interface Extent {
  readonly place: string
  readonly from: number
  readonly to: number
}

interface SegmentMap {
  readonly path: string
  readonly bytes: number
  readonly headerBytes: number
  readonly extents: readonly Extent[]
}

/** Where the whole records of each segment lie, as long as nobody writes. */
export async function mapSegments(storeDir: string): Promise<SegmentMap[]> {
  const folder = join(storeDir, 'segments')
  const maps: SegmentMap[] = []
  for (const name of readdirSync(folder).filter(each => each.endsWith('.segment'))) {
    const path = join(folder, name)
    const file = await open(path, 'r')
    try {
      const map = await mapSegment(path, file)
      if (map !== undefined) maps.push(map)
    } finally {
      await file.close()
    }
  }
  return maps
}

async function mapSegment(path: string, file: FileHandle): Promise<SegmentMap | undefined> {
  const bytes = readFileSync(path)
  const header = parseSegmentHeader(bytes)
  if (header === undefined || header === 'version') return undefined
  const { records } = await scanSegment(file, header.end, bytes.length, streamHash(header.stream))
  const extents = records.map(({ grid, column, payloadOffset, payloadBytes }) => ({
    place: `${header.stream} ${grid} ${column}`,
    from: payloadOffset - recordHeadBytes(payloadBytes),
    to: payloadOffset + payloadBytes
  }))
  return { path, bytes: bytes.length, headerBytes: header.end, extents }
}

/** Of all damages these parts are truncations, in headers of segments (by chance one in ten thousand), in manifests. */
const TRUNCATION_PART = 0.03
const HEADER_PART = 0.01
const MANIFEST_PART = 0.02

/** Draws a number from 0 to below 1. */
type Random = () => number

/** `count` damages at random places, no byte twice; all at once, without a turn of the event loop. */
export function spoil(
  storeDir: string,
  maps: readonly SegmentMap[],
  count: number,
  random: Random = Math.random
): Damage[] {
  const sizes = new Map(maps.map(({ path, bytes }) => [path, bytes]))
  const touched = new Set<string>()
  const damages: Damage[] = []
  for (let tries = 0; damages.length < count && tries < count * 20; tries++) {
    const damage =
      random() < MANIFEST_PART ? spoilManifest(storeDir, touched, random) : spoilSegment(maps, sizes, touched, random)
    if (damage !== undefined) damages.push(damage)
  }
  return damages
}

function spoilSegment(
  maps: readonly SegmentMap[],
  sizes: Map<string, number>,
  touched: Set<string>,
  random: Random
): Damage | undefined {
  const map = maps[Math.floor(random() * maps.length)]
  const size = map && sizes.get(map.path)
  if (map === undefined || size === undefined || size === 0) return undefined
  const at = Math.floor(random() * (random() < HEADER_PART ? map.headerBytes : size))
  if (at >= size) return undefined
  if (random() < TRUNCATION_PART) {
    truncateSync(map.path, at)
    sizes.set(map.path, at)
    const hits = map.extents.filter(({ to }) => to > at && to <= size).map(({ place }) => place)
    return { kind: hits.length > 0 ? 'column' : 'dead', how: 'truncation', hits }
  }
  if (touched.has(`${map.path} ${at}`)) return undefined
  touched.add(`${map.path} ${at}`)
  flip(map.path, at, random)
  if (at < map.headerBytes) return { kind: 'header', how: 'flip', hits: [] }
  const hit = map.extents.find(({ from, to }) => from <= at && at < to)
  return hit === undefined
    ? { kind: 'dead', how: 'flip', hits: [] }
    : { kind: 'column', how: 'flip', hits: [hit.place] }
}

function spoilManifest(storeDir: string, touched: Set<string>, random: Random): Damage | undefined {
  const folder = join(storeDir, 'manifests')
  const names = readdirSync(folder)
  const name = names[Math.floor(random() * names.length)]
  if (name === undefined || touched.has(name)) return undefined
  touched.add(name)
  const path = join(folder, name)
  flip(path, Math.floor(random() * readFileSync(path).length), random)
  return { kind: 'manifest', how: 'flip', hits: [name] }
}

function flip(path: string, at: number, random: Random): void {
  const byte = readFileSync(path).subarray(at, at + 1)
  byte[0] = (byte[0] ?? 0) ^ (1 << Math.floor(random() * 8))
  const file = openSync(path, 'r+')
  writeSync(file, byte, 0, 1, at)
  closeSync(file)
}
