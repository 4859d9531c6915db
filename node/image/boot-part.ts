/**
 * The boot part of an image: its working set in learned order, and where each of its pages lies, so that a restore reads them
 * without the page table. Extents and extents of deltas are listed with their bytes in their streams, pages with their
 * place in one; a page without an extent is zero, or cold: it lies apart, and is read when somebody asks for it. What it says must be what the page table says: whoever has read
 * both compares. Columnar, because that packs. Pure but for zstd.
 */
import { DiapauseError } from '../errors.ts'
import type { ByteRange, StreamManifest } from '../ports.ts'
import { ByteReader, ByteWriter } from './bytes.ts'
import { EXTENT_PAGES } from './extents.ts'
import { pack, SALT_BYTES, TAG_BYTES, unpack } from './seal.ts'
import { MAX_WORKING_PAGES, type Touched, type WorkingPage } from './working-set.ts'

const FORMAT = 1
const EXTENT_BYTES = 1 + 1 + 4 + 8 + 4
const PAGE_ENTRY_BYTES = 4 + 4 + 1 + 4 + 1 + 4 + 1
/** Sealed: what a stream's extents may be at most (`extent-lengths.ts`). */
const MAX_EXTENT_BYTES = 1 << 18
/** Of pages or deltas: so much an extent opens to at most, however short it is sealed. */
const OPEN_BYTES = 64 << 10
/** What a restore may hold: 1,088 extents of pages are written at most, and 32 MiB of deltas (`warm-pages.ts`, `delta-bounds.ts`). */
const MAX_BYTES = 128 << 20
/** In the place of a place. */
const COLD = 255
const KINDS = ['extent', 'delta'] as const
/** As they are stored. The first builds had another one that was 1, and wrote 2 for `written`. */
const WAYS: Readonly<Record<Touched, number>> = { asked: 0, written: 1 }
const TOUCHED_BY_WAY: readonly Touched[] = ['asked', 'written', 'written']

/** An extent, sealed, in the stream of that place in the manifest. */
export interface BootExtent extends ByteRange {
  readonly ordinal: number
  readonly kind: (typeof KINDS)[number]
  /** Number within its stream. */
  readonly extent: number
}

export interface BootPlace extends WorkingPage {
  /** Index into the extents; undefined: the page is zero, or cold. */
  readonly extent: number | undefined
  /** Within its extent. */
  readonly place: number
  /** Index into the extents; undefined: it has no delta. */
  readonly delta: number | undefined
  /** To be read for it, and its delta, is not worth while before the VM runs. */
  readonly cold: boolean
}

export interface BootPart {
  /** Of each of the image's streams, in the manifest's order. */
  readonly salts: readonly Uint8Array[]
  readonly extents: readonly BootExtent[]
  readonly pages: readonly BootPlace[]
}

export function encodeBootPart({ salts, extents, pages }: BootPart): Uint8Array {
  const out = new ByteWriter(1 << 16).u32(salts.length)
  for (const salt of salts) out.raw(salt)
  out.u32(extents.length)
  for (const { ordinal } of extents) out.u8(ordinal)
  for (const { kind } of extents) out.u8(KINDS.indexOf(kind))
  for (const { extent } of extents) out.u32(extent)
  for (const { offset } of extents) out.u53(offset)
  for (const { length } of extents) out.u32(length)
  out.u32(pages.length)
  for (const { page } of pages) out.u32(page)
  for (const { extent } of pages) out.u32(extent === undefined ? 0 : extent + 1)
  for (const { place, cold } of pages) out.u8(cold ? COLD : place)
  for (const { delta } of pages) out.u32(delta === undefined ? 0 : delta + 1)
  for (const { how } of pages) out.u8(WAYS[how])
  for (const { atMs } of pages) out.u32(atMs)
  for (const { age } of pages) out.u8(age)
  const packed = pack(out.bytes())
  return new ByteWriter(packed.length + 1).u8(FORMAT).raw(packed).bytes()
}

/** Of an image with so many pages of RAM and these streams, as its manifest lists them. IMAGE_INVALID. */
export function decodeBootPart(
  bytes: Uint8Array,
  ramPages: number,
  manifests: readonly Pick<StreamManifest, 'dataBytes'>[]
): DecodedBootPart {
  if (bytes[0] !== FORMAT) throw invalid(`format ${bytes[0]}, and this version reads ${FORMAT}`)
  const most = 12 + manifests.length * SALT_BYTES + MAX_WORKING_PAGES * (2 * EXTENT_BYTES + PAGE_ENTRY_BYTES)
  const reader = new ByteReader(unpack(bytes.subarray(1), most), invalid)
  const streams = reader.count(manifests.length, SALT_BYTES)
  if (streams !== manifests.length) throw invalid(`${streams} streams, and the manifest names ${manifests.length}`)
  const salts = manifests.map(() => new Uint8Array(reader.raw(SALT_BYTES)))
  const extents = readExtents(reader, manifests)
  const columns = readColumns(reader)
  reader.end()
  check(columns, ramPages, extents)
  return new DecodedBootPart(salts, extents, columns)
}

