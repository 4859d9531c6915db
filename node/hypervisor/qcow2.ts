/**
 * qcow2 files read (versions 2 and 3), strictly and without I/O of its own: what the file itself holds of its disk, in runs
 * of 4 KiB blocks, and nothing of a backing file. A base is somebody else's file, so limits come first, then the version,
 * then the shape; what would have to be guessed at is an error. Source: docs/interop/qcow2.txt of QEMU.
 *
 * Not read, and said so: encryption, extended L2 entries, an external data file, clusters below 4 KiB, images marked as
 * corrupt. Of internal snapshots nothing is seen but that they take room.
 */
import { inflateRawSync, zstdDecompressSync } from 'node:zlib'
import { DiapauseError } from '../errors.ts'

/** The unit in which disks are captured. */
export const BLOCK_BYTES = 4096

/** A file, or any other place of bytes. */
export interface Qcow2Source {
  readonly bytes: number
  /** Exactly `length` bytes from `offset` on, both within the file. Good until the next call. */
  read(offset: number, length: number): Uint8Array
}

/** `count` blocks of the disk from block `first` on. Their bytes end to end, or undefined: zeros. */
export interface BlockRun {
  readonly first: number
  readonly count: number
  /** Good until the next run is asked for. */
  readonly bytes: Uint8Array | undefined
}

export interface Qcow2Header {
  readonly version: 2 | 3
  readonly clusterBytes: number
  /** Of the disk. */
  readonly diskBytes: number
  readonly hasBacking: boolean
  readonly compression: 'deflate' | 'zstd'
  readonly l1Offset: number
}

const MAGIC = 0x514649fb
const HEADER_2_BYTES = 72
const HEADER_3_BYTES = 104
/** QEMU writes clusters of 512 bytes to 2 MiB. */
const MIN_CLUSTER_BITS = 12
const MAX_CLUSTER_BITS = 21
/** A disk of a VM has at most 1 TiB (protocols/epoch/messages.ts). */
const MAX_DISK_BYTES = 2 ** 40
/** Read at once. */
const READ_BYTES = 1 << 20
/** Incompatible features: bit 0 (dirty) says that refcounts are old, which a reader does not need. */
const DIRTY = 1
const CORRUPT = 2
const DATA_FILE = 4
const COMPRESSION = 8
const EXTENDED_L2 = 16
/** An offset of 56 bits, as a file may have; the lowest 9 are flags or zero. */
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n
const COPIED = 1n << 63n
const COMPRESSED = 1n << 62n
const ZERO = 1n
const SECTOR_BYTES = 512

/** What lies at one place of the disk. */
type Cluster =
  | { readonly kind: 'absent' | 'zero' }
  | { readonly kind: 'data'; readonly offset: number }
  | { readonly kind: 'packed'; readonly offset: number; readonly length: number }

/**
 * The header alone. QCOW2_INVALID: it breaks the format. QCOW2_UNSUPPORTED: it uses what is not read here. QCOW2_LIMIT: the
 * disk is larger than `maxBytes`.
 */
export function readQcow2Header(source: Qcow2Source, maxBytes = MAX_DISK_BYTES): Qcow2Header {
  if (source.bytes < HEADER_2_BYTES) throw invalid('it is shorter than a header')
  const head = viewOf(source.read(0, Math.min(source.bytes, HEADER_3_BYTES + 8)))
  if (head.getUint32(0) !== MAGIC) throw invalid('it does not begin as one')
  const version = head.getUint32(4)
  if (version !== 2 && version !== 3) throw unsupported(`version ${version}`)
  const clusterBits = head.getUint32(20)
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    throw unsupported(`clusters of 2^${clusterBits} bytes (${BLOCK_BYTES} to ${2 ** MAX_CLUSTER_BITS} are read)`)
  }
  const clusterBytes = 2 ** clusterBits
  const diskBytes = number(head.getBigUint64(24), 'the size of the disk')
  if (diskBytes > maxBytes) throw tooLarge(diskBytes, maxBytes)
  if (diskBytes % SECTOR_BYTES !== 0) throw invalid(`a disk of ${diskBytes} bytes`)
  if (head.getUint32(32) !== 0) throw unsupported('encryption')
  const l1Entries = head.getUint32(36)
  const l1Offset = number(head.getBigUint64(40), 'the place of the L1 table')
  const needed = Math.ceil(diskBytes / (clusterBytes * (clusterBytes / 8)))
  if (l1Entries < needed) throw invalid(`an L1 table of ${l1Entries} entries where the disk needs ${needed}`)
  if (l1Offset % clusterBytes !== 0) throw invalid(`an L1 table at ${l1Offset}`)
  if (l1Offset + needed * 8 > source.bytes) throw invalid('an L1 table beyond the end of the file')
  const features = version === 3 ? readFeatures(head, source.bytes) : { compression: 'deflate' as const }
  return { version, clusterBytes, diskBytes, hasBacking: head.getBigUint64(8) !== 0n, l1Offset, ...features }
}

function readFeatures(head: DataView, fileBytes: number): { compression: 'deflate' | 'zstd' } {
  if (fileBytes < HEADER_3_BYTES) throw invalid('it is shorter than its header')
  if (head.getUint32(72) !== 0) throw unsupported('features that nobody knew when this was written')
  const incompatible = head.getUint32(76)
  if (incompatible & CORRUPT) throw unsupported('an image that is marked as corrupt (qemu-img check -r all mends some)')
  if (incompatible & DATA_FILE) throw unsupported('an external data file')
  if (incompatible & EXTENDED_L2) throw unsupported('extended L2 entries')
  const rest = incompatible & ~(DIRTY | COMPRESSION)
  if (rest !== 0) throw unsupported(`incompatible features ${rest}`)
  const headerBytes = head.getUint32(100)
  if (headerBytes < HEADER_3_BYTES || headerBytes % 8 !== 0) throw invalid(`a header of ${headerBytes} bytes`)
  const type = headerBytes > HEADER_3_BYTES && head.byteLength > HEADER_3_BYTES ? head.getUint8(HEADER_3_BYTES) : 0
  if (((incompatible & COMPRESSION) !== 0) !== (type !== 0)) throw invalid(`compression type ${type}`)
  if (type > 1) throw unsupported(`compression type ${type}`)
  return { compression: type === 1 ? 'zstd' : 'deflate' }
}

/**
 * The blocks that this file holds, in the order of the disk; those that are not told of are its backing file's, or zeros
 * where it has none. `wanted`: blocks for which it is false are not read. Errors as of `readQcow2Header`.
 */
export function* qcow2Blocks(
  source: Qcow2Source,
  { wanted = () => true, maxBytes }: { wanted?: (block: number) => boolean; maxBytes?: number } = {}
): Generator<BlockRun> {
  const header = readQcow2Header(source, maxBytes)
  const { clusterBytes, diskBytes } = header
  const blocks = clusterBytes / BLOCK_BYTES
  let pending: Pending | undefined
  for (const [index, cluster] of clustersOf(source, header)) {
    if (cluster.kind === 'absent') continue
    const first = index * blocks
    const count = Math.min(blocks, Math.ceil((diskBytes - index * clusterBytes) / BLOCK_BYTES))
    if (!anyOf(wanted, first, count)) continue
    if (pending && joins(pending, cluster, first)) pending.count += count
    else {
      if (pending) yield readRun(source, header, pending)
      pending = { first, count, cluster }
    }
  }
  if (pending) yield readRun(source, header, pending)
}

/** Clusters that lie side by side, on the disk and in the file. */
interface Pending {
  readonly first: number
  count: number
  readonly cluster: Cluster
}

function joins({ first, count, cluster }: Pending, next: Cluster, at: number): boolean {
  if (first + count !== at) return false
  if (cluster.kind === 'zero') return next.kind === 'zero'
  if (cluster.kind !== 'data' || next.kind !== 'data' || count * BLOCK_BYTES >= READ_BYTES) return false
  return next.offset === cluster.offset + count * BLOCK_BYTES
}

function readRun(source: Qcow2Source, header: Qcow2Header, { first, count, cluster }: Pending): BlockRun {
  const { diskBytes } = header
  if (!('offset' in cluster)) return { first, count, bytes: undefined }
  let bytes: Uint8Array
  if (cluster.kind === 'packed') bytes = unpack(source, header, cluster).subarray(0, count * BLOCK_BYTES)
  else bytes = readPadded(source, cluster.offset, count * BLOCK_BYTES)
  const over = (first + count) * BLOCK_BYTES - diskBytes
  if (over > 0) {
    bytes = new Uint8Array(bytes)
    bytes.fill(0, bytes.length - over)
  }
  return { first, count, bytes }
}

/** The last cluster of a file may be cut off: QEMU reads zeros there. */
function readPadded(source: Qcow2Source, offset: number, length: number): Uint8Array {
  if (offset >= source.bytes) throw invalid(`a cluster at ${offset}, beyond the end of the file`)
  const there = Math.min(length, source.bytes - offset)
  if (there === length) return source.read(offset, length)
  const bytes = new Uint8Array(length)
  bytes.set(source.read(offset, there))
  return bytes
}

function unpack(
  source: Qcow2Source,
  { clusterBytes, compression }: Qcow2Header,
  { offset, length }: { readonly offset: number; readonly length: number }
): Uint8Array {
  if (offset >= source.bytes) throw invalid(`a packed cluster at ${offset}, beyond the end of the file`)
  const packed = source.read(offset, Math.min(length, source.bytes - offset))
  let bytes: Uint8Array
  try {
    const limit = { maxOutputLength: clusterBytes }
    // Whole sectors were read: another cluster's frame may follow, which zstd would unpack, too.
    if (compression === 'zstd') bytes = zstdDecompressSync(packed.subarray(0, zstdFrameBytes(packed)), limit)
    else bytes = inflateRawSync(packed, limit)
  } catch (cause) {
    throw invalid(`the packed cluster at ${offset} cannot be unpacked`, cause)
  }
  if (bytes.length !== clusterBytes) throw invalid(`the packed cluster at ${offset} has ${bytes.length} bytes`)
  return bytes
}