/** One that was read: valid, and its pages made into objects only when they are wanted, since a VM waits for the first of them. */
export class DecodedBootPart implements BootPart {
  readonly salts: readonly Uint8Array[]
  readonly extents: readonly BootExtent[]
  readonly #columns: Columns
  #pages: readonly BootPlace[] | undefined

  constructor(salts: readonly Uint8Array[], extents: readonly BootExtent[], columns: Columns) {
    this.salts = salts
    this.extents = extents
    this.#columns = columns
  }

  get pages(): readonly BootPlace[] {
    this.#pages ??= this.first(this.#columns.pages.length)
    return this.#pages
  }

  /** At most so many, in learned order. */
  first(most: number): BootPlace[] {
    const { pages } = this.#columns
    return Array.from({ length: Math.min(most, pages.length) }, (_, i) => placeAt(this.#columns, i))
  }
}

function readExtents(reader: ByteReader, manifests: readonly Pick<StreamManifest, 'dataBytes'>[]): BootExtent[] {
  const count = reader.count(2 * MAX_WORKING_PAGES, EXTENT_BYTES)
  const column = (read: () => number): number[] => Array.from({ length: count }, read)
  const ordinals = column(() => reader.u8())
  const kinds = column(() => reader.u8())
  const numbers = column(() => reader.u32())
  const offsets = column(() => reader.u53())
  const lengths = column(() => reader.u32())
  const bytes = lengths.reduce((sum, length) => sum + Math.max(length, OPEN_BYTES), 0)
  if (bytes > MAX_BYTES) throw invalid(`its ${count} extents are ${bytes} bytes`)
  return ordinals.map((ordinal, i) => {
    const [kind, extent = 0, offset = 0, length = 0] = [KINDS[kinds[i] ?? -1], numbers[i], offsets[i], lengths[i]]
    const dataBytes = manifests[ordinal]?.dataBytes
    if (kind === undefined || dataBytes === undefined) throw invalid('an extent of no kind, or in no stream')
    if (length < TAG_BYTES || length > MAX_EXTENT_BYTES || offset < SALT_BYTES || offset + length > dataBytes) {
      throw invalid('an extent lies outside of its stream')
    }
    return { ordinal, kind, extent, offset, length }
  })
}

/** As they are stored. */
interface Columns {
  readonly pages: Uint32Array
  readonly extents: Uint32Array
  readonly places: Uint8Array
  readonly deltas: Uint32Array
  readonly ways: Uint8Array
  readonly times: Uint32Array
  readonly ages: Uint8Array
}

function readColumns(reader: ByteReader): Columns {
  const count = reader.count(MAX_WORKING_PAGES, PAGE_ENTRY_BYTES)
  const words = () => new Uint32Array(new Uint8Array(reader.raw(4 * count)).buffer) // every host is little-endian (bootstrap)
  const bytes = () => reader.raw(count)
  const [pages, extents, places, deltas] = [words(), words(), bytes(), words()]
  return { pages, extents, places, deltas, ways: bytes(), times: words(), ages: bytes() }
}

function check({ pages, extents, places, deltas, ways }: Columns, ramPages: number, all: readonly BootExtent[]): void {
  if (new Set(pages).size !== pages.length) throw invalid('a page stands in it twice')
  for (const [i, page] of pages.entries()) {
    const [extent = 0, place = 0, delta = 0] = [extents[i], places[i], deltas[i]]
    const cold = place === COLD
    if (extent !== 0 && all[extent - 1]?.kind !== 'extent') throw invalid(`extent ${extent - 1} is no extent`)
    if (delta !== 0 && all[delta - 1]?.kind !== 'delta') throw invalid(`extent ${delta - 1} is no delta`)
    const known = TOUCHED_BY_WAY[ways[i] ?? -1] !== undefined
    if (!known || page >= ramPages || (!cold && place >= EXTENT_PAGES)) throw invalid(`page ${page}`)
    const nowhere = extent === 0 && delta === 0 && (cold || place === 0)
    if ((cold || extent === 0) && !nowhere) throw invalid(`page ${page} is nowhere and somewhere`)
  }
}

function placeAt({ pages, extents, places, deltas, ways, times, ages }: Columns, i: number): BootPlace {
  const indexOf = (index = 0): number | undefined => (index === 0 ? undefined : index - 1)
  const stored = places[i] ?? 0
  return {
    page: pages[i] ?? 0,
    how: TOUCHED_BY_WAY[ways[i] ?? 0] ?? 'written',
    atMs: times[i] ?? 0,
    age: ages[i] ?? 0,
    extent: indexOf(extents[i]),
    place: stored === COLD ? 0 : stored,
    delta: indexOf(deltas[i]),
    cold: stored === COLD
  }
}

const invalid = (what: string) =>
  new DiapauseError('IMAGE_INVALID', `the boot part of the image is not valid: ${what}; restore another epoch`)