/** Length of the zstd frame with which `bytes` begin (RFC 8878, section 3.1.1); RangeError where it is longer than they are. */
function zstdFrameBytes(bytes: Uint8Array): number {
  const view = viewOf(bytes)
  const descriptor = view.getUint8(4)
  const single = (descriptor & 32) !== 0
  const sizeBytes = [single ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0
  let at = 5 + (single ? 0 : 1) + dictionaryBytes + sizeBytes
  for (let last = false; !last; ) {
    const head = view.getUint16(at, true) | (view.getUint8(at + 2) << 16)
    last = (head & 1) !== 0
    const repeated = ((head >> 1) & 3) === 1
    at += 3 + (repeated ? 1 : head >> 3)
  }
  return at + (descriptor & 4 ? 4 : 0)
}

/** Every cluster of the disk in its order, but those of L2 tables that are not there. */
function* clustersOf(source: Qcow2Source, header: Qcow2Header): Generator<[number, Cluster]> {
  const { clusterBytes, diskBytes, l1Offset } = header
  const perTable = clusterBytes / 8
  const clusters = Math.ceil(diskBytes / clusterBytes)
  const tables = Math.ceil(clusters / perTable)
  for (let from = 0; from < tables; from += perTable) {
    // Copies: whoever takes the clusters reads in between. Not by `slice`, which copies nothing of a Buffer.
    const l1 = viewOf(new Uint8Array(source.read(l1Offset + from * 8, Math.min(tables - from, perTable) * 8)))
    for (let i = 0; i < l1.byteLength / 8; i++) {
      const entry = l1.getBigUint64(i * 8)
      if (entry === 0n) continue
      const at = placeOf(entry & ~COPIED, clusterBytes, 'L2 table')
      if (at + clusterBytes > source.bytes) throw invalid(`an L2 table at ${at}, beyond the end of the file`)
      const l2 = viewOf(new Uint8Array(source.read(at, clusterBytes)))
      const first = (from + i) * perTable
      const end = Math.min(perTable, clusters - first)
      for (let j = 0; j < end; j++) {
        const high = l2.getUint32(j * 8)
        if (high === 0 && l2.getUint32(j * 8 + 4) === 0) continue
        yield [first + j, clusterOf(l2.getBigUint64(j * 8), header)]
      }
    }
  }
}

function clusterOf(entry: bigint, { version, clusterBytes }: Qcow2Header): Cluster {
  if (entry & COMPRESSED) {
    if (entry & COPIED) throw invalid('a packed cluster that is marked as owned')
    const bits = BigInt(62 - (Math.log2(clusterBytes) - 8))
    const offset = number(entry & ((1n << bits) - 1n), 'the place of a packed cluster')
    const sectors = Number((entry & (COMPRESSED - 1n)) >> bits)
    return { kind: 'packed', offset, length: (sectors + 1) * SECTOR_BYTES - (offset % SECTOR_BYTES) }
  }
  const place = entry & ~COPIED
  // A zero cluster may keep room in the file, which says nothing.
  if (place & ZERO) {
    if (version < 3) throw invalid('a zero cluster in version 2')
    placeOf(place & ~ZERO, clusterBytes, 'cluster')
    return { kind: 'zero' }
  }
  if (place === 0n) return { kind: 'absent' }
  return { kind: 'data', offset: placeOf(place, clusterBytes, 'cluster') }
}

function placeOf(entry: bigint, clusterBytes: number, what: string): number {
  if (entry & ~OFFSET_MASK) throw invalid(`reserved bits in the entry of a ${what}`)
  const offset = number(entry, `the place of a ${what}`)
  if (offset % clusterBytes !== 0) throw invalid(`a ${what} at ${offset}, which is within a cluster`)
  return offset
}

function anyOf(wanted: (block: number) => boolean, first: number, count: number): boolean {
  for (let block = first; block < first + count; block++) if (wanted(block)) return true
  return false
}

function number(value: bigint, what: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw invalid(`${what} is ${value}`)
  return Number(value)
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const invalid = (what: string, cause?: unknown): DiapauseError =>
  new DiapauseError('QCOW2_INVALID', `This is no qcow2 image that can be read: ${what}`, { cause })

const unsupported = (what: string): DiapauseError =>
  new DiapauseError(
    'QCOW2_UNSUPPORTED',
    `This qcow2 image has ${what}: convert it first (qemu-img convert -O qcow2 IMAGE NEW)`
  )

const tooLarge = (diskBytes: number, maxBytes: number): DiapauseError =>
  new DiapauseError(
    'QCOW2_LIMIT',
    `This qcow2 image is of a disk of ${diskBytes} bytes; at most ${maxBytes} were expected`
  )
